//! A named statement is parsed on a server that has not seen it as it was parsed at first: under the settings of then.
//!
//! PostgreSQL keeps what a Parse made of a text: how its strings were read, which types its parameters got, what its
//! columns were. Later settings change none of that, though they decide which tables it finds. So where a session has
//! others by now, the Parse stands between two messages of our own: a transaction, or a savepoint in the client's own,
//! is opened and all settings are set there, and its rollback undoes them. Prepared statements are not rolled back.
//! Nobody need know what the settings are just now, and a failure is undone, too: the client's message waits for the end.
//! Inside of a batch, which such a message would end, the settings that differ are set and set back by messages of the
//! batch, if they are known.

use super::{
    Link, Session,
    book::{self, Named},
    parsing::{Parsing, decides_reading},
    statement::Remains,
};
use crate::{
    server::{settings::Settings, statements::ServerName},
    wire::{
        TransactionStatus, frontend,
        pipeline::{Sent, Show, Ticket},
    },
};

/// How a statement comes to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rereading {
    /// The server has it, once it has read what was sent.
    Read,
    /// The server is to say whether it has it.
    Awaited,
    /// Not as it was.
    CannotBe,
}

impl Session {
    /// The client's message waits for a statement that is parsed for it.
    #[inline]
    pub(super) fn is_rereading(&mut self) -> bool {
        let hold = self.hold;
        let last = self.prepared.rereading();
        last.is_some_and(|last| last.is_awaited && last.hold == hold)
    }

    /// What the server tells of its settings is our own doing, and undone.
    #[inline]
    pub(super) fn is_changing_settings(&self) -> bool {
        let hides = match &self.link {
            Link::Held { server, .. } => server.pipeline.answers_hidden(),
            _ => false,
        };
        hides || self.is_dressing()
    }

    /// Has `named`, which the held server has not seen, parsed there as it was at first. The session's settings decide by
    /// now otherwise: `parsing`.
    pub(super) fn reread(&mut self, named: &Named, parsing: Parsing) -> Rereading {
        if named.reading.is_none() {
            return Rereading::CannotBe;
        }
        let (content, hold) = (named.text.id, self.hold);
        let Link::Held { server, .. } = &self.link else {
            return Rereading::CannotBe;
        };
        if let Some(last) = self.prepared.rereading()
            && (last.content, last.hold) == (content, hold)
        {
            // It was tried, and is not there.
            last.is_awaited = false;
            return Rereading::CannotBe;
        }
        if server.pipeline.has_open_batch() {
            return self.reread_in_batch(named, parsing);
        }
        if self.must_settle() {
            return Rereading::Awaited;
        }
        self.make_place();
        let ticket = self.prepared.next_ticket();
        let number = self.add_to_server(&named.text, self.context.schema.now(), ticket);
        let name = ServerName::of(number);
        self.parse_aside(name.as_bytes(), named, Some(ticket));
        self.prepared.set_rereading(book::Rereading {
            content,
            hold,
            is_awaited: true,
        });
        Rereading::Awaited
    }

    /// A Parse of `named` as `name`, in a transaction or at a savepoint of its own, where nothing else fails with it.
    pub(super) fn parse_aside(&mut self, name: &[u8], named: &Named, ticket: Option<Ticket>) {
        let Link::Held { server, .. } = &self.link else {
            return;
        };
        let (open, close) = match server.pipeline.status() {
            TransactionStatus::Idle => ("BEGIN", "ROLLBACK"),
            _ => (
                "SAVEPOINT pgsluice",
                "ROLLBACK TO SAVEPOINT pgsluice;RELEASE SAVEPOINT pgsluice",
            ),
        };
        match named.reading.is_some() {
            true => named
                .settings
                .set_within(open)
                .iter()
                .for_each(|q| self.query_aside(q)),
            false => self.query_aside(open.as_bytes()),
        }
        let mut message = Vec::new();
        frontend::parse_again(&mut message, name, &named.text.rest);
        self.send_own(&message, Sent::Parse, Show::Hide, ticket);
        message.clear();
        frontend::sync(&mut message);
        self.send_own(&message, Sent::Sync, Show::Hide, None);
        self.query_aside(close.as_bytes());
    }

    /// A query of our own in front of the client's next message, whose answer is nobody's.
    pub(super) fn query_aside(&mut self, sql: &[u8]) {
        let mut query = Vec::new();
        frontend::query_bytes(&mut query, sql);
        self.send_own(&query, Sent::Query, Show::Hide, None);
        // A simple Query ends the unnamed statement.
        self.unnamed.unsay();
    }

    /// As a part of the client's batch: what fails there fails the batch.
    fn reread_in_batch(&mut self, named: &Named, parsing: Parsing) -> Rereading {
        // What may not run in a batch must not have one around it.
        let is_bound_to_be_alone = named.text.statement.borrow().remains == Remains::Parts;
        let changes = match parsing.reading.is_some() && !is_bound_to_be_alone {
            true => self.changes_to(&named.settings),
            false => None,
        };
        let Some((there, back)) = changes else {
            return Rereading::CannotBe;
        };
        self.execute_in_batch(&there);
        self.parse_again(&named.text);
        self.execute_in_batch(&back);
        Rereading::Read
    }

    /// What sets the settings that decide how a text is read to those of `then`, and back.
    fn changes_to(&self, then: &Settings) -> Option<(Vec<u8>, Vec<u8>)> {
        let there = self.settings.change_within(then, decides_reading)?;
        let back = then.change_within(&self.settings, decides_reading)?;
        Some((there, back))
    }

    /// Runs a statement without parameters in the client's batch, under names of our own.
    fn execute_in_batch(&mut self, sql: &[u8]) {
        let Link::Held { server, .. } = &mut self.link else {
            return;
        };
        if sql.is_empty() {
            return;
        }
        let name = server.statements.fresh_name();
        let name = name.as_bytes();
        let mut message = Vec::new();
        frontend::parse_again(&mut message, name, &[sql, &[0; 3]].concat());
        self.inject(&message, Sent::Parse);
        message.clear();
        frontend::bind_own(&mut message, name);
        self.inject(&message, Sent::Bind);
        message.clear();
        frontend::execute(&mut message, name);
        self.inject(&message, Sent::Execute);
        message.clear();
        frontend::close_portal(&mut message, name);
        self.inject(&message, Sent::Close);
        message.clear();
        frontend::close_statement(&mut message, name);
        self.inject(&message, Sent::Close);
    }
}
