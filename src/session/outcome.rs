//! What a client is told when its server is lost: the outcome table of POSTGRES.md 7.3. Pure.
//!
//! The severity says whether the session survives, the SQLSTATE what became of the work. "Rolled back" is claimed only
//! where no COMMIT can have been sent; where one may have been, nobody knows, and nothing is sent again.

use crate::{
    config::Route,
    error::{Error, Kind, Severity},
    server::profile::Access,
    topology::Role,
    wire::TransactionStatus,
};

/// The most that the messages in flight may have done. The order is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flight {
    /// Nothing is in flight.
    Nothing,
    /// Statements that cannot commit anything.
    CannotCommit,
    /// A ROLLBACK among them: what is sent behind it may commit by itself.
    RollsBack,
    /// Statements that are each their own transaction, and commit nothing before their end.
    Single,
    /// A COMMIT, or a statement that may commit parts of its work.
    MayCommit,
}

/// Where the lost server was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Primary,
    /// Nothing can be written here.
    ReadOnly,
}

/// How the server was lost. Only the text depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its connection ended without a word.
    Ended,
    /// It was shut down with its node, and said so: a statement of which it said nothing else was rolled back.
    ShutDown,
    /// Its node has lost the role for which it was taken.
    Deposed,
    /// Its node has not answered for longer than the probes wait, or acknowledges nothing of what it was sent.
    Silent,
}

impl Cause {
    fn text(self) -> &'static str {
        match self {
            Cause::Ended => "the server was lost",
            Cause::ShutDown => "the primary was shut down",
            Cause::Deposed => "the server lost its role to another",
            Cause::Silent => "the server stopped answering",
        }
    }
}

impl Place {
    /// Where a server was that had been taken for `route`, by what its node is now. Only the route still tells what a
    /// node was that has lost its role meanwhile.
    pub fn of(route: Route, access: Access, role: Role) -> Self {
        match (access, route, role) {
            (Access::ReadOnly, _, _) | (_, Route::Replica, Role::Replica) => Place::ReadOnly,
            _ => Place::Primary,
        }
    }
}

/// What else is lost with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// Nothing: the session can go on with another server.
    None,
    /// Session state lived there: the reason why the session kept it, and whether it has missed notifications by that.
    Pinned {
        reason: &'static str,
        listened: bool,
    },
}

/// Whether a statement that was rolled back with its server may be run on the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once: it is here whole, it is alone, and its client has seen nothing of it.
    Once,
    /// It is not here, not whole, or has begun to be answered.
    Never,
    /// There is more than one under way: which of them was done, nobody knows.
    Several,
}

/// What the session does now.
#[derive(Debug)]
pub enum Verdict {
    /// The client has lost nothing and is told nothing.
    Unharmed,
    /// ERROR, and the transaction counts as failed until the client ends it.
    Failed(Error),
    /// The error ends the session (it is FATAL, whatever its kind says).
    Ended(Error),
}

/// What becomes of a session whose server was shut down and said so.
#[derive(Debug)]
pub enum Aftermath {
    /// As if it had been lost without a word.
    Lost(Verdict),
    /// What is under way was rolled back, and runs once more on the next server.
    Again,
    /// The server's own last words are passed on: they end the session.
    Told,
}

/// The outcome for a session whose server was lost without a word.
pub fn outcome(
    status: TransactionStatus,
    flight: Flight,
    place: Place,
    ties: Ties,
    cause: Cause,
) -> Verdict {
    let in_transaction = status != TransactionStatus::Idle;
    match (in_transaction, flight, place, ties) {
        (false, Flight::Nothing, _, Ties::None) => Verdict::Unharmed,
        (false, Flight::Nothing, _, Ties::Pinned { reason, listened }) => {
            Verdict::Ended(state_lost(cause, reason, listened))
        }
        (_, Flight::Single | Flight::MayCommit, Place::Primary, _) => {
            Verdict::Ended(unknown(cause))
        }
        (true, _, _, Ties::None) => Verdict::Failed(rolled_back(cause)),
        (true, _, _, Ties::Pinned { .. }) => Verdict::Ended(rolled_back(cause)),
        (false, _, _, _) => Verdict::Ended(nothing_written(cause)),
    }
}

/// The outcome for a session whose server was on the primary and was shut down with it, saying so (FATAL 57P01).
pub fn shut_down(
    status: TransactionStatus,
    flight: Flight,
    ties: Ties,
    repeat: Repeat,
) -> Aftermath {
    use Aftermath::{Again, Lost, Told};
    let cause = Cause::ShutDown;
    let in_transaction = status != TransactionStatus::Idle;
    match (in_transaction, flight, ties, repeat) {
        (_, Flight::MayCommit, ..) => Lost(Verdict::Ended(unknown(cause))),
        (_, _, Ties::Pinned { .. }, _) => Told,
        (false, Flight::Nothing, Ties::None, _) => Lost(Verdict::Unharmed),
        (true, _, Ties::None, _) => Lost(Verdict::Failed(rolled_back(cause))),
        (false, _, Ties::None, Repeat::Once) => Again,
        (false, _, Ties::None, Repeat::Never) => Told,
        (false, _, Ties::None, Repeat::Several) => Lost(Verdict::Ended(unknown(cause))),
    }
}

fn unknown(cause: Cause) -> Error {
    Error::proxy(
        Kind::OutcomeUnknown,
        format!(
            "{} before it confirmed the statement: it may or may not have been committed",
            cause.text()
        ),
    )
    .hint("Find out whether it took effect before you run it again.")
}

fn rolled_back(cause: Cause) -> Error {
    Error::proxy(
        Kind::RolledBack,
        format!("{}, the transaction was rolled back", cause.text()),
    )
    .hint("Run the transaction again.")
}

fn nothing_written(cause: Cause) -> Error {
    Error::proxy(
        Kind::ServerGone,
        format!(
            "{} while a statement was running: nothing was written",
            cause.text()
        ),
    )
}

/// One who listened is told as PostgreSQL tells that a server ends: clients that listen know that as the moment to look for
/// what they have missed.
fn state_lost(cause: Cause, reason: &str, listened: bool) -> Error {
    let text = format!(
        "{}, and with it what this session kept there ({reason}): nothing was in progress",
        cause.text()
    );
    match listened {
        true => Error::proxy(Kind::ShuttingDown, text)
            .hint("Connect and LISTEN again; what was notified meanwhile is lost."),
        false => Error::proxy(Kind::ServerGone, text),
    }
}

/// The end of a replication connection: it goes on wherever its client connects next.
pub fn stream_lost(cause: Cause) -> Error {
    Error::proxy(
        Kind::ServerGone,
        format!("{}: connect again to go on elsewhere", cause.text()),
    )
}

impl Verdict {
    /// The error with the severity that the client sees.
    pub fn report(&self) -> Option<(&Error, Severity)> {
        match self {
            Verdict::Unharmed => None,
            Verdict::Failed(error) => Some((error, Severity::Error)),
            Verdict::Ended(error) => Some((error, Severity::Fatal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionStatus::{Failed, Idle, Transaction};

    fn told(
        status: TransactionStatus,
        flight: Flight,
        place: Place,
        ties: Ties,
    ) -> Option<(&'static str, Severity)> {
        let verdict = outcome(status, flight, place, ties, Cause::Ended);
        verdict
            .report()
            .map(|(error, severity)| (error.kind.sqlstate(), severity))
    }

    #[test]
    fn the_outcome_table() {
        use {Flight::*, Place::*, Severity::*};
        let (free, fatal, error) = (Ties::None, Fatal, Error);
        let kept = |reason, listened| Ties::Pinned { reason, listened };
        let (pinned, listens) = (kept("temp_table", false), kept("listen", true));
        for (status, flight, place, ties, expected) in [
            (Idle, Nothing, Primary, free, None),
            (Idle, Nothing, ReadOnly, free, None),
            (Idle, Nothing, Primary, pinned, Some(("08006", fatal))),
            (Idle, Nothing, Primary, listens, Some(("57P01", fatal))),
            (Idle, MayCommit, Primary, free, Some(("08007", fatal))),
            (Idle, MayCommit, Primary, pinned, Some(("08007", fatal))),
            (Idle, CannotCommit, Primary, free, Some(("08006", fatal))),
            (Idle, MayCommit, ReadOnly, free, Some(("08006", fatal))),
            (Idle, RollsBack, Primary, free, Some(("08006", fatal))),
            (Failed, RollsBack, Primary, free, Some(("40001", error))),
            (Transaction, Nothing, Primary, free, Some(("40001", error))),
            (Failed, Nothing, Primary, free, Some(("40001", error))),
            (
                Transaction,
                CannotCommit,
                Primary,
                free,
                Some(("40001", error)),
            ),
            (
                Transaction,
                CannotCommit,
                Primary,
                pinned,
                Some(("40001", fatal)),
            ),
            (
                Transaction,
                MayCommit,
                Primary,
                free,
                Some(("08007", fatal)),
            ),
            (
                Transaction,
                MayCommit,
                ReadOnly,
                free,
                Some(("40001", error)),
            ),
        ] {
            assert_eq!(
                told(status, flight, place, ties),
                expected,
                "{status:?} {flight:?} {place:?} {ties:?}"
            );
        }
    }

    #[test]
    fn the_outcome_table_of_a_shutdown_that_was_told() {
        use {Flight::*, Repeat::*};
        let free = Ties::None;
        let pinned = Ties::Pinned {
            reason: "listen",
            listened: true,
        };
        for (status, flight, ties, repeat, expected) in [
            (Idle, Nothing, free, Never, "Unharmed"),
            (Idle, Nothing, pinned, Never, "Told"),
            (Idle, CannotCommit, free, Once, "Again"),
            (Idle, Single, free, Once, "Again"),
            (Idle, Single, free, Never, "Told"),
            (Idle, Single, free, Several, "08007"),
            (Idle, Single, pinned, Once, "Told"),
            (Idle, MayCommit, free, Once, "08007"),
            (Idle, MayCommit, pinned, Once, "08007"),
            (Transaction, Nothing, free, Never, "40001"),
            (Transaction, CannotCommit, free, Once, "40001"),
            (Failed, CannotCommit, free, Never, "40001"),
            (Transaction, CannotCommit, pinned, Never, "Told"),
            (Transaction, MayCommit, free, Never, "08007"),
        ] {
            let told = match shut_down(status, flight, ties, repeat) {
                Aftermath::Lost(verdict) => match verdict.report() {
                    Some((error, _)) => error.kind.sqlstate().to_owned(),
                    None => format!("{verdict:?}"),
                },
                other => format!("{other:?}"),
            };
            assert_eq!(told, expected, "{status:?} {flight:?} {ties:?} {repeat:?}");
        }
    }

    #[test]
    fn an_old_primary_is_no_read_only_place_whatever_it_has_become() {
        use {Access::*, Place::Primary};
        for (route, access, role, expected) in [
            (Route::Primary, Full, Role::Primary, Primary),
            (Route::Primary, Full, Role::Unknown, Primary),
            (Route::Primary, Full, Role::Replica, Primary),
            (Route::Split, Full, Role::Unknown, Primary),
            (Route::Replica, Full, Role::Primary, Primary),
            (Route::Replica, Full, Role::Unknown, Primary),
            (Route::Replica, Full, Role::Replica, Place::ReadOnly),
            (
                Route::Replica,
                Access::ReadOnly,
                Role::Primary,
                Place::ReadOnly,
            ),
            (
                Route::Replica,
                Access::ReadOnly,
                Role::Unknown,
                Place::ReadOnly,
            ),
        ] {
            let place = Place::of(route, access, role);
            assert_eq!(place, expected, "{route:?} {access:?} {role:?}");
        }
    }
}
