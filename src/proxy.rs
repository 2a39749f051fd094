//! One proxy: its sockets, workers, probes and HTTP, from build to drain. `run` and tests own one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicI32, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    admin::{self, Drained, Order, Paused, Phase},
    cancels::Cancels,
    catalogues,
    client::{self, report, verifier},
    config::{self, Config, Reload},
    error::{Error, Kind, Result, Severity},
    metrics::Metrics,
    net::{
        self, Target,
        tls::{Acceptor, Connector},
    },
    server::{budget::Budgets, pools},
    session::context,
    topology::{self, NodeView, Reason},
    worker::{Common, Door, Message, Seat, Welcome, Worker, channels, too_many_clients},
};

/// After an accept that failed (no file descriptors): let some close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a start waits for a primary.
const EXPLORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections beyond `limits.max_clients` that are read at all, so that a session can be cancelled even then.
const CANCEL_SEATS: usize = 50;
/// How long one look at a pause waits for transactions to end, and how often it looks.
const PAUSE_LOOK: Duration = Duration::from_secs(1);
const PAUSE_STEP: Duration = Duration::from_millis(5);
/// What operators may ask for at once; more are told to come again.
const MAX_ORDERS: usize = 16;
/// How often a drain looks whether all sessions have ended.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// A running proxy. Dropping it ends all sessions at once.
pub struct Proxy {
    config: Arc<Config>,
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
    doors: Vec<(SocketAddr, Arc<ArcSwap<Door>>)>,
    http: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    /// Acceptors and HTTP.
    tasks: JoinSet<()>,
    acceptors: watch::Sender<bool>,
    orders: mpsc::Receiver<Order>,
    /// Where HTTP puts them.
    order: mpsc::Sender<Order>,
}

/// What a configuration makes of certificates and keys.
struct Security {
    connector: Arc<Connector>,
    context: Arc<client::Context>,
}

impl Proxy {
    /// Binds every socket, then starts probes, workers and acceptors on the current runtime.
    ///
    /// # Errors
    /// An address that is taken, a certificate that cannot be used. Nothing is left running then.
    pub async fn start(config: Config) -> Result<Proxy> {
        let config = Arc::new(config);
        let sockets = bind_all(&config)?;
        let http = config.http.listen.map(listen).transpose()?;
        let topology = topology::spawn(&config)?;
        let security = secure(&config, &topology)?;
        let metrics = Metrics::new();
        let (common, workers) = start_workers(&config, &security, topology, metrics)?;
        let (order, orders) = mpsc::channel(MAX_ORDERS);
        let mut proxy = Proxy {
            config,
            common,
            workers: Arc::new(workers),
            doors: Vec::new(),
            http: None,
            phase: watch::Sender::new(Phase::Starting),
            tasks: JoinSet::new(),
            acceptors: watch::Sender::new(true),
            orders,
            order,
        };
        proxy.explore().await;
        proxy.common.topology.refuse_foreign_state()?;
        proxy.open(sockets, http, &security)?;
        Ok(proxy)
    }

    /// Gives the probes a moment to find the primary. Clients that come meanwhile wait in the listen queue: sooner, they
    /// would only be told that nobody can check their password.
    async fn explore(&self) {
        let topology = &self.common.topology;
        let found = async {
            let mut seen = topology.current();
            while seen.primary.is_none() {
                seen = topology.changed(seen.number).await;
            }
        };
        // Without a primary the proxy serves what there is.
        let _ = timeout(EXPLORE_TIMEOUT, found).await;
    }

    fn open(
        &mut self,
        sockets: Vec<TcpListener>,
        http: Option<TcpListener>,
        security: &Security,
    ) -> Result<()> {
        for (socket, listener) in sockets.into_iter().zip(&self.config.listeners) {
            let door = Arc::new(ArcSwap::from_pointee(Door {
                listener: Arc::new(listener.clone()),
                context: security.context.clone(),
                max_clients: self.config.limits.max_clients,
            }));
            let addr = socket.local_addr().map_err(|e| cannot("listen", e))?;
            self.doors.push((addr, door.clone()));
            let acceptor = Acceptance {
                socket,
                door,
                common: self.common.clone(),
                workers: self.workers.clone(),
            };
            self.tasks.spawn(acceptor.run(self.acceptors.subscribe()));
        }
        if let Some(socket) = http {
            self.http = socket.local_addr().ok();
            let state = admin::State {
                topology: self.common.topology.clone(),
                metrics: self.common.metrics.clone(),
                phase: self.phase.subscribe(),
                orders: self.order.clone(),
            };
            self.tasks
                .spawn(admin::http::serve(socket, state, std::future::pending()));
        }
        self.phase.send_replace(Phase::Serving);
        Ok(())
    }

    /// Where the listeners are, in the order of the configuration: the ports that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().map(|(addr, _)| *addr).collect()
    }

    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn metrics(&self) -> &Metrics {
        &self.common.metrics
    }

    pub fn topology(&self) -> &topology::Handle {
        &self.common.topology
    }

    /// Number of the oldest snapshot that a worker's sessions still go by: every worker knows what was published up to it.
    pub fn topology_in_force(&self) -> u64 {
        let followed = self.workers.iter().map(|w| w.topology.load(Acquire));
        followed.min().unwrap_or(0)
    }

    /// Sessions and logins under way.
    pub fn clients(&self) -> usize {
        self.workers.iter().map(|w| w.clients.load(Relaxed)).sum()
    }

    /// Takes over what can be taken over without a restart; says what was, and what was not.
    ///
    /// # Errors
    /// A certificate that cannot be used. Nothing was changed then.
    pub fn reload(&mut self, new: Config) -> Result<Reload> {
        let difference = config::diff(&self.config, &new);
        let new = Arc::new(new);
        let security = secure(&new, &self.common.topology)?;
        self.common.topology.reload(&new)?;
        self.common.catalogues.reload(&new)?;
        for (_, door) in &self.doors {
            // By its own address: the file may name listeners in another order than at the start, or fewer.
            let old = door.load().listener.clone();
            let kept = new.listeners.iter().find(|l| l.listen == old.listen);
            door.store(Arc::new(Door {
                listener: kept.map_or(old, |listener| Arc::new(listener.clone())),
                context: security.context.clone(),
                max_clients: new.limits.max_clients,
            }));
        }
        for worker in &self.common.workers {
            let message = Message::Reconfigure(new.clone(), security.connector.clone());
            // A worker that has ended needs no configuration.
            let _ = worker.send(message);
        }
        self.config = new;
        Ok(difference)
    }

    /// The next thing that an operator asks for over HTTP.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn ordered(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// From now on no transaction begins on the primary, if it is that of the generation `of`, until another is, or
    /// [`Proxy::resume`]. Those that are open may end: it returns when they have, or says after a moment how many have not.
    /// The future needs no proxy: other things may be done meanwhile.
    pub fn pause(&self, of: Option<u64>) -> impl Future<Output = Paused> + Send + use<> {
        let (common, workers) = (self.common.clone(), self.workers.clone());
        let grace = self.config.failover.grace;
        async move {
            let deadline = Instant::now() + PAUSE_LOOK.min(grace);
            let topology = common.topology.current();
            let meant = |node: &&Arc<NodeView>| of.is_none_or(|of| of == node.generation);
            let Some(node) = topology.primary().filter(meant) else {
                return Paused::NoPrimary;
            };
            loop {
                let mut busy = common.pause(node).await;
                if workers
                    .iter()
                    .any(|w| w.topology.load(Acquire) < topology.number)
                {
                    // That worker's sessions do not know this primary yet.
                    busy = busy.max(1);
                }
                if busy == 0 || Instant::now() >= deadline {
                    let (node, generation) = (node.config.name.clone(), node.generation);
                    return Paused::Done {
                        node,
                        generation,
                        busy,
                        grace,
                    };
                }
                sleep(PAUSE_STEP).await;
            }
        }
    }

    /// What waits because of [`Proxy::pause`] goes on.
    pub fn resume(&self) {
        self.tell_all(|| Message::Resume);
    }

    /// Takes a replica out of rotation for maintenance, or back in: its idle servers close, and sessions leave at the end of
    /// their transactions.
    pub fn drain_node(&self, node: &str, drains: bool) -> Drained {
        let grace = self.config.failover.grace;
        let topology = &self.common.topology;
        match topology.drain(node, drains) {
            topology::Drained::IsPrimary => return Drained::IsPrimary,
            topology::Drained::UnknownNode => return Drained::UnknownNode,
            topology::Drained::Done => {}
        }
        let current = topology.current();
        let in_flight = current.node(node).map_or(0, |it| it.load.in_flight());
        let told = |w: &Worker| w.topology.load(Acquire) >= current.number;
        // A worker that does not know yet may take another.
        let unknowing = !self.workers.iter().all(told);
        let busy = in_flight.max(u32::from(unknowing)) as usize;
        Drained::Done { busy, grace }
    }

    /// Stops accepting; sessions end as soon as no transaction is open, and after `limits.drain_timeout` all of them.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the proxy draining.
    pub async fn drain(&mut self) {
        self.phase.send_replace(Phase::Draining);
        self.acceptors.send_replace(false);
        self.tell_all(|| Message::Drain);
        let deadline = Instant::now() + self.config.limits.drain_timeout;
        while self.clients() > 0 && Instant::now() < deadline {
            sleep(DRAIN_STEP).await;
        }
    }

    /// Ends what is left, and waits for the workers.
    pub fn end(self) {
        drop(self);
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        for worker in &self.common.workers {
            let _ = worker.send(message());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.tell_all(|| Message::End);
        // Acceptors share the workers until their abort has been carried out; threads end by themselves then.
        if let Some(workers) = Arc::get_mut(&mut self.workers) {
            workers.iter_mut().for_each(Worker::join);
        }
    }
}

fn cannot(what: &str, error: impl std::fmt::Display) -> Error {
    Error::proxy(Kind::Internal, format!("cannot {what}: {error}"))
}

fn bind_all(config: &Config) -> Result<Vec<TcpListener>> {
    config
        .listeners
        .iter()
        .map(|listener| listen(listener.listen))
        .collect()
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    net::bind(addr)
        .and_then(TcpListener::from_std)
        .map_err(|error| cannot("start", error))
}

fn secure(config: &Config, topology: &topology::Handle) -> Result<Security> {
    let tls = |error: net::tls::TlsError| cannot("use the certificates", error);
    let connector = Connector::new(&config.tls.server).map_err(tls)?;
    let acceptor = Acceptor::new(&config.tls.client, config.auth.method).map_err(tls)?;
    let asked = topology.clone();
    let nodes = Box::new(move || nodes_to_ask(&asked));
    let known = any_node_known(topology.watch());
    let lookup = verifier::start(&config.auth, connector.clone(), nodes, known);
    Ok(Security {
        connector: Arc::new(connector),
        context: Arc::new(client::Context::new(config, acceptor, lookup)),
    })
}

/// Waits until a node is up, or of each it is known why it is not.
async fn any_node_known(mut topology: topology::Watcher) {
    let is_open = |node: &NodeView| matches!(node.reason, Reason::Unheard | Reason::Settling);
    loop {
        let nodes = &topology.current().nodes;
        if nodes.iter().any(|node| node.is_up()) || !nodes.iter().any(|node| is_open(node)) {
            return;
        }
        topology.changed().await;
    }
}

/// The primary first, then every other node that is up.
fn nodes_to_ask(topology: &topology::Handle) -> Vec<Target> {
    let topology = topology.current();
    let primary = topology.primary.and_then(|i| topology.nodes.get(i));
    let others = topology.nodes.iter().filter(|node| node.is_up());
    let mut targets: Vec<Target> = Vec::new();
    for node in primary.into_iter().chain(others) {
        let target = pools::target(&node.config);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

fn start_workers(
    config: &Arc<Config>,
    security: &Security,
    topology: topology::Handle,
    metrics: Metrics,
) -> Result<(Arc<Common>, Vec<Worker>)> {
    let ends: Vec<_> = (0..config.workers).map(|_| channels()).collect();
    let mut first_pid = [0; 2];
    getrandom::fill(&mut first_pid).map_err(|e| cannot("get random numbers", e))?;
    let catalogues = catalogues::Handle::new(config, topology.clone(), metrics.clone())?;
    let contexts = context::Shared::new(&metrics);
    let common = Arc::new(Common {
        budgets: Arc::new(Budgets::new(config.workers)),
        cancels: Arc::new(Cancels::default()),
        topology,
        catalogues,
        metrics,
        next_session: AtomicU64::new(1),
        next_pid: AtomicI32::new(1 + i32::from(u16::from_be_bytes(first_pid)) * 1024),
        contexts,
        workers: ends.iter().map(|(tell, ..)| tell.clone()).collect(),
        pools: ends.iter().map(|(_, give, _)| give.clone()).collect(),
    });
    let workers = ends
        .into_iter()
        .enumerate()
        .map(|(index, (.., inbox))| {
            let connector = security.connector.clone();
            Worker::start(index, inbox, common.clone(), config.clone(), connector)
        })
        .collect::<std::io::Result<_>>()
        .map_err(|error| cannot("start a worker", error))?;
    Ok((common, workers))
}

/// One listener's accepting.
struct Acceptance {
    socket: TcpListener,
    door: Arc<ArcSwap<Door>>,
    common: Arc<Common>,
    workers: Arc<Vec<Worker>>,
}

impl Acceptance {
    async fn run(self, mut open: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                // The sender lives as long as the proxy; without it there is nothing to accept for.
                _ = open.changed() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((tcp, _)) => self.hand_out(tcp),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// To the worker with the fewest connections.
    fn hand_out(&self, tcp: tokio::net::TcpStream) {
        let counts = self.workers.iter().map(|w| w.clients.load(Relaxed));
        let total: usize = counts.clone().sum();
        let Some((index, _)) = counts.enumerate().min_by_key(|(_, clients)| *clients) else {
            return;
        };
        let door = self.door.load_full();
        if total >= door.max_clients + CANCEL_SEATS {
            return refuse(&tcp, door.max_clients);
        }
        let welcome = match total < door.max_clients {
            true => Welcome::Session,
            false => Welcome::CancelOnly,
        };
        // A socket that cannot be moved is closed; its client sees that.
        let Ok(tcp) = tcp.into_std() else {
            return;
        };
        let seat = Seat::take(&self.workers[index].clients);
        let message = Message::Client(tcp, door, seat, welcome);
        // A worker that has ended drops it, and its seat.
        let _ = self.common.workers[index].send(message);
    }
}

/// Says 53300 without waiting for anything.
fn refuse(tcp: &tokio::net::TcpStream, max_clients: usize) {
    let error = too_many_clients(max_clients);
    let mut out = Vec::new();
    report::error_response(&mut out, &error, Some(Severity::Fatal));
    let _ = tcp.try_write(&out);
}
