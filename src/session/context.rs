//! What all sessions of one worker share, and what all sessions of one login share.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, futures::Notified};

use super::{
    aim::{Aim, Need},
    blocks::Blocks,
    held::Held,
    learned::Learned,
    registry::Registry,
    schema::SchemaEpoch,
    shapes::Shapes,
    texts::Texts,
};
use crate::{
    catalogues::Database,
    config::{Config, Listener, PrimaryReads, Reads, Route},
    metrics::{Metrics, WorkerCounters},
    server::{
        connection::Parameters,
        pool::Pool,
        pools::Pools,
        profile::{Access, Profile},
        settings::{APPLICATION_NAME, Settings},
    },
    topology::{
        Evidence, Moment, NodeView, Role, Topology,
        balance::{self, Draw},
    },
    wire::cancel_key::CancelKey,
};

/// A worker's belongings, as its sessions see them.
pub struct Context {
    pub pools: Pools,
    pub registry: Registry,
    pub blocks: Blocks,
    /// Texts of prepared statements.
    pub texts: Texts,
    /// Statements by their shapes.
    pub shapes: Shapes,
    pub schema: SchemaEpoch,
    /// Of reads on replicas.
    pub learned: Learned,
    pub counters: Rc<WorkerCounters>,
    identities: RefCell<HashMap<IdentityKey, Weak<Identity>>>,
    topology: RefCell<Arc<Topology>>,
    /// Wakes sessions that wait for a node.
    topology_changed: Notify,
    /// Sessions that wait for a node, of all workers.
    pub(super) held: Arc<Held>,
    /// The generation of the primary that gets no new transactions: an operator is about to replace it.
    paused: Cell<Option<u64>>,
    pub config: RefCell<Arc<Config>>,
    pub outside: Box<dyn Outside>,
    /// Goes round the replicas; shared by all workers, or each would begin at the same one.
    turn: Arc<AtomicU32>,
}

/// What the contexts of all workers have together.
#[derive(Clone)]
pub struct Shared {
    /// Whose turn it is among equal replicas.
    pub turn: Arc<AtomicU32>,
    pub schema: SchemaEpoch,
    pub held: Arc<Held>,
}

impl Shared {
    pub fn new(metrics: &Metrics) -> Self {
        Shared {
            turn: Arc::default(),
            schema: SchemaEpoch::default(),
            held: Held::new(metrics),
        }
    }
}

/// What a session asks of the world beyond its worker.
pub trait Outside {
    /// A statement is about to create, drop or rename a database: idle servers must make way, on all workers.
    fn clear_databases(&self);
    /// What the catalogue of the database of this name shows: the same for all sessions.
    fn database(&self, name: &str) -> Arc<Database>;
    /// A session could read from replicas that are fresh as of this moment.
    fn want_fresh(&self, as_of: Moment);
    /// A server ended, or could not be had.
    fn report(&self, node: &str, evidence: Evidence);
    /// What a client cancels this session with: the given pid, or one of the proxy's own.
    fn issue_key(&self, session: u64, pid: Option<i32>, minor: u16) -> (i32, CancelKey);
    fn revoke_key(&self, pid: i32, key: &CancelKey);
}

/// Why no pool could be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPool {
    NoPrimary,
    NoReplica,
    /// The operator wants it so.
    Paused,
}

/// What servers are logged in as, and the application's name.
type IdentityKey = (Arc<Profile>, Box<[u8]>);

/// One login's pools on this worker. Sessions with equal logins share it.
pub struct Identity {
    full: Arc<Profile>,
    /// For a primary that serves a replica listener.
    read_only: Arc<Profile>,
    database: Arc<Database>,
    /// What a session of this login has set from the beginning.
    home: Settings,
    /// A session of this login has asked for currval or lastval (`pool.sequences = "learn"`).
    reads_sequences: Cell<bool>,
    cache: RefCell<Cache>,
    /// What holds for its reads, by which configuration.
    reads: RefCell<Option<(Arc<Config>, Reads)>>,
}

#[derive(Default)]
struct Cache {
    topology: u64,
    pools: Vec<Option<Rc<Pool>>>,
}

impl Identity {
    fn new(pools: &Pools, database: Arc<Database>, full: Arc<Profile>, home: Settings) -> Self {
        let mut read_only = Profile::clone(&full);
        read_only.access = Access::ReadOnly;
        Identity {
            full,
            read_only: pools.intern(read_only),
            database,
            home,
            reads_sequences: Cell::new(false),
            cache: RefCell::default(),
            reads: RefCell::default(),
        }
    }

    /// What a session of this login begins with, and RESET goes back to, beside what its servers were logged in with.
    pub fn home(&self) -> &Settings {
        &self.home
    }

    /// What holds for its reads. A configuration is looked through once.
    #[inline]
    pub fn reads(&self, config: &Arc<Config>) -> Reads {
        let mut known = self.reads.borrow_mut();
        match &*known {
            Some((of, reads)) if Arc::ptr_eq(of, config) => *reads,
            _ => {
                let reads = config.reads_of(&self.full.user, &self.full.database);
                *known = Some((config.clone(), reads));
                reads
            }
        }
    }

    pub fn reads_sequences(&self) -> bool {
        self.reads_sequences.get()
    }

    pub fn learn_sequences(&self) {
        self.reads_sequences.set(true);
    }

    /// What the catalogue shows of the login's database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    pub fn profile(&self) -> &Profile {
        &self.full
    }

    #[inline]
    fn pool(
        &self,
        pools: &Pools,
        topology: &Topology,
        node: usize,
        profile: &Arc<Profile>,
    ) -> Rc<Pool> {
        let mut cache = self.cache.borrow_mut();
        if cache.topology != topology.number || cache.pools.len() != topology.nodes.len() {
            cache.topology = topology.number;
            cache.pools.clear();
            cache.pools.resize(topology.nodes.len(), None);
        }
        match &cache.pools[node] {
            Some(pool) if Arc::ptr_eq(pool.profile(), profile) => pool.clone(),
            _ => {
                let pool = pools.pool(profile, &topology.nodes[node]);
                cache.pools[node] = Some(pool.clone());
                pool
            }
        }
    }
}

impl Context {
    pub fn new(
        pools: Pools,
        topology: Arc<Topology>,
        config: Arc<Config>,
        shared: Shared,
        counters: Rc<WorkerCounters>,
        outside: Box<dyn Outside>,
    ) -> Self {
        Context {
            pools,
            registry: Registry::default(),
            blocks: Blocks::default(),
            texts: Texts::default(),
            shapes: Shapes::default(),
            schema: shared.schema,
            learned: Learned::default(),
            counters,
            identities: RefCell::default(),
            topology: RefCell::new(topology),
            topology_changed: Notify::new(),
            held: shared.held,
            paused: Cell::new(None),
            config: RefCell::new(config),
            outside,
            turn: shared.turn,
        }
    }

    /// The pools of a login, shared by all sessions with an equal one.
    pub fn identity(&self, profile: Profile, home: Settings) -> Rc<Identity> {
        let mut identities = self.identities.borrow_mut();
        let full = self.pools.intern(profile);
        let name = home.value(APPLICATION_NAME).unwrap_or_default();
        let key = (full.clone(), Box::from(name));
        if let Some(known) = identities.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let database = self.outside.database(&full.database);
        let identity = Rc::new(Identity::new(&self.pools, database, full, home));
        identities.retain(|_, known| known.strong_count() > 0);
        identities.insert(key, Rc::downgrade(&identity));
        identity
    }

    /// What a server of this login said at its own, if there has been one: takes nobody's turn.
    pub fn welcome(&self, identity: &Identity, listener: &Listener) -> Option<Rc<Parameters>> {
        let topology = self.topology.borrow();
        let serves = |node: &&Arc<NodeView>| match listener.route {
            Route::Replica => node.role != Role::Primary || listener.primary != PrimaryReads::Never,
            Route::Primary | Route::Split => node.role == Role::Primary,
        };
        let mut nodes = topology.nodes.iter().filter(|n| n.is_up()).filter(serves);
        nodes.find_map(|node| self.pools.pool(&identity.full, node).welcome())
    }

    /// The node that a replication connection of `listener` goes to.
    ///
    /// # Errors
    /// No node can serve the listener's route just now.
    pub fn replication_node(&self, listener: &Listener) -> Result<Arc<NodeView>, NoPool> {
        let topology = self.topology.borrow();
        let (node, none) = match listener.route {
            Route::Primary | Route::Split => (topology.primary, NoPool::NoPrimary),
            Route::Replica => {
                let now = Moment::of(self.pools.now());
                let never = PrimaryReads::Never;
                let node = self.draw(1, now, |draw| balance::choose(&topology, never, draw));
                (node, NoPool::NoReplica)
            }
        };
        let node = node.and_then(|n| topology.nodes.get(n));
        node.filter(|n| n.is_up()).cloned().ok_or(none)
    }

    /// The generation of the node that gets writes; None while there is none.
    pub fn primary_generation(&self) -> Option<u64> {
        let topology = self.topology.borrow();
        topology.primary().map(|primary| primary.generation)
    }

    /// The pool that a session of `identity` on `listener` is to use now.
    ///
    /// # Errors
    /// No node can serve the listener's route, or the aim, just now.
    #[inline]
    pub fn choose(
        &self,
        identity: &Identity,
        listener: &Listener,
        aim: Aim,
    ) -> Result<Rc<Pool>, NoPool> {
        let topology = self.topology.borrow();
        match (aim, listener.route) {
            (Aim::Fresh(need), _) => match self.choose_fresh(&need, &topology) {
                Some(node) if !topology.nodes[node].load.is_shunned() => {
                    self.full_pool(identity, &topology, Ok(node))
                }
                None if need.is_worth_waiting => Err(NoPool::NoReplica),
                last => {
                    let primary = self.choose_primary(identity, &topology);
                    primary.or_else(|none| self.full_pool(identity, &topology, last.ok_or(none)))
                }
            },
            (Aim::Replica(need), _) => {
                let node = self.choose_fresh(&need, &topology);
                self.full_pool(identity, &topology, node.ok_or(NoPool::NoReplica))
            }
            (Aim::Other(generation), _) => {
                let is_other = |node: &NodeView| node.generation != generation;
                let now = Moment::of(self.pools.now());
                let node = self.choose_among(&topology, now, is_other);
                self.full_pool(identity, &topology, node.ok_or(NoPool::NoReplica))
            }
            (Aim::Listener, Route::Replica) => {
                self.choose_replica(identity, listener.primary, &topology)
            }
            _ => self.choose_primary(identity, &topology),
        }
    }

    fn choose_primary(&self, identity: &Identity, topology: &Topology) -> Result<Rc<Pool>, NoPool> {
        let node = writable(topology, self.paused.get())?;
        Ok(identity.pool(&self.pools, topology, node, &identity.full))
    }

    fn full_pool(
        &self,
        identity: &Identity,
        topology: &Topology,
        node: Result<usize, NoPool>,
    ) -> Result<Rc<Pool>, NoPool> {
        node.map(|node| identity.pool(&self.pools, topology, node, &identity.full))
    }

    fn choose_fresh(&self, need: &Need, topology: &Topology) -> Option<usize> {
        let now = Moment::now();
        self.choose_among(topology, now, |node| need.is_met_by(node, now))
    }

    /// Whether a replica would serve such a read now.
    pub fn has_fresh(&self, need: &Need) -> bool {
        let now = Moment::now();
        self.with_topology(|t| t.replicas_up().any(|node| need.is_met_by(node, now)))
    }

    /// A replica that is in rotation and `takes` the read.
    fn choose_among(
        &self,
        topology: &Topology,
        now: Moment,
        takes: impl Fn(&NodeView) -> bool,
    ) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Relaxed);
        self.draw(turn, now, |draw| {
            balance::choose_replica(topology, takes, draw)
        })
    }

    fn draw<T>(&self, turn: u32, now: Moment, choose: impl FnOnce(&Draw) -> T) -> T {
        choose(&Draw {
            random: spread(turn),
            now,
            zone: &self.config.borrow().zone,
        })
    }

    fn choose_replica(
        &self,
        identity: &Identity,
        primary: PrimaryReads,
        topology: &Topology,
    ) -> Result<Rc<Pool>, NoPool> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let primary = match topology.primary() {
            Some(node) if self.is_paused(node) => PrimaryReads::Never,
            _ => primary,
        };
        let now = Moment::of(self.pools.now());
        let node = self.draw(turn, now, |draw| balance::choose(topology, primary, draw));
        let node = node.ok_or(NoPool::NoReplica)?;
        let profile = match topology.primary == Some(node) {
            true => &identity.read_only,
            false => &identity.full,
        };
        Ok(identity.pool(&self.pools, topology, node, profile))
    }

    /// Whether a node gets no new transactions.
    #[inline]
    pub fn is_paused(&self, node: &NodeView) -> bool {
        self.paused.get() == Some(node.generation)
    }

    /// Whether any node gets no new transactions.
    #[inline]
    pub fn is_any_paused(&self) -> bool {
        self.paused.get().is_some()
    }

    /// No transaction begins on the node of this generation any more; those who wait for a server of it wait for the
    /// next primary, or for [`Context::resume`]. Returns how many sessions keep a server there without using it.
    pub fn pause(&self, node: &NodeView) -> usize {
        self.paused.set(Some(node.generation));
        self.pools.reroute_waiters(&node.config.name);
        self.registry.idle_holders(&node.config.name)
    }

    /// Sessions that wait go on.
    pub fn resume(&self) {
        self.paused.set(None);
        self.topology_changed.notify_waiters();
        self.registry.wake_holders();
    }

    /// A newer snapshot: pools follow, waiting sessions choose again, holding ones look whether they may stay.
    pub fn set_topology(&self, topology: Arc<Topology>) {
        self.pools.set_topology(&topology);
        *self.topology.borrow_mut() = topology;
        self.topology_changed.notify_waiters();
        self.registry.wake_holders();
    }

    /// Returns when a newer snapshot is in force.
    pub fn topology_changed(&self) -> Notified<'_> {
        self.topology_changed.notified()
    }

    /// Looks at the snapshot in force.
    pub fn with_topology<T>(&self, look: impl FnOnce(&Topology) -> T) -> T {
        look(&self.topology.borrow())
    }

    /// A node by name, in the snapshot in force.
    pub fn node(&self, name: &str) -> Option<Arc<NodeView>> {
        let topology = self.topology.borrow();
        let mut nodes = topology.nodes.iter();
        nodes.find(|n| n.config.name == name).cloned()
    }
}

/// The node (index into `topology.nodes`) that a transaction which may write begins on, while the generation `paused` gets none.
///
/// # Errors
/// It has to wait, and why.
pub(super) fn writable(topology: &Topology, paused: Option<u64>) -> Result<usize, NoPool> {
    let primary = topology.primary.filter(|&n| topology.nodes[n].is_up());
    let node = primary.ok_or(NoPool::NoPrimary)?;
    match paused == Some(topology.nodes[node].generation) {
        true => Err(NoPool::Paused),
        false => Ok(node),
    }
}

/// Two draws for [`balance::choose`] that go round evenly but not in turn: what draws at a steady beat would else always come to
/// the same replica.
///
/// Bits of a counter in reverse (van der Corput's sequence), so that of two equal replicas each has one of every two turns and
/// of four each one of every four; which one comes first is scrambled: no operation here lets a bit depend on a higher one, which
/// in the counter is a lower one.
fn spread(turn: u32) -> [u32; 2] {
    let mut first = turn.reverse_bits();
    // Of the square roots of 2, 3 and 5, made even where a step could not be undone else: every draw has one turn.
    for factor in [0x6a09_e666, 0xbb67_ae84, 0x3c6e_f372] {
        first ^= first.wrapping_mul(factor);
        first = first.wrapping_mul(0x9e37_79b9).wrapping_add(factor);
    }
    [first, turn.wrapping_mul(0x9e37_79b9)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many equal replicas is drawn.
    fn drawn(turn: u32, of: u64) -> u64 {
        (u64::from(spread(turn)[0]) * of) >> 32
    }

    #[test]
    fn equal_replicas_are_drawn_equally_often_in_every_round() {
        for of in [2, 4, 8] {
            for round in 0..1000 {
                let turns = (0..of as u32).map(|i| round * of as u32 + i);
                let mut all: Vec<_> = turns.map(|turn| drawn(turn, of)).collect();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..of), "{of}, {round}");
            }
        }
        let first_of_three = (0..3000).filter(|turn| drawn(*turn, 3) == 0).count();
        assert!((990..1010).contains(&first_of_three), "{first_of_three}");
    }

    #[test]
    fn whoever_draws_at_a_steady_beat_comes_to_every_replica() {
        for beat in 1..=16 {
            for from in 0..beat {
                for of in [2, 3] {
                    let turns = (0..1000).map(|i| from + i * beat);
                    let first = turns.filter(|turn| drawn(*turn, of) == 0).count();
                    let fair = 1000 / of as usize;
                    let wide = fair - 100..fair + 100;
                    assert!(wide.contains(&first), "{beat}, {from}, {of}: {first}");
                }
            }
        }
    }
}
