//! Where the next batch is to run, before there is a server for it.
//!
//! A proven read goes to a replica that has all that the session must see ([`Need`]); while none has, to the primary. See
//! [`crate::topology::Freshness`] for what "fresh as of a moment" means.

use std::time::Duration;

use super::{Session, ahead::Proof, statement::Statement, visit::Again};
use crate::{
    config::{Consistency, Route, Writes},
    server::{connection::Server, pool::Pool},
    topology::{Lsn, Moment, NodeView, Role, Topology},
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
    /// A replica that is fresh enough, or none.
    Replica(Need),
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
    /// If none is fresh enough now, one may be in a few milliseconds: that is worth waiting for.
    pub is_worth_waiting: bool,
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
            && node.freshness.age(now) <= self.max_staleness
            && node.generation != self.without
    }
}

impl Aim {
    /// Whether `server`, of the pool that was chosen for this, may serve it just now.
    pub fn may_be_served_by(&self, server: &Server, pool: &Pool) -> bool {
        self.is_met_by(pool) && self.is_met_by_age(server, pool)
    }

    /// Whether the pool's node may serve it, whatever the server.
    pub fn is_met_by(&self, pool: &Pool) -> bool {
        match self {
            Aim::Fresh(need) | Aim::Replica(need) => {
                let view = pool.view();
                view.role == Role::Primary || need.is_met_by(&view, Moment::now())
            }
            _ => true,
        }
    }

    /// Whether `server` is no younger than the proof that its node is fresh: else it may be to a node that was restarted in its
    /// own past since it was last asked.
    #[inline]
    pub fn is_met_by_age(&self, server: &Server, pool: &Pool) -> bool {
        match self {
            Aim::Fresh(_) | Aim::Replica(_) => {
                let view = pool.view();
                view.role == Role::Primary || Moment::of(server.born) <= view.freshness.proven()
            }
            _ => true,
        }
    }
}

/// Why a batch went where it went, beside the reasons of [`crate::route::class::Reason`]. Only this one to a replica.
pub(super) const READ: &str = "read";
/// No replica was fresh enough for a proven read.
pub(super) const STALE: &str = "stale";
/// The session wants its reads on the primary.
pub(super) const SETTING: &str = "setting";
/// So does the configuration, of all or of its login.
pub(super) const CONFIGURED: &str = "configured";
/// A replica could not answer the proven read.
pub(super) const REPEATED: &str = "repeated";
/// More than proven reads that are parsed, described, bound and executed, or not all of it was here.
pub(super) const UNREADABLE: &str = "batch";

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
        if batch.is_proven() {
            let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
            let bytes = unseen.get(..batch.len).unwrap_or_default();
            let learned = &self.context.learned;
            let opens = batch.proof == Proof::Opening || self.is_opening();
            let is_refuted = match opens {
                true => learned.is_refuted_opening(bytes),
                false => learned.is_refuted(bytes),
            };
            if is_refuted {
                batch.proof = Proof::None;
            }
        }
        if batch.names_unknown {
            self.identity.database().look_again();
        }
        let is_shadow = self.listener.shadow;
        let is_split = self.listener.route == Route::Split || is_shadow;
        if !is_split && batch.proof == Proof::Piece {
            batch.proof = Proof::None;
        }
        let is_proven = batch.is_proven();
        let splits = is_split || self.listener.writes == Writes::Primary;
        self.look_for_min_lsn();
        let is_repeated = self.split.as_ref().is_some_and(|s| s.again.is_some());
        let need = match is_split && (is_proven || is_repeated) {
            true => self.need(),
            false => Need::default(),
        };
        let stays = self.reads_stay(batch.wants_replica);
        let would_leave = is_shadow && self.fresh_node().is_some();
        let Some(split) = &mut self.split else {
            return Aim::Listener;
        };
        let prefers_primary = stays.is_some() || split.min_lsn.is_some();
        split.aim = match (is_proven, &split.again) {
            // Whatever has become of its proof: it must not end the primary.
            (_, Some(before)) if is_split && before.again == Again::Replica => Aim::Replica(need),
            (_, Some(before)) if !splits => Aim::Other(before.generation),
            (false, _) if splits => Aim::Primary,
            (true, None) if is_split && prefers_primary => Aim::Primary,
            (true, Some(before)) if is_split && before.again == Again::Primary => Aim::Primary,
            (true, _) if is_split => Aim::Fresh(need),
            (_, Some(before)) => Aim::Other(before.generation),
            (_, None) => Aim::Listener,
        };
        split.visitable = if is_proven { batch.len } else { 0 };
        split.proof = batch.proof;
        split.repeatable = !batch.is_hinted;
        split.reason = match split.again {
            Some(_) if is_proven => REPEATED,
            None if is_proven && would_leave && stays.is_none() => READ,
            None if is_proven => stays.unwrap_or(STALE),
            _ => batch.reason().unwrap_or(UNREADABLE),
        };
        split.ahead = batch.statement;
        if is_shadow {
            split.aim = Aim::Listener;
        }
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
        let reads = self.reads();
        let consistency = reads.consistency;
        let shared = match consistency {
            Consistency::Database => self.identity.database().last_write(),
            _ => Moment::NEVER,
        };
        let as_of = split.watermark.max(shared).max(self.defined());
        let elsewhere = match consistency {
            Consistency::Session | Consistency::Database => split.last.1,
            Consistency::Eventual | Consistency::OwnWrites => Moment::NEVER,
        };
        Need {
            as_of,
            elsewhere,
            last: split.last.0,
            without: split.again.map_or(0, |before| before.generation),
            max_staleness: reads.max_staleness,
            is_worth_waiting: split.patience.is_over(),
        }
    }

    /// A replica that is older may have the definitions of before.
    pub(super) fn defined(&self) -> Moment {
        let since = self.read_catalogue().since();
        since.map_or(Moment::NEVER, Moment::of)
    }

    /// The statement of a message that was read ahead.
    #[inline]
    pub(super) fn statement_ahead(&mut self) -> Option<Statement> {
        self.split.as_mut()?.ahead.take()
    }
}
