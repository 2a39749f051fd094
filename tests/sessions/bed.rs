//! A proxy in process before a real primary, and a database of its own for each test.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pgsluice::{
    config::{self, AuthMethod, Config, Listener, PoolMode, Route, Secret},
    proxy::Proxy,
};
use tokio::sync::{mpsc as async_mpsc, oneshot};

use crate::{
    nodes::{self, PATIENCE, Server, runtime},
    raw::Client,
};

/// The role of all clients.
pub const USER: &str = "app";

/// The primary that most tests share; the process's end stops it.
static SHARED: Mutex<Option<Arc<Server>>> = Mutex::new(None);
/// Tests that measure this process's memory run alone.
static MEMORY: RwLock<()> = RwLock::new(());
static DATABASES: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> i32;
}

extern "C" fn stop_shared() {
    if let Ok(mut shared) = SHARED.lock() {
        drop(shared.take());
    }
}

/// A running primary with the clients' role.
pub fn primary() -> Server {
    let server = Server::primary(&nodes::system_bin());
    server.sql(&format!("CREATE ROLE {USER} LOGIN"));
    // Other tests' checkpoints must not take a base backup's segments away.
    server.sql("ALTER SYSTEM SET wal_keep_size = '1GB'");
    server.sql("SELECT pg_reload_conf()");
    server
}

pub fn shared() -> Arc<Server> {
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    let server = shared.get_or_insert_with(|| {
        // SAFETY: the callback is a plain function that lives as long as the program.
        unsafe { atexit(stop_shared) };
        Arc::new(primary())
    });
    server.clone()
}

/// An empty database that the clients' role owns.
pub fn database(server: &Server) -> String {
    let name = format!("t{}", DATABASES.fetch_add(1, Relaxed));
    server.sql(&format!("CREATE DATABASE {name} OWNER {USER}"));
    name
}

/// A configuration for `nodes`, with listeners of all routes and modes; see [`Bed`] for their order.
pub fn config(nodes: Vec<config::Node>, size: usize) -> Config {
    // Each its own address: a reload knows listeners by what they were told to listen on.
    let any = |host| SocketAddr::from(([127, 0, 0, host], 0));
    let mut config = nodes::config(nodes);
    config.listeners = vec![
        Listener::at(any(1), Route::Primary, PoolMode::Transaction),
        Listener::at(any(2), Route::Primary, PoolMode::Session),
        Listener::at(any(3), Route::Replica, PoolMode::Transaction),
    ];
    config.pool.size = size;
    config.pool.checkout_timeout = PATIENCE;
    config.auth.method = AuthMethod::Trust;
    config.users = vec![config::User {
        name: USER.into(),
        password: Secret::new("unused"),
    }];
    config
}

enum Command {
    Drain(oneshot::Sender<()>),
    Reload(Box<Config>),
    Clients(mpsc::Sender<usize>),
}

/// A running proxy with a control thread of its own.
pub struct Bed {
    /// Transaction mode, primary.
    pub addr: SocketAddr,
    /// Session mode, primary.
    pub session: SocketAddr,
    /// Transaction mode, replicas.
    pub replica: SocketAddr,
    pub database: String,
    pub server: Arc<Server>,
    commands: async_mpsc::UnboundedSender<Command>,
    control: Option<JoinHandle<()>>,
    _turn: Turn,
}

/// With other tests, or alone.
#[allow(dead_code)] // held, not read
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Turn {
    fn shared() -> Turn {
        Turn::Shared(MEMORY.read().unwrap_or_else(|e| e.into_inner()))
    }
}

impl Bed {
    /// On the shared primary.
    pub fn new(size: usize) -> Bed {
        Bed::with(size, |_| {})
    }

    pub fn with(size: usize, change: impl FnOnce(&mut Config)) -> Bed {
        let server = shared();
        let mut config = config(vec![server.node("pg1")], size);
        change(&mut config);
        Bed::start(server, config)
    }

    /// While no other test runs.
    pub fn alone(size: usize) -> Bed {
        let turn = Turn::Alone(MEMORY.write().unwrap_or_else(|e| e.into_inner()));
        let server = shared();
        let config = config(vec![server.node("pg1")], size);
        Bed::launch(server, config, turn)
    }

    pub fn start(server: Arc<Server>, config: Config) -> Bed {
        Bed::launch(server, config, Turn::shared())
    }

    fn launch(server: Arc<Server>, config: Config, turn: Turn) -> Bed {
        let database = database(&server);
        let (started, addrs) = mpsc::channel();
        let (commands, inbox) = async_mpsc::unbounded_channel();
        let control = std::thread::spawn(move || {
            runtime().block_on(async move {
                let proxy = Proxy::start(config).await.unwrap();
                started.send(proxy.addresses()).unwrap();
                obey(proxy, inbox).await;
            });
        });
        let addrs = addrs.recv().unwrap();
        Bed {
            addr: addrs[0],
            session: addrs[1],
            replica: addrs[2],
            database,
            server,
            commands,
            control: Some(control),
            _turn: turn,
        }
    }

    /// A client of the transaction listener.
    pub fn client(&self) -> Client {
        Client::connect(self.addr, &self.database, USER)
    }

    /// A client of the server itself.
    pub fn direct(&self) -> Client {
        Client::connect(self.server_addr(), &self.database, USER)
    }

    pub fn server_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.server.port))
    }

    pub fn sql(&self, sql: &str) -> String {
        let port = self.server.port.to_string();
        let args = ["-h", "127.0.0.1", "-U", "postgres", "-XAtqc", sql];
        let args = [&args[..], &["-p", &port, "-d", &self.database]].concat();
        let output = self.server.run_ok("psql", &args);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Connections of clients in this test's database, as PostgreSQL counts them.
    pub fn servers(&self) -> usize {
        self.count("true")
    }

    /// Those of them that satisfy `condition` on pg_stat_activity.
    pub fn count(&self, condition: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND usename = '{USER}' AND ({condition})",
            self.database
        );
        self.server.sql(&sql).parse().unwrap()
    }

    pub fn reload(&self, config: Config) {
        let _ = self.commands.send(Command::Reload(Box::new(config)));
    }

    /// Connections of clients, as the proxy counts them.
    pub fn clients(&self) -> usize {
        let (counted, count) = mpsc::channel();
        let _ = self.commands.send(Command::Clients(counted));
        count.recv().unwrap()
    }

    /// Begins a drain; the receiver hears of its end.
    pub fn drain(&self) -> oneshot::Receiver<()> {
        let (done, drained) = oneshot::channel();
        let _ = self.commands.send(Command::Drain(done));
        drained
    }
}

async fn obey(mut proxy: Proxy, mut inbox: async_mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Drain(done) => {
                proxy.drain().await;
                let _ = done.send(());
            }
            Command::Clients(counted) => counted.send(proxy.clients()).unwrap(),
            Command::Reload(config) => drop(proxy.reload(*config).unwrap()),
        }
    }
    proxy.end();
}

impl Drop for Bed {
    fn drop(&mut self) {
        let (closed, _) = async_mpsc::unbounded_channel();
        self.commands = closed;
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
