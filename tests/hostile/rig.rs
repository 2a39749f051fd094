//! A PostgreSQL, a proxy before it, and a bystander whose answers must stay right.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use pgsluice::{
    config::{AuthMethod, Config, Listener, PoolMode, Route, Secret, TlsMode, User},
    proxy::Proxy,
};
use tokio::sync::oneshot;

use super::{
    nodes::{self, Server},
    speak::{self, Conversation},
};

/// Panics on threads of proxies, over the whole process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of workers; those of tests are shown as ever.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if thread
                .name()
                .is_some_and(|n| n.starts_with("worker") || n.starts_with("proxy"))
            {
                PANICS.fetch_add(1, SeqCst);
            }
            usual(panic);
        }));
    });
}

pub fn panics() -> u64 {
    PANICS.load(SeqCst)
}

pub struct Rig {
    pub proxy: Running,
    pub pg: Server,
}

/// A proxy on a thread of its own.
pub struct Running {
    /// Pooling by transaction.
    pub addr: SocketAddr,
    pub http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub fn postgres() -> Server {
    postgres_of(&nodes::installations()[0])
}

fn postgres_of(bin: &Path) -> Server {
    let pg = Server::primary(bin);
    pg.sql("CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE calm LOGIN");
    pg.sql("CREATE TABLE t (a int, b text); GRANT ALL ON t TO app");
    pg
}

/// A configuration for one node at `port`.
pub fn config(pg: &Server, port: u16, method: AuthMethod) -> Config {
    let mut node = pg.node("pg1");
    node.port = port;
    node.max_servers = 24;
    let user = |name: &str| User {
        name: name.into(),
        password: Secret::new("secret"),
    };
    let mut config = nodes::config(vec![node]);
    config.listeners = vec![Listener::at(
        "127.0.0.1:0".parse().unwrap(),
        Route::Primary,
        PoolMode::Transaction,
    )];
    config.http.listen = Some("127.0.0.1:0".parse().unwrap());
    config.users = vec![user("app"), user("calm")];
    config.auth.method = method;
    config.tls.server.mode = TlsMode::Disable;
    config.pool.size = 8;
    config.probe.timeout = Duration::from_secs(5);
    config
}

impl Rig {
    pub fn start(method: AuthMethod) -> Rig {
        Rig::on(&nodes::installations()[0], method)
    }

    /// With the PostgreSQL whose programs are in `bin`.
    pub fn on(bin: &Path, method: AuthMethod) -> Rig {
        let pg = postgres_of(bin);
        let proxy = Running::start(config(&pg, pg.port, method));
        Rig { proxy, pg }
    }

    pub fn direct(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.pg.port).into()
    }
}

impl Running {
    pub fn start(config: Config) -> Running {
        watch_panics();
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                nodes::runtime().block_on(async move {
                    let proxy = Proxy::start(config).await.unwrap();
                    let mut watcher = proxy.topology().watch();
                    while watcher.current().primary().is_none() {
                        watcher.changed().await;
                    }
                    let addresses = (proxy.addresses()[0], proxy.http_address().unwrap());
                    ready.send(addresses).unwrap();
                    let _ = stopped.await;
                    proxy.end();
                });
            });
        let (addr, http) = started.recv_timeout(nodes::PATIENCE).unwrap();
        Running {
            addr,
            http,
            stop: Some(stop),
            thread: Some(thread.unwrap()),
        }
    }

    /// The counter of our own bugs, as published.
    pub fn internal_errors(&self) -> u64 {
        let page = speak::http(self.http, "/metrics");
        let line = page
            .lines()
            .find(|l| l.starts_with("pgsluice_errors_total") && l.contains("internal"));
        line.map_or(0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

/// A session that goes on asking, and checks every answer.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Bystander {
    pub fn start(addr: SocketAddr) -> Bystander {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut session = Conversation::log_in(addr, "calm");
            let mut asked = 0;
            while !stopped.load(SeqCst) {
                asked += 1;
                let answer = session.ask(&format!("SELECT {asked}"));
                assert_eq!(
                    answer,
                    [asked.to_string()],
                    "a bystander got a wrong answer"
                );
                std::thread::yield_now();
            }
            asked
        });
        Bystander {
            stop,
            thread: Some(thread),
        }
    }

    /// All its answers were right, and there were some.
    pub fn end_unharmed(mut self) {
        self.stop.store(true, SeqCst);
        assert!(self.thread.take().unwrap().join().unwrap() > 0);
    }
}

/// Resident memory of this process, the proxy's own included, in KiB.
pub fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
