//! A cluster with the whole proxy before it, and sessions through it.

#![allow(dead_code)] // not every test needs all of it

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pgsluice::{
    admin::{Drained, Paused},
    config::{self, AuthMethod, Config, Listener, PoolMode, PrimaryReads, Route, Secret, User},
    proxy::Proxy,
    topology::{Handle, Health, Moment, Topology},
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc as channel, oneshot},
    time::timeout,
};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use crate::nodes::{self, PATIENCE, Server, runtime};

/// Listeners, in this order.
pub const WRITES: usize = 0;
pub const READS: usize = 1;
pub const READS_NEVER: usize = 2;
pub const READS_ALSO: usize = 3;
pub const WRITES_SESSION: usize = 4;
pub const READS_SESSION: usize = 5;
pub const SPLIT: usize = 6;

/// Which node answered, and as what.
pub const WHERE: &str = "select current_setting('port') || \
    case when pg_is_in_recovery() then ' replica' else ' primary' end";

/// A proven read, unlike [`WHERE`].
pub const PROVEN: &str = "select 1";

type Command = Box<dyn FnOnce(&mut Proxy) + Send>;

/// A primary and two replicas behind a proxy.
pub struct Cluster {
    pub proxied: Proxied,
    pub pg1: Server,
    pub pg2: Server,
    pub pg3: Server,
}

impl Cluster {
    pub fn start(bin: &Path) -> Cluster {
        Cluster::start_with(bin, |_| {})
    }

    /// `change` is applied to the configuration before the proxy starts.
    pub fn start_with(bin: &Path, change: impl FnOnce(&mut Config)) -> Cluster {
        let pg1 = Server::primary(bin);
        for sql in [
            "CREATE ROLE app LOGIN",
            "CREATE TABLE t (id bigint PRIMARY KEY)",
            "GRANT ALL ON t TO app",
        ] {
            pg1.sql(sql);
        }
        let (pg2, pg3) = (pg1.replica(), pg1.replica());
        let mut config = config(&[&pg1, &pg2, &pg3]);
        change(&mut config);
        let proxied = Proxied::start(config);
        let cluster = Cluster {
            proxied,
            pg1,
            pg2,
            pg3,
        };
        cluster.proxied.wait("all up", |t| {
            nodes::is_primary(t, "pg1") && t.nodes.iter().all(|n| n.is_up())
        });
        cluster
    }

    /// Waits until both replicas have replayed all that the primary has committed.
    pub fn wait_replayed(&self) {
        let lsn = self.pg1.sql("select pg_current_wal_flush_lsn()");
        for replica in [&self.pg2, &self.pg3] {
            let sql = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
            wait_until("replayed", || replica.sql(&sql) == "t");
        }
    }
}

/// The nodes pg1, pg2, … and every kind of listener.
pub fn config(servers: &[&Server]) -> Config {
    let named = servers.iter().enumerate();
    config_of(
        named
            .map(|(i, s)| s.node(&format!("pg{}", i + 1)))
            .collect(),
    )
}

/// These nodes, and every kind of listener.
pub fn config_of(nodes: Vec<config::Node>) -> Config {
    let mut config = nodes::config(nodes);
    config.workers = 2;
    config.auth.method = AuthMethod::Trust;
    config.auth.user = None;
    config.users = vec![User {
        name: "app".into(),
        password: Secret::new("app"),
    }];
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let at = |route, mode, primary| Listener {
        primary,
        ..Listener::at(any, route, mode)
    };
    use PoolMode::{Session, Transaction};
    use PrimaryReads::{Also, Last, Never};
    config.listeners = vec![
        at(Route::Primary, Transaction, Last),
        at(Route::Replica, Transaction, Last),
        at(Route::Replica, Transaction, Never),
        at(Route::Replica, Transaction, Also),
        at(Route::Primary, Session, Last),
        at(Route::Replica, Session, Last),
        at(Route::Split, Transaction, Last),
    ];
    config
}

/// A proxy on a thread of its own, as in the program.
pub struct Proxied {
    pub addresses: Vec<SocketAddr>,
    pub topology: Handle,
    /// Where this thread waits.
    pub waiting: Runtime,
    /// Every snapshot that was seen.
    history: Arc<Mutex<Vec<Arc<Topology>>>>,
    commands: channel::UnboundedSender<Command>,
    control: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Proxied {
    pub fn start(config: Config) -> Proxied {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let (commands, mut inbox) = channel::unbounded_channel::<Command>();
        let history = Arc::<Mutex<Vec<_>>>::default();
        let recorded = history.clone();
        let control = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut proxy = Proxy::start(config).await.unwrap();
                ready
                    .send((proxy.addresses(), proxy.topology().clone()))
                    .unwrap();
                let mut watcher = proxy.topology().watch();
                loop {
                    tokio::select! {
                        () = watcher.changed() => {
                            recorded.lock().unwrap().push(watcher.current().clone());
                        }
                        Some(command) = inbox.recv() => command(&mut proxy),
                        _ = &mut stopped => break,
                    }
                }
            });
        });
        let (addresses, topology) = started.recv().unwrap();
        Proxied {
            addresses,
            topology,
            waiting: runtime(),
            history,
            commands,
            control: Some((stop, control)),
        }
    }

    pub fn reload(&self, config: Config) {
        self.run(move |proxy| proxy.reload(config).map(drop).unwrap());
    }

    /// Connections of clients.
    pub fn clients(&self) -> usize {
        self.run(|proxy| proxy.clients())
    }

    /// One look at a pause, as `pgsluice ctl pause` has several of.
    pub fn pause(&self) -> Paused {
        let paused = self.run(|proxy| proxy.pause(None));
        self.waiting.block_on(paused)
    }

    pub fn resume(&self) {
        self.run(|proxy| proxy.resume());
    }

    /// One look, as `pgsluice ctl drain` has several of.
    pub fn drain(&self, node: &str, drains: bool) -> Drained {
        let node = node.to_owned();
        self.run(move |proxy| proxy.drain_node(&node, drains))
    }

    /// A counter without labels, as of the last time that the workers published.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.run(|proxy| proxy.metrics().render());
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    }

    /// The same with labels; 0 if nothing was counted yet.
    pub fn labelled_metric(&self, name: &str) -> u64 {
        let page = self.run(|proxy| proxy.metrics().render());
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// On the proxy's own thread.
    fn run<T: Send + 'static>(&self, act: impl FnOnce(&mut Proxy) -> T + Send + 'static) -> T {
        let (done, ended) = mpsc::channel();
        let command: Command = Box::new(move |proxy| done.send(act(proxy)).unwrap());
        self.commands.send(command).ok().unwrap();
        ended.recv().unwrap()
    }

    /// Waits for a snapshot that satisfies `condition` and that every worker goes by, and returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let deadline = Instant::now() + PATIENCE;
        let mut topology = self.topology.current();
        while !condition(&topology) {
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = self
                .waiting
                .block_on(async { timeout(left, self.topology.changed(topology.number)).await });
            topology = changed.unwrap_or_else(|_| panic!("never {what}: {topology:#?}"));
        }
        let number = topology.number;
        wait_until("the workers know", || {
            self.run(|proxy| proxy.topology_in_force()) >= number
        });
        topology
    }

    pub fn wait_health(&self, name: &str, health: Health) -> Arc<Topology> {
        let what = format!("{name} {}", health.as_str());
        self.wait(&what, |t| t.node(name).is_some_and(|n| n.health == health))
    }

    /// Waits until what is read by now leaves the primary: the catalogue was read, and every replica that is up is known to
    /// have it. Before that no batch is known to be a read, and none is sent again when its server is lost.
    #[track_caller]
    pub fn wait_proven(&self) {
        let session = self.session(SPLIT);
        let counted = "pgsluice_routed_total{reason=\"read\"}";
        let before = self.labelled_metric(counted);
        wait_until("a read leaves", || {
            session.sql(PROVEN);
            self.labelled_metric(counted) > before
        });
        let now = Moment::now();
        wait_until("all are fresh", || {
            let topology = self.topology.current();
            topology.replicas_up().all(|n| n.freshness.as_of() >= now)
        });
    }

    pub fn wait_primary(&self, name: &str) -> Arc<Topology> {
        let what = format!("{name} primary");
        self.wait(&what, |t| nodes::is_primary(t, name))
    }

    /// Forgets what the topology was so far.
    pub fn forget_history(&self) {
        self.history.lock().unwrap().clear();
    }

    /// Whether any snapshot since then satisfied `condition`.
    pub fn ever(&self, condition: impl Fn(&Topology) -> bool) -> bool {
        self.history.lock().unwrap().iter().any(|t| condition(t))
    }

    #[track_caller]
    pub fn session(&self, listener: usize) -> Session {
        Session::open(self.addresses[listener])
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        let (stop, control) = self.control.take().unwrap();
        let _ = stop.send(());
        let _ = control.join();
    }
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// None where the connection just ended.
    pub sqlstate: Option<String>,
    pub severity: String,
    pub text: String,
    pub hint: Option<String>,
}

impl Told {
    fn of(error: &Error) -> Told {
        match error.as_db_error() {
            Some(db) => Told {
                sqlstate: Some(db.code().code().to_owned()),
                severity: db.severity().to_owned(),
                text: db.message().to_owned(),
                hint: db.hint().map(str::to_owned),
            },
            None => Told {
                sqlstate: None,
                severity: "FATAL".to_owned(),
                text: error.to_string(),
                hint: None,
            },
        }
    }

    pub fn code(&self) -> &str {
        self.sqlstate.as_deref().unwrap_or("none")
    }

    pub fn is(&self, severity: &str, sqlstate: &str) -> bool {
        (self.severity.as_str(), self.code()) == (severity, sqlstate)
    }
}

type Answer = Result<String, Told>;

/// One client connection, on a thread of its own: an answer may be awaited while the test goes on.
pub struct Session {
    ask: channel::UnboundedSender<(String, mpsc::Sender<Answer>)>,
    /// How the connection ended, when it has.
    end: Arc<Mutex<Option<Option<Told>>>>,
}

/// An answer under way.
pub struct Pending(mpsc::Receiver<Answer>);

impl Pending {
    #[track_caller]
    pub fn wait(self) -> Answer {
        self.0.recv_timeout(PATIENCE).expect("no answer: it hangs")
    }

    /// The answer, if it is there.
    pub fn poll(&self) -> Option<Answer> {
        self.0.try_recv().ok()
    }
}

impl Session {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Session {
        Session::try_open(address).unwrap_or_else(|told| panic!("no session: {told:?}"))
    }

    /// Connects, as `app`.
    #[track_caller]
    pub fn try_open(address: SocketAddr) -> Result<Session, Told> {
        let (ask, asked) = channel::unbounded_channel();
        let (ready, opened) = mpsc::channel();
        let end = Arc::<Mutex<_>>::default();
        let ended = end.clone();
        std::thread::spawn(move || runtime().block_on(serve(address, asked, ready, ended)));
        opened
            .recv_timeout(PATIENCE)
            .expect("no answer to a login: it hangs")?;
        Ok(Session { ask, end })
    }

    /// Sends one simple Query.
    pub fn start(&self, sql: &str) -> Pending {
        let (answer, answered) = mpsc::channel();
        let _ = self.ask.send((sql.to_owned(), answer));
        Pending(answered)
    }

    /// The first column of the first row, or nothing.
    #[track_caller]
    pub fn try_sql(&self, sql: &str) -> Answer {
        self.start(sql).wait()
    }

    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|told| panic!("{sql}: {told:?}"))
    }

    /// 40001 for the transaction that was open, and the session goes on.
    #[track_caller]
    pub fn assert_rolled_back(&self) {
        let told = self.try_sql("select 1").unwrap_err();
        assert!(told.is("ERROR", "40001"), "{told:?}");
        let told = self.try_sql("select 1").unwrap_err();
        assert!(told.is("ERROR", "25P02"), "{told:?}");
        self.sql("rollback");
        assert_eq!(self.sql("select 1"), "1");
    }

    pub fn is_open(&self) -> bool {
        self.end.lock().unwrap().is_none()
    }

    /// Waits for the connection's end; what was told then, if nothing was asked.
    #[track_caller]
    pub fn wait_end(&self) -> Option<Told> {
        wait_until("the session ends", || !self.is_open());
        self.end.lock().unwrap().clone().unwrap()
    }
}

async fn serve(
    address: SocketAddr,
    mut asked: channel::UnboundedReceiver<(String, mpsc::Sender<Answer>)>,
    ready: mpsc::Sender<Result<(), Told>>,
    end: Arc<Mutex<Option<Option<Told>>>>,
) {
    let (host, port) = (address.ip(), address.port());
    let text = format!("host={host} port={port} user=app dbname=postgres");
    let client = match tokio_postgres::connect(&text, NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(async move {
                let told = connection.await.err().map(|error| Told::of(&error));
                *end.lock().unwrap() = Some(told);
            });
            client
        }
        Err(error) => return ready.send(Err(Told::of(&error))).unwrap(),
    };
    ready.send(Ok(())).unwrap();
    while let Some((sql, answer)) = asked.recv().await {
        let _ = answer.send(ask(&client, &sql).await);
    }
}

async fn ask(client: &Client, sql: &str) -> Answer {
    let messages = client.simple_query(sql).await.map_err(|e| Told::of(&e))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

/// Looks until it is so, with the one patience of all waits.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `server` runs `text` for somebody.
#[track_caller]
pub fn wait_running(server: &Server, text: &str) {
    wait_until("the statement runs", || is_running(server, text));
}

pub fn is_running(server: &Server, text: &str) -> bool {
    let sql = format!(
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() \
         and query like '%{text}%'"
    );
    server.sql(&sql) != "0"
}
