//! Who is compared: one PostgreSQL, and proxies before it with the same pool size and without TLS.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use pgsluice::cluster::{Cluster, PortLease};
use tempfile::TempDir;

pub const OURS: &str = "pgsluice";
const PGBOUNCER: &str = "pgbouncer";
const HAPROXY: &str = "haproxy";
pub const USER: &str = "postgres";
pub const DATABASE: &str = "postgres";
const POOL_SIZE: u32 = 20;
// HAProxy wants two descriptors for each, and refuses to start without.
const MAX_CLIENTS: u32 = 6_000;

#[derive(Clone)]
pub struct Peer {
    pub name: &'static str,
    pub port: u16,
    /// None: no proxy.
    pub pid: Option<u32>,
    /// Many clients share few servers.
    pub pools: bool,
    pub pgbench: PathBuf,
}

impl Peer {
    /// Debian's PgBouncer came before prepared statements in transaction mode.
    pub fn runs(&self, mode: &str) -> bool {
        self.name != PGBOUNCER || mode != "prepared"
    }
}

/// A running proxy; killed when dropped.
struct Proxy {
    name: &'static str,
    port: u16,
    child: Child,
    _lease: PortLease,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A filled database and the proxies before it.
pub struct Bench {
    proxies: Vec<Proxy>,
    cluster: Cluster,
    _dir: TempDir,
}

impl Bench {
    pub fn start() -> Bench {
        let cluster = Cluster::builder()
            .replicas(0)
            .max_connections(200)
            .start()
            .expect("a primary starts");
        let dir = tempfile::tempdir().expect("a directory");
        // Peers drop to another user and read their files there.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let port = cluster.primary().port();
        let mut bench = Bench {
            proxies: Vec::new(),
            cluster,
            _dir: dir,
        };
        bench.fill(port);
        let dir = bench._dir.path().to_owned();
        bench.proxies.extend(pgbouncer(&dir, port));
        bench.proxies.extend(haproxy(&dir, port));
        bench.proxies.push(pgsluice(&dir, port));
        bench
    }

    fn fill(&self, port: u16) {
        let status = Command::new(self.pgbench())
            .args(["-h", "127.0.0.1", "-U", USER, "-i", "-q", "-s", "10", "-p"])
            .args([&port.to_string(), DATABASE])
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("pgbench runs").success(), "pgbench -i");
    }

    fn pgbench(&self) -> PathBuf {
        self.cluster.binaries().dir().join("pgbench")
    }

    pub fn version(&self) -> &str {
        self.cluster.binaries().version()
    }

    pub fn peers(&self) -> Vec<Peer> {
        let direct = ("direct", self.cluster.primary().port(), None);
        let proxies = self.proxies.iter();
        std::iter::once(direct)
            .chain(proxies.map(|p| (p.name, p.port, Some(p.child.id()))))
            .map(|(name, port, pid)| Peer {
                name,
                port,
                pid,
                pools: pid.is_some() && name != HAPROXY,
                pgbench: self.pgbench(),
            })
            .collect()
    }
}

fn is_installed(program: &str) -> bool {
    let found = Path::new("/usr/sbin").join(program).exists();
    if !found {
        eprintln!("{program} is not installed: left out");
    }
    found
}

fn start(name: &'static str, lease: PortLease, command: &mut Command) -> Proxy {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let port = lease.port();
    let proxy = Proxy {
        name,
        port,
        child,
        _lease: lease,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{name} does not listen");
        sleep(Duration::from_millis(50));
    }
    // A proxy that looks for its nodes first has found them by then.
    sleep(Duration::from_secs(1));
    proxy
}

fn pgbouncer(dir: &Path, postgres: u16) -> Option<Proxy> {
    if !is_installed("pgbouncer") {
        return None;
    }
    let lease = PortLease::any().ok()?;
    let (ini, users) = (dir.join("pgbouncer.ini"), dir.join("users.txt"));
    fs::write(&users, format!("\"{USER}\" \"\"\n")).ok()?;
    let text = format!(
        "[databases]\n{DATABASE} = host=127.0.0.1 port={postgres}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nauth_type = trust\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = {MAX_CLIENTS}\n\
         unix_socket_dir =\nlog_connections = 0\nlog_disconnections = 0\n",
        lease.port(),
        users.display()
    );
    fs::write(&ini, text).ok()?;
    let mut command = Command::new("pgbouncer");
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "postgres"]);
    }
    Some(start(PGBOUNCER, lease, command.arg(ini)))
}

fn haproxy(dir: &Path, postgres: u16) -> Option<Proxy> {
    if !is_installed("haproxy") {
        return None;
    }
    let lease = PortLease::any().ok()?;
    let cfg = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn {MAX_CLIENTS}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten pg\n  bind 127.0.0.1:{}\n  server pg1 127.0.0.1:{postgres}\n",
        lease.port()
    );
    fs::write(&cfg, text).ok()?;
    let mut command = Command::new("haproxy");
    Some(start(HAPROXY, lease, command.arg("-db").arg("-f").arg(cfg)))
}

fn pgsluice(dir: &Path, postgres: u16) -> Proxy {
    let lease = PortLease::any().expect("a free port");
    let config = dir.join("pgsluice.toml");
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:{}\"\nroute = \"primary\"\n\
         [[node]]\nname = \"pg1\"\nhost = \"127.0.0.1\"\nport = {postgres}\n\
         [pool]\nsize = {POOL_SIZE}\n[limits]\nmax_clients = {MAX_CLIENTS}\n[probe]\nuser = \"{USER}\"\n\
         [auth]\nmethod = \"trust\"\nallow = [\"{USER}\"]\n",
        lease.port()
    );
    fs::write(&config, text).expect("a configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    start(OURS, lease, command.args(["run", "-c"]).arg(config))
}
