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

/// What a batch is suspected of.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    since: Instant,
    /// Of the node that ended.
    generation: u64,
}

/// By the bytes of the client's messages. See the module's header.
#[derive(Debug, Default)]
pub struct Learned {
    keys: RandomState,
    /// Replicas have refused what was taken for reads.
    refuted: RefCell<HashSet<u64>>,
    /// A replica has ended without a word while these ran.
    suspects: RefCell<HashMap<Batch, Suspicion>>,
}

/// A batch, as a worker remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch(u64);

impl Learned {
    /// To be named when it is no longer at hand.
    pub fn batch(&self, bytes: &[u8]) -> Batch {
        Batch(self.keys.hash_one(bytes))
    }

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

    /// Whether another node than that of `generation` has ended before while the batch ran; from now on this one has. A
    /// node that ends takes all with it that it was asked: one end is no more than one suspicion.
    pub fn suspect(&self, batch: Batch, generation: u64, now: Instant) -> bool {
        let mut suspects = self.suspects.borrow_mut();
        if suspects.len() >= MAX_KNOWN {
            suspects.clear();
        }
        let since = now;
        let before = suspects.insert(batch, Suspicion { since, generation });
        before.is_some_and(|it| {
            it.generation != generation && now.saturating_duration_since(it.since) < SUSPICION
        })
    }

    /// A node has answered the batch and lives.
    pub fn absolve(&self, batch: Batch) {
        self.suspects.borrow_mut().remove(&batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_suspected_when_a_second_node_ends_within_the_hour() {
        let (learned, now) = (Learned::default(), Instant::now());
        let (a, b) = (learned.batch(b"a"), learned.batch(b"b"));
        assert!(!learned.suspect(a, 1, now));
        assert!(!learned.suspect(b, 1, now));
        assert!(learned.suspect(a, 2, now + SUSPICION / 2));
        assert!(!learned.suspect(b, 2, now + SUSPICION));
    }

    #[test]
    fn who_ran_when_a_node_ended_is_one_of_many_and_free_once_another_has_answered() {
        let (learned, now) = (Learned::default(), Instant::now());
        let batch = learned.batch(b"a");
        assert!(!learned.suspect(batch, 1, now));
        assert!(!learned.suspect(batch, 1, now), "two sessions, one end");
        learned.absolve(batch);
        assert!(!learned.suspect(batch, 2, now));
    }

    #[test]
    fn only_the_refuted_batch_is_refuted() {
        let learned = Learned::default();
        assert!(!learned.is_refuted(b"a"));
        learned.refute(b"a");
        assert!(learned.is_refuted(b"a") && !learned.is_refuted(b"b"));
    }
}
