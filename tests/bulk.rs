//! Much through the proxy: dumps, base backups, WAL, a logical subscription, COPY and rows far larger than its memory.
//!
//! PGSLUICE_TEST_COPY_MIB says how large a COPY is (128 by default).

use std::{fs, path::Path, process::Command, sync::Arc};

#[path = "drivers/stage.rs"]
mod stage;

use stage::{Front, Setup, Stage, free_port, installations, stage_of, wait_until};

/// What the proxy may ever have resident, however much passes through it.
const MEMORY_BYTES: u64 = 64 << 20;

const MIB: u64 = 1 << 20;

fn each_stage(check: impl Fn(&Arc<Stage>, &Front)) {
    for bin in installations() {
        let stage = stage_of(&bin);
        let front = Front::start(&stage, &Setup::default());
        check(&stage, &front);
    }
}

/// A PostgreSQL program that goes through the proxy's port for the primary.
fn through(stage: &Stage, front: &Front, user: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = stage.pg(program, arguments);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", front.primary.to_string())
        .env("PGUSER", user)
        .env("PGPASSWORD", "secret")
        .env("PGSSLMODE", "disable");
    command
}

/// The same in a shell, where programs can be joined by pipes.
fn shell(stage: &Stage, front: &Front, user: &str, script: &str) -> String {
    let mut command = Command::new("timeout");
    let bin = stage.pg("psql", &[]);
    let bin = bin.get_args().nth(3).unwrap();
    let bin = Path::new(bin).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    command
        .args(["-k", "5", "300", "bash", "-euo", "pipefail", "-c", script])
        .current_dir("/tmp")
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", front.primary.to_string())
        .env("PGUSER", user)
        .env("PGPASSWORD", "secret")
        .env("PGSSLMODE", "disable");
    stage.run_ok(&mut command)
}

#[track_caller]
fn assert_small(front: &Front) {
    let peak = front.peak_memory_bytes();
    eprintln!("peak memory of the proxy: {} KiB", peak / 1024);
    assert!(peak < MEMORY_BYTES, "{} MiB resident", peak / MIB);
}

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE parent (id serial PRIMARY KEY, m mood, v text);
CREATE TABLE child (id int REFERENCES parent, at timestamptz DEFAULT now());
CREATE INDEX ON parent (v);
CREATE VIEW seen AS SELECT p.id, m FROM parent p JOIN child USING (id);
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN i * 2; END';
INSERT INTO parent (m, v) SELECT 'happy', repeat(md5(i::text), 20) FROM generate_series(1, 20000) i;
INSERT INTO child SELECT i FROM generate_series(1, 20000) i;
SELECT lo_from_bytea(0, repeat('large object', 10000)::bytea);
";

const DIGEST: &str = "SELECT (SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM parent p), \
                      (SELECT count(*) FROM seen), nextval('parent_id_seq'), twice(4), \
                      (SELECT sum(length(lo_get(oid))) FROM pg_largeobject_metadata)";

#[test]
fn a_dump_is_restored_through_the_proxy() {
    each_stage(|stage, front| {
        let (from, to) = (stage.database(), stage.database());
        stage.sql(&from, &format!("SET ROLE app; {SCHEMA}"));
        let script = format!("pg_dump -Fc {from} | pg_restore -d {to} --no-owner");
        shell(stage, front, "app", &script);
        assert_eq!(stage.sql(&to, DIGEST), stage.sql(&from, DIGEST));
        assert_small(front);
    });
}

#[test]
fn a_dump_is_restored_by_parallel_jobs() {
    each_stage(|stage, front| {
        let (from, to) = (stage.database(), stage.database());
        stage.sql(&from, &format!("SET ROLE app; {SCHEMA}"));
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("dump");
        let dir = dir.display();
        // Jobs share the first one's exported snapshot.
        let script =
            format!("pg_dump -Fd -j 3 -f {dir} {from}; pg_restore -j 3 -d {to} --no-owner {dir}");
        shell(stage, front, "app", &script);
        assert_eq!(stage.sql(&to, DIGEST), stage.sql(&from, DIGEST));
    });
}

#[test]
fn a_plain_dump_creates_its_database_through_the_proxy() {
    each_stage(|stage, front| {
        let from = stage.database();
        stage.sql(&from, &format!("SET ROLE app; {SCHEMA}"));
        let before = stage.sql(&from, DIGEST);
        let script = format!(
            "pg_dump -C --clean --if-exists {from} > $PWD/{from}.sql; \
             psql -qX -v ON_ERROR_STOP=1 -d postgres -f {from}.sql > /dev/null; rm {from}.sql"
        );
        shell(stage, front, "boss", &script);
        let after = stage.sql(&from, DIGEST);
        // The first digest took a number from the sequence.
        assert_eq!(after.replace("|20002|", "|20001|"), before);
    });
}

#[test]
fn a_base_backup_is_taken_and_starts() {
    each_stage(|stage, front| {
        let (data, log) = (stage.path("backup"), stage.path("backup.log"));
        let backup = ["-D", &data, "-X", "stream", "-c", "fast", "-N"];
        stage.run_ok(&mut through(
            stage,
            front,
            "streamer",
            "pg_basebackup",
            &backup,
        ));
        assert_small(front);
        let port = free_port();
        let options = format!("-p {port}");
        let start = ["start", "-w", "-s", "-D", &data, "-l", &log, "-o", &options];
        stage.pg_ok("pg_ctl", &start);
        let roles = stage.sql_at(
            port,
            "postgres",
            "SELECT count(*) FROM pg_roles WHERE rolname = 'app'",
        );
        stage.pg_ok("pg_ctl", &["stop", "-s", "-m", "immediate", "-D", &data]);
        fs::remove_dir_all(&data).unwrap();
        assert_eq!(roles, "1");
    });
}

#[test]
fn wal_is_received_through_the_proxy() {
    each_stage(|stage, front| {
        let dir = stage.path("received");
        let made = Command::new("install")
            .args(["-d", "-m", "777", &dir])
            .status();
        assert!(made.unwrap().success());
        let end = stage.sql(
            "postgres",
            "SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_current_wal_lsn()",
        );
        let end = end.lines().last().unwrap().to_owned();
        let slot = ["--create-slot", "-S", "received"];
        stage.run_ok(&mut through(
            stage,
            front,
            "streamer",
            "pg_receivewal",
            &slot,
        ));
        let mut receive = through(
            stage,
            front,
            "streamer",
            "pg_receivewal",
            &["-D", &dir, "-S", "received", "--no-loop", "--synchronous"],
        );
        let mut receive = receive.stderr(std::process::Stdio::null()).spawn().unwrap();
        let slot = |column: &str| {
            let sql =
                format!("SELECT {column} FROM pg_replication_slots WHERE slot_name = 'received'");
            stage.sql("postgres", &sql)
        };
        // A segment that ends before the stream begins would never come.
        wait_until("the stream has begun", || slot("active") == "t");
        let fill = "CREATE TABLE IF NOT EXISTS filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000); \
                    SELECT pg_switch_wal()";
        stage.sql("postgres", fill);
        let flushed = format!("restart_lsn > '{end}'");
        wait_until("a segment was received", || {
            let whole = |name: &str| name.len() == 24;
            let files = fs::read_dir(&dir).unwrap().flatten();
            let any = files
                .map(|f| f.file_name())
                .any(|name| whole(&name.to_string_lossy()));
            any && slot(&flushed) == "t"
        });
        let pid = nix::unistd::Pid::from_raw(receive.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        receive.wait().unwrap();
        wait_until("the slot is free", || slot("active") == "f");
        stage.sql("postgres", "SELECT pg_drop_replication_slot('received')");
    });
}

#[test]
fn a_logical_subscriber_follows_through_the_proxy() {
    each_stage(|stage, front| {
        let (publisher, subscriber) = (stage.database(), stage.database());
        stage.sql(
            &publisher,
            "CREATE TABLE l (id int PRIMARY KEY, v text); CREATE PUBLICATION pub FOR TABLE l; \
                               INSERT INTO l SELECT i, 'copied' FROM generate_series(1, 1000) i; \
                               GRANT SELECT ON l TO streamer",
        );
        stage.sql(&subscriber, "CREATE TABLE l (id int PRIMARY KEY, v text)");
        let connection = format!(
            "host=127.0.0.1 port={} dbname={publisher} user=streamer password=secret sslmode=disable",
            front.primary
        );
        // In one cluster CREATE SUBSCRIPTION would wait for its own transaction if it made the slot itself.
        let slot =
            format!("CREATE_REPLICATION_SLOT sub_{subscriber} LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let walsender = format!("{connection} replication=database");
        stage.pg_ok("psql", &["-XAtq", "-d", &walsender, "-c", &slot]);
        let subscribe = format!(
            "CREATE SUBSCRIPTION sub_{subscriber} CONNECTION '{connection}' PUBLICATION pub \
             WITH (create_slot = false)"
        );
        stage.sql(&subscriber, &subscribe);
        let count = |expected: &str| {
            wait_until(expected, || {
                stage.sql(
                    &subscriber,
                    "SELECT count(*), count(*) FILTER (WHERE v = 'later') FROM l",
                ) == expected
            });
        };
        count("1000|0");
        stage.sql(&publisher, "INSERT INTO l VALUES (2000, 'later'); UPDATE l SET v = 'later' WHERE id = 1; DELETE FROM l WHERE id = 2");
        count("1000|2");
        stage.sql(&subscriber, &format!("DROP SUBSCRIPTION sub_{subscriber}"));
    });
}

fn copy_bytes() -> u64 {
    let mib = std::env::var("PGSLUICE_TEST_COPY_MIB").map_or(128, |mib| mib.parse().unwrap());
    mib * MIB
}

#[test]
fn a_large_copy_each_way_takes_little_memory() {
    each_stage(|stage, front| {
        let database = stage.database();
        let lines = copy_bytes() / 1024;
        stage.sql(
            &database,
            "CREATE UNLOGGED TABLE big (v text); GRANT ALL ON big TO app",
        );
        let line = "x".repeat(1023);
        let script = format!(
            "export PGDATABASE={database}
             (yes {line} || true) | head -n {lines} | psql -qX -c 'COPY big FROM STDIN'
             psql -qXc 'COPY big TO STDOUT' | wc -c"
        );
        let out = shell(
            stage,
            front,
            "app",
            &script.replace("(yes", "set +o pipefail\n(yes"),
        );
        assert_eq!(out.trim(), (lines * 1024).to_string());
        assert_small(front);
        stage.sql(&database, "DROP TABLE big");
    });
}

#[test]
fn one_huge_value_each_way_takes_little_memory() {
    each_stage(|stage, front| {
        let database = stage.database();
        stage.sql(
            &database,
            "CREATE UNLOGGED TABLE big (v text); ALTER TABLE big ALTER v SET STORAGE EXTERNAL; GRANT ALL ON big TO app",
        );
        const LEN: u64 = 200_000_000;
        let script = format!(
            "export PGDATABASE={database}
             head -c {LEN} /dev/zero | tr '\\0' y | psql -qX -c 'COPY big FROM STDIN'
             (echo \"INSERT INTO big VALUES ('\"; head -c {LEN} /dev/zero | tr '\\0' z; echo \"')\") | psql -qX
             psql -qXAtc 'SELECT v FROM big' | wc -c
             psql -qXAtc 'SELECT sum(length(v)) FROM big'"
        );
        let out = shell(stage, front, "app", &script);
        // The statement has a line break before its value.
        let (characters, lengths) = (2 * LEN + 1 + 2, 2 * LEN + 1);
        assert_eq!(
            out.split_whitespace().collect::<Vec<_>>(),
            [characters.to_string(), lengths.to_string()]
        );
        assert_small(front);
        stage.sql(&database, "DROP TABLE big");
    });
}

#[test]
fn a_client_that_does_not_read_takes_little_memory() {
    each_stage(|stage, front| {
        let script = "psql -qXAtc \"SELECT repeat('x', 1000) FROM generate_series(1, 100000)\" -d postgres | (sleep 1; wc -c)";
        let out = shell(stage, front, "app", script);
        assert_eq!(out.trim(), "100100000");
        assert_small(front);
    });
}
