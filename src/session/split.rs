//! Sessions whose statements go to different nodes: what must be fresh for them, and reads that a replica could not answer.
//!
//! A *visit* is the hold of a replica's server for one batch of proven reads outside a transaction. Its messages are
//! kept until it has ended: where the replica answers with an error that another node would not give, or ends, before a
//! byte of the answer has reached the client, the batch is sent again elsewhere, once. On a listener that splits, every
//! hold of a replica is a visit; on one that only reads, those are that can be repeated.
//!
//! What a session must see is its *watermark*, the moment of what it has done or seen last where that counts
//! (`reads.consistency`); see [`crate::topology::Freshness`].

use std::{rc::Rc, time::Duration};

use super::{
    Session, ahead::Batch, catalogue::Reliance, outcome::Cause, own::explanation, relay::ServerEnd,
    statement::Statement,
};
use crate::{
    config::{Consistency, Route, Writes},
    server::{connection::Server, pool::Pool},
    topology::{Lsn, Moment, NodeView, Role, Topology},
    wire::{backend, buffer::Buffer, report::Report},
};

/// Where the next server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aim {
    /// Wherever the listener's route leads.
    #[default]
    Listener,
    Primary,
    /// A replica that is fresh enough, else the primary.
    Fresh(Need),
    /// Another replica than this generation, or none.
    Other(u64),
}

/// What a replica must be to serve a session's next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Fresh as of this moment…
    pub as_of: Moment,
    /// … and, where it is not the one that served last, as of this one.
    pub elsewhere: Moment,
    /// The generation of the node that served last; 0 for none.
    pub last: u64,
    /// Not this generation; 0 for none.
    pub without: u64,
    /// How long ago its freshness may be.
    pub max_staleness: Duration,
}

impl Need {
    pub fn is_met_by(&self, node: &NodeView, now: Moment) -> bool {
        let as_of = node.freshness.as_of();
        let at_least = match node.generation == self.last {
            true => self.as_of,
            false => self.as_of.max(self.elsewhere),
        };
        as_of != Moment::NEVER
            && as_of >= at_least
            && now.since(as_of) <= self.max_staleness
            && node.generation != self.without
    }
}

impl Aim {
    /// Whether `server`, of the pool that was chosen for this, may serve it. Of a replica that must be fresh it may be
    /// too young: to a node that was restarted in its own past since it was last asked.
    pub fn may_be_served_by(&self, server: &Server, pool: &Pool) -> bool {
        match self {
            Aim::Fresh(need) => {
                let view = pool.view();
                view.role == Role::Primary
                    || need.is_met_by(&view, Moment::now())
                        && Moment::of(server.born) <= view.freshness.proven()
            }
            _ => true,
        }
    }
}

/// Why a batch went where it went, beside the reasons of [`crate::route::class::Reason`]. Only this one to a replica.
const READ: &str = "read";
/// No replica was fresh enough for a proven read.
const STALE: &str = "stale";
/// The session wants its reads on the primary.
const SETTING: &str = "setting";
/// A replica could not answer the proven read.
const REPEATED: &str = "repeated";
/// More than a single Query or Parse, or not all of it was here.
const UNREADABLE: &str = "batch";

/// How a batch goes on that a replica could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Primary,
    /// Another replica, else the primary.
    Elsewhere,
    /// It may have ended its server: never on the primary.
    Replica,
}

/// Of a session whose statements go to different nodes.
#[derive(Debug)]
pub(super) struct Split {
    aim: Aim,
    /// Bytes of the batch for which it was taken, if that may be a visit; else 0.
    visitable: usize,
    /// It may be sent again.
    repeatable: bool,
    watermark: Moment,
    /// The generation of the replica that served last, and when its last answer had come.
    last: (u64, Moment),
    /// What another session wrote up to here must be seen: until the primary is known to have got so far, only there.
    min_lsn: Option<Lsn>,
    /// Since the primary was last quiet, something was sent there that may write.
    wrote: bool,
    /// Why it was taken.
    reason: &'static str,
    /// The first statement of what the client sent, as read for its aim.
    ahead: Option<Statement>,
    visit: Option<Visit>,
    /// The batch was sent before, to the replica of this generation, and how it goes on.
    again: Option<(Again, u64)>,
}

#[derive(Debug)]
struct Visit {
    /// Of the replica.
    generation: u64,
    /// The batch as the client sent it.
    kept: Box<Buffer>,
    /// Bytes of it that are still to be looked at.
    left: usize,
    /// How much the replica has sent.
    reply: Reply,
    /// The client has got one.
    is_answered: bool,
    repeats: Option<Again>,
}

/// What a replica has sent for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    /// Or what may be said twice.
    Nothing,
    /// What comes before the first row.
    Beginning,
    Answer,
}

/// The longest beginning of an answer that is kept back.
const MAX_HELD_BACK: usize = 1024;

impl Split {
    pub fn of(route: Route) -> Option<Box<Self>> {
        let split = Split {
            aim: Aim::Listener,
            visitable: 0,
            repeatable: false,
            reason: UNREADABLE,
            watermark: Moment::NEVER,
            last: (0, Moment::NEVER),
            min_lsn: None,
            wrote: false,
            ahead: None,
            visit: None,
            again: None,
        };
        (route != Route::Primary).then(|| Box::new(split))
    }
}

impl Session {
    /// Where what the client sent is to run. Reads it ahead.
    #[inline]
    pub(super) fn take_aim(&mut self) -> Aim {
        match self.split {
            None => Aim::Listener,
            Some(_) => self.aim_ahead(),
        }
    }

    /// What [`Session::take_aim`] said last.
    pub(super) fn aim(&self) -> Aim {
        self.split.as_ref().map_or(Aim::Listener, |split| split.aim)
    }

    fn aim_ahead(&mut self) -> Aim {
        let mut batch = self.read_ahead();
        if batch.is_proven {
            let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
            let bytes = unseen.get(..batch.len).unwrap_or_default();
            batch.is_proven = !self.context.learned.is_refuted(bytes);
        }
        if batch.names_unknown() {
            self.identity.database().look_again();
        }
        let is_split = self.listener.route == Route::Split;
        let splits = is_split || self.listener.writes == Writes::Primary;
        self.look_for_min_lsn();
        let (need, stays) = (self.need(), self.reads_stay());
        let Some(split) = &mut self.split else {
            return Aim::Listener;
        };
        split.aim = match (batch.is_proven, split.again) {
            (false, _) if splits => Aim::Primary,
            (true, None) if is_split && (stays || split.min_lsn.is_some()) => Aim::Primary,
            (false, _) => Aim::Listener,
            (true, Some((Again::Replica, generation))) => Aim::Other(generation),
            (true, Some((Again::Primary, _))) if is_split => Aim::Primary,
            (true, _) if is_split => Aim::Fresh(need),
            (true, Some((_, generation))) => Aim::Other(generation),
            (true, None) => Aim::Listener,
        };
        split.visitable = if batch.is_proven { batch.len } else { 0 };
        split.repeatable = !batch.is_hinted;
        split.reason = match (&batch, split.again) {
            (
                Batch {
                    is_proven: true, ..
                },
                Some(_),
            ) => REPEATED,
            (
                Batch {
                    is_proven: true, ..
                },
                None,
            ) if stays => SETTING,
            (
                Batch {
                    is_proven: true, ..
                },
                None,
            ) => STALE,
            (batch, _) => batch.reason().unwrap_or(UNREADABLE),
        };
        split.ahead = batch.statement;
        split.aim
    }

    /// From now on the session's reads see what was written up to `lsn`.
    pub(super) fn must_see(&mut self, lsn: Lsn) {
        if let Some(split) = &mut self.split {
            split.min_lsn = split.min_lsn.max(Some(lsn));
            // What is in a token was written before it was shown.
            split.watermark = Moment::now();
            self.context.outside.want_fresh(split.watermark);
        }
    }

    /// Once the primary is known to have got so far, the token is a true one, and the watermark says the rest.
    fn look_for_min_lsn(&mut self) {
        let Some(split) = &mut self.split else {
            return;
        };
        let primary = |t: &Topology| t.primary().map(|primary| primary.position.insert());
        if split.min_lsn.is_some() && self.context.with_topology(primary) >= split.min_lsn {
            split.min_lsn = None;
        }
    }

    /// A replica that would serve a read now.
    pub(super) fn fresh_node(&self) -> Option<String> {
        let (need, now) = (self.need(), Moment::now());
        self.context.with_topology(|topology| {
            let mut fresh = topology
                .replicas_up()
                .filter(|node| need.is_met_by(node, now));
            fresh.next().map(|node| node.config.name.clone())
        })
    }

    /// What a replica must be for the session's next read.
    fn need(&self) -> Need {
        let Some(split) = &self.split else {
            return Need::default();
        };
        let reads = self.context.config.borrow().reads.clone();
        let consistency = reads.consistency;
        let shared = match consistency {
            Consistency::Database => self.identity.database().last_write(),
            _ => Moment::NEVER,
        };
        // A replica that is older may have the definitions of before.
        let defined = self.read_catalogue().and_then(|reading| reading.since());
        let defined = defined.map_or(Moment::NEVER, Moment::of);
        let as_of = split.watermark.max(shared).max(defined);
        let elsewhere = match consistency {
            Consistency::Session | Consistency::Database => split.last.1,
            Consistency::Eventual | Consistency::OwnWrites => Moment::NEVER,
        };
        Need {
            as_of,
            elsewhere,
            last: split.last.0,
            without: split.again.map_or(0, |(_, generation)| generation),
            max_staleness: reads.max_staleness,
        }
    }

    /// The statement of a message that was read ahead.
    #[inline]
    pub(super) fn statement_ahead(&mut self) -> Option<Statement> {
        self.split.as_mut()?.ahead.take()
    }

    /// A server was taken for what the client sent: of a replica, for a visit if it can be one.
    pub(super) fn begin_visit(&mut self, pool: &Rc<Pool>) {
        let view = pool.view();
        let (route, explains) = (self.listener.route, self.wants_explanations());
        let Some(split) = &mut self.split else {
            return;
        };
        if route == Route::Split {
            let is_replica = view.role == Role::Replica;
            let reason = if is_replica { READ } else { split.reason };
            self.context.counters.count_route(reason);
            if explains {
                backend::notice(&mut self.out, &explanation(&view, reason));
            }
        }
        let len = std::mem::take(&mut split.visitable);
        if len == 0 || view.role != Role::Replica {
            return;
        }
        let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
        // More behind it is not for this server to wait with.
        if self.listener.route == Route::Replica && unseen.len() > len {
            return;
        }
        let mut kept = self.context.blocks.take();
        kept.append(unseen.get(..len).unwrap_or_default());
        split.visit = Some(Visit {
            generation: view.generation,
            kept,
            left: len,
            reply: Reply::Nothing,
            is_answered: false,
            repeats: None,
        });
    }

    fn visit(&self) -> Option<&Visit> {
        self.split.as_ref()?.visit.as_ref()
    }

    /// The held server is a replica's, whatever the listener's route.
    pub(super) fn is_visiting(&self) -> bool {
        self.visit().is_some()
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
        let is_over = self.visit().is_some_and(|visit| visit.left == 0);
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

    /// The visited replica has sent a message of this type.
    pub(super) fn note_reply(&mut self, tag: u8) {
        if let Some(split) = &mut self.split
            && let Some(visit) = &mut split.visit
        {
            visit.reply = visit.reply.max(match tag {
                b'N' | b'S' | b'A' => Reply::Nothing,
                b'1' | b'2' | b't' | b'T' | b'n' => Reply::Beginning,
                _ => Reply::Answer,
            });
        }
    }

    /// What has come only begins an answer, and is kept back: a server that is killed sends it with its last words.
    pub(super) fn holds_back(&self) -> bool {
        let begins = |visit: &Visit| visit.reply == Reply::Beginning;
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

    /// Something was sent that is no proven read.
    #[inline]
    pub(super) fn note_write(&mut self) {
        if let Some(split) = &mut self.split {
            split.wrote = true;
        }
    }

    /// The server has told the client that it is ready, at `now`; `quiet`: and owes nothing more.
    pub(super) fn note_ready(&mut self, now: Moment, quiet: bool) {
        let consistency = self.context.config.borrow().reads.consistency;
        let route = self.listener.route;
        // What statements with names of their own do is not looked at when they run.
        let is_unseen = self.names_are_native();
        let Some(split) = &mut self.split else {
            return;
        };
        split.again = None;
        if let Some(visit) = &split.visit {
            split.last = (visit.generation, now);
            return self.end_visit();
        }
        if route != Route::Split {
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

    /// What was kept of it is of no more use.
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

    /// An error of the visited replica: true if its batch is sent again instead.
    pub(super) fn repeats_after_error(&mut self, again: Option<Again>) -> bool {
        let again = match self.listener.route {
            Route::Split => again,
            _ => again.filter(|again| *again != Again::Primary),
        };
        if again == Some(Again::Primary)
            && let Some(visit) = self.visit()
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
            ServerEnd::Gone(_) => !self.is_suspect() && self.repeats(Some(Again::Replica)),
            ServerEnd::GivenUp(Cause::Silent) => self.repeats(Some(Again::Elsewhere)),
            ServerEnd::GivenUp(_) | ServerEnd::Broke(_) | ServerEnd::ShutDown(_) => false,
        }
    }

    /// Whether the batch has headed an end of its server lately; from now on it has.
    fn is_suspect(&self) -> bool {
        let Some(visit) = self.visit() else {
            return false;
        };
        let now = self.context.pools.now();
        self.context.learned.suspect(visit.kept.unseen(), now)
    }

    /// Puts the visit's batch before what the client has sent since. The server is gone, or free.
    pub(super) fn resend(&mut self) {
        let Some(split) = &mut self.split else {
            return;
        };
        let Some(visit) = &mut split.visit else {
            return;
        };
        split.again = visit.repeats.take().map(|again| (again, visit.generation));
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
            // It writes after all, or needs what only the primary has.
            (false, b"25006" | b"0A000") => Some(Again::Primary),
            (false, b"XX000") if is_write(self.routine) => Some(Again::Primary),
            // What the catalogue has shown may not have reached the replica.
            (false, b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000") => Some(Again::Primary),
            _ => None,
        }
    }
}

fn is_write(routine: &[u8]) -> bool {
    matches!(routine, b"XLogBeginInsert" | b"GetNewObjectId")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_errors_of_a_replica_another_node_would_not_give() {
        let again = |is_fatal, sqlstate: &[u8; 5], routine: &[u8]| {
            Refused {
                sqlstate,
                is_fatal,
                routine,
            }
            .again()
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
