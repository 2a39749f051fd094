//! The extended protocol: named and unnamed statements and portals, in batches that may fail anywhere.

use super::{Chunk, Generator, Step};
use crate::message::Message;

const INT4: u32 = 23;
const TEXT: u32 = 25;
const DATE: u32 = 1082;

/// Texts, with the types that a Parse may tell.
#[rustfmt::skip]
const TEXTS: &[(&str, &[u32])] = &[
    ("SELECT $1::int + 1, nullif(current_setting('app.tenant', true), '')", &[]),
    ("SELECT $1 + 1", &[INT4]),
    ("SELECT $1", &[]),
    ("SELECT $1, $2", &[TEXT, 0]),
    ("SELECT $1", &[DATE]),
    ("SELECT '01/02/2024'::date, $1::text", &[]),
    ("SELECT * FROM t ORDER BY 1", &[]),
    ("SELECT * FROM t ORDER BY 1", &[]),
    ("SELECT * FROM tenants ORDER BY 1", &[]),
    ("SELECT * FROM %m", &[]),
    ("SELECT * FROM s1.t WHERE id = $1", &[INT4]),
    ("INSERT INTO acc(v) VALUES ($1) RETURNING id, v", &[]),
    ("INSERT INTO acc(id, v) VALUES ($1, 'one')", &[INT4]),
    ("UPDATE acc SET v = $1 WHERE id = 2", &[TEXT]),
    ("SELECT generate_series(1, 12)", &[]),
    ("SELECT generate_series(1, least($1::int, 20))", &[]),
    ("SELECT 12 / (4 - g) FROM generate_series(1, 6) g", &[]),
    ("SELECT set_config('my.x', $1, false)", &[]),
    ("SELECT set_config($1, 'ext', false)", &[]),
    ("SET work_mem = '2MB'", &[]),
    ("SET search_path = s2", &[]),
    ("SET LOCAL my.x = 'ext'", &[]),
    ("SHOW work_mem", &[]),
    ("SHOW search_path", &[]),
    ("BEGIN", &[]),
    ("COMMIT", &[]),
    ("ROLLBACK", &[]),
    ("SAVEPOINT p", &[]),
    ("ROLLBACK TO p", &[]),
    ("SELECT nothing", &[]),
    ("SELEC", &[]),
    ("SELECT 1; SELECT 2", &[]),
    ("", &[]),
    ("SELECT 1/0", &[]),
    ("SELECT 'now'::text, 'a\\b'", &[]),
    ("PREPARE a AS SELECT 'from sql'", &[]),
    ("EXECUTE a", &[]),
    ("EXECUTE a(1)", &[]),
    ("DEALLOCATE a", &[]),
    ("DEALLOCATE ALL", &[]),
    ("DECLARE c0 CURSOR FOR SELECT generate_series(1, 9)", &[]),
    ("FETCH 2 FROM c0", &[]),
    ("CREATE TABLE %m (a int)", &[]),
    ("DROP TABLE IF EXISTS %m", &[]),
    ("ALTER TABLE %m ADD COLUMN d int", &[]),
    ("CREATE TEMP TABLE tmp (i int)", &[]),
    ("LISTEN e", &[]),
    ("NOTIFY e, 'ext'", &[]),
    ("COPY s1.t TO STDOUT", &[]),
    ("DISCARD ALL", &[]),
    ("RESET ALL", &[]),
    ("SET ROLE r1", &[]),
    ("SELECT f_set('my.x', $1)", &[]),
    ("SELECT current_setting('my.x', true), current_user", &[]),
    ("SELECT name, statement, parameter_types::text, from_sql FROM pg_prepared_statements ORDER BY name", &[]),
];

const VALUES: &[&[u8]] = &[
    b"1",
    b"2",
    b"x",
    b"01/02/2024",
    b"my.x",
    b"work_mem",
    &[0, 0, 0, 5],
    b"",
];
const PORTALS: &[&str] = &["", "", "", "p0", "p1"];
/// As the wire has them: what PREPARE folds is not folded here.
const NAMES: &[&str] = &["", "", "", "a", "a", "b", "C d", "missing"];

impl Generator {
    /// Parse, Bind, perhaps Describe, Execute; without Sync.
    pub fn once(&mut self, statement: &str, portal: &str, sql: String) -> Chunk {
        let mut chunk = vec![
            Message::Parse {
                name: statement.into(),
                sql,
                types: Vec::new(),
            },
            Message::Bind {
                portal: portal.into(),
                statement: statement.into(),
                formats: Vec::new(),
                values: Vec::new(),
                results: Vec::new(),
            },
        ];
        if self.random.chance(60) {
            chunk.push(Message::Describe(b'P', portal.into()));
        }
        chunk.push(Message::Execute(portal.into(), 0));
        chunk
    }

    /// One to three batches; the last may be cut in two by a Flush.
    pub fn extended(&mut self) -> Step {
        let mut chunk = Chunk::new();
        for _ in 0..*self.random.choose(&[0, 0, 0, 0, 1, 2]) {
            self.batch(&mut chunk);
            chunk.push(Message::Sync);
        }
        self.batch(&mut chunk);
        let mut step = Step::new();
        while self.random.chance(15) {
            chunk.push(Message::Flush);
            step.push(std::mem::take(&mut chunk));
            self.batch(&mut chunk);
        }
        chunk.push(Message::Sync);
        step.push(chunk);
        step
    }

    fn batch(&mut self, chunk: &mut Chunk) {
        for _ in 0..1 + self.random.below(3) {
            self.piece(chunk);
        }
    }

    fn piece(&mut self, chunk: &mut Chunk) {
        let name = self.random.choose(NAMES).to_string();
        let portal = self.random.choose(PORTALS).to_string();
        let named = self.random.choose(&["p0", "p1"]).to_string();
        match self.random.below(20) {
            0..8 => self.whole(chunk, name, portal),
            8..10 => {
                let (parse, _) = self.parse(name);
                chunk.push(parse);
            }
            10..14 => {
                let count = *self.random.choose(&[0, 0, 1, 1, 2]);
                chunk.push(self.bind(name, portal.clone(), count));
                chunk.push(self.execute(portal));
            }
            14..16 => chunk.push(Message::Describe(b'S', name)),
            // Never the unnamed portal of an earlier message: where a simple Query has failed in a transaction, PostgreSQL
            // (15.18) leaves it with a plan that is freed, and an Execute may crash the whole server.
            16 => chunk.push(Message::Describe(b'P', named)),
            17 => chunk.push(self.execute(named)),
            18 => chunk.push(Message::Close(b'S', name)),
            _ => chunk.push(Message::Close(b'P', portal)),
        }
    }

    /// As drivers do it.
    fn whole(&mut self, chunk: &mut Chunk, name: String, portal: String) {
        if self.random.chance(20) {
            chunk.push(Message::Close(b'S', name.clone()));
        }
        let (parse, count) = self.parse(name.clone());
        chunk.push(parse);
        if self.random.chance(40) {
            chunk.push(Message::Describe(b'S', name.clone()));
        }
        chunk.push(self.bind(name, portal.clone(), count));
        if self.random.chance(40) {
            chunk.push(Message::Describe(b'P', portal.clone()));
        }
        for _ in 0..1 + self.random.below(2) {
            chunk.push(self.execute(portal.clone()));
        }
    }

    /// A Parse, and how many values its statement takes.
    ///
    /// Never of one that executes itself: PostgreSQL (15.18) looks at no limit where EXPLAIN EXECUTE comes back to it, and
    /// the whole server crashes.
    fn parse(&mut self, name: String) -> (Message, usize) {
        let (sql, types) = *self.random.choose(TEXTS);
        let name = match name.as_str() {
            "a" if sql.starts_with("EXECUTE a") => "b".into(),
            _ => name,
        };
        let sql = self.fill(sql);
        let count = usize::from(sql.contains("$1")) + usize::from(sql.contains("$2"));
        let types = types.to_vec();
        (Message::Parse { name, sql, types }, count)
    }

    fn bind(&mut self, statement: String, portal: String, count: usize) -> Message {
        let values = (0..count).map(|_| match self.random.chance(8) {
            true => None,
            false => Some(self.random.choose(VALUES).to_vec()),
        });
        let values: Vec<_> = values.collect();
        let binary = self.random.chance(15);
        Message::Bind {
            portal,
            statement,
            formats: if binary { vec![1] } else { Vec::new() },
            values,
            results: match self.random.below(10) {
                0 => vec![1],
                1 => vec![0],
                _ => Vec::new(),
            },
        }
    }

    fn execute(&mut self, portal: String) -> Message {
        let rows = *self.random.choose(&[0, 0, 0, 1, 5]);
        Message::Execute(portal, rows)
    }
}
