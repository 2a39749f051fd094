"""asyncpg's life: prints what it saw, so that direct and through the proxy can be compared."""

import asyncio
import datetime
import decimal
import hashlib
import io
import os
import ssl
import sys
import uuid

import asyncpg

CLIENTS = int(os.environ.get("CLIENTS", "50"))
PATIENCE = 60


def tls():
    authority = os.environ.get("PGSSLROOTCERT")
    return ssl.create_default_context(cafile=authority) if authority else False


async def connect(**more):
    return await asyncpg.connect(ssl=tls(), timeout=PATIENCE, **more)


def say(*what):
    print(*what, flush=True)


async def refused(conn, query, *args):
    try:
        await conn.execute(query, *args)
        return "accepted"
    except asyncpg.PostgresError as e:
        return (type(e).__name__, e.sqlstate)


async def greeting():
    conn = await connect(server_settings={"application_name": "a life", "search_path": "public,pg_catalog"})
    say(conn.get_server_version()[:2], conn.get_settings().server_encoding, conn.get_settings().application_name)
    say(await conn.fetchval("SHOW search_path"), conn.get_server_pid() > 0, conn.is_in_transaction())
    await conn.close()


async def values():
    conn = await connect()
    for kind, sample in [
        ("int4", None), ("bool", True), ("int8", 2**40), ("numeric", decimal.Decimal("1.000100")), ("float8", 1.5),
        ("text", "it's \"ünï\" 🐘"), ("bytea", b"\x00\xff"), ("date", datetime.date(2024, 2, 29)),
        ("timestamptz", datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc)), ("interval", datetime.timedelta(3, 4)),
        ("uuid", uuid.UUID(int=5)), ("int4[]", [1, None, 3]), ("jsonb", '{"a": [1, null]}'), ("int4range", asyncpg.Range(1, 9)),
    ]:
        say(kind, await conn.fetchrow(f"SELECT $1::{kind} AS v", sample))
    await conn.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood)")
    say(await conn.fetchval("SELECT $1::mood", "happy"), await conn.fetchval("SELECT ROW(1, 'sad')::pair"))
    await conn.set_type_codec("jsonb", encoder=repr, decoder=lambda text: ("decoded", text), schema="pg_catalog")
    say(await conn.fetchval("SELECT '{}'::jsonb"))
    rows = await conn.fetch("SELECT i, md5(i::text) FROM generate_series(1, 30000) i")
    say(len(rows), hashlib.sha256(repr(rows).encode()).hexdigest())
    say(await conn.execute("SELECT 1; SELECT 2"))
    await conn.close()


async def statement_cache():
    conn = await connect(statement_cache_size=20)
    await conn.execute("CREATE TABLE c (id int, v text)")
    for i in range(200):
        assert await conn.fetchval(f"SELECT $1::int + {i % 40}", i) == i + i % 40
    await conn.executemany("INSERT INTO c VALUES ($1, $2)", [(i, str(i)) for i in range(3000)])
    say(await conn.fetchrow("SELECT count(*), sum(id) FROM c"))
    statement = await conn.prepare("SELECT * FROM c WHERE id = $1")
    say(statement.get_parameters(), [a.name for a in statement.get_attributes()], await statement.fetchrow(7))
    other = await connect()
    await other.execute("ALTER TABLE c ALTER COLUMN id TYPE bigint")
    try:
        say(await conn.fetch("SELECT * FROM c WHERE id = 8"), await statement.fetchrow(9))
    except asyncpg.PostgresError as e:
        say(type(e).__name__, e.sqlstate)
    say(await conn.fetch("SELECT * FROM c WHERE id = 8"))
    try:
        await conn.executemany("INSERT INTO c VALUES ($1, $2)", [(1, "a"), (None, "b"), (2, "\x00")])
    except asyncpg.PostgresError as e:
        say(type(e).__name__, e.sqlstate)
    say(await conn.fetchval("SELECT count(*) FROM c"))
    await conn.close()
    await other.close()
    without = await connect(statement_cache_size=0)
    for i in range(20):
        assert await without.fetchval("SELECT $1::int", i) == i
    say(await without.fetchval("SELECT $1::text", "uncached"))
    await without.close()


async def transactions():
    conn = await connect()
    await conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    async with conn.transaction():
        await conn.execute("INSERT INTO t VALUES (1)")
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (2)")
                await conn.execute("INSERT INTO t VALUES (1)")
        except asyncpg.UniqueViolationError as e:
            say(e.sqlstate, e.constraint_name)
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (3)")
        seen = [record["i"] async for record in conn.cursor("SELECT i FROM generate_series(1, $1) i", 500, prefetch=50)]
        say(sum(seen))
        cursor = await conn.cursor("SELECT * FROM generate_series(1, 100)")
        await cursor.forward(10)
        say(await cursor.fetchrow(), await cursor.fetch(2))
    try:
        async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
            say(await conn.fetchval("SHOW transaction_isolation"))
            await conn.execute("INSERT INTO t VALUES (4)")
    except asyncpg.ReadOnlySQLTransactionError as e:
        say(e.sqlstate)
    say(await refused(conn, "SELECT 1/0"), await refused(conn, "SELEC"), await conn.fetch("SELECT * FROM t ORDER BY id"))
    await conn.close()


async def copies():
    conn = await connect()
    await conn.execute("CREATE TABLE cp (id int, v text)")
    say(await conn.copy_records_to_table("cp", records=[(i, f"v{i}") for i in range(20000)]))
    say(await conn.copy_to_table("cp", source=io.BytesIO(b"1\ttext\n2\t\\N\n")))
    out = io.BytesIO()
    say(await conn.copy_from_query("SELECT * FROM cp WHERE id < $1 ORDER BY id, v", 5000, output=out, format="csv"))
    say(hashlib.sha256(out.getvalue()).hexdigest())
    try:
        await conn.copy_to_table("cp", source=io.BytesIO(b"x\ttext\n" * 100000))
    except asyncpg.PostgresError as e:
        say(type(e).__name__, e.sqlstate)
    async def broken():
        yield b"1\tx\n"
        raise RuntimeError("changed my mind")
    try:
        await conn.copy_to_table("cp", source=broken())
    except RuntimeError as e:
        say(e)
    say(await conn.fetchval("SELECT count(*) FROM cp"))
    await conn.close()


async def notifications():
    conn, other = await connect(), await connect()
    heard = asyncio.Queue()
    await conn.add_listener("life", lambda _conn, _pid, channel, payload: heard.put_nowait((channel, payload)))
    await other.execute("NOTIFY life, 'one'")
    await other.execute("SELECT pg_notify('life', $1)", "two")
    say([await asyncio.wait_for(heard.get(), PATIENCE) for _ in range(2)])
    logged = asyncio.Queue()
    other.add_log_listener(lambda _conn, message: logged.put_nowait(message.message))
    await other.execute("DO $$BEGIN RAISE NOTICE 'heard'; END$$")
    say(await asyncio.wait_for(logged.get(), PATIENCE))
    await conn.reset()
    await conn.close()
    await other.close()


async def timeouts():
    conn = await connect()
    for _ in range(5):
        try:
            await conn.fetch(f"SELECT pg_sleep({PATIENCE})", timeout=0.2)
        except asyncio.TimeoutError:
            say("TimeoutError", await conn.fetchval("SELECT 'alive'"))
    async with conn.transaction():
        try:
            async with conn.transaction():
                await conn.execute(f"SELECT pg_sleep({PATIENCE})", timeout=0.2)
        except asyncio.TimeoutError:
            say("in a transaction", await conn.fetchval("SELECT 'alive'"))
    task = asyncio.create_task(conn.fetch(f"SELECT pg_sleep({PATIENCE})"))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancelled", await conn.fetchval("SELECT 'alive'"))
    conn.terminate()


async def pool():
    async with asyncpg.create_pool(ssl=tls(), min_size=5, max_size=CLIENTS, timeout=PATIENCE) as pool:
        await pool.execute("CREATE TABLE counter (id int PRIMARY KEY, n int)")
        await pool.execute("INSERT INTO counter SELECT i, 0 FROM generate_series(0, 4) i")
        async def work(number):
            for i in range(10):
                async with pool.acquire() as conn, conn.transaction():
                    await conn.execute("UPDATE counter SET n = n + 1 WHERE id = $1", (number + i) % 5)
                    assert await conn.fetchval("SELECT $1::int", number) == number
        await asyncio.gather(*(work(i) for i in range(CLIENTS)))
        say(await pool.fetch("SELECT * FROM counter ORDER BY id"))
        async with pool.acquire() as conn:
            await conn.execute("SET work_mem = '77MB'")
            await conn.execute("SELECT pg_advisory_lock(3)")
        say({await conn_setting(pool) for _ in range(10)})


async def conn_setting(pool):
    async with pool.acquire() as conn:
        return await conn.fetchval("SHOW work_mem")


async def reads():
    conn = await connect()
    say(await conn.fetchval("SELECT pg_is_in_recovery()"), await conn.fetchrow("SELECT count(*), sum(id) FROM filled"))
    say(await refused(conn, "INSERT INTO filled VALUES (0)"))
    say(hashlib.sha256(repr(await conn.fetch("SELECT * FROM filled ORDER BY id")).encode()).hexdigest())
    await conn.close()


async def split():
    """Through the port that splits: what was written is seen at once, and reads of every kind have time for replicas."""
    database = os.environ["PGDATABASE"]
    read = "SELECT v FROM kept WHERE id = {} /* " + database + " {}. */"
    conn = await connect()
    uncached = await connect(statement_cache_size=0)
    for number in range(1, 21):
        await conn.fetch(f"UPDATE kept SET v = v + $1 WHERE id = 1 RETURNING v /* {database} write. */", 1)
        for pause in [0, 0.04]:
            await asyncio.sleep(pause)
            await conn.execute(read.format(1, "simple"))
            assert await conn.fetchval(read.format("$1", "prepared"), 1) == number
        await uncached.fetchval(read.format("$1", "extended"), 1)
    await conn.close()
    await uncached.close()


LIFE = [greeting, values, statement_cache, transactions, copies, notifications, timeouts, pool]


async def main():
    for part in {"life": LIFE, "short": LIFE[:5], "reads": [reads], "split": [split]}[sys.argv[1]]:
        say("==", part.__name__)
        await part()


asyncio.run(main())
