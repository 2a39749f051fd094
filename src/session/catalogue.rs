//! How a session's statements stand with the catalogue of its database: what they were judged by, what changes it.
//!
//! A verdict is good for the state of the catalogue that it was given in, and is given anew for a statement that was
//! parsed in another. What ran under one that ended meanwhile keeps its server.

use super::{Link, Session, statement::Statement, texts::Text};
use crate::{catalogues::Reading, route::effects::Names, wire::cursor::Cursor};

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
        match self.read_catalogue() {
            Some(reading) => {
                let judged = Judged::by(&reading);
                shapes.digest(text, &self.reading, Some(reading.state()), || {
                    Statement::of(text, &self.reading, reading.names(), judged)
                })
            }
            None => shapes.digest(text, &self.reading, None, || {
                Statement::of(text, &self.reading, Names::BuiltIn, Judged::NOT)
            }),
        }
    }

    #[inline]
    fn read_catalogue(&self) -> Option<Reading> {
        match &self.link {
            Link::Held { server, .. } => Some(self.identity.database().read(server.generation)),
            _ => None,
        }
    }

    /// Whether a verdict was given in another state than the present.
    #[inline]
    fn is_outdated(&self, statement: &Statement) -> bool {
        let reading = self.read_catalogue();
        reading.is_some_and(|reading| Judged::by(&reading) != statement.judged)
            && *statement != Statement::TOO_LONG
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
        if !self.reliance.holds(self.identity.database().epoch()) {
            self.pin("opaque_function");
        }
        self.reliance = Reliance::None;
    }
}
