//! Where real clients are tried: a primary with a streaming replica, and the built proxy as a process before them.
//!
//! Tests that run at the same time share the cluster; each has its own databases and, where it needs one, its own
//! proxy. Programs are bounded in time, and what they wrote is kept in the stage's directory until it is removed.

#![allow(dead_code)] // not every test needs all of it

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User, chown};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The one patience of all waits: machines are loaded.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds after which a client's program has failed.
const PROGRAM_LIMIT: &str = "180";

const HBA: &str = "
local   all         all                trust
local   replication all                trust
host    all         prober   all       trust
host    all         trusted  all       trust
host    all         md5user  all       md5
host    all         all      all       scram-sha-256
host    replication all      all       scram-sha-256
";

const ROLES: &str = "
CREATE ROLE prober LOGIN IN ROLE pg_monitor;
CREATE ROLE app LOGIN CREATEDB PASSWORD 'secret';
CREATE ROLE trusted LOGIN;
CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret';
CREATE ROLE streamer LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE lookup LOGIN PASSWORD 'lookup secret';
SET password_encryption = md5;
CREATE ROLE md5user LOGIN PASSWORD 'secret';
";

static SHARED: Mutex<Vec<Weak<Stage>>> = Mutex::new(Vec::new());

/// The system's PostgreSQL: `PGSLUICE_TEST_PG_BIN`, or the newest that is installed.
fn system_bin() -> PathBuf {
    let given = std::env::var_os("PGSLUICE_TEST_PG_BIN").map(PathBuf::from);
    let found = pgsluice::cluster::Binaries::find(given.as_deref());
    found.unwrap_or_else(|e| panic!("{e}")).dir().to_owned()
}

/// The PostgreSQL installations to test with: the system's, and what PGSLUICE_TEST_PG_BINS lists, split at ':'.
pub fn installations() -> Vec<PathBuf> {
    let more = std::env::var("PGSLUICE_TEST_PG_BINS").unwrap_or_default();
    let more = more.split(':').filter(|dir| !dir.is_empty());
    let first = std::iter::once(system_bin());
    first.chain(more.map(PathBuf::from)).collect()
}

/// A primary and its replica.
pub struct Stage {
    dir: tempfile::TempDir,
    bin: PathBuf,
    pub primary: u16,
    pub replica: u16,
    /// Some builds of PostgreSQL have none.
    pub has_tls: bool,
    databases: AtomicU32,
    fronts: AtomicU32,
}

/// The stage with the first PostgreSQL, made if no other test holds it.
pub fn stage() -> Arc<Stage> {
    stage_of(&system_bin())
}

pub fn stage_of(bin: &Path) -> Arc<Stage> {
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    shared.retain(|stage| stage.strong_count() > 0);
    let mut known = shared.iter().filter_map(Weak::upgrade);
    if let Some(stage) = known.find(|stage| stage.bin == bin) {
        return stage;
    }
    let stage = Arc::new(Stage::make(bin));
    shared.push(Arc::downgrade(&stage));
    stage
}

impl Stage {
    fn make(bin: &Path) -> Self {
        let mut dir = tempfile::Builder::new();
        let stage = Stage {
            dir: dir.prefix("pgsluice-stage-").tempdir().unwrap(),
            bin: bin.to_owned(),
            primary: free_port(),
            replica: free_port(),
            has_tls: has_tls(bin),
            databases: AtomicU32::new(0),
            fronts: AtomicU32::new(0),
        };
        own(stage.dir.path());
        // Clients that are no PostgreSQL programs run as somebody else, and need the CA.
        fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        stage.certificates();
        stage.start_primary();
        stage.start_replica();
        stage
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        own(&path);
    }

    /// A CA, and one certificate by it that nodes and proxy share.
    fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(hosts).unwrap();
        let signed = signed.signed_by(&key, &ca).unwrap();
        self.write("ca.crt", &ca.pem());
        self.write("server.crt", &signed.pem());
        self.write("server.key", &key.serialize_pem());
    }

    fn start_primary(&self) {
        let data = self.path("primary");
        let initdb = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
            "--locale=C",
        ];
        self.pg_ok("initdb", &initdb);
        self.write("primary/pg_hba.conf", HBA);
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nwal_level = logical\n\
             max_connections = 300\nshared_buffers = '32MB'\nmax_prepared_transactions = 10\nmax_wal_size = '2GB'\n\
             max_wal_senders = 10\nssl = {}\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
            self.dir.path().display(),
            if self.has_tls { "on" } else { "off" },
            self.path("server.crt"),
            self.path("server.key"),
        );
        self.write("primary/postgresql.auto.conf", &settings);
        self.start("primary", self.primary);
        self.sql("postgres", ROLES);
        let lookup = pgsluice::client::verifier::lookup_sql("lookup");
        self.sql("postgres", &lookup);
    }

    fn start_replica(&self) {
        let (data, port) = (self.path("replica"), self.primary.to_string());
        let host = self.dir.path().to_str().unwrap();
        let copy = [
            "-D", &data, "-h", host, "-p", &port, "-U", "postgres", "-R", "-X", "stream", "-c",
            "fast", "-N",
        ];
        self.pg_ok("pg_basebackup", &copy);
        self.start("replica", self.replica);
    }

    fn start(&self, name: &str, port: u16) {
        let (data, log) = (self.path(name), self.path(&format!("{name}.log")));
        let options = format!("-p {port}");
        let start = [
            "start", "-w", "-s", "-t", "60", "-D", &data, "-l", &log, "-o", &options,
        ];
        self.pg_ok("pg_ctl", &start);
    }

    /// A program of the tested installation, as its owner.
    pub fn pg(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", PROGRAM_LIMIT]);
        command.arg(self.bin.join(program)).args(arguments);
        if let Some(user) = owner() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
            .current_dir(self.dir.path())
            .env("LC_ALL", "C")
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn pg_ok(&self, program: &str, arguments: &[&str]) -> String {
        self.run_ok(&mut self.pg(program, arguments))
    }

    /// What the program wrote to its standard output. Files and no pipes: a server started here inherits them.
    #[track_caller]
    pub fn run_ok(&self, command: &mut Command) -> String {
        let (ok, out, err) = self.run(command);
        assert!(ok, "{command:?}\n{out}\n{err}\n{}", self.logs());
        out
    }

    pub fn run(&self, command: &mut Command) -> (bool, String, String) {
        let capture = tempfile::NamedTempFile::new().unwrap();
        let errors = tempfile::NamedTempFile::new().unwrap();
        let status = command
            .stdout(capture.reopen().unwrap())
            .stderr(errors.reopen().unwrap())
            .status()
            .unwrap();
        let text = |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        (status.success(), text(capture.path()), text(errors.path()))
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let files = fs::read_dir(self.dir.path()).unwrap().flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
        let tail = |file: fs::DirEntry| {
            let text = fs::read(file.path()).unwrap_or_default();
            let text =
                String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
            format!("--- {}\n{text}\n", file.file_name().display())
        };
        logs.map(tail).collect()
    }

    /// As superuser on the primary itself.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.sql_at(self.primary, database, sql)
    }

    pub fn sql_at(&self, port: u16, database: &str, sql: &str) -> String {
        let (port, host) = (port.to_string(), self.dir.path().to_str().unwrap());
        let arguments = [
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            host,
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            sql,
        ];
        self.pg_ok("psql", &arguments).trim().to_owned()
    }

    /// A new database, owned by `app`.
    pub fn database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Relaxed));
        let sql = format!("CREATE DATABASE {name} OWNER app");
        self.sql("postgres", &sql);
        let open = "GRANT ALL ON SCHEMA public TO PUBLIC";
        self.sql(&name, open);
        name
    }

    /// How often the replica has executed a statement with `marker`.
    pub fn times_on_replica(&self, marker: &str) -> usize {
        let log = fs::read(self.file("replica.log")).unwrap();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(marker)).count()
    }

    /// Waits until the replica has what the primary has now.
    pub fn wait_for_replica(&self) {
        let now = self.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'");
        wait_until("the replica has caught up", || {
            self.sql_at(self.replica, "postgres", &sql) == "t"
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in ["replica", "primary"] {
            let data = self.path(name);
            let stop = ["stop", "-s", "-m", "immediate", "-D", &data];
            let _ = self.run(&mut self.pg("pg_ctl", &stop));
        }
    }
}

/// How a proxy is set up.
pub struct Setup {
    /// `[auth] method`.
    pub method: &'static str,
    /// With TLS on both sides.
    pub tls: bool,
    /// Of all listeners.
    pub mode: &'static str,
    pub pool_size: u32,
    /// Users from the cluster itself, and not from the file.
    pub lookup: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            method: "scram-sha-256",
            tls: false,
            mode: "transaction",
            pool_size: 60,
            lookup: false,
        }
    }
}

/// The built proxy, running; ended on drop.
pub struct Front {
    stage: Arc<Stage>,
    child: Child,
    /// Ports of its listeners.
    pub primary: u16,
    pub replica: u16,
    pub split: u16,
}

impl Front {
    pub fn start(stage: &Arc<Stage>, setup: &Setup) -> Self {
        let name = format!("front{}", stage.fronts.fetch_add(1, Relaxed));
        let (config, log) = (format!("{name}.toml"), stage.file(&format!("{name}.log")));
        stage.write(&config, &configuration(stage, setup));
        let child = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(["run", "-c", &stage.path(&config)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut front = Front {
            stage: stage.clone(),
            child,
            primary: 0,
            replica: 0,
            split: 0,
        };
        front.wait_for_ports(&log);
        front
    }

    fn wait_for_ports(&mut self, log: &Path) {
        let mut ports = Vec::new();
        wait_until("the proxy listens", || {
            let log = fs::read_to_string(log).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "{log}");
            ports = log.lines().filter_map(listening_port).collect();
            ports.len() == 3
        });
        (self.primary, self.replica, self.split) = (ports[0], ports[1], ports[2]);
    }

    /// The most memory that the process ever had resident, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// SIGHUP'ed processes reload; this one only must still be there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.stage.logs());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(stage: &Stage, setup: &Setup) -> String {
    let listener = |route: &str, rest: &str| {
        let mode = setup.mode;
        format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"{route}\"\nmode = \"{mode}\"\n{rest}\n"
        )
    };
    let node = |name: &str, port: u16| {
        format!(
            "[[node]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\nmax_servers = 90\n"
        )
    };
    let tls = if setup.tls {
        "[tls.client]\nmode = \"require\"\ncert = \"server.crt\"\nkey = \"server.key\"\n\
         [tls.server]\nmode = \"verify-full\"\nca = \"ca.crt\"\n"
    } else {
        "[tls.server]\nmode = \"disable\"\n"
    };
    [
        "workers = 2\n[http]\nlisten = \"off\"\n[log]\nformat = \"json\"\n".to_owned(),
        listener("primary", ""),
        listener("replica", "primary = \"never\""),
        listener("split", ""),
        node("pg1", stage.primary),
        node("pg2", stage.replica),
        format!(
            "[pool]\nsize = {}\ncheckout_timeout = \"60s\"\n",
            setup.pool_size
        ),
        "[probe]\nuser = \"prober\"\ntimeout = \"5s\"\n".to_owned(),
        authentication(setup),
        tls.to_owned(),
    ]
    .concat()
}

fn authentication(setup: &Setup) -> String {
    let mut text = format!(
        "[auth]\nmethod = \"{}\"\nallow = [\"boss\", \"streamer\"]\n",
        setup.method
    );
    if setup.lookup {
        return text + "user = \"lookup\"\npassword = \"lookup secret\"\n";
    }
    for user in ["app", "boss", "streamer", "md5user", "trusted"] {
        text += &format!("[[user]]\nname = \"{user}\"\npassword = \"secret\"\n");
    }
    text
}

fn listening_port(line: &str) -> Option<u16> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let listening = fields.get("message")?.as_str()? == "listening";
    let address = fields.get("address")?.as_str()?;
    let port = address.rsplit_once(':')?.1.parse().ok();
    port.filter(|_| listening)
}

#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// PostgreSQL refuses to run as root.
fn owner() -> Option<User> {
    let is_root = Uid::effective().is_root();
    is_root.then(|| User::from_name("postgres").unwrap().unwrap())
}

fn own(path: &Path) {
    if let Some(user) = owner() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn has_tls(bin: &Path) -> bool {
    let config = Command::new(bin.join("pg_config"))
        .arg("--configure")
        .output();
    String::from_utf8_lossy(&config.unwrap().stdout).contains("openssl")
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
