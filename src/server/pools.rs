//! All pools of one worker, and what they share: the clock, the configuration, the other workers.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::mpsc::UnboundedSender};

use super::{
    budget::{Budget, Budgets, Exhausted, MAX_LEAD, Permit},
    connection::{Backend, Open, Parameters, Server},
    dial::{self, Dialed, ServerLogin},
    pool::Pool,
    profile::{Access, Profile},
    statements::Statements,
};
use crate::{
    config,
    error::{Error, Kind},
    net::{Stream, Target, tls::Connector},
    topology::{Moment, NodeView, Topology},
    wire::{cancel_key::CancelKey, pipeline::Pipeline},
};

/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker with waiters asks the others no more often.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// What workers say to each other about servers.
#[derive(Debug)]
pub enum PoolMessage {
    /// A server that is yours now.
    Adopt(Box<Parcel>),
    /// This worker has waiters and no place: give an idle server, or make a place.
    Wanted {
        worker: usize,
        node: String,
        profile: Arc<Profile>,
        /// The limit that stands in the way.
        limit: Exhausted,
    },
}

/// A server on its way to another worker.
#[derive(Debug)]
pub struct Parcel {
    profile: Arc<Profile>,
    tcp: std::net::TcpStream,
    target: Arc<Target>,
    pid: i32,
    key: CancelKey,
    statements: Statements,
    parameters: Parameters,
    settings: Vec<(Box<str>, Box<[u8]>)>,
    generation: u64,
    last_session: u64,
    tenure: u64,
    born: Instant,
    fresh: Moment,
    permit: Permit,
}

/// What is told upwards about dials; the worker counts them and tells the topology.
pub trait Observer {
    fn dialled(&self, node: &str, outcome: Result<(), &Error>);
}

/// What pools of one worker need from it.
pub struct Shared {
    pub(super) worker: usize,
    budgets: Arc<Budgets>,
    peers: Vec<UnboundedSender<PoolMessage>>,
    settings: RefCell<Settings>,
    now: Cell<Instant>,
    observer: Box<dyn Observer>,
    map: RefCell<HashMap<Arc<Profile>, Vec<Rc<Pool>>>>,
    /// What servers said at their logins, each once: a session that goes from one to the other compares pointers.
    welcomes: RefCell<Vec<Weak<Parameters>>>,
    /// Of all open servers.
    backends: RefCell<Vec<Weak<Backend>>>,
}

impl Shared {
    /// The worker has one server more.
    pub(super) fn note_backend(&self, backend: &Rc<Backend>) {
        let mut backends = self.backends.borrow_mut();
        backends.retain(|known| known.strong_count() > 0);
        backends.push(Rc::downgrade(backend));
    }
}

/// What a reload may change.
#[derive(Clone)]
pub struct Settings {
    pub pool: config::Pool,
    pub connector: Arc<Connector>,
}

/// A server that has just logged in, before it has a place in a pool.
pub(super) struct Fresh {
    dialed: Dialed,
    target: Arc<Target>,
    now: Instant,
}

impl Fresh {
    pub(super) fn into_server(self, generation: u64, open: Open, permit: Permit) -> Box<Server> {
        let parameters = self
            .dialed
            .parameters
            .into_iter()
            .filter(|(name, _)| !Parameters::is_of_node(name))
            .collect();
        Box::new(Server {
            stream: self.dialed.stream,
            backend: Rc::new(Backend::new(self.target, self.dialed.pid, self.dialed.key)),
            pipeline: Pipeline::default(),
            statements: Statements::default(),
            parameters: Rc::new(Parameters(parameters)),
            settings: super::settings::Settings::default(),
            generation,
            last_session: 0,
            tenure: 0,
            asked: self.now,
            born: self.now,
            fresh: Moment::NEVER,
            idle_since: self.now,
            busy: None,
            _open: open,
            permit,
        })
    }
}

impl Shared {
    /// The same parameters, as all servers and sessions of the worker share them.
    pub(super) fn intern(&self, parameters: &Rc<Parameters>) -> Rc<Parameters> {
        let mut welcomes = self.welcomes.borrow_mut();
        welcomes.retain(|known| known.strong_count() > 0);
        let mut alive = welcomes.iter().filter_map(Weak::upgrade);
        if let Some(known) = alive.find(|known| known == parameters) {
            return known;
        }
        drop(alive);
        welcomes.push(Rc::downgrade(parameters));
        parameters.clone()
    }

    /// The worker's coarse clock: as of its last tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn max_backoff(&self) -> Duration {
        self.settings.borrow().pool.login_backoff
    }

    pub(super) fn checkout_timeout(&self) -> Duration {
        self.settings.borrow().pool.checkout_timeout
    }

    pub(super) fn budget(&self, view: &NodeView, profile: &Profile) -> Arc<Budget> {
        let size = self.settings.borrow().pool.size;
        let node = (view.config.name.as_str(), view.config.max_servers);
        self.budgets
            .budget(node, &profile.database, &profile.user, size)
    }

    pub(super) fn is_worn(&self, server: &Server) -> bool {
        self.now().duration_since(server.born) >= self.settings.borrow().pool.lifetime
    }

    pub(super) async fn dial(&self, view: &NodeView, profile: &Profile) -> Result<Fresh, Error> {
        let connector = self.settings.borrow().connector.clone();
        let target = Arc::new(target(&view.config));
        let login = server_login(profile);
        let deadline = tokio::time::Instant::now() + DIAL_TIMEOUT;
        let dialed = dial::dial(&target, &connector, &login, deadline).await?;
        // Mostly its FATAL: it was shut down while we logged in. Another dial will tell.
        if !dialed.unread.is_empty() {
            return Err(Error::server(
                Kind::ServerGone,
                &target.name,
                "the server spoke after its login",
            ));
        }
        self.observer.dialled(&target.name, Ok(()));
        let now = self.now();
        Ok(Fresh {
            dialed,
            target,
            now,
        })
    }

    pub(super) fn dial_failed(&self, view: &NodeView, error: &Error) {
        self.observer.dialled(&view.config.name, Err(error));
    }

    /// Closes an idle server that stands in the way of `wanting`. False if there is none here.
    pub(super) fn evict_for(&self, wanting: &Pool, exhausted: Exhausted) -> bool {
        let victim = self
            .map
            .borrow()
            .values()
            .flatten()
            .filter(|pool| shares_limit(pool, wanting, exhausted))
            .find_map(|pool| pool.take_idle());
        let found = victim.is_some();
        if let Some(server) = victim {
            server.close();
        }
        found
    }

    /// Tells the other workers since when someone here waits for a server under `budget`.
    pub(super) fn publish_oldest(&self, budget: &Arc<Budget>) {
        let map = self.map.borrow();
        let pools = map.values().flatten();
        let sharing = pools.filter(|pool| Arc::ptr_eq(&pool.budget, budget));
        budget.set_oldest(self.worker, sharing.filter_map(|pool| pool.oldest()).min());
    }

    /// The pool whose waiters have waited for so much longer than those of `pool` (since `own`) that a server of
    /// `pool` must make way for one of theirs.
    pub(super) fn starving(&self, pool: &Pool, own: Instant) -> Option<Rc<Pool>> {
        let waits_longer = |other: &Pool| other.oldest().is_some_and(|t| t + MAX_LEAD < own);
        let map = self.map.borrow();
        let mut others = map.values().flatten().filter(|other| waits_longer(other));
        let found = others.find(|other| {
            let limit = other.budget.exhausted();
            limit.is_some_and(|limit| shares_limit(pool, other, limit))
        });
        found.cloned()
    }

    /// Lets the pools under `budget` dial, if they have waiters and there is a place.
    pub(super) fn supply_under(&self, budget: &Arc<Budget>) {
        let map = self.map.borrow();
        let pools = map.values().flatten();
        let sharing = pools.filter(|pool| Arc::ptr_eq(&pool.budget, budget));
        let sharing: Vec<_> = sharing.cloned().collect();
        drop(map);
        sharing.iter().for_each(Pool::supply);
    }

    /// Asks the other workers that hold servers under the same limits for one.
    pub(super) fn ask_peers(&self, wanting: &Pool, limit: Exhausted) {
        let now = self.now();
        if now.duration_since(wanting.asked.get()) < ASK_INTERVAL {
            return;
        }
        wanting.asked.set(now);
        for peer in (0..self.peers.len()).filter(|&peer| peer != self.worker) {
            // A peer that has ended needs no asking.
            let _ = self.peers[peer].send(PoolMessage::Wanted {
                worker: self.worker,
                node: wanting.view().config.name.clone(),
                profile: wanting.profile.clone(),
                limit,
            });
        }
    }

    /// Sends a server to another worker.
    ///
    /// # Errors
    /// The server itself, when it cannot be moved (TLS state is bound to its runtime).
    pub(super) fn hand_over(
        &self,
        worker: usize,
        profile: &Arc<Profile>,
        mut server: Box<Server>,
    ) -> Result<(), Box<Server>> {
        let tcp = match server.stream {
            Stream::Plain(tcp) => tcp,
            kept => {
                server.stream = kept;
                return Err(server);
            }
        };
        // A socket that cannot be deregistered is of no use to either.
        let Ok(tcp) = tcp.into_std() else {
            return Ok(());
        };
        server.permit.move_to(worker);
        let parcel = Parcel {
            profile: profile.clone(),
            tcp,
            target: server.backend.target.clone(),
            pid: server.backend.pid,
            key: server.backend.key.clone(),
            statements: server.statements,
            parameters: (*server.parameters).clone(),
            settings: server
                .settings
                .iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
            generation: server.generation,
            last_session: server.last_session,
            tenure: server.tenure,
            born: server.born,
            fresh: server.fresh,
            permit: server.permit,
        };
        // If the worker has ended, the parcel and its permit are dropped.
        let _ = self.peers[worker].send(PoolMessage::Adopt(Box::new(parcel)));
        Ok(())
    }
}

/// The address of a node as one dials it.
pub fn target(node: &config::Node) -> Target {
    Target {
        name: node.name.clone(),
        host: node.host.clone(),
        address: node.address,
        port: node.port,
    }
}

fn server_login(profile: &Profile) -> ServerLogin {
    let mut parameters = profile.parameters.clone();
    if profile.access == Access::ReadOnly {
        let name = "default_transaction_read_only";
        parameters.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        parameters.push((name.into(), "on".into()));
    }
    ServerLogin {
        user: profile.user.clone(),
        database: profile.database.clone(),
        parameters,
        credentials: profile.credentials.clone(),
        replication: None,
    }
}

fn shares_limit(pool: &Pool, wanting: &Pool, exhausted: Exhausted) -> bool {
    !std::ptr::eq(pool, wanting)
        && match exhausted {
            Exhausted::Pool { .. } => Arc::ptr_eq(&pool.budget, &wanting.budget),
            Exhausted::Node { .. } => pool.view().config.name == wanting.view().config.name,
        }
}

/// All pools of one worker.
#[derive(Clone)]
pub struct Pools {
    shared: Rc<Shared>,
}

impl Pools {
    pub fn new(
        worker: usize,
        budgets: Arc<Budgets>,
        peers: Vec<UnboundedSender<PoolMessage>>,
        settings: Settings,
        observer: Box<dyn Observer>,
    ) -> Self {
        let now = Instant::now();
        let shared = Rc::new(Shared {
            worker,
            budgets,
            peers,
            settings: RefCell::new(settings),
            now: Cell::new(now),
            observer,
            map: RefCell::default(),
            welcomes: RefCell::default(),
            backends: RefCell::default(),
        });
        Pools { shared }
    }

    pub fn now(&self) -> Instant {
        self.shared.now()
    }

    /// What the session was told as its pid that last used the server which is known by `pid` on the node of `asking`: who sent
    /// a notification. None for a server of another worker, or of none.
    pub fn sender(&self, asking: &Backend, pid: i32) -> Option<i32> {
        let backends = self.shared.backends.borrow();
        let mut open = backends.iter().filter_map(Weak::upgrade);
        open.find_map(|backend| backend.user_of(asking, pid))
    }

    pub fn settings(&self) -> Settings {
        self.shared.settings.borrow().clone()
    }

    /// The same parameters, as all servers and sessions of the worker share them.
    pub fn share(&self, parameters: &Rc<Parameters>) -> Rc<Parameters> {
        self.shared.intern(parameters)
    }

    /// One `Arc` for all equal profiles of this worker, so that sessions share it.
    pub fn intern(&self, profile: Profile) -> Arc<Profile> {
        let mut map = self.shared.map.borrow_mut();
        match map.get_key_value(&profile) {
            Some((known, _)) => known.clone(),
            None => {
                let profile = Arc::new(profile);
                map.insert(profile.clone(), Vec::new());
                profile
            }
        }
    }

    /// The pool of `profile` on the node, made at first need.
    pub fn pool(&self, profile: &Arc<Profile>, view: &Arc<NodeView>) -> Rc<Pool> {
        let mut map = self.shared.map.borrow_mut();
        let pools = map.entry(profile.clone()).or_default();
        let known = pools
            .iter()
            .find(|pool| pool.view().config.name == view.config.name);
        match known {
            Some(pool) => pool.clone(),
            None => {
                let pool = Pool::new(self.shared.clone(), profile.clone(), view.clone());
                pools.push(pool.clone());
                pool
            }
        }
    }

    /// Every worker calls this with what others send it.
    pub fn handle(&self, message: PoolMessage) {
        match message {
            PoolMessage::Adopt(parcel) => self.adopt(*parcel),
            PoolMessage::Wanted {
                worker,
                node,
                profile,
                limit,
            } => self.spare(worker, &node, &profile, limit),
        }
    }

    fn adopt(&self, parcel: Parcel) {
        let budget = parcel.permit.budget().clone();
        let pool = self.find(&parcel.profile, &parcel.target.name);
        let (Some(pool), Ok(tcp)) = (pool, TcpStream::from_std(parcel.tcp)) else {
            // Nobody here has use for it; a pool of other startup parameters can dial in its place.
            drop(parcel.permit);
            return self.shared.supply_under(&budget);
        };
        let backend = Backend::new(parcel.target, parcel.pid, parcel.key);
        let settings = parcel.settings.iter().map(|(n, v)| (&**n, Some(&**v)));
        // A server that had them has no more than may be had.
        let settings = super::settings::Settings::default()
            .with(settings)
            .unwrap_or_default();
        pool.adopt(|open| {
            Box::new(Server {
                stream: Stream::Plain(tcp),
                backend: Rc::new(backend),
                pipeline: Pipeline::default(),
                statements: parcel.statements,
                parameters: Rc::new(parcel.parameters),
                settings,
                generation: parcel.generation,
                last_session: parcel.last_session,
                tenure: parcel.tenure,
                asked: self.now(),
                born: parcel.born,
                fresh: parcel.fresh,
                idle_since: self.now(),
                busy: None,
                _open: open,
                permit: parcel.permit,
            })
        });
    }

    /// Another worker wants a server: an idle one of the same pool moves, one under the same limits is closed.
    fn spare(&self, worker: usize, node: &str, profile: &Arc<Profile>, limit: Exhausted) {
        let Some(pool) = self.find(profile, node) else {
            return self.evict_on(node, profile, limit);
        };
        let Some(server) = pool.take_idle() else {
            return self.evict_on(node, profile, limit);
        };
        if let Err(server) = self.shared.hand_over(worker, profile, server) {
            server.close();
        }
    }

    fn find(&self, profile: &Arc<Profile>, node: &str) -> Option<Rc<Pool>> {
        let map = self.shared.map.borrow();
        let mut pools = map.get(profile)?.iter();
        pools.find(|p| p.view().config.name == node).cloned()
    }

    fn evict_on(&self, node: &str, profile: &Profile, limit: Exhausted) {
        let is_under = |other: &Profile| match limit {
            Exhausted::Pool { .. } => {
                other.database == profile.database && other.user == profile.user
            }
            Exhausted::Node { .. } => true,
        };
        let victim = self
            .shared
            .map
            .borrow()
            .iter()
            .filter(|(other, _)| is_under(other))
            .flat_map(|(_, pools)| pools)
            .filter(|pool| pool.view().config.name == node)
            .find_map(|pool| pool.take_idle());
        if let Some(server) = victim {
            server.close();
        }
    }

    fn all(&self) -> Vec<Rc<Pool>> {
        self.shared
            .map
            .borrow()
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// Called every few milliseconds: moves the coarse clock on, fails waiters that waited too long.
    pub fn tick(&self, now: Instant) {
        self.shared.now.set(now);
        for pool in self.all() {
            pool.tick();
        }
    }

    /// Called about every second: closes servers idle for too long, forgets pools that nobody uses.
    pub fn sweep(&self) {
        let idle_timeout = self.shared.settings.borrow().pool.idle_timeout;
        for pool in self.all() {
            pool.sweep(idle_timeout);
        }
        let mut map = self.shared.map.borrow_mut();
        for pools in map.values_mut() {
            pools.retain(|pool| Rc::strong_count(pool) > 1 || !pool.is_empty());
        }
        map.retain(|profile, pools| Arc::strong_count(profile) > 1 || !pools.is_empty());
    }

    /// A newer snapshot: servers of left generations go, waiters of nodes that take no sessions choose again.
    pub fn set_topology(&self, topology: &Topology) {
        for pool in self.all() {
            let name = pool.view().config.name.clone();
            match topology.nodes.iter().find(|n| n.config.name == name) {
                Some(view) => pool.set_view(view.clone()),
                None => pool.retire(),
            }
        }
    }

    /// Sessions that wait for a server of `node` choose again.
    pub fn reroute_waiters(&self, node: &str) {
        let all = self.all().into_iter();
        all.filter(|pool| pool.view().config.name == node)
            .for_each(|pool| pool.reroute_waiters());
    }

    pub fn set_settings(&self, settings: Settings) {
        *self.shared.settings.borrow_mut() = settings;
        for pool in self.all() {
            self.shared.budget(&pool.view(), &pool.profile);
        }
    }

    /// Closes every idle server: at the end, and to make way for CREATE, DROP and ALTER DATABASE.
    pub fn close_all_idle(&self) {
        for pool in self.all() {
            while let Some(server) = pool.take_idle() {
                server.close();
            }
        }
    }
}
