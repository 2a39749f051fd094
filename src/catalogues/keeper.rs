//! One database's keeper: when to read, and what becomes of it.

use std::{
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Database, FIRST_LOOK, LAST_LOOK, REFRESH, Settings, Shared, Snapshot, lock, next_epoch,
    read::{self, Read},
};
use crate::{
    metrics::Metrics,
    route::catalogue::{Catalogue, judge},
    topology::{Moment, NodeView, Topology},
};

/// Definitions come in rows: a migration should cost one reading, not one for each statement.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// A catalogue that nobody used for so long is dropped.
const LINGER: Duration = Duration::from_secs(10 * 60);
/// Dialling and reading may take this long.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What the last reading found.
struct Kept {
    fingerprint: String,
    /// When the reading that first found it had ended: what that saw was committed before.
    since: std::time::Instant,
    catalogue: Arc<Catalogue>,
}

struct Keeper {
    database: Arc<Database>,
    kept: Option<Kept>,
    /// Of the primary that was read last.
    generation: u64,
    last_used: Instant,
    /// Until sessions may ask for the next reading.
    pause: Duration,
    /// Failures are told once.
    failing: bool,
}

/// Keeps `database` until nobody wants it, or the proxy ends.
pub(super) async fn run(shared: Weak<Shared>, database: Arc<Database>) {
    let mut keeper = Keeper {
        database,
        kept: None,
        generation: 0,
        last_used: Instant::now(),
        pause: FIRST_LOOK,
        failing: false,
    };
    let mut seen = 0;
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        let topology = alive.topology.current();
        seen = seen.max(topology.number);
        keeper.refresh(&alive, &topology).await;
        keeper.database.was_read.send_replace(true);
        if keeper.is_unused(&alive) {
            return;
        }
        let handle = alive.topology.clone();
        drop(alive);
        keeper.wait(&handle, &topology, &mut seen).await;
    }
}

impl Keeper {
    /// Until there is a reason to read.
    async fn wait(&self, handle: &crate::topology::Handle, topology: &Topology, seen: &mut u64) {
        let before = primary(topology).map(|node| node.generation);
        let moved = async {
            loop {
                let newer = handle.changed(*seen).await;
                *seen = newer.number;
                if primary(&newer).map(|node| node.generation) != before {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.database.wake.notified() => sleep(DEBOUNCE).await,
            () = moved => {}
            () = sleep(REFRESH) => {}
        }
    }

    async fn refresh(&mut self, shared: &Shared, topology: &Topology) {
        // What is read now would not count, and the change's end wakes this again.
        if self.database.changing.load(SeqCst) > 0 && self.kept.is_some() {
            return;
        }
        let Some(node) = primary(topology) else {
            return;
        };
        let settings = shared.settings.load_full();
        if self.database.rules_changed.swap(false, SeqCst) {
            self.kept = None;
        }
        if self.generation != node.generation {
            self.generation = node.generation;
            self.database.end_epoch();
        }
        // In this order: what is defined from here on makes the snapshot an old one.
        let epoch = self.database.epoch();
        let read = self.read(&settings, node);
        let read = timeout(READ_TIMEOUT, read).await;
        match read.unwrap_or_else(|_| Err("timed out".to_owned())) {
            Ok((catalogue, since)) => {
                self.failing = false;
                let snapshot = Snapshot {
                    catalogue,
                    serial: next_epoch(),
                    epoch,
                    generation: node.generation,
                    since,
                };
                self.publish(snapshot);
                count(&shared.metrics, "pgsluice_catalogue_reads_total", READS);
                self.show(&shared.metrics);
            }
            Err(reason) => {
                self.fail(&reason);
                count(
                    &shared.metrics,
                    "pgsluice_catalogue_failures_total",
                    FAILURES,
                );
            }
        }
    }

    /// What was cached under a snapshot stays good while nothing has changed.
    fn publish(&mut self, snapshot: Snapshot) {
        let known = self.database.snapshot.load();
        let is_known = known.as_ref().is_some_and(|known| {
            Arc::ptr_eq(&known.catalogue, &snapshot.catalogue)
                && (known.epoch, known.generation) == (snapshot.epoch, snapshot.generation)
        });
        self.pause = match is_known {
            true => (self.pause * 2).min(LAST_LOOK),
            false => FIRST_LOOK,
        };
        let look_after = Moment::now().after(self.pause);
        self.database.look_after.raise(look_after);
        if !is_known {
            self.database.snapshot.store(Some(Arc::new(snapshot)));
        }
    }

    async fn read(
        &mut self,
        settings: &Settings,
        node: &NodeView,
    ) -> Result<(Arc<Catalogue>, std::time::Instant), String> {
        let known = self.kept.as_ref().map(|kept| kept.fingerprint.as_str());
        let read = read::read(&settings.login, &node.config, &self.database.name, known).await?;
        let (facts, fingerprint, major) = match (read, &self.kept) {
            (Read::Unchanged, Some(kept)) => return Ok((kept.catalogue.clone(), kept.since)),
            (Read::Unchanged, None) => return Err("nothing was read".to_owned()),
            (Read::Changed(changed), _) => *changed,
        };
        let since = std::time::Instant::now();
        let rules = settings.rules.clone();
        let judging = tokio::task::spawn_blocking(move || judge(&facts, &rules, major));
        let catalogue = Arc::new(judging.await.map_err(|error| error.to_string())?);
        self.tell(&catalogue);
        self.kept = Some(Kept {
            fingerprint,
            since,
            catalogue: catalogue.clone(),
        });
        Ok((catalogue, since))
    }

    fn tell(&self, catalogue: &Catalogue) {
        let (database, size) = (&self.database.name, catalogue.size());
        tracing::debug!(%database, ?size, "read the catalogue");
        let was = self
            .kept
            .as_ref()
            .map(|kept| kept.catalogue.is_harmful_anywhere());
        if catalogue.is_harmful_anywhere() && was != Some(true) {
            tracing::warn!(
                %database,
                "an operator, cast or type runs a function that may leave something behind: every session is pinned"
            );
        }
    }

    fn fail(&mut self, reason: &str) {
        let database = &self.database.name;
        match self.failing {
            true => tracing::debug!(%database, reason, "cannot read the catalogue"),
            false => tracing::warn!(
                %database,
                reason,
                "cannot read the catalogue: sessions that call functions of their own keep their servers"
            ),
        }
        self.failing = true;
    }

    fn show(&self, metrics: &Metrics) {
        let Some(kept) = &self.kept else {
            return;
        };
        let size = kept.catalogue.size();
        let gauge = |name, help, value: f64| {
            let label = Some(("database", &*self.database.name));
            metrics.gauge(name, help, label).set(value);
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        gauge(
            "pgsluice_catalogue_read_timestamp_seconds",
            "When the database's catalogue was last read or found unchanged.",
            now.unwrap_or_default().as_secs_f64(),
        );
        gauge(
            "pgsluice_catalogue_functions",
            "Names of functions in the database's catalogue.",
            size.functions as f64,
        );
        gauge(
            "pgsluice_catalogue_harmless_functions",
            "Names of functions that are proven to leave nothing behind in a session.",
            size.harmless as f64,
        );
    }

    /// Forgets the database when only the keeper has had it for a while.
    fn is_unused(&mut self, shared: &Shared) -> bool {
        let mut databases = lock(&shared.databases);
        // Nobody can take it while the map is locked.
        if Arc::strong_count(&self.database) > 1 {
            self.last_used = Instant::now();
        }
        let unused = self.last_used.elapsed() >= LINGER;
        if unused {
            databases.remove(&self.database.name);
        }
        unused
    }
}

const READS: &str = "Catalogues read or found unchanged.";
const FAILURES: &str = "Catalogues that could not be read.";

fn count(metrics: &Metrics, name: &'static str, help: &'static str) {
    metrics.counter(name, help, None).increment(1);
}

fn primary(topology: &Topology) -> Option<&NodeView> {
    topology.primary().map(|node| &**node)
}
