//! What one worker counts: plain cells of its own thread, published now and then.
//!
//! Counting is an addition to memory that no other thread touches. [`WorkerCounters::publish`] moves what was counted
//! since the last time into the shared handles, which were looked up once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use metrics::{Counter, Gauge};

use super::{Histogram, LocalHistogram, Metrics};
use crate::error::Kind;

/// How often a worker should publish: often enough for any scraper.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

/// A counter of one thread.
pub struct Count {
    cell: Cell<u64>,
    published: Counter,
}

impl Count {
    fn new(published: Counter) -> Self {
        Count {
            cell: Cell::new(0),
            published,
        }
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.cell.set(self.cell.get().wrapping_add(n));
    }

    fn publish(&self) {
        let counted = self.cell.take();
        if counted > 0 {
            self.published.increment(counted);
        }
    }
}

/// Counters that differ by a label, made as labels appear. Labels are `&'static str`, so their number is bounded by the
/// program's text.
struct Labelled {
    metrics: Metrics,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    counts: RefCell<Vec<(&'static str, Count)>>,
}

impl Labelled {
    fn new(metrics: &Metrics, name: &'static str, label: &'static str, help: &'static str) -> Self {
        Labelled {
            metrics: metrics.clone(),
            name,
            help,
            label,
            counts: RefCell::default(),
        }
    }

    /// Rare events only: a search, and the first time of a label takes locks.
    fn one(&self, value: &'static str) {
        let mut counts = self.counts.borrow_mut();
        let is_same = |known: &str| std::ptr::eq(known, value) || known == value;
        if let Some((_, count)) = counts.iter().find(|(known, _)| is_same(known)) {
            return count.one();
        }
        let label = Some((self.label, value));
        let count = Count::new(self.metrics.counter(self.name, self.help, label));
        count.one();
        counts.push((value, count));
    }

    fn publish(&self) {
        let counts = self.counts.borrow();
        counts.iter().for_each(|(_, count)| count.publish());
    }
}

/// A gauge of several labels, as [`Labelled`]. What all workers add and take is one number.
struct LabelledGauge {
    metrics: Metrics,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    gauges: RefCell<Vec<(&'static str, Gauge)>>,
}

impl LabelledGauge {
    fn add(&self, value: &'static str, change: f64) {
        let mut gauges = self.gauges.borrow_mut();
        if let Some((_, gauge)) = gauges.iter().find(|(known, _)| *known == value) {
            return gauge.increment(change);
        }
        let label = Some((self.label, value));
        let gauge = self.metrics.gauge(self.name, self.help, label);
        gauge.increment(change);
        gauges.push((value, gauge));
    }
}

/// One worker's counters. All workers' add up in the same metrics.
pub struct WorkerCounters {
    /// Statements that got their end (CommandComplete, an error, or the end of a batch).
    pub queries: Count,
    /// Transactions that ended.
    pub transactions: Count,
    /// Bytes read from clients.
    pub client_in: Count,
    /// Bytes written to clients.
    pub client_out: Count,
    /// Bytes read from servers.
    pub server_in: Count,
    /// Bytes written to servers.
    pub server_out: Count,
    /// Servers handed to sessions.
    pub checkouts: Count,
    /// Those for which a session had to wait.
    pub checkout_waits: Count,
    /// Checkouts for which the server was first set to the session's settings.
    pub settings_applied: Count,
    /// Questions to servers at rest: what is set there, and what is left.
    pub audits: Count,
    /// Reads that were sent again elsewhere, since a replica could not answer them.
    pub repeats: Count,
    pub logins: Count,
    pub login_failures: Count,
    pub server_dials: Count,
    pub server_dial_failures: Count,
    /// Statements that were sent once more.
    pub replays: Count,
    /// Named statements that a server was sent to parse.
    pub statements_parsed: Count,
    /// Clients' Parses of what the server had parsed already.
    pub statements_reused: Count,
    /// Statements closed on a server to make place for others.
    pub statements_evicted: Count,
    /// From asking for a server to having it.
    pub checkout_wait: LocalHistogram,
    /// From a statement's arrival to the end of its answer.
    pub query_time: LocalHistogram,
    pins: Labelled,
    pinned: LabelledGauge,
    routes: Labelled,
    shadows: Labelled,
    errors: Labelled,
    shared_checkout_wait: Arc<Histogram>,
    shared_query_time: Arc<Histogram>,
}

impl WorkerCounters {
    pub fn new(metrics: &Metrics) -> Rc<Self> {
        let count = |name, help| Count::new(metrics.counter(name, help, None));
        let bytes =
            |name, from, help| Count::new(metrics.counter(name, help, Some(("direction", from))));
        let labelled = |name, label, help| Labelled::new(metrics, name, label, help);
        let statements = |what| {
            let help = "Named prepared statements: parsed on servers, found there, evicted there.";
            Count::new(metrics.counter("pgsluice_statements_total", help, Some(("event", what))))
        };
        Rc::new(WorkerCounters {
            queries: count("pgsluice_queries_total", "Statements answered."),
            transactions: count("pgsluice_transactions_total", "Transactions ended."),
            client_in: bytes(
                "pgsluice_client_bytes_total",
                "in",
                "Bytes from and to clients.",
            ),
            client_out: bytes(
                "pgsluice_client_bytes_total",
                "out",
                "Bytes from and to clients.",
            ),
            server_in: bytes(
                "pgsluice_server_bytes_total",
                "in",
                "Bytes from and to servers.",
            ),
            server_out: bytes(
                "pgsluice_server_bytes_total",
                "out",
                "Bytes from and to servers.",
            ),
            checkouts: count("pgsluice_checkouts_total", "Servers handed to sessions."),
            checkout_waits: count(
                "pgsluice_checkout_waits_total",
                "Checkouts that had to wait.",
            ),
            settings_applied: count(
                "pgsluice_settings_applied_total",
                "Checkouts for which the server was first set to the session's settings.",
            ),
            audits: count(
                "pgsluice_audits_total",
                "Questions to servers about what a session left on them.",
            ),
            repeats: count(
                "pgsluice_reads_repeated_total",
                "Reads sent again elsewhere, since a replica could not answer them.",
            ),
            logins: count("pgsluice_logins_total", "Clients logged in."),
            login_failures: count("pgsluice_login_failures_total", "Clients refused at login."),
            server_dials: count("pgsluice_server_dials_total", "Server connections tried."),
            server_dial_failures: count(
                "pgsluice_server_dial_failures_total",
                "Server connections that failed.",
            ),
            replays: count(
                "pgsluice_replays_total",
                "Statements that a primary rolled back when it was shut down, sent once more to the next one.",
            ),
            statements_parsed: statements("parsed"),
            statements_reused: statements("reused"),
            statements_evicted: statements("evicted"),
            checkout_wait: LocalHistogram::default(),
            query_time: LocalHistogram::default(),
            pins: labelled(
                "pgsluice_pins_total",
                "reason",
                "Sessions that came to keep their server.",
            ),
            pinned: LabelledGauge {
                metrics: metrics.clone(),
                name: "pgsluice_pinned_sessions",
                help: "Sessions that keep their server.",
                label: "reason",
                gauges: RefCell::default(),
            },
            routes: labelled(
                "pgsluice_routed_total",
                "reason",
                "Batches on split listeners: for `read` to a replica, for every other reason to the primary.",
            ),
            shadows: labelled(
                "pgsluice_shadow_routed_total",
                "reason",
                "Batches on shadow listeners: what would have gone to a replica (`read`) or to the primary (every other reason).",
            ),
            errors: labelled(
                "pgsluice_errors_total",
                "kind",
                "Errors that the proxy itself gave.",
            ),
            shared_checkout_wait: metrics
                .histogram("pgsluice_checkout_wait_seconds", "Time to get a server."),
            shared_query_time: metrics.histogram(
                "pgsluice_query_seconds",
                "Time from a statement to the end of its answer.",
            ),
        })
    }

    /// A session's reason to keep its server has changed.
    pub fn pinned(&self, before: Option<&'static str>, now: Option<&'static str>) {
        if let Some(reason) = before {
            self.pinned.add(reason, -1.0);
        }
        if let Some(reason) = now {
            self.pinned.add(reason, 1.0);
        }
    }

    /// A session came to keep its server, for this reason.
    pub fn count_pin(&self, reason: &'static str) {
        self.pins.one(reason);
    }

    /// A batch on a split listener went where it belongs.
    pub fn count_route(&self, reason: &'static str) {
        self.routes.one(reason);
    }

    /// The same of where it would have gone.
    pub fn count_shadow(&self, reason: &'static str) {
        self.shadows.one(reason);
    }

    /// The proxy itself gave an error of this kind.
    pub fn count_error(&self, kind: Kind) {
        self.errors.one(kind.label());
    }

    /// Moves what was counted since the last time to where `/metrics` sees it. Call it every [`PUBLISH_INTERVAL`], and
    /// when the worker ends.
    pub fn publish(&self) {
        self.counts().iter().for_each(|count| count.publish());
        self.pins.publish();
        self.routes.publish();
        self.shadows.publish();
        self.errors.publish();
        self.checkout_wait.drain_into(&self.shared_checkout_wait);
        self.query_time.drain_into(&self.shared_query_time);
    }

    fn counts(&self) -> [&Count; 19] {
        [
            &self.queries,
            &self.transactions,
            &self.client_in,
            &self.client_out,
            &self.server_in,
            &self.server_out,
            &self.checkouts,
            &self.checkout_waits,
            &self.settings_applied,
            &self.audits,
            &self.repeats,
            &self.logins,
            &self.login_failures,
            &self.server_dials,
            &self.server_dial_failures,
            &self.replays,
            &self.statements_parsed,
            &self.statements_reused,
            &self.statements_evicted,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_before_publish_and_workers_add_up_after_it() {
        let metrics = Metrics::new();
        let (a, b) = (WorkerCounters::new(&metrics), WorkerCounters::new(&metrics));
        a.queries.add(2);
        b.queries.one();
        b.client_out.add(100);
        assert!(metrics.render().contains("pgsluice_queries_total 0\n"));
        a.publish();
        b.publish();
        b.publish();
        let text = metrics.render();
        assert!(text.contains("pgsluice_queries_total 3\n"), "{text}");
        assert!(
            text.contains("pgsluice_client_bytes_total{direction=\"out\"} 100\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_client_bytes_total{direction=\"in\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn pins_and_errors_carry_their_label() {
        let metrics = Metrics::new();
        let worker = WorkerCounters::new(&metrics);
        worker.count_pin("listen");
        worker.count_pin("listen");
        worker.count_error(Kind::Full);
        worker.pinned(None, Some("listen"));
        worker.pinned(Some("listen"), Some("temp_table"));
        worker.publish();
        let text = metrics.render();
        for pinned in [
            "pgsluice_pinned_sessions{reason=\"listen\"} 0\n",
            "pgsluice_pinned_sessions{reason=\"temp_table\"} 1\n",
        ] {
            assert!(text.contains(pinned), "{text}");
        }
        assert!(
            text.contains("pgsluice_pins_total{reason=\"listen\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_errors_total{kind=\"full\"} 1\n"),
            "{text}"
        );
    }
}
