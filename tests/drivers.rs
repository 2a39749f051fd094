//! Real clients' lives through the proxy: the same script directly and through it must print the same.
//!
//! The clients are installed by `scripts/prepare-drivers`; without them the tests fail, or are left out if ALLOW_SKIP=1.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

#[path = "drivers/stage.rs"]
mod stage;
#[path = "drivers/tokio_life.rs"]
mod tokio_life;

use stage::{Front, Setup, Stage, installations, stage, stage_of};

/// Seconds after which a client has failed.
const CLIENT_LIMIT: &str = "120";

/// A client that is started as a program of its own.
#[derive(Clone, Copy)]
enum Client {
    Psycopg,
    Asyncpg,
    Sqlalchemy,
    Node,
}

/// One run of a client: where, as whom, over what.
struct Run<'a> {
    port: u16,
    database: &'a str,
    user: &'a str,
    tls: bool,
}

impl Client {
    fn program(self) -> (PathBuf, &'static str) {
        let python = drivers().join("venv/bin/python");
        match self {
            Client::Psycopg => (python, "psycopg_life.py"),
            Client::Asyncpg => (python, "asyncpg_life.py"),
            Client::Sqlalchemy => (python, "sqlalchemy_life.py"),
            Client::Node => ("node".into(), "node_life.cjs"),
        }
    }

    fn command(self, stage: &Stage, part: &str, run: &Run) -> Command {
        let (program, script) = self.program();
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", CLIENT_LIMIT])
            .arg(program)
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/drivers")
                    .join(script),
            )
            .arg(part)
            .env("NODE_MODULES", drivers().join("node/node_modules"))
            .stdin(Stdio::null());
        connect_to(&mut command, stage, run);
        command
    }
}

/// libpq's variables, which the other clients follow too.
fn connect_to(command: &mut Command, stage: &Stage, run: &Run) {
    command
        .env("PGHOST", if run.tls { "localhost" } else { "127.0.0.1" })
        .env("PGPORT", run.port.to_string())
        .env("PGUSER", run.user)
        .env("PGPASSWORD", "secret")
        .env("PGDATABASE", run.database);
    if run.tls {
        command
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", stage.file("ca.crt"))
            .env("PGCHANNELBINDING", "require");
    } else {
        command.env("PGSSLMODE", "disable");
    }
}

fn drivers() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers");
    std::env::var_os("PGSLUICE_DRIVERS").map_or(default, PathBuf::from)
}

/// Whether the clients are there.
fn prepared() -> bool {
    let is_there = drivers().join("stamp").exists();
    let may_skip = std::env::var_os("ALLOW_SKIP").is_some_and(|value| value == "1");
    assert!(
        is_there || may_skip,
        "no clients: run scripts/prepare-drivers"
    );
    if !is_there {
        eprintln!("LEFT OUT: no clients here (scripts/prepare-drivers)");
    }
    is_there
}

/// Runs the client's `part` directly and through the proxy, each with a database of its own.
fn compare(stage: &Arc<Stage>, client: Client, part: &str, user: &str, setup: &Setup) {
    let front = Front::start(stage, setup);
    let print = |port| {
        let database = stage.database();
        let run = Run {
            port,
            database: &database,
            user,
            tls: setup.tls,
        };
        stage.run_ok(&mut client.command(stage, part, &run))
    };
    let (direct, through) = (print(stage.primary), print(front.primary));
    assert_same(&direct, &through);
}

/// The same on the replica; table `filled` is there.
fn compare_reads(client: Client) {
    let stage = stage();
    let front = Front::start(&stage, &Setup::default());
    let database = stage.database();
    let filled = "CREATE TABLE filled AS SELECT i AS id, md5(i::text) FROM generate_series(1, 1000) i; \
                  GRANT SELECT ON filled TO app";
    stage.sql(&database, filled);
    stage.wait_for_replica();
    let print = |port| {
        let run = Run {
            port,
            database: &database,
            user: "app",
            tls: false,
        };
        stage.run_ok(&mut client.command(&stage, "reads", &run))
    };
    assert_same(&print(stage.replica), &print(front.replica));
}

/// Through the port that splits: reads of every kind that the client has run on the replica, and its writes on the primary.
fn split(client: Client, kinds: &[&str]) {
    if !prepared() {
        return;
    }
    let stage = stage();
    let front = Front::start(&stage, &Setup::default());
    let database = stage.database();
    stage.sql(&database, "CREATE TABLE kept (id int PRIMARY KEY, v int)");
    stage.sql(&database, "INSERT INTO kept VALUES (1, 0)");
    stage.sql(&database, "GRANT ALL ON kept TO app");
    let log = format!("ALTER DATABASE {database} SET log_statement = 'all'");
    stage.sql(&database, &log);
    stage.wait_for_replica();
    let run = Run {
        port: front.split,
        database: &database,
        user: "app",
        tls: false,
    };
    stage.run_ok(&mut client.command(&stage, "split", &run));
    for kind in kinds {
        let marker = format!("/* {database} {kind}. */");
        assert!(stage.times_on_replica(&marker) > 0, "{kind}: never there");
    }
    assert_eq!(stage.sql(&database, "SELECT v FROM kept"), "20");
    assert_eq!(
        stage.times_on_replica(&format!("/* {database} write. */")),
        0
    );
}

#[track_caller]
fn assert_same(direct: &str, through: &str) {
    let (mut a, mut b) = (direct.lines(), through.lines());
    let mut section = "";
    loop {
        match (a.next(), b.next()) {
            (None, None) => return,
            (Some(a), Some(b)) if a == b => {
                section = a.strip_prefix("== ").unwrap_or(section);
            }
            (a, b) => panic!("in {section}\ndirect:  {a:?}\nthrough: {b:?}"),
        }
    }
}

/// With every PostgreSQL that there is.
fn live(client: Client) {
    if !prepared() {
        return;
    }
    for bin in installations() {
        compare(&stage_of(&bin), client, "life", "app", &Setup::default());
    }
}

fn short(client: Client, user: &str, setup: Setup) {
    if prepared() {
        compare(&stage(), client, "short", user, &setup);
    }
}

fn over_tls() -> Setup {
    Setup {
        tls: true,
        ..Setup::default()
    }
}

#[test]
fn psycopg_lives_through_the_proxy_as_directly() {
    live(Client::Psycopg);
}

#[test]
fn psycopg_reads_through_the_proxy_as_from_a_replica() {
    if prepared() {
        compare_reads(Client::Psycopg);
    }
}

#[test]
fn psycopg_over_verified_tls_with_channel_binding() {
    short(Client::Psycopg, "app", over_tls());
}

#[test]
fn psycopg_in_session_mode() {
    let setup = Setup {
        mode: "session",
        ..Setup::default()
    };
    short(Client::Psycopg, "app", setup);
}

#[test]
fn psycopg_with_a_user_from_the_cluster() {
    let setup = Setup {
        lookup: true,
        ..Setup::default()
    };
    short(Client::Psycopg, "app", setup);
}

#[test]
fn psycopg_with_an_md5_login() {
    let setup = Setup {
        method: "md5",
        ..Setup::default()
    };
    short(Client::Psycopg, "md5user", setup);
}

#[test]
fn psycopg_trusted() {
    let setup = Setup {
        method: "trust",
        ..Setup::default()
    };
    short(Client::Psycopg, "trusted", setup);
}

#[test]
fn fifty_psycopg_clients_share_five_servers() {
    if !prepared() {
        return;
    }
    let setup = Setup {
        pool_size: 5,
        ..Setup::default()
    };
    compare(&stage(), Client::Psycopg, "concurrency", "app", &setup);
}

#[test]
fn asyncpg_lives_through_the_proxy_as_directly() {
    live(Client::Asyncpg);
}

#[test]
fn asyncpg_reads_through_the_proxy_as_from_a_replica() {
    if prepared() {
        compare_reads(Client::Asyncpg);
    }
}

#[test]
fn reads_of_psycopg_asyncpg_and_node_postgres_reach_replicas() {
    split(
        Client::Psycopg,
        &["simple", "extended", "prepared", "pipeline"],
    );
    split(Client::Asyncpg, &["simple", "extended", "prepared"]);
    split(Client::Node, &["simple", "extended", "prepared"]);
}

#[test]
fn asyncpg_over_verified_tls() {
    short(Client::Asyncpg, "app", over_tls());
}

#[test]
fn sqlalchemy_lives_through_the_proxy_as_directly() {
    live(Client::Sqlalchemy);
}

#[test]
fn sqlalchemy_over_verified_tls() {
    short(Client::Sqlalchemy, "app", over_tls());
}

#[test]
fn node_postgres_lives_through_the_proxy_as_directly() {
    live(Client::Node);
}

#[test]
fn node_postgres_reads_through_the_proxy_as_from_a_replica() {
    if prepared() {
        compare_reads(Client::Node);
    }
}

#[test]
fn node_postgres_over_verified_tls_with_channel_binding() {
    short(Client::Node, "app", over_tls());
}

#[test]
fn psql_scripts_run_through_the_proxy_as_directly() {
    for bin in installations() {
        let stage = stage_of(&bin);
        let front = Front::start(&stage, &Setup::default());
        stage.write("psql_life.sql", include_str!("drivers/psql_life.sql"));
        let script = stage.path("psql_life.sql");
        let print = |port| {
            let database = stage.database();
            let run = Run {
                port,
                database: &database,
                user: "app",
                tls: false,
            };
            let mut psql = stage.pg("psql", &["-X", "-q", "-f", &script]);
            connect_to(&mut psql, &stage, &run);
            let (ok, out, err) = stage.run(&mut psql);
            assert!(ok, "{err}");
            format!("{out}== errors\n{err}")
        };
        assert_same(&print(stage.primary), &print(front.primary));
    }
}

#[test]
fn psql_over_verified_tls_with_channel_binding() {
    let stage = stage();
    let front = Front::start(&stage, &over_tls());
    let run = Run {
        port: front.primary,
        database: "postgres",
        user: "app",
        tls: true,
    };
    let mut psql = stage.pg("psql", &["-XAtc", "SELECT 'over TLS'"]);
    connect_to(&mut psql, &stage, &run);
    assert_eq!(stage.run_ok(&mut psql).trim(), "over TLS");
}

#[test]
fn pgbench_runs_in_every_mode_without_a_failure() {
    for bin in installations() {
        let stage = stage_of(&bin);
        let setup = Setup {
            pool_size: 20,
            ..Setup::default()
        };
        let front = Front::start(&stage, &setup);
        let database = stage.database();
        let run = Run {
            port: front.primary,
            database: &database,
            user: "app",
            tls: false,
        };
        let bench = |arguments: &[&str]| {
            let mut bench = stage.pg("pgbench", arguments);
            connect_to(&mut bench, &stage, &run);
            stage.run_ok(&mut bench)
        };
        bench(&["-i", "-s", "2", "-q"]);
        for mode in ["simple", "extended", "prepared"] {
            let said = bench(&["-n", "-M", mode, "-c", "16", "-j", "2", "-t", "30"]);
            assert!(said.contains("processed: 480/480"), "{mode}: {said}");
        }
        let said = bench(&["-n", "-C", "-S", "-c", "16", "-j", "2", "-t", "10"]);
        assert!(said.contains("processed: 160/160"), "reconnecting: {said}");
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
                    (SELECT count(*) FROM pgbench_history)";
        assert_eq!(stage.sql(&database, sums), "t|1440");
    }
}

#[test]
fn tokio_postgres_lives_through_the_proxy_as_directly() {
    for bin in installations() {
        let stage = stage_of(&bin);
        let front = Front::start(&stage, &Setup::default());
        let direct = tokio_life::live(stage.primary, &stage.database(), None);
        let through = tokio_life::live(front.primary, &stage.database(), None);
        assert_same(&direct, &through);
    }
}

#[test]
fn tokio_postgres_over_verified_tls_with_channel_binding() {
    let stage = stage();
    let front = Front::start(&stage, &over_tls());
    let authority = stage.file("ca.crt");
    let direct = tokio_life::live(stage.primary, &stage.database(), Some(&authority));
    let through = tokio_life::live(front.primary, &stage.database(), Some(&authority));
    assert_same(&direct, &through);
}
