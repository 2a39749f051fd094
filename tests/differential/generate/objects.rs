//! Cursors, tables made and dropped, functions that leave something behind, COPY, and what is the session's alone.

use super::{Generator, Step};
use crate::message::Message;

#[rustfmt::skip]
const CURSORS: &[&str] = &[
    "DECLARE %c CURSOR FOR SELECT generate_series(1, 9)", "DECLARE %c CURSOR WITH HOLD FOR SELECT * FROM s1.t",
    "DECLARE %c SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 9)", "DECLARE %c NO SCROLL CURSOR FOR TABLE acc",
    "DECLARE %c CURSOR WITH HOLD FOR SELECT 1/0", "FETCH %c", "FETCH 3 FROM %c", "FETCH BACKWARD 1 FROM %c", "FETCH ALL FROM %c",
    "MOVE 2 IN %c", "CLOSE %c", "CLOSE %c", "CLOSE ALL", "CLOSE missing", "UPDATE acc SET v = 'cur' WHERE CURRENT OF %c",
    "SELECT name, statement, is_holdable FROM pg_cursors ORDER BY name",
];

#[rustfmt::skip]
const DEFINITIONS: &[&str] = &[
    "CREATE TABLE %m (a int)", "CREATE TABLE %m (a text, b int DEFAULT 7)", "CREATE TABLE IF NOT EXISTS %m (a int)", "DROP TABLE %m",
    "DROP TABLE IF EXISTS %m", "ALTER TABLE %m ADD COLUMN c date DEFAULT '01/02/2024'", "ALTER TABLE %m ALTER a TYPE text", "CREATE VIEW view AS SELECT * FROM %m",
    "CREATE TEMP TABLE tmp (i int)", "CREATE TEMP TABLE tmp (i int)", "CREATE TEMP TABLE t (mine text)", "CREATE TEMP TABLE tmp (i int) ON COMMIT DROP",
    "CREATE TEMP TABLE tmp ON COMMIT DELETE ROWS AS SELECT 1 AS i", "CREATE TEMPORARY SEQUENCE tsq", "CREATE TEMP VIEW tv AS SELECT 1 AS i",
    "SELECT 1 AS i INTO TEMP tmp", "INSERT INTO tmp VALUES (1)", "SELECT * FROM tmp", "DROP TABLE tmp", "DROP TABLE IF EXISTS tmp", "DROP TABLE t",
    "SELECT nextval('tsq')", "DROP SEQUENCE tsq", "DROP VIEW tv", "TABLE tv", "ALTER TABLE public.t ADD COLUMN more int", "ALTER TABLE public.t DROP COLUMN more",
    "CREATE INDEX ON acc(v)", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 5'", "CREATE TABLE pg_temp.viaschema (i int)",
];

#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "SELECT f_set('work_mem', '7MB')", "SELECT f_set('app.tenant', '2')", "SELECT f_set('my.x', 'f')", "SELECT f_set('search_path', 's2')",
    "SELECT f_set('DateStyle', 'German')", "SELECT f_local('my.x', 'l'), current_setting('my.x', true)", "SELECT f_clause(), current_setting('work_mem')",
    "SELECT f_path()", "SELECT f_temp()", "SELECT f_run('SET my.x = ''run''')", "SELECT f_run('CREATE TEMP TABLE tmp (i int)')", "SELECT f_run('SET ROLE r1')",
    "SELECT f_run('LISTEN e')", "SELECT f_run('NOTIFY e')",
    "SELECT f_lock(%n)", "SELECT f_error()", "SELECT f_notice()", "SELECT f_temp(), 1/0", "SELECT f_set('my.x', 'lost'), 1/0", "CALL p_commit()", "CALL p_commit()",
    "DO $$ BEGIN PERFORM set_config('app.tenant', '1', false); END $$", "DO $$ BEGIN SET my.x = 'do'; SET LOCAL my.z = 'do'; END $$",
    "DO $$ BEGIN CREATE TEMP TABLE tmp (i int); EXCEPTION WHEN duplicate_table THEN RAISE NOTICE 'there'; END $$", "DO $$ BEGIN NULL; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'from do'; END $$", "DO $$ BEGIN SET my.x = 'kept'; COMMIT; SET my.x = 'lost'; PERFORM 1/0; END $$",
    "SELECT abs(-%n), upper('x'), array_agg(id) FROM s1.t", "SELECT f_pure(%n)",
];

#[rustfmt::skip]
const SESSION_WIDE: &[&str] = &[
    "LISTEN e", "LISTEN e", "LISTEN \"E f\"", "NOTIFY e", "NOTIFY e, 'payload'", "NOTIFY e, 'payload'", "SELECT pg_notify('e', 'f')", "NOTIFY nobody",
    "UNLISTEN e", "UNLISTEN *", "SELECT * FROM pg_listening_channels() ORDER BY 1",
    "SELECT pg_advisory_lock(%n)", "SELECT pg_advisory_lock(%n)", "SELECT pg_advisory_unlock(%n)", "SELECT pg_advisory_unlock(%n)", "SELECT pg_advisory_unlock_all()",
    "SELECT pg_try_advisory_lock(1, %n)", "SELECT pg_advisory_unlock(1, %n)", "SELECT pg_advisory_xact_lock(%n)", "SELECT pg_advisory_lock_shared(%n)",
    "SELECT pg_advisory_unlock_shared(%n)", "SELECT pg_try_advisory_lock(id) FROM s1.t ORDER BY id",
    "SELECT objid, mode, granted FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1, 2",
    "DISCARD ALL", "DISCARD TEMP", "DISCARD SEQUENCES", "DISCARD PLANS", "SELECT setseed(0.5)", "SELECT setseed(0.5), random()", "CHECKPOINT", "VACUUM acc", "ANALYZE acc",
    "SELECT lo_create(4711), lo_unlink(4711)", "EXPLAIN (COSTS OFF) SELECT * FROM t", "REINDEX TABLE acc", "LOAD 'plpgsql'",
];

#[rustfmt::skip]
const COPIES_IN: &[(&str, &[&str])] = &[
    ("COPY acc(id, v) FROM STDIN", &["100\tone\n", "101\ttwo\n"]),
    ("COPY acc(id, v) FROM STDIN", &["100\tone\n", "not a number\ttwo\n"]),
    ("COPY acc(v) FROM STDIN WITH (FORMAT csv)", &["\"a,b\"\n"]),
    ("COPY %m FROM STDIN", &["5\n"]),
    ("COPY nowhere FROM STDIN", &["5\n"]),
    ("COPY acc(id) FROM STDIN", &["1\n"]),
    ("SET my.x = 'copied'; COPY acc(v) FROM STDIN; SELECT 1", &["x\n"]),
    ("COPY t FROM STDIN", &[]),
];

#[rustfmt::skip]
const COPIES_OUT: &[&str] = &[
    "COPY %t TO STDOUT", "COPY (SELECT generate_series(1, 30)) TO STDOUT", "COPY (SELECT '2024-01-02'::date) TO STDOUT WITH (FORMAT binary)",
    "COPY (SELECT 1/0) TO STDOUT", "COPY (SELECT 10 / (5 - g) FROM generate_series(1, 9) g) TO STDOUT", "COPY nowhere TO STDOUT",
    "COPY (INSERT INTO acc(v) VALUES ('c') RETURNING v) TO STDOUT",
];

impl Generator {
    pub fn cursor(&mut self) -> String {
        self.pick(CURSORS)
    }

    pub fn definition(&mut self) -> String {
        self.pick(DEFINITIONS)
    }

    pub fn function(&mut self) -> String {
        self.pick(FUNCTIONS)
    }

    pub fn session_wide(&mut self) -> String {
        self.pick(SESSION_WIDE)
    }

    pub fn copy(&mut self) -> Step {
        if self.random.chance(35) {
            return self.plain(|g| g.pick(COPIES_OUT));
        }
        let (sql, data) = *self.random.choose(COPIES_IN);
        let sql = self.fill(sql);
        let mut rest: Vec<_> = data
            .iter()
            .map(|d| Message::CopyData(d.as_bytes().to_vec()))
            .collect();
        rest.push(match self.random.chance(75) {
            true => Message::CopyDone,
            false => Message::CopyFail("enough".into()),
        });
        // Blind, as libpq never does: a server that is not in a copy passes over what belongs to one.
        let mut chunk = if self.random.chance(60) {
            vec![Message::Query(sql)]
        } else {
            rest.push(Message::Sync);
            self.once("", "", sql)
        };
        chunk.extend(rest);
        vec![chunk]
    }

    /// A transaction that is prepared, and ended at once or much later.
    pub fn two_phases(&mut self) -> Step {
        let texts: &[&str] = match self.random.below(4) {
            0 => &["ROLLBACK PREPARED %g"],
            1 => &["COMMIT PREPARED %g"],
            2 => &[
                "BEGIN",
                "SET my.x = 'prepared'",
                "INSERT INTO s1.t VALUES (9, 'nine')",
                "PREPARE TRANSACTION %g",
            ],
            _ => &["PREPARE TRANSACTION %g", "COMMIT PREPARED %g"],
        };
        texts
            .iter()
            .map(|text| vec![Message::Query(self.fill(text))])
            .collect()
    }

    /// FunctionCall of a function of one integer.
    pub fn call(&mut self) -> Message {
        const INT4ABS: u32 = 1251;
        const INT4_OF_TEXT: u32 = 4_000_000;
        let oid = *self.random.choose(&[INT4ABS, INT4ABS, INT4_OF_TEXT]);
        Message::Call(oid, vec![self.random.choose(&["-5", "7", "x"]).to_string()])
    }
}
