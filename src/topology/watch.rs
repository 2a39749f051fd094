//! Publication: how snapshots reach workers, and who owns the probes.
//!
//! The control runtime writes (probes, through [`Shared::observe`]), everybody else reads an `Arc<Topology>`. The lock
//! around the judge is only ever taken on the control side; a worker's read is one atomic load, or none with a
//! [`Watcher`], which keeps its own copy of the pointer. Probes end when the last [`Handle`] is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Cache};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    Demand, Reason, Topology,
    facts::Fact,
    judge::{Drained, Judge, NodeId, Rules},
    names::Names,
    probe::{self, Settings},
    source,
    state::{self, State},
};
use crate::{
    config::{self, Config},
    error::{Error, Kind, Result},
    metrics::Histogram,
};

mod lister;

use lister::Listed;
pub(super) use lister::Lister;

/// How a worker's server ended, or why it could not be had. It proves nothing: the node's probe looks at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The dial was refused.
    Refused,
    /// The connection ended without a word.
    Eof,
    /// FATAL 57P01: a shutdown, or `pg_terminate_backend`.
    Terminated,
    /// 57P02: another backend crashed, all restart.
    Crashed,
    /// 57P03: starting up, or shutting down.
    NotNow,
}

impl Evidence {
    /// From the SQLSTATE of a FATAL error; None where it says nothing about the node.
    pub fn from_sqlstate(sqlstate: &[u8]) -> Option<Self> {
        match sqlstate {
            b"57P01" => Some(Evidence::Terminated),
            b"57P02" => Some(Evidence::Crashed),
            b"57P03" => Some(Evidence::NotNow),
            _ => None,
        }
    }
}

/// Starts one probe per node on the current runtime, and publishes what they find.
///
/// At first all nodes are down ("unheard"), and number 1 is out.
///
/// # Errors
/// When the certificates of `[tls.server]` or the state file cannot be used. Nothing was started then.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn(config: &Config) -> Result<Handle> {
    let settings = Settings::new(config)?;
    let path = config.failover.state_file.as_ref();
    let state = path.map_or(Ok(None), |path| state::load(path))?;
    let listed = Listed {
        configured: Vec::new(),
        found: Vec::new(),
        names: Names::default(),
        rules: rules(config, &settings),
    };
    let mut judge = Judge::new(listed.rules, state);
    if source::is_configured(config) {
        judge.await_source();
    }
    let shared = Arc::new(Shared::new(judge));
    let keeper = path.map(|path| {
        let keep = state::keep(path.clone(), shared.clone(), shared.states.subscribe());
        Arc::new(Task(tokio::spawn(keep)))
    });
    let mut handle = Handle {
        shared,
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        listed: Arc::new(Mutex::new(listed)),
        probes: Arc::default(),
        unnamed: Arc::default(),
        _keeper: keeper,
        _sources: Vec::new(),
        runtime: tokio::runtime::Handle::current(),
    };
    handle.set_configured(config);
    let look_up = lister::look_up(handle.lister(), handle.unnamed.clone());
    handle._sources.push(Arc::new(Task(tokio::spawn(look_up))));
    if source::is_configured(config) {
        let follow = source::follow(config, handle.lister());
        handle._sources.push(Arc::new(Task(tokio::spawn(follow))));
    }
    Ok(handle)
}

fn rules(config: &Config, settings: &Settings) -> Rules {
    Rules {
        patience: settings.patience(),
        settle: config.failover.settle,
        trust_promotion: config.failover.trust_promotion,
        max_staleness: config.reads.max_staleness,
    }
}

/// The way to the snapshots; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    settings: Arc<ArcSwap<Settings>>,
    /// Locked before `probes`, and that before the judge.
    listed: Arc<Mutex<Listed>>,
    probes: Arc<Mutex<HashMap<NodeId, Probe>>>,
    /// There is a host name that was not looked up yet.
    unnamed: Arc<Notify>,
    /// Writes the state file while anybody has a handle.
    _keeper: Option<Arc<Task>>,
    /// Look host names up, and ask Patroni or repmgr's metadata, as long.
    _sources: Vec<Arc<Task>>,
    runtime: tokio::runtime::Handle,
}

impl Handle {
    /// The newest snapshot.
    pub fn current(&self) -> Arc<Topology> {
        self.shared.published.load_full()
    }

    /// A reader for one task or worker.
    pub fn watch(&self) -> Watcher {
        Watcher {
            cache: Cache::new(self.shared.published.clone()),
            numbers: self.shared.numbers.subscribe(),
        }
    }

    /// Waits until there is a snapshot with a number above `number`, and returns the newest.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&self, number: u64) -> Arc<Topology> {
        let mut numbers = self.shared.numbers.subscribe();
        // The sender lives in `shared`, which `self` holds: this cannot fail.
        let _ = numbers.wait_for(|newest| *newest > number).await;
        self.current()
    }

    /// Takes nodes and probe settings from a new configuration. Nodes that stay are not disturbed: their probes use
    /// another login or certificate from their next connection on (they dial once a second).
    ///
    /// # Errors
    /// When the certificates of `[tls.server]` cannot be used. Nothing was changed then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.settings.store(Arc::new(Settings::new(config)?));
        self.set_configured(config);
        Ok(())
    }

    /// Tells the node's probe to look now. Many reports at once cost one look.
    pub fn report(&self, node: &str, evidence: Evidence) {
        tracing::debug!(node, ?evidence, "a server ended");
        let probes = lock(&self.probes);
        let named = probes.values().filter(|probe| probe.name == node);
        named.for_each(|probe| probe.wake.notify_one());
    }

    /// Takes a replica out of rotation, or back in.
    pub fn drain(&self, node: &str, drains: bool) -> Drained {
        self.shared.drain(node, drains)
    }

    /// Where sessions say how fresh they need a replica to be.
    pub fn demand(&self) -> &Demand {
        &self.shared.demand
    }

    /// Round-trip times of each node's probes, by name.
    pub fn latencies(&self) -> Vec<(String, Arc<Histogram>)> {
        let probes = lock(&self.probes);
        let all = probes.values();
        all.map(|probe| (probe.name.clone(), probe.latency.clone()))
            .collect()
    }

    /// Where the remembered cluster is none of the nodes': the state file is another cluster's.
    ///
    /// # Errors
    /// When nodes have answered, and all of them are of another cluster.
    pub fn refuse_foreign_state(&self) -> Result<()> {
        let topology = self.current();
        let mut heard = topology.nodes.iter().filter(|n| n.system_id.is_some());
        let Some(first) = heard.clone().next() else {
            return Ok(());
        };
        if heard.any(|node| node.reason != Reason::ForeignSystem) {
            return Ok(());
        }
        let text = format!(
            "failover.state_file remembers another cluster than that of node {} (system identifier {}); if the nodes \
             are the right ones, remove that file, or name another",
            first.config.name,
            first.system_id.unwrap_or_default(),
        );
        Err(Error::proxy(Kind::Internal, text))
    }

    fn set_configured(&self, config: &Config) {
        let mut listed = lock(&self.listed);
        listed.configured = config.nodes.clone();
        listed.rules = rules(config, &self.settings.load());
        self.take_nodes(&listed);
    }

    /// Sets the nodes, and has new names looked up.
    fn take_nodes(&self, listed: &Listed) {
        self.set_nodes(listed);
        if listed.nodes().iter().any(|node| listed.names.is_open(node)) {
            self.unnamed.notify_one();
        }
    }

    fn set_nodes(&self, listed: &Listed) {
        let nodes = listed.nodes();
        let mut probes = lock(&self.probes);
        let ids = self.shared.set_nodes(&nodes, listed.rules);
        let mut old = std::mem::take(&mut *probes);
        for (id, node) in ids.into_iter().zip(&nodes) {
            match old.remove(&id) {
                Some(kept) => drop(probes.insert(id, kept)),
                // By its name it might reach one of several.
                None if listed.names.is_open(node) => {}
                None => drop(probes.insert(id, self.start_probe(id, node))),
            }
        }
    }

    fn start_probe(&self, id: NodeId, node: &config::Node) -> Probe {
        let wake = Arc::new(Notify::new());
        let latency = Arc::<Histogram>::default();
        let reporter = Reporter {
            node: id,
            shared: self.shared.clone(),
            latency: latency.clone(),
        };
        let run = probe::run(node.clone(), self.settings.clone(), wake.clone(), reporter);
        Probe {
            name: node.name.clone(),
            wake,
            latency,
            _task: Task(self.runtime.spawn(run)),
        }
    }
}

/// One task's view of the topology: reading costs a pointer comparison while nothing changes.
pub struct Watcher {
    cache: Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>,
    numbers: watch::Receiver<u64>,
}

impl Watcher {
    /// The newest snapshot.
    pub fn current(&mut self) -> &Arc<Topology> {
        self.cache.load()
    }

    /// Waits for a snapshot that was published since the last call (or since the watcher was made). Pends for ever once
    /// nobody can publish any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.numbers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A running probe; it ends with this.
struct Probe {
    name: String,
    wake: Arc<Notify>,
    latency: Arc<Histogram>,
    _task: Task,
}

/// A running task; it ends with this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a probe tells what it learned.
pub(super) struct Reporter {
    node: NodeId,
    shared: Arc<Shared>,
    latency: Arc<Histogram>,
}

impl Reporter {
    pub fn tell(&self, fact: Fact) {
        self.shared.observe(self.node, fact);
    }

    pub fn note_latency(&self, time: Duration) {
        self.latency.record(time);
    }

    /// Returns when sessions want the node looked at more often.
    pub async fn hurry(&self) {
        loop {
            self.shared.demand.raised().await;
            if self.must_hurry() {
                return;
            }
        }
    }

    /// Returns when the primary has said something that this replica is to be measured by, and sessions wait for it.
    pub async fn sampled(&self) {
        loop {
            self.shared.demand.sampled().await;
            if self.shared.must_follow(self.node) {
                return;
            }
        }
    }

    /// Whether sessions wait for this replica, or for what this primary says.
    pub fn must_hurry(&self) -> bool {
        self.shared.must_hurry(self.node)
    }
}

/// The judge and what it published.
pub(super) struct Shared {
    judge: Mutex<Judge>,
    /// What must outlive this process.
    states: watch::Sender<Option<State>>,
    published: Arc<ArcSwap<Topology>>,
    numbers: watch::Sender<u64>,
    demand: Demand,
}

impl Shared {
    fn new(judge: Judge) -> Self {
        Shared {
            states: watch::Sender::new(judge.state()),
            judge: Mutex::new(judge),
            published: Arc::default(),
            numbers: watch::Sender::new(0),
            demand: Demand::default(),
        }
    }

    fn observe(&self, node: NodeId, fact: Fact) {
        let mut judge = lock(&self.judge);
        let is_sample = fact.is_of_writer();
        if let Some(topology) = judge.observe(node, Instant::now(), fact) {
            self.publish(topology);
        }
        self.note_state(&judge);
        drop(judge);
        if is_sample {
            self.demand.note_sample();
        }
    }

    fn hear_source(&self, word: source::Word) {
        let mut judge = lock(&self.judge);
        if let Some(topology) = judge.hear_source(word, Instant::now()) {
            self.publish(topology);
        }
        self.note_state(&judge);
    }

    fn drain(&self, node: &str, drains: bool) -> Drained {
        let mut judge = lock(&self.judge);
        let (drained, topology) = judge.drain(node, drains, Instant::now());
        if let Some(topology) = topology {
            self.publish(topology);
        }
        drained
    }

    /// The state was written down, or could not be.
    pub fn note_saved(&self, saved: bool) {
        let mut judge = lock(&self.judge);
        if let Some(topology) = judge.note_saved(saved, Instant::now()) {
            self.publish(topology);
        }
    }

    /// Has the state written down if it is another than the last.
    fn note_state(&self, judge: &Judge) {
        self.states.send_if_modified(|last| {
            let state = judge.state();
            let news = state.is_some() && *last != state;
            if news {
                *last = state;
            }
            news
        });
    }

    fn must_follow(&self, node: NodeId) -> bool {
        let judge = lock(&self.judge);
        judge.waits_for_replica(node, |freshness| !self.demand.is_met_by(freshness))
    }

    fn must_hurry(&self, node: NodeId) -> bool {
        let judge = lock(&self.judge);
        judge.waits_for(node, |freshness| !self.demand.is_met_by(freshness))
    }

    fn set_nodes(&self, nodes: &[config::Node], rules: Rules) -> Vec<NodeId> {
        let mut judge = lock(&self.judge);
        judge.set_rules(rules);
        let (ids, topology) = judge.set_nodes(nodes, Instant::now());
        self.publish(topology);
        self.note_state(&judge);
        ids
    }

    /// Called with the judge locked, so that numbers only grow.
    fn publish(&self, topology: Topology) {
        let old = self.published.load();
        log_changes(&old, &topology);
        let number = topology.number;
        self.published.store(Arc::new(topology));
        self.numbers.send_replace(number);
    }
}

fn log_changes(old: &Topology, new: &Topology) {
    for node in &new.nodes {
        let name = &node.config.name;
        let before = old.node(name).map(|n| (n.role, n.health, n.reason));
        if before != Some((node.role, node.health, node.reason)) {
            let (role, health) = (node.role.as_str(), node.health.as_str());
            let (reason, timeline) = (node.reason.as_str(), node.timeline);
            tracing::info!(node = name, role, health, reason, timeline, "node changed");
        }
    }
    for alarm in new.alarms.iter().filter(|a| !old.alarms.contains(a)) {
        tracing::warn!(alarm = alarm.as_str(), help = alarm.help(), "alarm");
    }
    for alarm in old.alarms.iter().filter(|a| !new.alarms.contains(a)) {
        tracing::info!(alarm = alarm.as_str(), "alarm over");
    }
}

/// A poisoned lock is taken all the same: every holder leaves its value whole at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
