// node-postgres' life: prints what it saw, so that direct and through the proxy can be compared.
const fs = require('node:fs');
const crypto = require('node:crypto');
const { once } = require('node:events');
const { Client, Pool } = require(process.env.NODE_MODULES + '/pg');

const CLIENTS = Number(process.env.CLIENTS ?? 50);
const authority = process.env.PGSSLROOTCERT;
const settings = {
  enableChannelBinding: Boolean(authority),
  ssl: authority ? { ca: fs.readFileSync(authority, 'utf8'), servername: 'localhost' } : false,
};
delete process.env.PGSSLMODE;

const say = (...what) => console.log(...what.map((it) => (typeof it === 'string' ? it : JSON.stringify(it))));
const digest = (it) => crypto.createHash('sha256').update(JSON.stringify(it)).digest('hex');
const refused = (promise) => promise.then(() => 'accepted', (e) => e.code);

async function connected(more = {}) {
  const client = new Client({ ...settings, ...more });
  await client.connect();
  return client;
}

async function values() {
  const client = await connected({ application_name: 'a life', statement_timeout: 12345 });
  say((await client.query('SHOW application_name')).rows, (await client.query('SHOW statement_timeout')).rows);
  const { rows } = await client.query(
    'SELECT $1::int AS i, $2::text AS t, $3::jsonb AS j, $4::bytea AS b, $5::timestamptz AS at, $6::int[] AS a, $7::bool AS n',
    [42, 'it\'s "ünï" 🐘', { a: [1, null] }, Buffer.from([0, 255]), new Date(0), [1, null, 3], null]);
  say(rows);
  say((await client.query({ text: 'SELECT $1::int, $2::text', values: [1, 'x'], rowMode: 'array' })).rows);
  say((await client.query({ text: 'SELECT $1::int4 AS i', values: [7], binary: true })).rows);
  say((await client.query('SELECT 1 AS a; SELECT 2 AS b')).map((r) => r.rows));
  const large = await client.query('SELECT i, md5(i::text) FROM generate_series(1, 30000) i');
  say(large.rowCount, digest(large.rows));
  say((await client.query("SELECT repeat('x', 5000000) AS x")).rows[0].x.length, (await client.query('')).rowCount);
  await client.end();
}

async function transactions() {
  const client = await connected();
  await client.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
  await client.query('BEGIN');
  await client.query('INSERT INTO t VALUES ($1, $2)', [1, 'kept']);
  await client.query('SAVEPOINT a');
  say(await refused(client.query('INSERT INTO t VALUES ($1, $2)', [1, 'twice'])), await refused(client.query('SELECT 1')));
  await client.query('ROLLBACK TO a');
  await client.query('COMMIT');
  await client.query('BEGIN');
  await client.query('INSERT INTO t VALUES (2)');
  await client.query('ROLLBACK');
  say((await client.query('SELECT * FROM t')).rows, await refused(client.query('SELEC')), await refused(client.query('SELECT 1/$1::int', [0])));
  // Queued by the client before the first answer.
  const queued = await Promise.all([1, 2, 3].map((i) => client.query('SELECT $1::int AS i', [i])));
  say(queued.map((r) => r.rows[0].i));
  await client.end();
}

async function named() {
  const client = await connected();
  for (let i = 0; i < 50; i += 1) {
    const { rows } = await client.query({ name: 'double', text: 'SELECT $1::int * 2 AS d', values: [i] });
    if (rows[0].d !== i * 2) throw new Error('wrong row');
  }
  say(await refused(client.query({ name: 'broken', text: 'SELECT * FROM nowhere WHERE id = $1', values: [1] })));
  await client.query('CREATE TABLE nowhere (id int)');
  say((await client.query({ name: 'broken', text: 'SELECT * FROM nowhere WHERE id = $1', values: [1] })).rows);
  await client.end();
}

async function notifications() {
  const [listener, speaker] = [await connected(), await connected()];
  await listener.query('LISTEN life');
  const heard = once(listener, 'notification');
  await speaker.query("NOTIFY life, 'one'");
  const [{ channel, payload }] = await heard;
  say(channel, payload);
  const noticed = once(speaker, 'notice');
  await speaker.query("DO $$BEGIN RAISE NOTICE 'heard'; END$$");
  say((await noticed)[0].message);
  await speaker.query("SET statement_timeout = '50ms'");
  say(await refused(speaker.query('SELECT pg_sleep(60)')));
  await speaker.query('RESET statement_timeout');
  const impatient = await connected({ query_timeout: 300 });
  const late = await impatient.query('SELECT pg_sleep(1)').then(() => 'accepted', (e) => e.message);
  say(late);
  await Promise.all([listener.end(), speaker.end()]);
  impatient.on('error', () => {});
  impatient.connection.stream.destroy();
}

async function pool() {
  const pool = new Pool({ ...settings, max: CLIENTS });
  pool.on('error', (e) => say('pool', e.code));
  await pool.query('CREATE TABLE counter (id int PRIMARY KEY, n int)');
  await pool.query('INSERT INTO counter SELECT i, 0 FROM generate_series(0, 4) i');
  const work = async (number) => {
    for (let i = 0; i < 10; i += 1) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        await client.query('UPDATE counter SET n = n + 1 WHERE id = $1', [(number + i) % 5]);
        const { rows } = await client.query('SELECT $1::int AS i', [number]);
        if (rows[0].i !== number) throw new Error('the row of another');
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, i) => work(i)));
  say((await pool.query('SELECT * FROM counter ORDER BY id')).rows);
  await pool.end();
}

async function reads() {
  const client = await connected();
  say((await client.query('SELECT pg_is_in_recovery() AS r, count(*) AS n FROM filled WHERE id > $1', [3])).rows);
  say(digest((await client.query('SELECT * FROM filled ORDER BY id')).rows), await refused(client.query('INSERT INTO filled VALUES (0)')));
  await client.end();
}

// Through the port that splits: what was written is seen at once, and reads of every kind have time for replicas.
async function split() {
  const database = process.env.PGDATABASE;
  const read = (id, kind) => `SELECT v FROM kept WHERE id = ${id} /* ${database} ${kind}. */`;
  const client = await connected();
  for (let number = 1; number <= 20; number++) {
    await client.query(`UPDATE kept SET v = v + $1 WHERE id = 1 /* ${database} write. */`, [1]);
    for (const pause of [0, 40]) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      const answers = [
        await client.query(read(1, 'simple')),
        await client.query(read('$1', 'extended'), [1]),
        await client.query({ name: 'prepared', text: read('$1', 'prepared'), values: [1] }),
      ];
      if (answers.some(({ rows }) => rows[0].v !== number)) throw new Error('a write was not seen');
    }
  }
  await client.end();
}

const parts = { life: [values, transactions, named, notifications, pool], short: [values, transactions, named], reads: [reads], split: [split] };

(async () => {
  for (const part of parts[process.argv[2]]) {
    say(`== ${part.name}`);
    await part();
  }
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
