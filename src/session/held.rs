//! Sessions that wait for a node, over all workers: how many there are, and how many there may be (`failover.max_held`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::metrics::Metrics;

/// What all workers share of it.
pub struct Held {
    count: AtomicUsize,
    shown: metrics::Gauge,
}

/// One session's place.
pub(super) struct Place(Arc<Held>);

impl Held {
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        let help = "Sessions that wait for a node.";
        Arc::new(Held {
            count: AtomicUsize::new(0),
            shown: metrics.gauge("pgsluice_held_sessions", help, None),
        })
    }

    /// A place for one more session; None if there are `max` already.
    pub(super) fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let one_more = |count| (count < max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        self.shown.increment(1.0);
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
        self.0.shown.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_session_has_left() {
        let metrics = Metrics::new();
        let held = Held::new(&metrics);
        let shows = |count| {
            let line = format!("pgsluice_held_sessions {count}\n");
            assert!(metrics.render().contains(&line), "{}", metrics.render());
        };
        let first = held.enter(2);
        let second = held.enter(2);
        assert!(first.is_some() && second.is_some() && held.enter(2).is_none());
        shows(2);
        drop(first);
        shows(1);
        assert!(held.enter(2).is_some());
    }
}
