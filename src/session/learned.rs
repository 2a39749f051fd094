//! What a worker has learned of batches by sending them to replicas.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// So many are remembered; with more, all are forgotten.
const MAX_KNOWN: usize = 4096;

/// How long a batch is remembered to have headed an abnormal end of its server.
const SUSPICION: Duration = Duration::from_secs(3600);

/// Begins no message of a client's.
const OPENING: &[u8] = &[0];

/// By the bytes of the client's messages. See the module's header.
#[derive(Debug, Default)]
pub struct Learned {
    keys: RandomState,
    /// Replicas have refused what was taken for reads.
    refuted: RefCell<HashSet<u64>>,
    /// Replicas have ended without a word while these ran, at this time.
    suspects: RefCell<HashMap<u64, Instant>>,
}

impl Learned {
    /// The batch is no read, whatever it was proven to be.
    pub fn refute(&self, batch: &[u8]) {
        let mut refuted = self.refuted.borrow_mut();
        if refuted.len() >= MAX_KNOWN {
            refuted.clear();
        }
        refuted.insert(self.keys.hash_one(batch));
    }

    #[inline]
    pub fn is_refuted(&self, batch: &[u8]) -> bool {
        let refuted = self.refuted.borrow();
        !refuted.is_empty() && refuted.contains(&self.keys.hash_one(batch))
    }

    /// A transaction that this batch opened was no transaction for a replica.
    pub fn refute_opening(&self, batch: &[u8]) {
        self.refute(&[OPENING, batch].concat());
    }

    pub fn is_refuted_opening(&self, batch: &[u8]) -> bool {
        !self.refuted.borrow().is_empty() && self.is_refuted(&[OPENING, batch].concat())
    }

    /// Whether the batch's server has ended before while it ran; from now on it has.
    pub fn suspect(&self, batch: &[u8], now: Instant) -> bool {
        let mut suspects = self.suspects.borrow_mut();
        if suspects.len() >= MAX_KNOWN {
            suspects.clear();
        }
        let before = suspects.insert(self.keys.hash_one(batch), now);
        before.is_some_and(|then| now.saturating_duration_since(then) < SUSPICION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_suspected_the_second_time_within_the_hour() {
        let (learned, now) = (Learned::default(), Instant::now());
        assert!(!learned.suspect(b"a", now));
        assert!(!learned.suspect(b"b", now));
        assert!(learned.suspect(b"a", now + SUSPICION / 2));
        assert!(!learned.suspect(b"b", now + SUSPICION));
    }

    #[test]
    fn only_the_refuted_batch_is_refuted() {
        let learned = Learned::default();
        assert!(!learned.is_refuted(b"a"));
        learned.refute(b"a");
        assert!(learned.is_refuted(b"a") && !learned.is_refuted(b"b"));
    }
}
