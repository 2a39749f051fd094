//! The catalogue of each database that sessions use, read on the control runtime and judged by [`route::catalogue`].
//!
//! ```text
//! session ── begin_change ──▶ keeper (one task per database) ── reads the primary, judges ──▶ Snapshot ──▶ sessions
//! ```
//!
//! A database is kept as long as a session has its [`Database`], and a while longer. Its keeper reads when the first
//! session comes, when a definition seen in transit has ended, when the primary changes, and now and then: what others
//! define directly is seen by the timer only ([`REFRESH`]).
//!
//! # What makes a snapshot current
//! A session that passes a definition on holds a [`Change`] from before the server gets it until its transaction has
//! ended. Beginning and ending one both give the database another epoch. A snapshot bears the epoch from before it was
//! read, and counts in favour of a function only while the epoch is still that one and the server is of the node and
//! generation that it was read from. So a verdict that is true when it is given, and whose epoch still holds when the
//! server is given back, was true all the time between.

mod keeper;
mod read;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    config::{self, Config, RulePlace, Ruled},
    error::Result,
    metrics::Metrics,
    route::{
        catalogue::{Catalogue, Rules, judge},
        class::Place,
        effects::Names,
    },
    topology::{self, AtomicMoment, Login, Moment},
};

/// How often a catalogue is looked at without a reason.
pub const REFRESH: Duration = Duration::from_secs(30);

/// Between two readings for names that nobody knows, as long as readings bring something; else it doubles up to the second.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(8);

/// A login waits so long for its database's first reading.
const FIRST_READ: Duration = Duration::from_millis(300);

/// The way to the databases; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    databases: Mutex<HashMap<Box<str>, Weak<Database>>>,
    settings: ArcSwap<Settings>,
    topology: topology::Handle,
    metrics: Metrics,
    runtime: tokio::runtime::Handle,
}

/// What a configuration says of reading and judging.
struct Settings {
    login: Login,
    rules: Arc<Rules>,
}

fn rules(config: &Config) -> Rules {
    let mut rules = Rules::new(&config.pool.harmless_functions);
    for rule in &config.rules {
        let place = match rule.place {
            RulePlace::Primary => Place::Primary,
            RulePlace::Replica => Place::Anywhere,
        };
        match &rule.of {
            Ruled::Function(name) => rules.place_function(name, place),
            Ruled::Table(name) => rules.place_table(name, place),
            Ruled::Statement(shape) => rules.place_statement((*shape).into(), place),
        }
    }
    rules
}

impl Settings {
    fn new(config: &Config) -> Result<Self> {
        Ok(Settings {
            login: Login::new(config)?,
            rules: Arc::new(rules(config)),
        })
    }
}

impl Handle {
    /// Nothing is read before a session asks. Keepers run on the current runtime.
    ///
    /// # Errors
    /// When the certificates of `[tls.server]` cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: &Config, topology: topology::Handle, metrics: Metrics) -> Result<Self> {
        Ok(Handle(Arc::new(Shared {
            databases: Mutex::default(),
            settings: ArcSwap::from_pointee(Settings::new(config)?),
            topology,
            metrics,
            runtime: tokio::runtime::Handle::current(),
        })))
    }

    /// Takes the probe's login and the rules from a new configuration.
    ///
    /// # Errors
    /// When the certificates of `[tls.server]` cannot be used. Nothing was changed then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.0.settings.store(Arc::new(Settings::new(config)?));
        let databases = lock(&self.0.databases);
        for database in databases.values().filter_map(Weak::upgrade) {
            database.rules_changed.store(true, SeqCst);
            database.wake.notify_one();
        }
        Ok(())
    }

    /// The database of this name, whether it exists or not. Takes a lock: at logins only.
    pub fn database(&self, name: &str) -> Arc<Database> {
        let mut databases = lock(&self.0.databases);
        if let Some(known) = databases.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let database = Arc::new(Database::new(name));
        databases.retain(|_, known| known.strong_count() > 0);
        databases.insert(name.into(), Arc::downgrade(&database));
        // It ends when nobody but the keeper itself has the database.
        let keeper = keeper::run(Arc::downgrade(&self.0), database.clone());
        self.0.runtime.spawn(keeper);
        database
    }
}

/// Reads and judges one catalogue, for those who ask once. The server's major version comes with it.
///
/// # Errors
/// Says why not.
pub async fn look(
    config: &Config,
    node: &config::Node,
    database: &str,
) -> std::result::Result<(Catalogue, u8), String> {
    let settings = Settings::new(config).map_err(|error| error.to_string())?;
    match read::read(&settings.login, node, database, None).await? {
        read::Read::Changed(changed) => {
            let (facts, _, major) = *changed;
            Ok((judge(&facts, &settings.rules, major), major))
        }
        read::Read::Unchanged => Err("nothing was read".to_owned()),
    }
}

/// One database, as its sessions see it.
pub struct Database {
    name: Box<str>,
    snapshot: ArcSwapOption<Snapshot>,
    /// Another one whenever a change begins or ends, or the primary is another. Never 0.
    epoch: AtomicU64,
    /// Changes under way.
    changing: AtomicU32,
    rules_changed: AtomicBool,
    /// The first reading has ended, well or not.
    was_read: watch::Sender<bool>,
    wake: Notify,
    /// When the last write through this proxy ended, as far as sessions were asked to tell.
    last_write: AtomicMoment,
    /// Before this moment a session's word alone brings no reading.
    look_after: AtomicMoment,
}

/// A judged catalogue, and what it is true of.
struct Snapshot {
    catalogue: Arc<Catalogue>,
    /// No other snapshot's.
    serial: u64,
    epoch: u64,
    /// Of the node that it was read from: unique over all nodes.
    generation: u64,
    /// What it says has held at least since then: a replica that is not as fresh may have the definitions of before.
    since: Instant,
}

impl Database {
    fn new(name: &str) -> Self {
        Database {
            name: name.into(),
            snapshot: ArcSwapOption::empty(),
            epoch: AtomicU64::new(next_epoch()),
            changing: AtomicU32::new(0),
            rules_changed: AtomicBool::new(false),
            was_read: watch::Sender::new(false),
            wake: Notify::new(),
            last_write: AtomicMoment::default(),
            look_after: AtomicMoment::default(),
        }
    }

    /// Waits for the end of the first reading, but not for long: a session that calls a function before it keeps its
    /// server for life.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn first_read(&self) {
        let mut was_read = self.was_read.subscribe();
        // The sender lives in `self`: this cannot fail.
        let _ = timeout(FIRST_READ, was_read.wait_for(|read| *read)).await;
    }

    /// What is known just now, for a server of the node's generation `generation`.
    #[inline]
    pub fn read(&self, generation: u64) -> Reading {
        let snapshot = self.snapshot.load();
        let epoch = self.epoch();
        let current = snapshot
            .as_ref()
            .is_some_and(|s| s.epoch == epoch && s.generation == generation);
        Reading {
            snapshot,
            current: current && self.changing.load(SeqCst) == 0,
            epoch,
        }
    }

    /// What was known of the last primary, while there is none.
    pub fn read_last(&self) -> Reading {
        let snapshot = self.snapshot.load();
        let generation = snapshot.as_ref().map_or(0, |s| s.generation);
        drop(snapshot);
        self.read(generation)
    }

    /// A text names something that the snapshot does not know: it may have been made another way.
    pub fn look_again(&self) {
        let now = Moment::now();
        if now > self.look_after.load() {
            self.look_after.raise(now.after(FIRST_LOOK));
            self.wake.notify_one();
        }
    }

    /// When the last write of any session ended that [`Database::note_write`] was told of.
    pub fn last_write(&self) -> Moment {
        self.last_write.load()
    }

    /// A session's write has ended.
    pub fn note_write(&self, at: Moment) {
        self.last_write.raise(at);
    }

    /// To be compared: a verdict holds while it stays the same.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    fn end_epoch(&self) {
        self.epoch.store(next_epoch(), SeqCst);
    }

    /// A definition is about to be sent to a server.
    pub fn begin_change(self: &Arc<Self>) -> Change {
        self.changing.fetch_add(1, SeqCst);
        self.end_epoch();
        Change(self.clone())
    }
}

/// A definition under way; it has ended when this is dropped.
pub struct Change(Arc<Database>);

impl Drop for Change {
    fn drop(&mut self) {
        self.0.end_epoch();
        self.0.changing.fetch_sub(1, SeqCst);
        self.0.wake.notify_one();
    }
}

/// A look at what is known of a database.
pub struct Reading {
    snapshot: Guard<Option<Arc<Snapshot>>>,
    current: bool,
    epoch: u64,
}

impl Reading {
    /// None: nothing was read yet, or nothing can be.
    #[inline]
    pub fn catalogue(&self) -> Option<&Catalogue> {
        self.snapshot.as_ref().map(|s| &*s.catalogue)
    }

    /// Whether what it says for a function counts.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.current
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A replica that is as fresh as this has all the definitions that were read. None: nothing was.
    pub fn since(&self) -> Option<Instant> {
        self.snapshot.as_ref().map(|s| s.since)
    }

    /// Of the database too: no two databases have one epoch.
    #[inline]
    pub fn state(&self) -> State {
        let serial = self.snapshot.as_ref().map_or(0, |s| s.serial);
        State::new(self.epoch, serial, self.current)
    }

    /// For reading a text.
    #[inline]
    pub fn names(&self) -> Names<'_> {
        match self.catalogue() {
            Some(catalogue) => Names::Read {
                catalogue,
                current: self.current,
            },
            None => Names::BuiltIn,
        }
    }
}

/// All that a look at what is known can hang on: equal ones show the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    epoch: u64,
    /// The snapshot's; 0 for none.
    serial: u64,
    current: bool,
}

impl State {
    pub(crate) fn new(epoch: u64, serial: u64, current: bool) -> Self {
        State {
            epoch,
            serial,
            current,
        }
    }

    /// Others for every other one.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [u8::from(self.current); 17];
        bytes[..8].copy_from_slice(&self.epoch.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.serial.to_ne_bytes());
        bytes
    }
}

/// Never the same twice in this process, so that an epoch also says of which database it is.
fn next_epoch() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, SeqCst)
}

/// A poisoned lock is taken all the same: the map is whole at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(database: &Database, epoch: u64) {
        database.snapshot.store(Some(Arc::new(Snapshot {
            catalogue: Arc::default(),
            serial: next_epoch(),
            epoch,
            generation: 7,
            since: Instant::now(),
        })));
    }

    #[test]
    fn a_snapshot_counts_only_for_the_epoch_and_node_that_it_was_read_in() {
        let database = Arc::new(Database::new("d"));
        assert!(database.read(7).catalogue().is_none() && !database.read(7).is_current());
        publish(&database, database.epoch());
        assert!(database.read(7).is_current());
        assert!(!database.read(8).is_current(), "another node's");
        let change = database.begin_change();
        assert!(!database.read(7).is_current());
        // Read while the definition was not over: it may have seen the state before.
        publish(&database, database.epoch());
        assert!(!database.read(7).is_current());
        drop(change);
        assert!(!database.read(7).is_current());
        publish(&database, database.epoch());
        assert!(database.read(7).is_current());
    }

    #[tokio::test]
    async fn names_that_nobody_knows_bring_one_reading_at_a_time() {
        let database = Database::new("d");
        let woken = || timeout(Duration::ZERO, database.wake.notified());
        // The process's time begins with its first use.
        let _ = Moment::now();
        database.look_again();
        database.look_again();
        assert!(woken().await.is_ok());
        assert!(woken().await.is_err());
        database.look_again();
        assert!(woken().await.is_err(), "not so soon");
    }

    #[test]
    fn of_two_changes_both_must_have_ended() {
        let database = Arc::new(Database::new("d"));
        let (first, second) = (database.begin_change(), database.begin_change());
        drop(first);
        publish(&database, database.epoch());
        assert!(!database.read(7).is_current());
        drop(second);
        assert!(!database.read(7).is_current());
        publish(&database, database.epoch());
        assert!(database.read(7).is_current());
    }
}
