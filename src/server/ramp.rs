//! How many dials of one pool may be under way on a worker, and when the next after one that failed. Pure.
//!
//! A node that refuses is not asked by everybody at once again: after a pause by one, then by twice as many with each that gets
//! in. The pause doubles with each round that fails, and dials that were under way together are one round.

use std::time::{Duration, Instant};

use crate::error::Error;

/// First pause after a failed dial; it doubles up to `pool.login_backoff`.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Dials of one pool that may be under way at once on a worker: more would be a storm on the node.
pub const MAX_DIALS: usize = 8;

/// See the module's header.
#[derive(Debug)]
pub struct Ramp {
    /// So many may be under way.
    width: usize,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    until: Instant,
    pause: Duration,
    error: Error,
}

impl Default for Ramp {
    fn default() -> Self {
        Ramp {
            width: MAX_DIALS,
            failure: None,
        }
    }
}

impl Ramp {
    /// How many more may be dialled now, while so many are under way.
    pub fn room(&self, under_way: usize, now: Instant) -> usize {
        match self.pauses(now) {
            true => 0,
            false => self.width.saturating_sub(under_way),
        }
    }

    /// What the last dial said, while none that got in came after it.
    pub fn error(&self) -> Option<&Error> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// Whether nobody may dial just now.
    pub fn pauses(&self, now: Instant) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| now < failure.until)
    }

    /// A dial got in.
    pub fn got_in(&mut self) {
        self.failure = None;
        self.width = (self.width * 2).min(MAX_DIALS);
    }

    /// A dial failed.
    pub fn failed(&mut self, error: Error, now: Instant, max_pause: Duration) {
        self.width = 1;
        match &mut self.failure {
            // Of the same round.
            Some(failure) if now < failure.until => failure.error = error,
            last => {
                let pause = last.as_ref().map_or(MIN_PAUSE, |it| it.pause * 2);
                let pause = pause.min(max_pause);
                *last = Some(Failure {
                    until: now + pause,
                    pause,
                    error,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const MAX: Duration = Duration::from_millis(300);

    fn refused() -> Error {
        Error::server(Kind::NoNode, "pg1", "not now")
    }

    #[test]
    fn a_round_that_failed_is_followed_by_one_dial_after_a_pause_that_doubles() {
        let (mut ramp, mut now) = (Ramp::default(), Instant::now());
        assert_eq!(ramp.room(0, now), MAX_DIALS);
        for pause in [50, 100, 200, 300, 300] {
            // All that were under way.
            for _ in 0..MAX_DIALS {
                ramp.failed(refused(), now, MAX);
            }
            now += Duration::from_millis(pause - 1);
            assert_eq!((ramp.room(0, now), ramp.pauses(now)), (0, true));
            now += Duration::from_millis(1);
            assert_eq!((ramp.room(0, now), ramp.room(1, now)), (1, 0), "{pause}");
            assert_eq!(ramp.error().map(|error| error.kind), Some(Kind::NoNode));
        }
    }

    #[test]
    fn each_dial_that_gets_in_lets_twice_as_many_follow() {
        let (mut ramp, now) = (Ramp::default(), Instant::now());
        ramp.failed(refused(), now, MAX);
        let widths = [2, 4, 8, 8].map(|_| {
            ramp.got_in();
            ramp.room(0, now)
        });
        assert_eq!(widths, [2, 4, 8, 8]);
        assert!(ramp.error().is_none());
    }
}
