//! `pgsluice demo`, the program itself, as somebody at a terminal uses it.

mod common;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use common::{PATIENCE, Pg, per_version, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgsluice::cluster::{Login, PortLease, is_free};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgsluice");

/// Ports for a proxy that nobody else uses; reserved while this lives.
struct Ports {
    offset: u16,
    _leases: Vec<PortLease>,
}

impl Ports {
    fn reserve() -> Ports {
        let near = |base: u16, offset: u16| PortLease::exactly(base + offset);
        let offsets = (15_000..24_000).step_by(2);
        let start = std::process::id() as usize % 4000;
        let mut found = offsets.skip(start).filter_map(|offset| {
            let leases = [5000, 5001, 6432, 7000].map(|base| near(base, offset));
            let leases: Option<Vec<PortLease>> = leases.into_iter().collect();
            leases.map(|_leases| Ports { offset, _leases })
        });
        found.next().expect("no free ports")
    }

    fn login(&self, base: u16) -> Login<'static> {
        Login {
            node: "the proxy",
            port: base + self.offset,
            user: "postgres",
            password: None,
            database: "postgres",
        }
    }
}

fn demo(pg: &Pg, ports: &Ports, dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").arg("--pg-bin").arg(pg.binaries().dir());
    command.args([
        "--port-offset",
        &ports.offset.to_string(),
        "--replicas",
        "1",
    ]);
    command.arg("--dir").arg(dir);
    command.stdin(Stdio::null());
    command
}

/// Asks the demo in `dir` for something.
fn ask(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").args(words).arg("--dir").arg(dir);
    command.output().unwrap()
}

fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("pgsluice-test-")
        .tempdir_in("/tmp")
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    dir
}

/// A demo that runs; killed when dropped.
struct Running {
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let out = BufReader::new(process.stdout.take().unwrap());
        let ear = said.clone();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                ear.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let running = Running { process, said };
        wait_until("the demo is ready", || running.said().contains("Ready."));
        running
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// By SIGTERM; whether it ended well.
    fn end(mut self) -> bool {
        let pid = Pid::from_raw(self.process.id() as i32);
        kill(pid, Signal::SIGTERM).unwrap();
        self.process.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

per_version! {
    fn verify_finds_everything_working_and_ends(pg) {
        let (ports, dir) = (Ports::reserve(), scratch());
        let output = demo(&pg, &ports, dir.path()).arg("--verify").output().unwrap();
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
        for expected in ["pg_stat_replication on pg1", "pg2: has the row", "(25006)", "verified"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    fn a_replica_is_added_and_a_failover_played_while_a_session_stays(pg) {
        let (ports, dir) = (Ports::reserve(), scratch());
        let running = Running::start(demo(&pg, &ports, dir.path()));
        ports.login(5000).query("CREATE TABLE t AS SELECT 1 AS a", PATIENCE).unwrap();

        let session = Session::open(&ports);
        session.run("SET work_mem = '5MB'");

        let added = ask(dir.path(), &["add-replica"]);
        assert!(added.status.success(), "{}", text(&added.stderr));
        assert!(text(&added.stdout).contains("pg3: copying pg1"), "steps are shown to whoever asked");
        let config = std::fs::read_to_string(dir.path().join("pgsluice.toml")).unwrap();
        assert!(config.contains("\"pg3\""));
        wait_until("the proxy reads from pg3", || reads_from_another(&ports));
        assert_eq!(session.run("SHOW work_mem"), "5MB", "the session was not touched");

        assert!(ask(dir.path(), &["stop", "pg1", "--how", "kill"]).status.success());
        assert!(ask(dir.path(), &["promote", "pg2"]).status.success());
        wait_until("writes go on", || {
            ports.login(5000).query("INSERT INTO t VALUES (2)", PATIENCE).is_ok()
        });
        assert!(ask(dir.path(), &["start", "pg1"]).status.success());
        let status = text(&ask(dir.path(), &["status"]).stdout);
        assert!(status.contains("pg2   primary") && status.contains("pg1   replica"), "{status}");
        let refused = ask(dir.path(), &["promote", "pg9"]);
        assert!(!refused.status.success());
        assert!(text(&refused.stderr).contains("there are pg1, pg2, pg3"));
        assert!(running.end());
    }
}

/// A session that stays open on the primary's port.
struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    connection: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Session {
    fn open(ports: &Ports) -> Session {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let login = ports.login(5000);
        let parameters = format!("host=127.0.0.1 port={} user={}", login.port, login.user);
        let connected = tokio_postgres::connect(&parameters, tokio_postgres::NoTls);
        let (client, connection) = runtime.block_on(connected).unwrap();
        let connection = runtime.spawn(connection);
        Session {
            runtime,
            client,
            connection,
        }
    }

    /// The first value of the answer, or nothing.
    fn run(&self, sql: &str) -> String {
        assert!(!self.connection.is_finished());
        let messages = self
            .runtime
            .block_on(self.client.simple_query(sql))
            .unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        rows.collect()
    }
}

/// Whether sessions that are open at the same time meet two replicas.
fn reads_from_another(ports: &Ports) -> bool {
    let ask = || {
        let rows = ports
            .login(5001)
            .query("SELECT inet_server_port(), pg_sleep(0.1)", PATIENCE);
        rows.ok().and_then(|rows| rows[0][0].clone())
    };
    let mut seen: Vec<Option<String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    seen.sort();
    seen.dedup();
    seen.iter().flatten().count() > 1
}

#[test]
fn a_signal_ends_the_demo_and_nothing_is_left_behind() {
    let (pg, ports, tmp) = (Pg::any(), Ports::reserve(), scratch());
    let mut command = Command::new(PROGRAM);
    command
        .arg("demo")
        .arg("--pg-bin")
        .arg(pg.binaries().dir())
        .env("TMPDIR", tmp.path());
    command.args([
        "--port-offset",
        &ports.offset.to_string(),
        "--replicas",
        "1",
    ]);
    let running = Running::start(command);
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
    assert!(running.end());
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[test]
fn a_signal_while_the_cluster_is_made_ends_it_too() {
    let (pg, ports, tmp) = (Pg::any(), Ports::reserve(), scratch());
    let mut command = Command::new(PROGRAM);
    command
        .arg("demo")
        .arg("--pg-bin")
        .arg(pg.binaries().dir())
        .env("TMPDIR", tmp.path());
    command.args(["--port-offset", &ports.offset.to_string()]);
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("copying") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    kill(Pid::from_raw(process.id() as i32), Signal::SIGINT).unwrap();
    out.read_to_end(&mut Vec::new()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("interrupted"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[test]
fn a_taken_port_of_the_proxy_is_said_before_anything_is_made() {
    let (pg, ports, dir) = (Pg::any(), Ports::reserve(), scratch());
    let _thief = std::net::TcpListener::bind(("127.0.0.1", 5001 + ports.offset)).unwrap();
    assert!(is_free(5000 + ports.offset));
    let output = demo(&pg, &ports, dir.path()).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains(&format!("(process {})", std::process::id())),
        "{said}"
    );
    assert!(said.contains("--port-offset"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn without_a_demo_there_is_nobody_to_ask() {
    let dir = scratch();
    let output = ask(dir.path(), &["promote", "pg2"]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("pgsluice demo"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_a_cluster_costs_is_said_before_it_is_made() {
    let ports = Ports::reserve();
    let offset = ports.offset.to_string();
    let output = Command::new(PROGRAM)
        .args([
            "demo",
            "--replicas",
            "6",
            "--synchronous",
            "--port-offset",
            &offset,
        ])
        .args(["--pg-bin", "/nonexistent"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    let end = place("/nonexistent");
    assert!(
        place("each of 6 replicas costs") < end && place("writes wait") < end,
        "{said}"
    );
}
