//! Nodes and what is known of them: probes gather facts, the pure judge turns them into a numbered snapshot.
//!
//! ```text
//! probe (one task per node) ──Fact──▶ judge (pure) ──Ruling──▶ Topology (immutable, numbered) ──▶ workers, HTTP
//! ```
//!
//! Everything here runs on the control runtime; workers only read snapshots ([`Handle`], [`Watcher`]) and may tell
//! that a server of theirs ended ([`Handle::report`]). Invariants of every snapshot, held by [`judge`] and its property
//! tests: at most one node has [`Role::Primary`]; it carries the highest timeline ever followed and the cluster's system
//! identifier; `primary` is that node while it is [`Health::Up`], else `None`. What must outlive a restart is in `state`.

pub mod balance;
mod etcd;
mod facts;
mod freshness;
mod http;
mod judge;
mod link;
mod load;
mod names;
mod patroni;
mod probe;
mod record;
mod repmgr;
mod ruling;
mod source;
mod state;
pub(crate) mod tls;
mod watch;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use freshness::{AtomicMoment, Demand, Freshness, Moment};
pub use judge::Drained;
#[cfg(test)]
pub(crate) use judge::sim;
pub use link::{Driver, Login};
pub use load::{Cause, Load};
pub use source::named_nodes;
pub use watch::{Evidence, Handle, Watcher, spawn};

use crate::config;

/// What a node is, by its own word and the judge's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one node that may get writes. It keeps the role while it is down, until another is promoted.
    Primary,
    /// In recovery, by its last word.
    Replica,
    /// Never heard of, or writable without being the primary.
    Unknown,
}

impl Role {
    /// The word in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Unknown => "unknown",
        }
    }

    pub const ALL: [Role; 3] = [Role::Primary, Role::Replica, Role::Unknown];
}

/// Whether a node takes sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// In rotation.
    Up,
    /// Answers "shutting down", or was drained by an operator: no new checkout, idle servers close, sessions leave at transaction end.
    Draining,
    /// Writable, but on a timeline that has been left behind, or of another cluster: nothing is sent there.
    Fenced,
    /// No answer, refused, or starting up; or a replica that does not follow the primary, or too far behind.
    Down,
}

impl Health {
    /// The word in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Draining => "draining",
            Health::Fenced => "fenced",
            Health::Down => "down",
        }
    }

    pub const ALL: [Health; 4] = [Health::Up, Health::Draining, Health::Fenced, Health::Down];
}

/// Why a node has the health that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its probes are answered.
    Answering,
    /// No probe has ended yet.
    Unheard,
    /// It answers, but at the start no primary is named before every node has spoken, or `failover.settle` is over.
    Settling,
    /// Nothing listens there.
    Refused,
    /// No answer within the patience.
    Silent,
    /// It refuses sessions (57P03) and none is left: starting up, recovering, or at the end of a shutdown.
    StartingUp,
    /// Sessions go on, new ones are refused with 57P03.
    ShuttingDown,
    /// An operator has taken it out of rotation.
    Drained,
    /// Sessions go on, but new ones find nobody.
    NoNewConnections,
    /// Every connection slot is taken. It is in rotation while the probe has one: so may servers be that are open.
    Full,
    /// The probe's login was refused.
    LoginRefused,
    /// Its system identifier is not the cluster's.
    ForeignSystem,
    /// Writable on a timeline below the highest.
    OldTimeline,
    /// Another node is writable on the same timeline.
    Conflict,
    /// Another node was promoted while this one, or that one while this one's replicas, went on: who is right is open.
    Disputed,
    /// It receives WAL of another timeline than the primary's.
    OtherTimeline,
    /// Its WAL receiver has gone, while another replica's runs.
    NotStreaming,
    /// It replays what the primary wrote longer ago than `reads.max_staleness`.
    Lagging,
}

impl Reason {
    /// The word in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Answering => "answering",
            Reason::Unheard => "unheard",
            Reason::Settling => "settling",
            Reason::Refused => "refused",
            Reason::Silent => "silent",
            Reason::StartingUp => "starting_up",
            Reason::ShuttingDown => "shutting_down",
            Reason::Drained => "drained",
            Reason::NoNewConnections => "no_new_connections",
            Reason::Full => "full",
            Reason::LoginRefused => "login_refused",
            Reason::ForeignSystem => "foreign_system",
            Reason::OldTimeline => "old_timeline",
            Reason::Conflict => "conflict",
            Reason::Disputed => "disputed",
            Reason::OtherTimeline => "other_timeline",
            Reason::NotStreaming => "not_streaming",
            Reason::Lagging => "lagging",
        }
    }
}

/// Something that an operator must look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alarm {
    /// Nobody gets writes.
    NoPrimary,
    /// Two nodes are writable on one timeline: nobody gets writes.
    TwoPrimaries,
    /// A writable node on an old timeline is fenced.
    StalePrimary,
    /// A node was promoted although the primary answers and has replicas: nobody gets writes.
    StrayPromotion,
    /// A configured node belongs to another cluster.
    ForeignNode,
    /// `failover.state_file` cannot be written: a restart would not know the highest timeline.
    StateNotSaved,
    /// Patroni or repmgr's metadata has not answered for a while: the last good word and the probes go on.
    SourceSilent,
}

impl Alarm {
    /// The word in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Alarm::NoPrimary => "no_primary",
            Alarm::TwoPrimaries => "two_primaries",
            Alarm::StalePrimary => "stale_primary",
            Alarm::StrayPromotion => "stray_promotion",
            Alarm::ForeignNode => "foreign_node",
            Alarm::StateNotSaved => "state_not_saved",
            Alarm::SourceSilent => "source_silent",
        }
    }

    /// What it means for whoever reads the log, and what can be done.
    pub fn help(self) -> &'static str {
        match self {
            Alarm::NoPrimary => "writes wait up to failover.hold",
            Alarm::TwoPrimaries => {
                "writes wait: make one of the two a replica of the other, or take it out of the configuration"
            }
            Alarm::StalePrimary => {
                "a replaced primary still takes writes from elsewhere: stop or rejoin it"
            }
            Alarm::StrayPromotion => {
                "a node was promoted beside a primary that goes on: stop the primary to follow it, or make it a replica"
            }
            Alarm::ForeignNode => {
                "a node has another system identifier and is left out: is its address right?"
            }
            Alarm::StateNotSaved => {
                "failover.state_file cannot be written: a restart would not know the last primary"
            }
            Alarm::SourceSilent => {
                "nobody answers who names the nodes: the last word and the probes go on"
            }
        }
    }

    pub const ALL: [Alarm; 7] = [
        Alarm::NoPrimary,
        Alarm::TwoPrimaries,
        Alarm::StalePrimary,
        Alarm::StrayPromotion,
        Alarm::ForeignNode,
        Alarm::StateNotSaved,
        Alarm::SourceSilent,
    ];
}

/// A WAL position. Shown as PostgreSQL shows it (`16/B374D848`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node in a [`Topology`] snapshot.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub config: Arc<config::Node>,
    pub role: Role,
    pub health: Health,
    pub reason: Reason,
    /// When role, health and reason became what they are.
    pub since: Instant,
    /// The timeline it writes, or last received; None until it was told.
    pub timeline: Option<u32>,
    /// Of the cluster that made its data directory; None until the first answer.
    pub system_id: Option<u64>,
    /// Counts the (crash) restarts that were seen: what was known of its WAL before is void.
    pub incarnation: u64,
    /// Changes whenever servers dialled earlier must not be used again: role, timeline or incarnation changed. Unique
    /// over all nodes of this process.
    pub generation: u64,
    /// Shared by all workers: what balancing looks at. The same over snapshots and reloads, while host and port stay.
    pub load: Arc<Load>,
    /// Moves between snapshots, with each probe.
    pub position: Arc<Position>,
    /// Of a replica. Moves as well.
    pub freshness: Arc<Freshness>,
}

impl NodeView {
    /// A node of which nothing is known.
    pub fn unheard(config: Arc<config::Node>, now: Instant) -> Self {
        NodeView {
            config,
            role: Role::Unknown,
            health: Health::Down,
            reason: Reason::Unheard,
            since: now,
            timeline: None,
            system_id: None,
            incarnation: 0,
            generation: 0,
            load: Arc::default(),
            position: Arc::default(),
            freshness: Arc::default(),
        }
    }

    /// Whether a server that was dialled in `generation` may be given new work.
    #[inline]
    pub fn admits(&self, generation: u64) -> bool {
        self.generation == generation && self.is_up()
    }

    /// Whether new work may be given to it.
    pub fn is_up(&self) -> bool {
        self.health == Health::Up
    }
}

/// The last WAL positions that a probe brought. Each is of its own probe: for display, not for freshness.
#[derive(Debug, Default)]
pub struct Position {
    insert: AtomicU64,
    replay: AtomicU64,
}

impl Position {
    /// The end of WAL on a writable node; 0/0 when never told.
    pub fn insert(&self) -> Lsn {
        Lsn(self.insert.load(Ordering::Relaxed))
    }

    /// What a replica has replayed; 0/0 when never told.
    pub fn replay(&self) -> Lsn {
        Lsn(self.replay.load(Ordering::Relaxed))
    }

    fn set_insert(&self, lsn: Lsn) {
        self.insert.store(lsn.0, Ordering::Relaxed);
    }

    fn set_replay(&self, lsn: Lsn) {
        self.replay.store(lsn.0, Ordering::Relaxed);
    }
}

/// An immutable, numbered snapshot. Workers hold it by `Arc` and compare `number`.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// Grows by one with each snapshot.
    pub number: u64,
    /// Index into `nodes`: the one node that gets writes.
    pub primary: Option<usize>,
    /// In the order of the configuration.
    pub nodes: Vec<Arc<NodeView>>,
    /// What an operator must look at, in the order of [`Alarm::ALL`].
    pub alarms: Vec<Alarm>,
}

impl Topology {
    /// The node that gets writes.
    pub fn primary(&self) -> Option<&Arc<NodeView>> {
        self.nodes.get(self.primary?)
    }

    /// A node by its name in the configuration.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeView>> {
        self.nodes.iter().find(|node| node.config.name == name)
    }

    /// Replicas in rotation.
    pub fn replicas_up(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.nodes
            .iter()
            .filter(|node| node.role == Role::Replica && node.is_up())
    }

    /// How long ago a replica is known to have had everything; None where that is not proven, just now.
    pub fn staleness(&self, node: &NodeView) -> Option<Duration> {
        let as_of = node.freshness.as_of();
        let known = node.role == Role::Replica && as_of != Moment::NEVER;
        known.then(|| Moment::now().since(as_of))
    }

    /// How far a replica's replay is behind the primary's insert position, in bytes; None where either is unknown.
    pub fn lag_bytes(&self, node: &NodeView) -> Option<u64> {
        let (insert, replay) = (self.primary()?.position.insert(), node.position.replay());
        let known = node.role == Role::Replica && insert.0 > 0 && replay.0 > 0;
        known.then(|| insert.0.saturating_sub(replay.0))
    }
}
