//! Visits: the hold of a replica's server for one batch of proven reads outside a transaction.
//!
//! The batch's messages are kept until it has ended. Where the replica answers with an error that another node would not
//! give, or ends, before a byte of the answer has reached the client, they are sent again elsewhere, once. On a listener
//! that splits, every hold of a replica is a visit; on one that only reads, those are that can be repeated.

use std::rc::Rc;

use super::{
    Link, Session,
    ahead::Proof,
    aim::{Aim, READ},
    catalogue::Reliance,
    end::note_failure,
    kept::messages,
    learned,
    outcome::Cause,
    own::explanation,
    relay::ServerEnd,
};
use crate::{
    config::Route,
    server::{connection::Server, pool::Pool},
    topology::{Moment, Role},
    wire::{
        backend,
        buffer::Buffer,
        cursor::Cursor,
        frame::Frame,
        frontend,
        pipeline::{Sent, Show},
        report::Report,
    },
};

/// How a batch goes on that a replica could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Primary,
    /// Another replica, else the primary.
    Elsewhere,
    /// It may have ended its server: never on the primary.
    Replica,
}

/// Where a batch was sent first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) again: Again,
    /// Of the replica.
    pub(super) generation: u64,
    pub(super) batch: learned::Batch,
}

#[derive(Debug)]
pub(super) struct Visit {
    /// Of the replica.
    pub(super) generation: u64,
    /// The batch as the client sent it.
    pub(super) kept: Box<Buffer>,
    /// Bytes of it that are still to be looked at.
    pub(super) left: usize,
    /// How much the replica has sent.
    pub(super) reply: Reply,
    /// The client has got one.
    pub(super) is_answered: bool,
    /// Parse messages of the batch that have been answered.
    parsed: usize,
    pub(super) extent: Extent,
    pub(super) repeats: Option<Again>,
}

/// How much a visit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Batch,
    /// The beginning of a batch, up to its Flush ([`super::ahead`]).
    Piece,
    /// A Sync stands where that Flush stood.
    PieceEnded,
    /// Then the client is owed nothing up to the Sync of its own.
    PieceFailed,
    /// A read-only transaction ([`super::opening`]).
    Transaction,
}

/// What a replica has sent for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reply {
    /// Or what may be said twice.
    Nothing,
    /// Some of its answer.
    Begun,
}

/// So much of an answer is kept back until it is whole. PostgreSQL itself keeps 8 KiB back.
const MAX_HELD_BACK: usize = 1024;

impl Session {
    /// A server was taken for what the client sent: of a replica, for a visit if it can be one.
    pub(super) fn begin_visit(&mut self, server: &mut Server, pool: &Rc<Pool>) {
        let view = pool.view();
        let (route, explains) = (self.listener.route, self.wants_explanations());
        let defined = match route {
            Route::Replica => self.defined(),
            _ => Moment::NEVER,
        };
        let Some(split) = &mut self.split else {
            return;
        };
        if self.listener.shadow {
            self.context.counters.count_shadow(split.reason);
        }
        if route == Route::Split {
            let is_replica = view.role == Role::Replica;
            let reason = if is_replica { READ } else { split.reason };
            self.context.counters.count_route(reason);
            split.patience.note(reason);
            if explains {
                backend::notice(&mut self.out, &explanation(&view, reason));
            }
        }
        if view.role != Role::Replica {
            return;
        }
        let len = std::mem::take(&mut split.visitable);
        let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
        // On a replica listener, more behind it is not for this server to wait with.
        let may_visit = route == Route::Split
            || unseen.len() == len
                && defined != Moment::NEVER
                && server.fresh_as_of(&view.freshness) >= defined;
        if len == 0 || !may_visit {
            // It was read as on the primary, and this replica may still have the definitions of before.
            split.ahead = None;
            return;
        }
        let mut kept = self.context.blocks.take();
        kept.append(unseen.get(..len).unwrap_or_default());
        let extent = match split.proof {
            Proof::Opening => Extent::Transaction,
            _ if split.opening.is_some() => Extent::Transaction,
            Proof::Piece => Extent::Piece,
            Proof::Batch | Proof::None => Extent::Batch,
        };
        // Nothing in a transaction is sent again.
        let lasts = extent == Extent::Transaction;
        split.visit = Some(Visit {
            generation: view.generation,
            kept,
            left: if lasts { usize::MAX } else { len },
            reply: if lasts { Reply::Begun } else { Reply::Nothing },
            is_answered: lasts,
            parsed: 0,
            extent,
            repeats: None,
        });
    }

    pub(super) fn visit(&self) -> Option<&Visit> {
        self.split.as_ref()?.visit.as_ref()
    }

    /// The held server is a replica's, for one batch. On a replica listener other holds are of replicas too.
    pub(super) fn is_visiting(&self) -> bool {
        self.visit().is_some()
    }

    /// The held server is free, and was taken for a visit.
    pub(super) fn was_visiting(&self) -> bool {
        match &self.link {
            Link::Held { server, pool } => {
                let is_split = self.listener.route == Route::Split;
                is_split && pool.view().role == Role::Replica && server.pipeline.is_free()
            }
            _ => false,
        }
    }

    /// What the held server was taken for.
    pub(super) fn route_held(&self) -> Route {
        match &self.split {
            Some(split) if split.visit.is_some() => Route::Replica,
            Some(split) if split.aim == Aim::Primary => Route::Primary,
            _ => self.listener.route,
        }
    }

    /// All of the visit's batch has gone to the replica: what comes now is for another hold.
    #[inline]
    pub(super) fn is_visit_over(&mut self) -> bool {
        let is_over = self.visit().is_some_and(|visit| visit.left == 0) || self.waits_within();
        // Where everything goes to replicas it may as well go to this one, which makes an end of repeating.
        if is_over && self.listener.route == Route::Replica {
            self.end_visit();
            return false;
        }
        is_over
    }

    /// A message of `len` bytes has been looked at.
    #[inline]
    pub(super) fn note_looked_at(&mut self, len: usize) {
        if let Some(split) = &mut self.split
            && let Some(visit) = &mut split.visit
        {
            visit.left = visit.left.saturating_sub(len);
        }
    }

    /// The Flush that ends a piece.
    pub(super) fn ends_piece(&self, frame: Frame) -> bool {
        let is_last = |v: &Visit| v.extent == Extent::Piece && v.left == frame.len;
        frame.tag == b'H' && self.visit().is_some_and(is_last)
    }

    /// A Sync of our own instead frees the replica's server.
    pub(super) fn end_piece(&mut self, frame: Frame) {
        let mut sync = Vec::new();
        frontend::sync(&mut sync);
        self.drop_frame(frame);
        self.send_own(&sync, Sent::Sync, Show::Swallow, None);
        self.prepared.end_batch();
        self.set_extent(Extent::PieceEnded);
    }

    fn set_extent(&mut self, extent: Extent) {
        if let Some(split) = &mut self.split
            && let Some(visit) = &mut split.visit
        {
            visit.extent = extent;
        }
    }

    /// The client is told of an error.
    pub(super) fn note_error_told(&mut self) {
        if self.visit().is_some_and(|v| v.extent == Extent::PieceEnded) {
            self.set_extent(Extent::PieceFailed);
        }
    }

    /// The server has answered the Sync that ended a piece: how that has ended.
    pub(super) fn piece_over(&self) -> Option<Extent> {
        let Link::Held { server, .. } = &self.link else {
            return None;
        };
        let extent = self.visit()?.extent;
        (server.pipeline.is_free() && matches!(extent, Extent::PieceEnded | Extent::PieceFailed))
            .then_some(extent)
    }

    /// The visited replica has sent a message of this type.
    pub(super) fn note_reply(&mut self, tag: u8) {
        if let Some(split) = &mut self.split
            && let Some(visit) = &mut split.visit
        {
            visit.parsed += usize::from(tag == b'1');
            visit.reply = visit.reply.max(match tag {
                b'N' | b'S' | b'A' => Reply::Nothing,
                _ => Reply::Begun,
            });
        }
    }

    /// What has come is the first part of an answer, and is kept back: a server that is killed sends it with its last words.
    pub(super) fn holds_back(&self) -> bool {
        let begins = |visit: &Visit| visit.reply == Reply::Begun && !visit.is_answered;
        let fits =
            |buffer: &Buffer| !buffer.is_inside_frame() && buffer.pending().len() <= MAX_HELD_BACK;
        self.visit().is_some_and(begins) && self.to_client.as_deref().is_some_and(fits)
    }

    /// What the server has sent so far has gone to the client, or a part of it.
    pub(super) fn note_told(&mut self) {
        if let Some(split) = &mut self.split
            && let Some(visit) = &mut split.visit
        {
            visit.is_answered |= visit.reply != Reply::Nothing;
        }
    }

    /// The transaction that the visit was for is over.
    pub(super) fn end_lasting_visit(&mut self) {
        if self.is_within() {
            self.end_visit();
        }
    }

    /// The visited replica has refused the batch, and lives on.
    pub(super) fn note_repeat(&self) {
        if let (Some(visit), Link::Held { pool, .. }) = (self.visit(), &self.link)
            && visit.repeats == Some(Again::Elsewhere)
        {
            note_failure(&pool.view());
        }
    }

    /// What was kept is of no more use.
    pub(super) fn end_visit(&mut self) {
        let visit = self.split.as_mut().and_then(|split| split.visit.take());
        if let Some(mut visit) = visit {
            let len = visit.kept.unseen().len();
            visit.kept.discard(len);
            self.context.blocks.give_back(visit.kept);
        }
    }

    /// The answer that is coming will not be shown: the batch is to be sent again.
    #[inline]
    pub(super) fn is_to_repeat(&self) -> bool {
        self.visit().is_some_and(|visit| visit.repeats.is_some())
    }

    /// An error of the visited replica: true if its batch is sent again instead. `refutes`: the error says that it is no read.
    pub(super) fn repeats_after_error(&mut self, again: Option<Again>, refutes: bool) -> bool {
        let again = match self.listener.route {
            Route::Split => again,
            _ => again.filter(|again| *again != Again::Primary),
        };
        if refutes
            && let Some(visit) = self.visit()
            && visit.extent != Extent::Transaction
        {
            self.context.learned.refute(visit.kept.unseen());
        }
        self.repeats(again)
    }

    fn repeats(&mut self, again: Option<Again>) -> bool {
        let Some(split) = &mut self.split else {
            return false;
        };
        let is_second = split.again.is_some();
        let Some(visit) = &mut split.visit else {
            return false;
        };
        if is_second || !split.repeatable || visit.is_answered || again.is_none() {
            return false;
        }
        visit.repeats = again;
        if let Some(buffer) = &mut self.to_client {
            buffer.abandon();
        }
        true
    }

    /// The visited server was lost: true if its batch is to be sent again.
    pub(super) fn repeats_after_loss(&mut self, end: &ServerEnd) -> bool {
        if self.is_to_repeat() {
            return true;
        }
        match end {
            ServerEnd::Gone(_) => !self.suspect() && self.repeats(Some(Again::Replica)),
            ServerEnd::GivenUp(Cause::Silent) => self.repeats(Some(Again::Elsewhere)),
            ServerEnd::Cancelled if !self.entry.was_cancel_sent() => {
                self.repeats(Some(Again::Elsewhere))
            }
            ServerEnd::GivenUp(_)
            | ServerEnd::Broke(_)
            | ServerEnd::ShutDown(_)
            | ServerEnd::Cancelled => false,
        }
    }

    /// Remembers that the batch has headed an end of its node; whether it had of another before.
    fn suspect(&self) -> bool {
        let Some(visit) = self.visit() else {
            return false;
        };
        let now = self.context.pools.now();
        let learned = &self.context.learned;
        let batch = learned.batch(visit.kept.unseen());
        learned.suspect(batch, visit.generation, now)
    }

    /// Puts the visit's batch before what the client has sent since. The server is gone, or free.
    pub(super) fn resend(&mut self) {
        let Some(split) = &mut self.split else {
            return;
        };
        let Some(visit) = &mut split.visit else {
            return;
        };
        split.again = visit.repeats.take().map(|again| Before {
            again,
            generation: visit.generation,
            batch: self.context.learned.batch(visit.kept.unseen()),
        });
        let left = visit.left;
        self.context.counters.repeats.one();
        if let Some(buffer) = &mut self.to_client {
            buffer.abandon();
        }
        let from_client = self
            .from_client
            .get_or_insert_with(|| self.context.blocks.take());
        from_client.abandon();
        from_client.discard(left);
        from_client.prepend(visit.kept.unseen());
        // What the replica had prepared by its name is prepared anew.
        let parses = messages(visit.kept.unseen()).filter(|(tag, _)| *tag == b'P');
        for (_, body) in parses.take(visit.parsed) {
            let name = Cursor::new(body).cstr().unwrap_or_default();
            if !name.is_empty() {
                self.prepared.remove(name);
            }
        }
        self.end_visit();
        self.reliance = Reliance::None;
    }
}

/// What an error says of whether another node would say the same.
pub(super) struct Refused<'a> {
    pub sqlstate: &'a [u8; 5],
    pub is_fatal: bool,
    pub routine: &'a [u8],
}

impl<'a> Refused<'a> {
    pub fn of(report: &Report<'a>, sqlstate: &'a [u8; 5], is_fatal: bool) -> Self {
        Refused {
            sqlstate,
            is_fatal,
            routine: report.routine,
        }
    }

    /// POSTGRES.md 8.2. Never by the text, which is translated.
    pub fn again(&self) -> Option<Again> {
        match (self.is_fatal, self.sqlstate) {
            // The node goes, or has cancelled what stands in the way of its replay.
            (true, b"57P01" | b"57P03" | b"57P04" | b"40001") => Some(Again::Elsewhere),
            (true, b"57P02") => Some(Again::Replica),
            (false, b"40001" | b"40P01") => Some(Again::Elsewhere),
            _ if self.is_write() => Some(Again::Primary),
            // It needs what only the primary has, or was parsed before the table changed.
            (false, b"0A000") => Some(Again::Primary),
            // What the catalogue has shown may not have reached the replica.
            (false, b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000") => Some(Again::Primary),
            _ => None,
        }
    }

    /// Whether what was taken for a read has tried to write.
    pub fn is_write(&self) -> bool {
        let writes = |routine: &[u8]| matches!(routine, b"XLogBeginInsert" | b"GetNewObjectId");
        match self.sqlstate {
            b"25006" => !self.is_fatal,
            b"XX000" => !self.is_fatal && writes(self.routine),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<'a>(is_fatal: bool, sqlstate: &'a [u8; 5], routine: &'a [u8]) -> Refused<'a> {
        Refused {
            sqlstate,
            is_fatal,
            routine,
        }
    }

    #[test]
    fn only_an_attempt_to_write_says_that_a_batch_is_no_read() {
        assert!(refused(false, b"25006", b"").is_write());
        assert!(refused(false, b"XX000", b"GetNewObjectId").is_write());
        // The table has not reached the replica yet, or has changed since the statement was parsed.
        assert!(!refused(false, b"42P01", b"").is_write());
        assert!(!refused(false, b"0A000", b"").is_write());
    }

    #[test]
    fn which_errors_of_a_replica_another_node_would_not_give() {
        let again = |is_fatal, sqlstate: &[u8; 5], routine: &[u8]| {
            refused(is_fatal, sqlstate, routine).again()
        };
        assert_eq!(again(false, b"25006", b""), Some(Again::Primary));
        assert_eq!(
            again(false, b"XX000", b"XLogBeginInsert"),
            Some(Again::Primary)
        );
        assert_eq!(again(false, b"XX000", b"elog"), None);
        assert_eq!(
            again(false, b"40001", b"ProcessInterrupts"),
            Some(Again::Elsewhere)
        );
        assert_eq!(again(true, b"57P01", b""), Some(Again::Elsewhere));
        assert_eq!(again(false, b"57P01", b""), None);
        assert_eq!(again(true, b"57P02", b""), Some(Again::Replica));
        assert_eq!(again(false, b"22012", b""), None);
        assert_eq!(again(false, b"57014", b""), None);
    }
}
