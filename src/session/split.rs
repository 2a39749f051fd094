//! Sessions whose statements go to different nodes: what they must see of what was done before.
//!
//! That is a session's *watermark*, the moment of what it has done or seen last where that counts
//! (`reads.consistency`); see [`crate::topology::Freshness`].

use super::{
    Session,
    ahead::Proof,
    aim::{Aim, READ, STALE, UNREADABLE},
    statement::Statement,
    visit::{Again, Before, Extent, Visit},
};
use crate::{
    config::{Consistency, Listener, Reads, Route},
    topology::{Lsn, Moment},
    wire::TransactionStatus,
};

/// Of a session whose statements go to different nodes.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) aim: Aim,
    /// Bytes of the batch for which it was taken, if that may be a visit; else 0.
    pub(super) visitable: usize,
    /// What of it is proven.
    pub(super) proof: Proof,
    /// It may be sent again.
    pub(super) repeatable: bool,
    pub(super) watermark: Moment,
    /// The generation of the replica that served last, and when its last answer had come.
    pub(super) last: (u64, Moment),
    /// What another session wrote up to here must be seen: until the primary is known to have got so far, only there.
    pub(super) min_lsn: Option<Lsn>,
    /// Since the primary was last quiet, something was sent there that may write.
    pub(super) wrote: bool,
    /// Why it was taken.
    pub(super) reason: &'static str,
    /// The first statement of what the client sent, as read for its aim.
    pub(super) ahead: Option<Statement>,
    pub(super) visit: Option<Visit>,
    /// The BEGIN of a read-only transaction that waits for its first statement.
    pub(super) opening: Option<Box<[u8]>>,
    /// The batch was sent before.
    pub(super) again: Option<Before>,
    pub(super) patience: Patience,
}

/// How many reads in a row a session has had on the primary because no replica was fresh enough.
///
/// What a session has read on the primary it must find wherever it reads next, so one that reads without a pause would
/// stay there for ever. After so many, one read waits for a replica; if that was in vain, twice as many pass before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    stayed: u32,
    limit: u32,
}

impl Patience {
    const FIRST: u32 = 16;
    const LAST: u32 = 4096;

    fn new() -> Self {
        Patience {
            stayed: 0,
            limit: Patience::FIRST,
        }
    }

    /// Whether the next read is to wait.
    pub(super) fn is_over(self) -> bool {
        self.stayed >= self.limit
    }

    /// A transaction has begun on a node, for this reason.
    pub(super) fn note(&mut self, reason: &'static str) {
        match reason {
            READ => *self = Patience::new(),
            STALE if self.is_over() => {
                self.limit = (self.limit * 2).min(Patience::LAST);
                self.stayed = 1;
            }
            STALE => self.stayed += 1,
            // The reads that follow a write stay for that.
            _ => self.stayed = 0,
        }
    }
}

impl Split {
    pub fn of(listener: &Listener) -> Option<Box<Self>> {
        let split = Split {
            aim: Aim::Listener,
            visitable: 0,
            proof: Proof::None,
            repeatable: false,
            reason: UNREADABLE,
            watermark: Moment::NEVER,
            last: (0, Moment::NEVER),
            min_lsn: None,
            wrote: false,
            ahead: None,
            visit: None,
            opening: None,
            again: None,
            patience: Patience::new(),
        };
        let is_split = listener.route != Route::Primary || listener.shadow;
        is_split.then(|| Box::new(split))
    }
}

impl Session {
    /// What holds for the login's reads.
    #[inline]
    pub(super) fn reads(&self) -> Reads {
        self.identity.reads(&self.context.config.borrow())
    }

    /// Something was sent that is no proven read.
    #[inline]
    pub(super) fn note_write(&mut self) {
        if self.is_within() {
            return;
        }
        if let Some(split) = &mut self.split {
            split.wrote = true;
        }
    }

    /// The server has told the client that it is ready, at `now`; `quiet`: and owes nothing more.
    pub(super) fn note_ready(&mut self, now: Moment, status: TransactionStatus, quiet: bool) {
        let consistency = self.reads().consistency;
        let route = self.listener.route;
        // What statements with names of their own do is not looked at when they run.
        let is_unseen = self.names_are_native();
        let Some(split) = &mut self.split else {
            return;
        };
        if let Some(before) = split.again.take()
            && before.again == Again::Replica
        {
            self.context.learned.absolve(before.batch);
        }
        if let Some(visit) = &mut split.visit {
            let lasts = visit.extent == Extent::Transaction;
            if lasts && status != TransactionStatus::Idle {
                return;
            }
            split.last = (visit.generation, now);
            // What was set in a transaction is asked for before the server is left.
            visit.left = 0;
            if !lasts {
                self.end_visit();
            }
            return;
        }
        // What a replica would have read moves nothing.
        let would_leave = self.listener.shadow && split.reason == READ;
        if route == Route::Replica || would_leave {
            return;
        }
        let wrote = split.wrote || is_unseen;
        let moves = match consistency {
            Consistency::Eventual => false,
            Consistency::OwnWrites => wrote,
            Consistency::Session | Consistency::Database => true,
        };
        split.wrote &= !quiet;
        if moves {
            split.watermark = now;
            self.context.outside.want_fresh(now);
        }
        if wrote && consistency == Consistency::Database {
            self.identity.database().note_write(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_reads_on_the_primary_waits_seldom_and_not_after_writes() {
        let mut patience = Patience::new();
        let mut until_over = |first: &'static str| {
            patience.note(first);
            let mut stayed = 0;
            while !patience.is_over() {
                patience.note(STALE);
                stayed += 1;
            }
            stayed
        };
        assert_eq!(until_over(READ), 16);
        // It has waited in vain.
        assert_eq!(until_over(STALE), 31);
        assert_eq!(until_over("write"), 32);
        assert_eq!(until_over(STALE), 63);
        assert_eq!(until_over(READ), 16);
    }
}
