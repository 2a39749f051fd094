//! Why a session keeps its server, and whether that can end. Pure.
//!
//! Some of what a session leaves on its server can be looked for there: once it is gone, the session is free again
//! ([`super::settle`]). For the rest nobody can tell, and the server is the session's for life.

/// What can be looked for on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    Listen,
    TempTable,
    HoldCursor,
    /// Statements of SQL's PREPARE.
    Prepare,
    AdvisoryLock,
    /// What an unknown function or block may have left: all of the above, settings and replication slots
    /// (`pool.opaque = "audit"`).
    Opaque,
    /// DISCARD: nothing of its own, but the server must be cleared of what is ours there too.
    Discard,
}

impl Trace {
    pub(super) const ALL: [Trace; 7] = [
        Trace::Listen,
        Trace::TempTable,
        Trace::HoldCursor,
        Trace::Prepare,
        Trace::AdvisoryLock,
        Trace::Opaque,
        Trace::Discard,
    ];

    fn of(reason: &str, audits: bool) -> Option<Self> {
        Some(match reason {
            "listen" => Trace::Listen,
            "temp_table" => Trace::TempTable,
            "hold_cursor" => Trace::HoldCursor,
            "prepare" => Trace::Prepare,
            "advisory_lock" => Trace::AdvisoryLock,
            "discard" => Trace::Discard,
            "opaque_function" | "opaque_statement" | "function_call" if audits => Trace::Opaque,
            _ => return None,
        })
    }

    fn reason(self) -> &'static str {
        match self {
            Trace::Listen => "listen",
            Trace::TempTable => "temp_table",
            Trace::HoldCursor => "hold_cursor",
            Trace::Prepare => "prepare",
            Trace::AdvisoryLock => "advisory_lock",
            Trace::Opaque => "opaque",
            Trace::Discard => "discard",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traces(u8);

impl Traces {
    pub(super) fn add(&mut self, trace: Trace) {
        self.0 |= trace.bit();
    }

    pub(super) fn has(self, trace: Trace) -> bool {
        self.0 & trace.bit() != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Trace> {
        Trace::ALL.into_iter().filter(move |trace| self.has(*trace))
    }
}

/// Why a session keeps its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pins {
    for_life: Option<&'static str>,
    until_gone: Traces,
    /// DISCARD ALL does not clear what was left, or nobody can know.
    lasting: bool,
}

impl Pins {
    #[inline]
    pub(super) fn is_pinned(&self) -> bool {
        self.for_life.is_some() || !self.until_gone.is_empty()
    }

    #[inline]
    pub(super) fn is_for_life(&self) -> bool {
        self.for_life.is_some()
    }

    pub(super) fn traces(&self) -> Traces {
        self.until_gone
    }

    /// The one that counts: what is for life, else the first.
    pub(super) fn reason(&self) -> Option<&'static str> {
        let trace = || self.until_gone.iter().next().map(Trace::reason);
        self.for_life.or_else(trace)
    }

    /// Whether the server must be closed, since nothing clears it.
    pub(super) fn leave_lasting_traces(&self) -> bool {
        self.lasting
    }

    /// Another reason; `audits`: what is opaque may be looked for. True if it is a new one.
    pub(super) fn add(&mut self, reason: &'static str, audits: bool) -> bool {
        let Some(trace) = Trace::of(reason, audits) else {
            self.lasting |= !is_cleared_by_discard(reason);
            return self.keep_for_life(reason);
        };
        self.lasting |= trace == Trace::Opaque;
        let is_new = !self.until_gone.has(trace);
        self.until_gone.add(trace);
        is_new
    }

    /// Whatever can be looked for may be there.
    pub(super) fn expect_all(&mut self) {
        for trace in [
            Trace::Listen,
            Trace::TempTable,
            Trace::HoldCursor,
            Trace::Prepare,
            Trace::AdvisoryLock,
        ] {
            self.until_gone.add(trace);
        }
    }

    pub(super) fn keep_for_life(&mut self, reason: &'static str) -> bool {
        let is_new = self.for_life.is_none();
        self.for_life.get_or_insert(reason);
        is_new
    }

    /// What was looked for and found. True if nothing keeps the server any longer.
    pub(super) fn found(&mut self, traces: Traces) -> bool {
        self.until_gone = traces;
        self.lasting &= self.for_life.is_some() || traces.has(Trace::Opaque);
        !self.is_pinned()
    }
}

/// A reason that is not known here lasts: temporary replication slots, a running backup, loaded libraries, dblink
/// connections, and whatever a function or block of unknown make may have done (POSTGRES.md 2.3).
fn is_cleared_by_discard(reason: &str) -> bool {
    matches!(
        reason,
        "set" | "prepared_statement" | "large_unnamed_statement" | "sequence" | "settle"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::effects::PinReason;

    fn pins(reason: PinReason, audits: bool) -> Pins {
        let mut pins = Pins::default();
        assert!(pins.add(reason.as_str(), audits));
        pins
    }

    #[test]
    fn what_survives_discard_all_is_never_taken_for_clearable() {
        for reason in [
            PinReason::ReplicationSlot,
            PinReason::Backup,
            PinReason::Load,
            PinReason::Dblink,
            PinReason::ReplicationOrigin,
            PinReason::Setseed,
            PinReason::Reading,
            PinReason::OpaqueFunction,
            PinReason::OpaqueStatement,
        ] {
            let pins = pins(reason, false);
            assert!(
                pins.leave_lasting_traces() && pins.is_for_life(),
                "{reason:?}"
            );
        }
        for reason in [PinReason::Set, PinReason::Sequence] {
            let pins = pins(reason, false);
            assert!(
                !pins.leave_lasting_traces() && pins.is_for_life(),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn what_can_be_looked_for_ends_when_it_is_gone_and_the_rest_never() {
        for reason in [
            PinReason::Listen,
            PinReason::TempTable,
            PinReason::HoldCursor,
            PinReason::Prepare,
            PinReason::AdvisoryLock,
            PinReason::Discard,
        ] {
            let mut pins = pins(reason, false);
            assert!(pins.is_pinned() && !pins.is_for_life() && !pins.leave_lasting_traces());
            assert_eq!(pins.reason(), Some(reason.as_str()));
            let still = pins.traces();
            assert!(!pins.found(still), "{reason:?}");
            assert!(pins.found(Traces::default()), "{reason:?}");
            pins.add("load", false);
            assert!(!pins.found(Traces::default()), "{reason:?}");
        }
    }

    #[test]
    fn opaque_work_can_be_looked_for_only_where_that_is_allowed() {
        let mut audited = pins(PinReason::OpaqueFunction, true);
        assert!(!audited.is_for_life() && audited.leave_lasting_traces());
        assert!(audited.found(Traces::default()) && !audited.leave_lasting_traces());
        assert!(pins(PinReason::OpaqueStatement, false).is_for_life());
    }
}
