//! One worker: a thread with a current-thread runtime, and everything of the sessions that it was handed.
//!
//! Nothing of a session ever leaves its worker, so nothing of it needs a lock. What crosses threads comes as a
//! [`Message`] or through the pools' own channel; a snapshot of the topology is an `Arc`. A worker ends when it drains
//! and its last session has ended, or when it is told to.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicI32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::spawn_local,
};

use crate::{
    cancels::Cancels,
    catalogues::{self, Database},
    client::{self, Greeting, report},
    config::{Config, Listener},
    error::{Error, Kind, Severity, client_io},
    metrics::{Metrics, PUBLISH_INTERVAL, WorkerCounters},
    net::{Stream, tls::Connector},
    server::{
        budget::Budgets,
        cancel,
        pools::{Observer, PoolMessage, Pools, Settings},
    },
    session::{
        self, Admission,
        context::{self, Context, Outside},
        registry::Signal,
    },
    topology::{self, Evidence, Moment, NodeView, Topology},
    wire::cancel_key::CancelKey,
};

/// The coarse clock's step, and how often waiters are looked after.
const TICK: Duration = Duration::from_millis(20);
/// A session that keeps its server longer than this is logged.
const LONG_PIN: Duration = Duration::from_secs(300);
/// How often idle servers are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A CancelRequest that takes longer has failed.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener's connections need, as of the configuration in force.
pub struct Door {
    pub listener: Arc<Listener>,
    pub context: Arc<client::Context>,
    pub max_clients: usize,
}

/// What a connection may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    Session,
    /// There are `limits.max_clients` sessions: it may still cancel one of them.
    CancelOnly,
}

/// What a worker is told.
pub enum Message {
    Client(std::net::TcpStream, Arc<Door>, Seat, Welcome),
    /// A CancelRequest for a session here; `done` is dropped when it has been carried out.
    Cancel {
        session: u64,
        done: oneshot::Sender<()>,
    },
    /// Idle servers make way for CREATE, DROP or ALTER DATABASE.
    ClearDatabases,
    Reconfigure(Arc<Config>, Arc<Connector>),
    /// No transaction begins any more on this node, as it is now; says how many sessions keep a server there unused.
    Pause {
        node: Arc<NodeView>,
        idle: oneshot::Sender<usize>,
    },
    /// What was paused goes on.
    Resume,
    /// Sessions end as soon as no transaction is open.
    Drain,
    /// Sessions end now.
    End,
}

/// A connection's place in its worker's count: from its acceptance, whether it arrives or not, to its end.
pub struct Seat(Arc<AtomicUsize>);

impl Seat {
    pub fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Relaxed);
        Seat(clients.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What all workers share.
pub struct Common {
    pub budgets: Arc<Budgets>,
    pub cancels: Arc<Cancels>,
    pub topology: topology::Handle,
    pub catalogues: catalogues::Handle,
    pub metrics: Metrics,
    pub next_session: AtomicU64,
    pub next_pid: AtomicI32,
    pub contexts: context::Shared,
    pub workers: Vec<UnboundedSender<Message>>,
    pub pools: Vec<UnboundedSender<PoolMessage>>,
}

/// A worker's ends of its channels.
pub struct Inbox {
    pub messages: UnboundedReceiver<Message>,
    pub pools: UnboundedReceiver<PoolMessage>,
}

/// A running worker.
pub struct Worker {
    thread: Option<thread::JoinHandle<()>>,
    /// Connections that it has been handed and that have not ended.
    pub clients: Arc<AtomicUsize>,
    /// Number of the topology snapshot that its sessions go by.
    pub topology: Arc<AtomicU64>,
}

impl Worker {
    /// Starts the thread of worker `index`.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start(
        index: usize,
        inbox: Inbox,
        common: Arc<Common>,
        config: Arc<Config>,
        connector: Arc<Connector>,
    ) -> io::Result<Worker> {
        let clients = Arc::new(AtomicUsize::new(0));
        let topology = Arc::new(AtomicU64::new(0));
        let (counted, followed) = (clients.clone(), topology.clone());
        let runtime = Builder::new_current_thread();
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let mut runtime = runtime;
                match runtime.enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime.block_on(async move {
                        let local = Local::new(index, common, config, connector, counted);
                        local.serve(inbox, &followed).await;
                    }),
                    Err(error) => tracing::error!(%error, "a worker could not start"),
                }
            })?;
        Ok(Worker {
            thread: Some(thread),
            clients,
            topology,
        })
    }

    /// Waits for the thread's end; it must have been told to end.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked");
        }
    }
}

/// What lives on the worker's thread.
struct Local {
    common: Arc<Common>,
    context: Rc<Context>,
    clients: Arc<AtomicUsize>,
    index: usize,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    Draining,
}

impl Local {
    fn new(
        index: usize,
        common: Arc<Common>,
        config: Arc<Config>,
        connector: Arc<Connector>,
        clients: Arc<AtomicUsize>,
    ) -> Self {
        let counters = WorkerCounters::new(&common.metrics);
        let ear = Ear {
            index,
            common: common.clone(),
            counters: counters.clone(),
        };
        let settings = Settings {
            pool: config.pool.clone(),
            connector,
        };
        let pools = Pools::new(
            index,
            common.budgets.clone(),
            common.pools.clone(),
            settings,
            Box::new(ear.clone()),
        );
        let topology = common.topology.current();
        let context = Context::new(
            pools,
            topology,
            config,
            common.contexts.clone(),
            counters,
            Box::new(ear),
        );
        Local {
            common,
            context: Rc::new(context),
            clients,
            index,
            life: Life::Serving,
        }
    }

    async fn serve(mut self, mut inbox: Inbox, followed: &AtomicU64) {
        let mut topology = self.common.topology.watch();
        // What was published before there was a watcher would not be told again.
        self.follow(topology.current(), followed);
        let mut tick = tokio::time::interval(TICK);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut publish = tokio::time::interval(PUBLISH_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.life == Life::Serving || self.clients.load(Relaxed) > 0 {
            tokio::select! {
                Some(message) = inbox.messages.recv() => {
                    if let Message::End = message {
                        self.end_all().await;
                        break;
                    }
                    self.obey(message);
                }
                Some(message) = inbox.pools.recv() => self.context.pools.handle(message),
                () = topology.changed() => self.follow(topology.current(), followed),
                _ = tick.tick() => self.context.pools.tick(Instant::now()),
                _ = sweep.tick() => self.sweep(),
                _ = publish.tick() => self.context.counters.publish(),
            }
        }
        self.context.pools.close_all_idle();
        self.context.counters.publish();
    }

    fn sweep(&self) {
        self.context.pools.sweep();
        let (registry, now) = (&self.context.registry, Instant::now());
        registry.report_long_pins(LONG_PIN, now);
        registry.expire(&self.context.config.borrow().limits, now);
        registry.look_at_peers();
    }

    fn follow(&self, topology: &Arc<Topology>, followed: &AtomicU64) {
        self.context.set_topology(topology.clone());
        followed.store(topology.number, Release);
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Client(tcp, door, seat, welcome) => self.admit(tcp, door, seat, welcome),
            Message::Cancel { session, done } => self.cancel(session, done),
            Message::ClearDatabases => self.context.pools.close_all_idle(),
            Message::Reconfigure(config, connector) => {
                let pool = config.pool.clone();
                *self.context.config.borrow_mut() = config;
                self.context
                    .pools
                    .set_settings(Settings { pool, connector });
            }
            Message::Pause { node, idle } => {
                // Nobody waits for the count any more, if that fails.
                let _ = idle.send(self.context.pause(&node));
            }
            Message::Resume => self.context.resume(),
            Message::Drain => {
                self.life = Life::Draining;
                self.signal_all(Signal::Drain);
            }
            Message::End => {}
        }
    }

    fn signal_all(&self, signal: Signal) {
        self.context.registry.for_each(|entry| entry.send(signal));
    }

    /// Sessions are told, and get a moment to tell their clients.
    async fn end_all(&mut self) {
        self.signal_all(Signal::End);
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.context.registry.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn admit(&self, tcp: std::net::TcpStream, door: Arc<Door>, seat: Seat, welcome: Welcome) {
        let visit = self.visit(seat);
        let common = self.common.clone();
        let terms = Terms {
            welcome,
            draining: self.life == Life::Draining,
        };
        spawn_local(async move {
            // Boxed one after the other: the task is as small as its session.
            let greeted = Box::pin(greet(tcp, door, common, &visit, terms)).await;
            if let Some(admission) = greeted {
                session::start(admission).await;
            }
            drop(visit);
        });
    }

    fn visit(&self, seat: Seat) -> Visit {
        Visit {
            context: self.context.clone(),
            _seat: seat,
        }
    }

    fn cancel(&self, session: u64, done: oneshot::Sender<()>) {
        let Some(entry) = self.context.registry.find(session) else {
            return;
        };
        let Some(backend) = entry.backend() else {
            return entry.cancel_wait();
        };
        entry.note_cancel_sent();
        // From here on the server serves nobody else until the cancel has reached EOF.
        let cancelling = backend.begin_cancel();
        let connector = self.context.pools.settings().connector;
        let worker = self.index;
        spawn_local(async move {
            let deadline = tokio::time::Instant::now() + CANCEL_TIMEOUT;
            let target = &backend.target;
            let sent = cancel::cancel(target, &connector, backend.pid, &backend.key, deadline);
            if let Err(error) = sent.await {
                tracing::warn!(worker, %error, "a cancel request failed");
            }
            drop((cancelling, done));
        });
    }
}

/// On which terms a connection is let in.
#[derive(Debug, Clone, Copy)]
struct Terms {
    welcome: Welcome,
    draining: bool,
}

/// What a client beyond `limits.max_clients` is told.
pub fn too_many_clients(max_clients: usize) -> Error {
    Error::proxy(
        Kind::Full,
        format!("sorry, too many clients already: limits.max_clients is {max_clients}"),
    )
}

async fn turn_away(mut stream: Stream, max_clients: usize) {
    let mut out = Vec::new();
    let error = too_many_clients(max_clients);
    report::error_response(&mut out, &error, Some(Severity::Fatal));
    let told = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    // A client that does not read is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

/// Takes a connection through its login. None when it does not become a session.
async fn greet(
    tcp: std::net::TcpStream,
    door: Arc<Door>,
    common: Arc<Common>,
    visit: &Visit,
    terms: Terms,
) -> Option<Admission> {
    let counters = &visit.context.counters;
    let greeted = match TcpStream::from_std(tcp) {
        Ok(tcp) => client::greet(tcp, &door.context).await,
        Err(error) => Err(client_io(error)),
    };
    match greeted {
        Ok(Greeting::Session(login)) if terms.welcome == Welcome::CancelOnly => {
            counters.count_error(Kind::Full);
            turn_away(login.stream, door.max_clients).await;
            None
        }
        Ok(Greeting::Session(login)) => {
            counters.logins.one();
            Some(Admission {
                context: visit.context.clone(),
                listener: door.listener.clone(),
                login,
                id: common.next_session.fetch_add(1, Relaxed),
                draining: terms.draining,
            })
        }
        Ok(Greeting::Cancel { pid, key, stream }) => {
            common.forward_cancel(pid, &key).await;
            drop(stream);
            None
        }
        Err(error) => {
            counters.login_failures.one();
            tracing::info!(%error, "login failed");
            None
        }
    }
}

/// One connection on this worker, counted until it ends, however it ends.
struct Visit {
    context: Rc<Context>,
    _seat: Seat,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if thread::panicking() {
            self.context.counters.count_error(Kind::Internal);
        }
    }
}

impl Common {
    /// Pauses `node` on every worker; says how many of its servers are at work still.
    pub async fn pause(&self, node: &Arc<NodeView>) -> usize {
        // Before the idle ones are counted: what ends in between is counted as busy, never as idle.
        let taken = node.load.in_flight() as usize;
        let mut idle = 0;
        for worker in &self.workers {
            let (tell, told) = oneshot::channel();
            let node = node.clone();
            let message = Message::Pause { node, idle: tell };
            if worker.send(message).is_ok() {
                idle += told.await.unwrap_or(0);
            }
        }
        taken.saturating_sub(idle)
    }

    /// Sends a client's CancelRequest to the worker that has its session, and waits until it is carried out. A key that
    /// nobody was given is passed over in silence, as PostgreSQL does.
    async fn forward_cancel(&self, pid: i32, key: &CancelKey) {
        let Some((worker, session)) = self.cancels.find(pid, key) else {
            return;
        };
        let (done, carried_out) = oneshot::channel();
        let message = Message::Cancel { session, done };
        if self.workers[worker].send(message).is_ok() {
            let _ = carried_out.await;
        }
    }
}

/// What pools and sessions tell the world beyond their worker.
#[derive(Clone)]
struct Ear {
    index: usize,
    common: Arc<Common>,
    counters: Rc<WorkerCounters>,
}

impl Observer for Ear {
    fn dialled(&self, node: &str, outcome: Result<(), &Error>) {
        self.counters.server_dials.one();
        let Err(error) = outcome else {
            return;
        };
        self.counters.server_dial_failures.one();
        tracing::info!(node, %error, "could not open a server connection");
        match error.kind {
            Kind::ServerGone => self.common.topology.report(node, Evidence::Refused),
            Kind::NoNode => self.common.topology.report(node, Evidence::NotNow),
            _ => {}
        }
    }
}

impl Outside for Ear {
    fn database(&self, name: &str) -> Arc<Database> {
        self.common.catalogues.database(name)
    }

    fn clear_databases(&self) {
        for worker in &self.common.workers {
            // A worker that has ended has no idle servers.
            let _ = worker.send(Message::ClearDatabases);
        }
    }

    fn want_fresh(&self, as_of: Moment) {
        self.common.topology.demand().raise(as_of);
    }

    fn report(&self, node: &str, evidence: Evidence) {
        self.common.topology.report(node, evidence);
    }

    fn issue_key(&self, session: u64, pid: Option<i32>, minor: u16) -> (i32, CancelKey) {
        let pid = pid.unwrap_or_else(|| self.common.next_pid.fetch_add(1, Relaxed) & i32::MAX);
        let key = self.common.cancels.issue(pid, minor, (self.index, session));
        (pid, key)
    }

    fn revoke_key(&self, pid: i32, key: &CancelKey) {
        self.common.cancels.revoke(pid, key);
    }
}

/// A worker's channels.
pub fn channels() -> (
    UnboundedSender<Message>,
    UnboundedSender<PoolMessage>,
    Inbox,
) {
    let (tell, messages) = mpsc::unbounded_channel();
    let (give, pools) = mpsc::unbounded_channel();
    (tell, give, Inbox { messages, pools })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(config: &Config) -> Arc<Common> {
        let (topology, metrics) = (topology::spawn(config).unwrap(), Metrics::new());
        Arc::new(Common {
            budgets: Arc::new(Budgets::new(1)),
            cancels: Arc::default(),
            catalogues: catalogues::Handle::new(config, topology.clone(), metrics.clone()).unwrap(),
            topology,
            contexts: context::Shared::new(&metrics),
            metrics,
            next_session: AtomicU64::new(1),
            next_pid: AtomicI32::new(1),
            workers: Vec::new(),
            pools: Vec::new(),
        })
    }

    /// A worker without a thread, on the runtime that calls.
    fn local(clients: &Arc<AtomicUsize>) -> Local {
        let config = Arc::new(Config::default());
        let connector = Arc::new(Connector::new(&config.tls.server).unwrap());
        Local::new(0, common(&config), config, connector, clients.clone())
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn a_panic_ends_its_connection_alone_and_is_counted() {
        run(async {
            let clients = Arc::<AtomicUsize>::default();
            let local = local(&clients);
            let (broken, sound) = (Seat::take(&clients), Seat::take(&clients));
            let (broken, sound) = (local.visit(broken), local.visit(sound));
            let (told, hears) = oneshot::channel::<()>();
            let other = spawn_local(async move {
                let heard = hears.await;
                drop(sound);
                heard
            });
            let ended = spawn_local(async move {
                let _visit = broken;
                panic!("a bug");
            });
            assert!(ended.await.unwrap_err().is_panic());
            assert_eq!(clients.load(Relaxed), 1);
            told.send(()).unwrap();
            other.await.unwrap().unwrap();
            assert_eq!(clients.load(Relaxed), 0);
            local.context.counters.publish();
            let page = local.common.metrics.render();
            let counted = page.lines().any(|line| {
                line.starts_with("pgsluice_errors_total")
                    && line.contains("internal")
                    && line.ends_with(" 1")
            });
            assert!(counted, "{page}");
        });
    }

    #[test]
    fn a_connection_that_reaches_no_worker_is_not_counted_on() {
        let clients = Arc::<AtomicUsize>::default();
        let (tell, _, inbox) = channels();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        run(async {
            let config = Config::default();
            let listener = Arc::new(config.listeners[0].clone());
            let context = Arc::new(client::Context::new(&config, None, None));
            let door = Arc::new(Door {
                listener,
                context,
                max_clients: 1,
            });
            let message = Message::Client(tcp, door, Seat::take(&clients), Welcome::Session);
            assert!(tell.send(message).is_ok());
        });
        assert_eq!(clients.load(Relaxed), 1);
        drop(inbox);
        assert_eq!(clients.load(Relaxed), 0);
    }
}
