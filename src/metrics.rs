//! Counters and histograms: written by everybody, read by `/metrics`, never read to decide.
//!
//! Each proxy has its own [`Metrics`] (no global recorder), so that two can live in one process. Counters and gauges
//! go through the `metrics` recorder. Histograms are our own arrays of buckets: the recorder keeps every single sample
//! until it is collected, which a worker's hundred thousand queries a second should not pay for. Workers count in
//! plain cells ([`WorkerCounters`]) and publish a few times a second.

mod histogram;
mod text;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use histogram::{BUCKETS, Histogram, LocalHistogram};
pub use text::{Family, Text};
pub use worker::{Count, PUBLISH_INTERVAL, WorkerCounters};

static METADATA: Metadata<'static> = Metadata::new("pgsluice", Level::INFO, None);

/// One proxy's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    histograms: Mutex<Vec<Named>>,
}

/// A histogram without labels, by its name.
struct Named {
    name: &'static str,
    help: &'static str,
    histogram: Arc<Histogram>,
}

impl Metrics {
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Metrics(Arc::new(Registry {
            recorder,
            handle,
            histograms: Mutex::default(),
        }))
    }

    /// The counter of this name and label; made at the first call. Keep the handle: finding it takes locks. Label values
    /// must be of a bounded set.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        label: Option<(&'static str, &str)>,
    ) -> Counter {
        let described = KeyName::from_const_str(name);
        self.0
            .recorder
            .describe_counter(described, None, help.into());
        self.0
            .recorder
            .register_counter(&key(name, label), &METADATA)
    }

    /// The gauge of this name and label; as [`Metrics::counter`].
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        label: Option<(&'static str, &str)>,
    ) -> Gauge {
        let described = KeyName::from_const_str(name);
        self.0.recorder.describe_gauge(described, None, help.into());
        self.0.recorder.register_gauge(&key(name, label), &METADATA)
    }

    /// The histogram of this name; made at the first call.
    pub fn histogram(&self, name: &'static str, help: &'static str) -> Arc<Histogram> {
        let mut all = lock(&self.0.histograms);
        if let Some(known) = all.iter().find(|known| known.name == name) {
            return known.histogram.clone();
        }
        let histogram = Arc::<Histogram>::default();
        all.push(Named {
            name,
            help,
            histogram: histogram.clone(),
        });
        histogram
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.text().into_string()
    }

    /// As [`Metrics::render`], to be added to.
    pub fn text(&self) -> Text {
        self.0.handle.run_upkeep();
        let mut text = Text::from(self.0.handle.render());
        for named in lock(&self.0.histograms).iter() {
            let mut family = text.family(named.name, Family::Histogram, named.help);
            family.histogram(&[], &named.histogram);
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

/// A poisoned lock is taken all the same: the list is whole at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(name: &'static str, label: Option<(&'static str, &str)>) -> Key {
    let labels: Vec<Label> = label
        .map(|(key, value)| Label::new(key, value.to_owned()))
        .into_iter()
        .collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_proxies_in_one_process_count_apart() {
        let (a, b) = (Metrics::new(), Metrics::new());
        a.counter("pgsluice_test_total", "A test.", None)
            .increment(3);
        b.counter("pgsluice_test_total", "A test.", None)
            .increment(5);
        assert!(
            a.render().contains("pgsluice_test_total 3\n"),
            "{}",
            a.render()
        );
        assert!(b.render().contains("pgsluice_test_total 5\n"));
    }

    #[test]
    fn a_histogram_shows_cumulative_buckets_sum_and_count() {
        let metrics = Metrics::new();
        let histogram = metrics.histogram("pgsluice_test_seconds", "A test.");
        histogram.record(Duration::from_micros(40));
        histogram.record(Duration::from_millis(3));
        histogram.record(Duration::from_secs(3600));
        let text = metrics.render();
        assert!(
            text.contains("# TYPE pgsluice_test_seconds histogram\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_test_seconds_bucket{le=\"0.00005\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_test_seconds_bucket{le=\"0.005\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_test_seconds_bucket{le=\"+Inf\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("pgsluice_test_seconds_sum 3600.00304\n"),
            "{text}"
        );
        assert!(text.contains("pgsluice_test_seconds_count 3\n"), "{text}");
    }
}
