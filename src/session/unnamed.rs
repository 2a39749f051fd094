//! The unnamed prepared statement, carried from server to server.
//!
//! It outlives its batch: a client may Parse in one and Bind in a later one. So its Parse is kept and sent again, its
//! reply swallowed, where the client uses it on a server that has not seen it. Where there is none, a server may still
//! have a stranger's: that is closed first, so that the client gets PostgreSQL's 26000 and not someone else's rows.

use super::{Link, Session, statement::Statement};
use crate::wire::{
    frame::Frame,
    frontend,
    pipeline::{Sent, ThrownAway},
};

/// A longer Parse is not kept: its session keeps the server instead.
pub(super) const MAX_KEPT: usize = 16 * 1024;

/// What the client's unnamed statement is.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// The Parse message; empty when there is no unnamed statement.
    parse: Vec<u8>,
    /// What it does; None for what was never parsed.
    pub(super) statement: Option<Statement>,
    /// The hold in which the server was told last; 0 before the first.
    hold: u32,
}

impl Unnamed {
    /// A simple Query or a Close has ended it.
    pub(super) fn forget(&mut self) {
        self.parse.clear();
        self.statement = None;
    }

    /// An error has thrown away messages that were to prepare it, ours or the client's.
    ///
    /// A Parse of the client's that was skipped leaves the statement before it in force, whose text is no longer known:
    /// then there is none, which at worst makes the client parse again.
    pub(super) fn failed(&mut self, thrown_away: ThrownAway) {
        match thrown_away {
            ThrownAway::Nothing => return,
            ThrownAway::Ours => {}
            ThrownAway::Clients => self.forget(),
        }
        self.hold = 0;
    }

    /// Its Parse message; empty when there is none.
    pub(super) fn parse(&self) -> &[u8] {
        &self.parse
    }

    /// The server has another by now, or none, and must be told again.
    pub(super) fn unsay(&mut self) {
        self.hold = 0;
    }

    /// The server was told it in the hold `hold`.
    pub(super) fn is_told_in(&self, hold: u32) -> bool {
        self.hold == hold
    }
}

impl Session {
    pub(super) fn remember_unnamed(&mut self, frame: Frame, statement: Statement) {
        if self.is_skipping() {
            return;
        }
        self.unnamed.forget();
        self.unnamed.statement = Some(statement);
        self.unnamed.hold = self.hold;
        let Some(buffer) = &self.from_client else {
            return;
        };
        match buffer.unseen().get(..frame.len) {
            Some(parse) if frame.len <= MAX_KEPT => self.unnamed.parse.extend_from_slice(parse),
            _ => self.pin("large_unnamed_statement"),
        }
    }

    fn is_skipping(&self) -> bool {
        match &self.link {
            Link::Held { server, .. } => server.pipeline.is_skipping(),
            _ => false,
        }
    }

    /// The client is about to use its unnamed statement: the server must have the same.
    pub(super) fn ensure_unnamed(&mut self) {
        let is_told = self.unnamed.hold == self.hold;
        if is_told || self.is_skipping() || !matches!(self.link, Link::Held { .. }) {
            return;
        }
        self.unnamed.hold = self.hold;
        if self.unnamed.parse.is_empty() {
            let mut close = Vec::new();
            frontend::close_statement(&mut close, b"");
            self.inject(&close, Sent::Close);
        } else {
            let parse = std::mem::take(&mut self.unnamed.parse);
            self.inject(&parse, Sent::Parse);
            self.unnamed.parse = parse;
        }
    }
}
