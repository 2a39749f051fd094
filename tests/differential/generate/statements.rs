//! Transactions, rows, prepared statements of SQL, and several statements in one Query.

use super::Generator;

#[rustfmt::skip]
const TRANSACTIONS: &[&str] = &[
    "BEGIN", "BEGIN", "BEGIN", "BEGIN", "begin", "START TRANSACTION", "BEGIN READ ONLY", "START TRANSACTION READ WRITE",
    "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN WORK",
    "COMMIT", "COMMIT", "COMMIT", "COMMIT", "END", "COMMIT WORK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN",
    "ROLLBACK", "ROLLBACK", "ROLLBACK", "ABORT", "commit",
    "SAVEPOINT p", "SAVEPOINT p", "SAVEPOINT q", "ROLLBACK TO p", "ROLLBACK TO SAVEPOINT p", "ROLLBACK TO q", "RELEASE p",
    "RELEASE SAVEPOINT q", "ROLLBACK TO missing",
];

#[rustfmt::skip]
const DATA: &[&str] = &[
    "INSERT INTO acc(v) VALUES ('new') RETURNING id, v", "INSERT INTO acc(v) VALUES ('a'), ('b')",
    "UPDATE acc SET v = v || '!' WHERE id <= %n RETURNING *", "DELETE FROM acc WHERE id = %n", "INSERT INTO acc VALUES (1, 'dup')",
    "INSERT INTO acc(v, parent) VALUES ('orphan', 999)", "INSERT INTO %m VALUES (%n)", "INSERT INTO tenants VALUES (%n, 'r')",
    "SELECT nextval('sq')", "SELECT nextval('sq'), currval('sq'), lastval()", "SELECT setval('sq', 10%n)",
    "SELECT * FROM acc ORDER BY id LIMIT 3 FOR UPDATE", "WITH w AS (UPDATE acc SET v = 'w' WHERE id = %n RETURNING id) SELECT * FROM w",
    "INSERT INTO %t SELECT * FROM %t", "TRUNCATE %m", "SELECT v FROM acc WHERE id = %n",
    "UPDATE acc SET v = nullif(current_setting('app.tenant', true), '') WHERE id = 1", "LOCK TABLE acc IN SHARE MODE",
];

#[rustfmt::skip]
const PREPARED: &[&str] = &[
    "PREPARE %s AS SELECT 'one', '01/02/2024'::date", "PREPARE %s(int) AS SELECT $1 + 1", "PREPARE %s AS SELECT * FROM t",
    "PREPARE %s(text) AS SELECT $1, nullif(current_setting('app.tenant', true), '')", "PREPARE %s AS INSERT INTO acc(v) VALUES ($1) RETURNING id",
    "PREPARE %s AS SELECT * FROM %m", "PREPARE %s AS SELECT nothing", "PREPARE %s AS SELECT $1::int, $2::date",
    "PREPARE %s AS SELECT count(*) FROM tenants", "prepare %s as select '2024-01-01 00:00'::timestamptz", "PREPARE %s AS SELEC",
    "PREPARE %s AS SELECT 'a\\b'", "PREPARE %s(date, interval) AS SELECT $1 + $2",
    "EXECUTE %s", "EXECUTE %s", "EXECUTE %s", "EXECUTE %s(%n)", "EXECUTE %s(%n)", "EXECUTE %s('x')", "EXECUTE %s(1, '03/04/2024')",
    "EXECUTE %s(1 + 1)", "execute %s ; ", "EXECUTE missing", "EXECUTE %s(nothing)", "EXPLAIN (COSTS OFF) EXECUTE %s",
    "EXPLAIN (COSTS OFF) EXECUTE %s(1)", "CREATE TABLE %m AS EXECUTE %s", "CREATE TEMP TABLE tmp AS EXECUTE %s(2)",
    "DEALLOCATE %s", "DEALLOCATE %s", "DEALLOCATE PREPARE %s", "DEALLOCATE missing", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL",
    "SELECT name, statement, parameter_types::text, from_sql FROM pg_prepared_statements ORDER BY name",
];

#[rustfmt::skip]
const SEVERAL: &[&str] = &[
    "SET work_mem = '1MB'; SELECT 1/0; SET work_mem = '2MB'", "SET my.x = 'm'; SHOW my.x", "BEGIN; SET my.x = 'b'; COMMIT; SELECT 1/0",
    "SELECT 1; COMMIT; SELECT 2", "SELECT 1; ROLLBACK; SELECT 2", "BEGIN; SET LOCAL work_mem = '1MB'; SHOW work_mem; COMMIT; SHOW work_mem",
    "BEGIN; SET my.x = 'lost'; ROLLBACK; SELECT current_setting('my.x', true)", "INSERT INTO acc(v) VALUES ('z'); SELECT 1/0",
    "SAVEPOINT p; SELECT 1", "SET my.x = '1'; SET my.x = '2'; RESET my.x", "PREPARE a AS SELECT 'several'; EXECUTE a; DEALLOCATE a",
    "PREPARE b AS SELECT 'kept'; EXECUTE b", "PREPARE a AS SELECT 1; SELECT 1/0", "SET search_path = s1; SELECT * FROM t; SET search_path = s2; SELECT * FROM t",
    "BEGIN; CREATE TEMP TABLE tmp (i int) ON COMMIT DROP; INSERT INTO tmp VALUES (1); TABLE tmp; COMMIT", "LISTEN e; NOTIFY e, 'p'; UNLISTEN e",
    "BEGIN; SELECT 1", "COMMIT; BEGIN", "SELECT 1;; SELECT 2;", "SET ROLE r1; SELECT current_user; RESET ROLE", "COPY s1.t TO STDOUT; SELECT 1",
    "SELECT pg_advisory_lock(5); SELECT pg_advisory_unlock(5)", "SELECT 1; SELEC 2", "SET client_encoding = latin1; SELECT 'x'; RESET client_encoding",
    "ROLLBACK; SET my.x = 'after'", "SET my.x = 'a'; BEGIN; SET my.x = 'b'; SELECT 1/0", "DISCARD ALL; SELECT 1",
];

impl Generator {
    pub fn transaction(&mut self) -> String {
        self.pick(TRANSACTIONS)
    }

    pub fn data(&mut self) -> String {
        self.pick(DATA)
    }

    pub fn prepared(&mut self) -> String {
        self.pick(PREPARED)
    }

    pub fn several(&mut self) -> String {
        self.pick(SEVERAL)
    }
}
