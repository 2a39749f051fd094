//! The statements.

use std::{fmt, process::Command};

use common::{Pg, TestCluster, per_version};
use pgsluice::{
    catalogues,
    cluster::Node,
    config::{self, Config, Rule, RulePlace, Ruled},
    route::{
        Context,
        catalogue::Catalogue,
        class::{Class, Place, class_of},
        effects::{Names, effects_among},
    },
};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::{common, lines::Line, mutate::Mutations};

const SCHEMA: &str = include_str!("schema.sql");

/// A class as the corpus spells it.
struct Spelt(Class);

impl fmt::Display for Spelt {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Spelt(class) = self;
        f.write_str(class.reason.as_str())?;
        match &class.object {
            Some(object) => write!(f, ":{}", object.replace(' ', "")),
            None => Ok(()),
        }
    }
}

/// What the corpus is held to: one cluster and its catalogue.
struct Stage {
    cluster: TestCluster,
    catalogue: Catalogue,
    major: u8,
}

impl Stage {
    fn new(pg: &Pg) -> Stage {
        let cluster = TestCluster::build(pg.builder().replicas(1));
        cluster.primary().sql(SCHEMA).unwrap();
        cluster.wait_caught_up().unwrap();
        let (catalogue, major) = runtime().block_on(look(&cluster.primary(), &[]));
        Stage {
            cluster,
            catalogue,
            major,
        }
    }

    fn class(&self, sql: &str) -> Class {
        let context = Context {
            server_major: self.major,
            ..Context::default()
        };
        let names = Names::Read {
            catalogue: &self.catalogue,
            current: true,
        };
        let effects = effects_among(sql.as_bytes(), &context, names);
        class_of(sql.as_bytes(), &effects, &context, names)
    }

    /// `pgsluice route -c`, whose file has a node that is not there before the one that is.
    fn ask_the_program(&self) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        let port = self.cluster.replicas()[0].port();
        let file = format!(
            "[[node]]\nhost = \"127.0.0.1\"\nport = 1\n[[node]]\nhost = \"127.0.0.1\"\nport = {port}\n\
             [probe]\nuser = \"postgres\"\n[auth]\nmethod = \"trust\"\n\
             [[rule]]\nfunction = \"f_sql\"\nplace = \"primary\"\n"
        );
        std::fs::write(&path, file).unwrap();
        let route = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
            let output = command.arg("route").args(more).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let path = path.to_str().unwrap();
        let sql = "select f_reads(1); select f_nested(1); table scratch";
        let shown = route(&["-c", path, sql]);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        // Under each statement its fingerprint.
        let is_shape = |line: &&str| line.trim().len() == 32 && !line.trim().contains(' ');
        assert_eq!(shown.lines().filter(is_shape).count(), 3, "{shown}");
        let others = shown.lines().filter(|line| !is_shape(line));
        let lines: Vec<String> = others.map(words).collect();
        assert_eq!(
            lines,
            [
                "anywhere read select f_reads(1)",
                "primary rule: f_nested (f_sql) select f_nested(1)",
                "primary unlogged: scratch table scratch",
                "primary rule: f_nested (f_sql) (sent as one message)",
            ]
        );
        let json = route(&["--json", "select * from users"]);
        assert!(json.contains("\"reason\": \"no_catalogue\""), "{json}");
    }

    /// The configuration's word counts before the catalogue's, and a hint before both.
    fn follow_rules(&mut self) {
        let rule = |of, place| Rule { of, place };
        let function = |name: &str, place| rule(Ruled::Function(name.into()), place);
        let table = |name: &str, place| rule(Ruled::Table(name.into()), place);
        let rules = [
            function("f_dynamic", RulePlace::Replica),
            function("f_sql", RulePlace::Primary),
            function("version", RulePlace::Replica),
            function("pg_sleep", RulePlace::Primary),
            table("public.remote", RulePlace::Replica),
            table("pg_stat_activity", RulePlace::Replica),
            table("app.things", RulePlace::Primary),
        ];
        let (catalogue, _) = runtime().block_on(look(&self.cluster.primary(), &rules));
        self.catalogue = catalogue;
        for (sql, expected) in [
            ("select f_dynamic('select 1')", "read"),
            ("select f_sql(1)", "rule:f_sql"),
            ("select f_nested(1)", "rule:f_nested(f_sql)"),
            ("select * from v_users", "rule:v_users(f_sql)"),
            ("select version()", "read"),
            ("select pg_sleep(0)", "rule:pg_sleep"),
            ("select * from remote", "read"),
            ("select * from pg_stat_activity", "read"),
            ("select * from v_stat", "read"),
            ("select * from app.things", "rule:things"),
            ("select f_path(1)", "rule:f_path(things)"),
            ("/* pgsluice: primary */ select version()", "hint"),
            ("/* pgsluice: replica */ select f_sql(1)", "hint"),
            ("select * from scratch", "unlogged:scratch"),
        ] {
            assert_eq!(Spelt(self.class(sql)).to_string(), expected, "{sql}");
        }
    }

    fn lines(&self) -> Vec<Line<'static>> {
        let mut lines = Line::all();
        lines.retain(|line| line.since <= self.major);
        lines
    }
}

async fn look(node: &Node, rules: &[Rule]) -> (Catalogue, u8) {
    let config = Config {
        rules: rules.to_vec(),
        probe: config::Probe {
            user: "postgres".into(),
            ..Config::default().probe
        },
        ..Config::default()
    };
    let node = config::Node::at("pg1", "127.0.0.1", node.port());
    catalogues::look(&config, &node, "postgres").await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

per_version! {
    fn every_statement_has_its_class_and_a_replica_runs_the_reads_for_which_the_primary_writes_nothing(pg) {
        let mut stage = Stage::new(&pg);
        let mut wrong = Vec::new();
        let (mut reads, mut wasted) = (0, 0);
        for line in stage.lines() {
            let class = stage.class(&line.sql);
            let is_read = class.place == Place::Anywhere;
            let found = Spelt(class).to_string();
            if found != line.expected || is_read != line.is_read() {
                wrong.push(format!("{found} | {} (expected {})", line.sql, line.expected));
            }
            reads += usize::from(line.is_read());
            wasted += usize::from(line.is_wasted);
        }
        wrong.extend(runtime().block_on(run_all(&stage)));
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        eprintln!("{reads} proven reads, {wasted} kept on the primary for no reason");
        assert!(reads > 200 && wasted * 100 <= 3 * (reads + wasted));
        runtime().block_on(run_mutations(&stage));
        stage.ask_the_program();
        stage.follow_rules();
    }
}

/// Runs all proven reads on both nodes; gives what was wrong.
async fn run_all(stage: &Stage) -> Vec<String> {
    // Whoever reads first sets hint bits and the like, with WAL of its own.
    let quiet = Session::open(&stage.cluster.primary(), "postgres").await;
    for sql in ["VACUUM (FREEZE)", "CHECKPOINT"] {
        quiet.run(sql).await.unwrap();
    }
    // Not the superuser, whom no policy holds.
    let primary = Session::open(&stage.cluster.primary(), "app").await;
    let replica = Session::open(&stage.cluster.replicas()[0], "app").await;
    let mut wrong = Vec::new();
    for line in stage.lines() {
        if !line.is_read() {
            continue;
        }
        let on_replica = replica.run(&line.sql).await;
        if !line.allows(&on_replica) {
            wrong.push(format!("{on_replica:?} on the replica | {}", line.sql));
        }
        if let Some(what) = primary.traces(&line).await {
            wrong.push(format!("{what} | {}", line.sql));
        }
    }
    wrong
}

/// Statements that nobody wrote: what is taken for a read must be one.
async fn run_mutations(stage: &Stage) {
    let primary = Session::open(&stage.cluster.primary(), "app").await;
    let replica = Session::open(&stage.cluster.replicas()[0], "app").await;
    let texts: Vec<String> = stage.lines().into_iter().map(|line| line.sql).collect();
    let mut mutations = Mutations::of(texts);
    let (mut reads, mut wrong) = (0, Vec::new());
    let count = mutations.count;
    for _ in 0..count {
        let sql = mutations.next();
        if stage.class(&sql).place != Place::Anywhere {
            continue;
        }
        let on_replica = replica.run(&sql).await;
        match &on_replica {
            Ok(_) => reads += 1,
            // What the primary says as well is the statement's own fault.
            Err(error) if is_refusal(error) && primary.run(&sql).await != on_replica => {
                wrong.push(format!("{error} | {sql}"));
                continue;
            }
            Err(_) => continue,
        }
        let line = Line {
            sql,
            ..Line::read("read | ")
        };
        if let Some(what) = primary.traces(&line).await {
            wrong.push(format!("{what} | {}", line.sql));
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {}, {} wrong:\n{}",
        mutations.seed,
        wrong.len(),
        wrong.join("\n")
    );
    eprintln!("of {count} mutations {reads} ran as reads");
    assert!(reads * 10 > count, "{reads} of {count}");
}

/// Of recovery, or by XX000 where PostgreSQL did not think of it.
fn is_refusal(error: &str) -> bool {
    let of_recovery = error.contains("recovery") || error.contains("read-only");
    of_recovery || error.starts_with("25006") || error.starts_with("XX000")
}

struct Session {
    client: tokio_postgres::Client,
}

impl Session {
    async fn open(node: &Node, user: &str) -> Session {
        let login = format!(
            "host=127.0.0.1 port={} user={user} dbname=postgres",
            node.port()
        );
        let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        tokio::spawn(connection);
        Session { client }
    }

    /// Errors by their code.
    async fn run(&self, sql: &str) -> Result<Vec<String>, String> {
        let answer = if sql.trim_start().to_ascii_lowercase().starts_with("copy") {
            self.copy(sql).await.map(|()| Vec::new())
        } else {
            self.client.simple_query(sql).await.map(rows)
        };
        answer.map_err(|error| match error.as_db_error() {
            Some(said) => format!("{} {}", said.code().code(), said.message()),
            None => error.to_string(),
        })
    }

    async fn copy(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        use futures_util::{StreamExt as _, pin_mut};
        let stream = self.client.copy_out(sql).await?;
        pin_mut!(stream);
        while let Some(part) = stream.next().await {
            part?;
        }
        Ok(())
    }

    /// What a statement leaves in the primary's log or transactions.
    async fn traces(&self, line: &Line<'_>) -> Option<String> {
        const WAL: &str = "SELECT pg_current_wal_insert_lsn()";
        const LOOKS: usize = 8;
        const XID: &str = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
        self.run("BEGIN").await.unwrap();
        let ran = self.run(&line.sql).await;
        if ran.is_err() {
            let _ = self.run("ROLLBACK").await;
            return (!line.allows(&ran)).then(|| format!("{ran:?} on the primary"));
        }
        let took_xid = self.run(XID).await.unwrap() == ["t"];
        self.run("COMMIT").await.unwrap();
        if took_xid {
            return Some("it took a transaction's number".to_owned());
        }
        // The server's own processes write now and then, a statement that writes does so each time.
        for _ in 0..LOOKS {
            let before = self.run(WAL).await;
            let _ = self.run(&line.sql).await;
            if before == self.run(WAL).await {
                return None;
            }
        }
        Some("it writes".to_owned())
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<String> {
    let values = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some(row.try_get(0).ok().flatten().unwrap_or_default().to_owned())
        }
        _ => None,
    });
    values.collect()
}
