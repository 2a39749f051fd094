//! Times in fixed buckets: an atomic one that is shared, and a plain one for a single thread.
//!
//! The bounds are the same everywhere, so histograms of many proxies can be added up.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, as (nanoseconds, `le` in seconds). One more bucket, +Inf, follows.
///
/// From a cached read over loopback (50 µs) to the longest waits that have a limit by default (10 s).
pub(super) const BOUNDS: [(u64, &str); 17] = [
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (200_000, "0.0002"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_000_000, "0.002"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (20_000_000, "0.02"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (200_000_000, "0.2"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_000_000_000, "2"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

/// Buckets of a histogram, +Inf included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

fn bucket(ns: u64) -> usize {
    BOUNDS.partition_point(|(bound, _)| *bound < ns)
}

/// Nanoseconds, as far as 64 bits go (five hundred years).
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A histogram that many threads may write.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub fn record(&self, time: Duration) {
        let ns = nanoseconds(time);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts per bucket, not cumulative.
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed))
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed))
    }
}

/// A histogram of one thread, without a shared cache line.
#[derive(Debug, Default)]
pub struct LocalHistogram {
    counts: [Cell<u64>; BUCKETS],
    sum_ns: Cell<u64>,
}

impl LocalHistogram {
    pub fn record(&self, time: Duration) {
        let ns = nanoseconds(time);
        let count = &self.counts[bucket(ns)];
        count.set(count.get() + 1);
        self.sum_ns.set(self.sum_ns.get().wrapping_add(ns));
    }

    /// Moves everything into `shared`.
    pub fn drain_into(&self, shared: &Histogram) {
        for (local, shared) in self.counts.iter().zip(&shared.counts) {
            let count = local.take();
            if count > 0 {
                shared.fetch_add(count, Ordering::Relaxed);
            }
        }
        shared
            .sum_ns
            .fetch_add(self.sum_ns.take(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_the_next_nanosecond_does_not() {
        for (index, (bound, le)) in BOUNDS.iter().enumerate() {
            assert_eq!(bucket(*bound), index, "{le}");
            assert_eq!(bucket(bound + 1), index + 1, "{le}");
            let seconds: f64 = le.parse().unwrap();
            assert!((seconds * 1e9 - *bound as f64).abs() < 1.0, "{le}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn draining_moves_counts_and_sum_once() {
        let (local, shared) = (LocalHistogram::default(), Histogram::default());
        local.record(Duration::from_millis(1));
        local.record(Duration::from_secs(60));
        local.drain_into(&shared);
        local.drain_into(&shared);
        assert_eq!(shared.counts().iter().sum::<u64>(), 2);
        assert_eq!(shared.sum(), Duration::from_millis(60_001));
    }
}
