//! How a session's statements stand with the catalogue of its database: what they were judged by, what changes it.
//!
//! A verdict is good for the state of the catalogue that it was given in, and is given anew for a statement that was
//! parsed in another. What ran under one that ended meanwhile keeps its server.

use super::{Link, Session, ahead::Batch, shapes::Purpose, statement::Statement, texts::Text};
use crate::{catalogues::Reading, wire::cursor::Cursor};

impl Session {
    /// Whether the client's unnamed statement is a proven read.
    pub(super) fn is_read_unnamed(&self, batch: &mut Batch) -> bool {
        let Some(statement) = &self.unnamed.statement else {
            return false;
        };
        batch.holds(statement) && !self.is_outdated(statement)
    }

    /// The same for a named one.
    pub(super) fn is_read_named(&self, name: &[u8], batch: &mut Batch) -> bool {
        let Some(named) = self.prepared.find(name) else {
            return false;
        };
        self.judge_again(&named.text);
        batch.holds(&named.text.statement.borrow())
    }
}

/// A state of what is known of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Of one database only; 0 for none.
    epoch: u64,
    current: bool,
}

impl Judged {
    pub const NOT: Judged = Judged {
        epoch: 0,
        current: false,
    };

    fn by(reading: &Reading) -> Self {
        Judged {
            epoch: reading.epoch(),
            current: reading.is_current(),
        }
    }
}

/// Whether something that was let pass rests on what the catalogue proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reliance {
    #[default]
    None,
    Epoch(u64),
    /// Not all on the same.
    Mixed,
}

impl Reliance {
    fn and(self, epoch: u64) -> Self {
        match self {
            Reliance::None => Reliance::Epoch(epoch),
            Reliance::Epoch(one) if one == epoch => self,
            Reliance::Epoch(_) | Reliance::Mixed => Reliance::Mixed,
        }
    }

    fn holds(self, epoch: u64) -> bool {
        match self {
            Reliance::None => true,
            Reliance::Epoch(then) => then == epoch,
            Reliance::Mixed => false,
        }
    }
}

impl Session {
    /// Reads a text with what is known of the database that the held server is in.
    pub(super) fn statement(&self, text: &[u8]) -> Statement {
        let shapes = &self.context.shapes;
        let purpose = match self.split {
            None => Purpose::Pooling,
            Some(_) => Purpose::Routing,
        };
        let reading = self.read_catalogue();
        let judged = Judged::by(&reading);
        shapes.digest(text, &self.reading, Some(reading.state()), purpose, || {
            purpose.read(text, &self.reading, reading.names(), judged)
        })
    }

    #[inline]
    pub(super) fn read_catalogue(&self) -> Reading {
        let database = self.identity.database();
        let generation = match &self.link {
            // What is visited is as fresh as the catalogue.
            Link::Held { server, .. } if !self.is_visiting() => Some(server.generation),
            _ => self.context.primary_generation(),
        };
        match generation {
            Some(generation) => database.read(generation),
            // What the last primary had defined is what replicas have, as long as there is no other.
            None => database.read_last(),
        }
    }

    /// Whether a verdict was given in another state than the present.
    #[inline]
    fn is_outdated(&self, statement: &Statement) -> bool {
        // For a batch what was read ahead counts.
        if self.is_visiting() && !self.is_within() {
            return false;
        }
        let reading = self.read_catalogue();
        let is_judged_by = |reading: &Reading| Judged::by(reading) == statement.judged;
        let lacks_class = self.split.is_some() && statement.class.is_none();
        (lacks_class || !is_judged_by(&reading)) && *statement != Statement::TOO_LONG
    }

    /// A statement that was parsed earlier is about to be executed.
    #[inline]
    pub(super) fn judge_again(&self, text: &Text) {
        let outdated = self.is_outdated(&text.statement.borrow());
        if outdated {
            let sql = Cursor::new(&text.rest).cstr().unwrap_or_default();
            let statement = self.statement(sql);
            text.statement.replace(statement);
        }
    }

    /// The same for the unnamed one, whose Parse message is `parse`.
    pub(super) fn judge_unnamed_again(&self, statement: Statement, parse: &[u8]) -> Statement {
        if !self.is_outdated(&statement) {
            return statement;
        }
        let mut body = Cursor::new(parse.get(5..).unwrap_or_default());
        match body.cstr().and_then(|_name| body.cstr()) {
            Ok(sql) => self.statement(sql),
            // Too long to be kept: its session keeps the server for that.
            Err(_) => statement,
        }
    }

    /// Something is to run that leaves nothing behind by what the catalogue proved.
    pub(super) fn rely(&mut self, judged: Judged) {
        self.reliance = self.reliance.and(judged.epoch);
    }

    /// The transaction is about to define something: until it has ended, nobody trusts the catalogue.
    pub(super) fn begin_change(&mut self) {
        if self.change.is_none() {
            self.change = Some(self.identity.database().begin_change());
        }
    }

    /// Before the server goes back: what was defined meanwhile may have changed what ran.
    #[inline]
    pub(super) fn recheck_catalogue(&mut self) {
        if self.reliance == Reliance::None {
            return;
        }
        let holds = self.reliance.holds(self.identity.database().epoch());
        self.reliance = Reliance::None;
        match !holds && self.was_visiting() {
            // Where nobody stays: what may be left there goes.
            true => self.release_cleared(),
            false if !holds => self.pin("opaque_function"),
            false => {}
        }
    }
}
