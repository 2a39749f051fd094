//! Whether what a session leaves on its server can be cleared.

/// What a session has left on its server. The order is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Traces {
    /// Nothing that DISCARD ALL does not clear.
    #[default]
    Clearable,
    /// Something that stays, or that nobody can know: temporary replication slots, a running backup, loaded libraries,
    /// dblink connections, and whatever a function or block of unknown make may have done (POSTGRES.md 2.3).
    Lasting,
}

impl Traces {
    /// By the reason of a pin. A reason that is not known here lasts.
    pub(super) fn of(reason: &str) -> Self {
        match reason {
            "set"
            | "reset"
            | "prepare"
            | "prepared_statement"
            | "large_unnamed_statement"
            | "listen"
            | "temp_table"
            | "hold_cursor"
            | "advisory_lock"
            | "sequence"
            | "discard"
            | "session_mode" => Traces::Clearable,
            _ => Traces::Lasting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::effects::PinReason;

    #[test]
    fn what_survives_discard_all_is_never_taken_for_clearable() {
        for reason in [
            PinReason::ReplicationSlot,
            PinReason::Backup,
            PinReason::Load,
            PinReason::Dblink,
            PinReason::ReplicationOrigin,
            PinReason::Setseed,
            PinReason::OpaqueFunction,
            PinReason::OpaqueStatement,
        ] {
            assert_eq!(Traces::of(reason.as_str()), Traces::Lasting, "{reason:?}");
        }
        for reason in [
            PinReason::Set,
            PinReason::Reset,
            PinReason::Prepare,
            PinReason::Listen,
            PinReason::TempTable,
            PinReason::HoldCursor,
            PinReason::AdvisoryLock,
            PinReason::Sequence,
            PinReason::Discard,
        ] {
            assert_eq!(Traces::of(reason.as_str()), Traces::Clearable, "{reason:?}");
        }
    }
}
