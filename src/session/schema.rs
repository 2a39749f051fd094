//! When texts may have come to mean something else: a count of the schema's changes, as far as they pass by here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Shared by all workers.
#[derive(Debug, Clone, Default)]
pub struct SchemaEpoch(Arc<AtomicU64>);

impl SchemaEpoch {
    /// What was parsed in an earlier epoch may mean something else now.
    #[inline]
    pub fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Whether the session's open transaction changes the schema: for others it does so at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum SchemaTrace {
    #[default]
    Untouched,
    Changing,
    /// Any transaction may: the session has statements that do, and when they are executed is not looked at.
    Lasting,
}

impl SchemaTrace {
    pub fn note(&mut self, changes: bool) {
        if changes {
            *self = (*self).max(SchemaTrace::Changing);
        }
    }

    pub fn note_lasting(&mut self, changes: bool) {
        if changes {
            *self = SchemaTrace::Lasting;
        }
    }

    /// A transaction has ended. True if the schema may be another.
    pub fn end(&mut self) -> bool {
        match self {
            SchemaTrace::Untouched => false,
            SchemaTrace::Lasting => true,
            SchemaTrace::Changing => {
                *self = SchemaTrace::Untouched;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_at_the_end_of_its_transaction_and_a_lasting_one_at_each() {
        let mut trace = SchemaTrace::default();
        assert!(!trace.end());
        trace.note(true);
        trace.note(false);
        assert!(trace.end());
        assert!(!trace.end());
        trace.note_lasting(true);
        trace.note(true);
        assert!(trace.end() && trace.end());
    }
}
