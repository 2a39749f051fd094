//! A server gets its session's settings before it works for it.
//!
//! What differs is set by messages of our own in front of the client's first one, and in the same write: a checkout with
//! other settings costs no round trip. That is safe wherever they fail, be it by a limit of time before they do anything,
//! and though somebody else's settings are in force until they succeed. First comes a BEGIN of the extended protocol,
//! without a Sync: if that fails, the server throws away all it reads up to the client's own Sync, behind which nothing is
//! sent. Then a query sets what differs, and ends in COMMIT: if anything in it fails, the COMMIT is never read, and the
//! server is left in a failed transaction, where it refuses whatever is not the end of one. Behind it goes therefore only
//! what ends no transaction, and only if the settings that are changed do not decide how we read it ourselves; all else
//! waits for the server's word. A failure ends the session, and the server is closed. Not so where a CancelRequest has
//! hit our messages: that was meant for the client's statement, which fails as if it had been hit itself ([`super::lost`]).
//! Where the client has sent none it was a limit of time, perhaps of the session before: what was sent goes to another server.

use super::{
    Link, Session,
    outcome::{Flight, Ties},
    relay::{ServerEnd, Step},
    statement::{self, Control, Statement},
    visit::Extent,
};
use crate::{
    error::{Error, Kind},
    topology::Evidence,
    wire::{frame::Frame, frontend, pipeline::Sent, report::Report},
};

/// Settings that decide how we read a client's texts.
const READ_BY_US: [&str; 2] = ["client_encoding", "standard_conforming_strings"];

/// What may be sent to a server that is being dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Dressing {
    /// Nothing of the client's.
    #[default]
    Alone,
    /// What ends no transaction.
    MayBeFollowed,
    /// Something of the client's was.
    Followed,
    /// The same, a Sync among it: what came behind that might be executed.
    BatchEnded,
}

/// A COMMIT of nothing cannot fail, whatever isolation the last session was used to.
const OPEN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

impl Session {
    /// The server serves the session only under the session's own settings: what differs is set first.
    pub(super) fn dress(&mut self) {
        let Link::Held { server, .. } = &mut self.link else {
            return;
        };
        let is_same = |name: &&str| server.settings.value(name) == self.settings.value(name);
        let is_read_alike = READ_BY_US.iter().all(is_same)
            && statement::reading(&server.parameters) == self.reading;
        let changes = server.settings.change_to(&self.settings);
        server.settings = self.settings.clone();
        if changes.is_empty() {
            return self.tell_parameters();
        }
        self.dressing = match is_read_alike {
            true => Dressing::MayBeFollowed,
            false => Dressing::Alone,
        };
        self.entry.forget_cancel_sent();
        self.context.counters.settings_applied.one();
        let mut message = Vec::new();
        frontend::parse(&mut message, "", OPEN);
        frontend::bind(&mut message, b"");
        frontend::execute(&mut message, b"");
        let mut sent = Sent::OpenedQuery;
        for change in changes {
            frontend::query_bytes(&mut message, &change);
            self.ask(&message, sent);
            message.clear();
            sent = Sent::Query;
        }
    }

    /// The server is being set to the session's settings.
    #[inline]
    pub(super) fn is_dressing(&self) -> bool {
        match &self.link {
            Link::Held { server, .. } => self.question.is_none() && server.pipeline.answers_own(),
            _ => false,
        }
    }

    /// The server is being dressed, and has been sent nothing of the client's.
    #[inline]
    pub(super) fn is_only_dressing(&self) -> bool {
        let is_followed = matches!(self.dressing, Dressing::Followed | Dressing::BatchEnded);
        !is_followed && self.is_dressing()
    }

    /// Whether a client's message waits until its server is dressed, by its type alone. A text may have to wait all the
    /// same.
    pub(super) fn waits_to_be_dressed(&self, frame: Frame) -> bool {
        let may_follow = matches!(self.dressing, Dressing::MayBeFollowed | Dressing::Followed)
            && matches!(
                frame.tag,
                b'Q' | b'P' | b'B' | b'D' | b'C' | b'E' | b'S' | b'H'
            );
        self.is_dressing() && !may_follow
    }

    /// Whether a statement waits until its server is dressed: in a failed transaction it would be executed.
    pub(super) fn must_be_dressed_for(&self, statement: &Statement) -> bool {
        !matches!(statement.control, Control::None | Control::Begin) && self.is_dressing()
    }

    /// A message of the client's was passed.
    #[inline]
    pub(super) fn followed(&mut self) {
        if self.is_dressing()
            && let Link::Held { server, .. } = &self.link
        {
            self.dressing = match server.pipeline.owes_sync() {
                true => Dressing::BatchEnded,
                false => Dressing::Followed,
            };
        }
    }

    /// The server has not taken the session's settings, and nothing that was sent behind them was executed. If it ends, its
    /// end decides.
    pub(super) fn dressing_failed(&mut self, frame: Frame) -> Result<(), Step> {
        let report = Report::parse_start(self.reply_body(frame));
        let sqlstate = report.sqlstate.unwrap_or_default();
        if matches!(report.severity, b"FATAL" | b"PANIC") {
            self.flight = self.flight.min(Flight::CannotCommit);
            self.report_evidence(Evidence::from_sqlstate(&sqlstate));
            return Ok(());
        }
        match sqlstate == *b"57014" && self.survives_cancel() {
            true => Err(Step::ServerEnded(ServerEnd::Cancelled)),
            false => Err(self.not_dressed(&sqlstate)),
        }
    }

    /// Whether the session can go on where what it has sent was not executed.
    fn survives_cancel(&self) -> bool {
        let has_ended_piece = self.visit().is_some_and(|v| v.extent == Extent::PieceEnded);
        self.ties() == Ties::None && !has_ended_piece
    }

    /// A query that sets the session's settings is over.
    pub(super) fn dressing_ended(&mut self) {
        if !self.is_dressing() {
            self.tell_parameters();
        }
    }

    fn not_dressed(&self, sqlstate: &[u8; 5]) -> Step {
        let name = match &self.link {
            Link::Held { pool, .. } => pool.view().config.name.clone(),
            _ => String::new(),
        };
        let error = Error::server(
            Kind::ServerGone,
            name,
            "the session's settings could not be set on another server",
        )
        .detail(format!(
            "the server refused them with SQLSTATE {}",
            String::from_utf8_lossy(sqlstate)
        ));
        Step::ServerEnded(ServerEnd::Broke(error))
    }
}
