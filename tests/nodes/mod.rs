//! PostgreSQL servers made for one test, and probes that watch them.

#![allow(dead_code)] // not every test needs all of it

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgsluice::{
    config::{self, Config, Secret},
    topology::{self, Handle, Health, Topology},
};
use tokio::{runtime::Runtime, sync::oneshot};

/// The one patience of all waits here: generous, since machines are loaded; what matters is the order of events.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often probes ask, as it is by default.
pub const INTERVAL: Duration = Duration::from_millis(50);
/// Longer than by default: a node must not count as silent because many tests share few cores.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// The system's PostgreSQL: `PGSLUICE_TEST_PG_BIN`, or the newest that is installed.
pub fn system_bin() -> PathBuf {
    let given = std::env::var_os("PGSLUICE_TEST_PG_BIN").map(PathBuf::from);
    let found = pgsluice::cluster::Binaries::find(given.as_deref());
    found.unwrap_or_else(|e| panic!("{e}")).dir().to_owned()
}

/// The PostgreSQL installations to test with.
pub fn installations() -> Vec<PathBuf> {
    let more = std::env::var("PGSLUICE_TEST_PG_BINS").unwrap_or_default();
    let more = more
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    std::iter::once(system_bin()).chain(more).collect()
}

/// One PostgreSQL instance; killed and removed on drop.
pub struct Server {
    pub bin: PathBuf,
    pub dir: tempfile::TempDir,
    pub port: u16,
}

impl Server {
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// An empty place for a server, owned by whoever runs PostgreSQL here.
    pub fn place(bin: &Path) -> Server {
        let dir = tempfile::Builder::new()
            .prefix("pgsluice-topology-")
            .tempdir()
            .unwrap();
        if nix::unistd::geteuid().is_root() {
            let owner = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            nix::unistd::chown(dir.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        Server {
            bin: bin.to_owned(),
            dir,
            port: port.unwrap().port(),
        }
    }

    /// An empty directory beside the server's, for its user.
    pub fn own_directory(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let owner = std::fs::metadata(self.data()).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&owner);
        std::os::unix::fs::chown(&dir, Some(owner), None).unwrap();
        dir
    }

    /// A running primary, with a monitoring role for the probes.
    pub fn primary(bin: &Path) -> Server {
        let server = Server::place(bin);
        let data = server.data();
        let data = data.to_str().unwrap();
        server.run_ok(
            "initdb",
            &[
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-N",
                "-E",
                "UTF8",
                "--locale=C",
            ],
        );
        server.start();
        server.sql("CREATE ROLE prober LOGIN IN ROLE pg_monitor");
        server
    }

    /// Demands TLS (with a certificate for localhost and 127.0.0.1, signed by itself) and SCRAM of everybody but
    /// `postgres`; the prober's password is the one of [`config`]. Returns the certificate's path.
    pub fn demand_tls_and_scram(&self) -> PathBuf {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, key) = (
            self.data().join("server.crt"),
            self.data().join("server.key"),
        );
        self.write(&cert, &made.cert.pem());
        self.write(&key, &made.signing_key.serialize_pem());
        let hba =
            "host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        self.write(&self.data().join("pg_hba.conf"), hba);
        self.sql("ALTER ROLE prober PASSWORD 'unused'");
        self.sql("ALTER SYSTEM SET ssl = on");
        self.ctl(&["stop", "-m", "fast"]);
        self.start();
        cert
    }

    /// Writes a file that only its server may read.
    fn write(&self, path: &Path, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(self.data()).unwrap();
        std::os::unix::fs::chown(
            path,
            Some(std::os::unix::fs::MetadataExt::uid(&owner)),
            None,
        )
        .unwrap();
    }

    /// A running streaming replica of `self`.
    pub fn replica(&self) -> Server {
        let server = Server::place(&self.bin);
        let (data, port) = (server.data(), self.port.to_string());
        server.run_ok(
            "pg_basebackup",
            &[
                "-D",
                data.to_str().unwrap(),
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "-N",
            ],
        );
        server.start();
        server
    }

    pub fn start(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off \
             -c max_connections=30 -c shared_buffers=8MB",
            self.port
        );
        let log = self.dir.path().join("log");
        self.ctl(&["start", "-w", "-l", log.to_str().unwrap(), "-o", &options]);
    }

    pub fn ctl(&self, args: &[&str]) {
        let data = self.data();
        let mut all = vec!["-D", data.to_str().unwrap(), "-s", "-t", "60"];
        all.extend(args);
        self.run_ok("pg_ctl", &all);
    }

    pub fn promote(&self) {
        self.ctl(&["promote", "-w"]);
    }

    pub fn sql(&self, sql: &str) -> String {
        let port = self.port.to_string();
        let output = self.run_ok(
            "psql",
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "-XAtqc",
                sql,
            ],
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn run_ok(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program, args).output().unwrap();
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(output.status.success(), "{program}: {output:?}\n{log}");
        output
    }

    /// A PostgreSQL program, not as root.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--clear-groups",
                    "--",
                ])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// The postmaster and its children.
    pub fn pids(&self) -> Vec<Pid> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let Some(Ok(postmaster)) = file.lines().next().map(str::parse::<i32>) else {
            return Vec::new();
        };
        // A killed server leaves its file behind, and its pid may be another's by now.
        let command = std::fs::read(format!("/proc/{postmaster}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if !command.contains(self.data().to_str().unwrap()) {
            return Vec::new();
        }
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(postmaster)
            .chain(children)
            .map(Pid::from_raw)
            .collect()
    }

    /// Stops every process where it stands, the postmaster first, so that no child is born meanwhile.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // Those that were born or died while the list was read: from here on there are none.
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            let _ = kill(pid, signal);
        }
    }

    pub fn node(&self, name: &str) -> config::Node {
        config::Node {
            max_servers: 10,
            ..config::Node::at(name, "127.0.0.1", self.port)
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of port {}\n{}", self.port, log.unwrap_or_default());
        }
        if self.pids().is_empty() {
            return;
        }
        self.thaw();
        let data = self.data();
        let stop = [
            "-D",
            data.to_str().unwrap(),
            "-s",
            "stop",
            "-m",
            "immediate",
        ];
        let _ = self.command("pg_ctl", &stop).output();
    }
}

/// A configuration with these nodes, and nothing else that topology looks at.
pub fn config(nodes: Vec<config::Node>) -> Config {
    Config {
        workers: 1,
        http: config::Http { listen: None },
        listeners: Vec::new(),
        nodes,
        probe: config::Probe {
            user: "prober".into(),
            password: Some(Secret::new("unused")),
            interval: INTERVAL,
            busy_interval: INTERVAL,
            timeout: TIMEOUT,
            ..Config::default().probe
        },
        ..Config::default()
    }
}

/// Probes running on a thread of their own, as in the program, and every snapshot that they published.
pub struct Probed {
    pub handle: Handle,
    /// Where this thread waits.
    pub waiting: Runtime,
    pub history: Arc<Mutex<Vec<Arc<Topology>>>>,
    control: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Probed {
    pub fn start(nodes: Vec<config::Node>) -> Probed {
        Probed::with(config(nodes))
    }

    pub fn with(config: Config) -> Probed {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let history = Arc::<Mutex<Vec<_>>>::default();
        let recorded = history.clone();
        let control = std::thread::spawn(move || {
            runtime().block_on(async {
                let handle = topology::spawn(&config).unwrap();
                tokio::spawn(record(handle.clone(), recorded));
                ready.send(handle).unwrap();
                let _ = stopped.await;
            });
        });
        Probed {
            handle: started.recv().unwrap(),
            waiting: runtime(),
            history,
            control: Some((stop, control)),
        }
    }

    /// Waits for a snapshot that satisfies `condition`, and returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let deadline = Instant::now() + PATIENCE;
        let mut topology = self.handle.current();
        while !condition(&topology) {
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = self.waiting.block_on(async {
                tokio::time::timeout(left, self.handle.changed(topology.number)).await
            });
            topology = changed.unwrap_or_else(|_| panic!("never {what}: {topology:#?}"));
        }
        topology
    }

    pub fn wait_primary(&self, name: &str) -> Arc<Topology> {
        self.wait(name, |t| is_primary(t, name))
    }

    pub fn wait_health(&self, name: &str, health: Health) -> Arc<Topology> {
        let what = format!("{name} {}", health.as_str());
        self.wait(&what, |t| t.node(name).is_some_and(|n| n.health == health))
    }

    /// Whether any snapshot so far satisfied `condition`.
    pub fn ever(&self, condition: impl Fn(&Topology) -> bool) -> bool {
        self.history.lock().unwrap().iter().any(|t| condition(t))
    }

    /// Waits until `server` answers `expected` to `sql`.
    pub fn wait_sql(&self, server: &Server, sql: &str, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        while server.sql(sql) != expected {
            assert!(Instant::now() < deadline, "never {expected}: {sql}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        let (stop, control) = self.control.take().unwrap();
        let _ = stop.send(());
        let _ = control.join();
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn record(handle: Handle, history: Arc<Mutex<Vec<Arc<Topology>>>>) {
    let mut watcher = handle.watch();
    loop {
        let topology = watcher.current().clone();
        history.lock().unwrap().push(topology);
        watcher.changed().await;
    }
}

pub fn is_primary(topology: &Topology, name: &str) -> bool {
    topology.primary().is_some_and(|n| n.config.name == name)
}

pub fn generation(topology: &Topology, name: &str) -> u64 {
    topology.node(name).unwrap().generation
}
