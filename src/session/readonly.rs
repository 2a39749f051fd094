//! Writes on a listener that only reads.
//!
//! A statement that surely writes, alone and outside of a transaction, is refused before there is a server, in PostgreSQL's own
//! words: no replica is bothered, and nobody waits for one. All others the server refuses itself. What a rule on a table does
//! instead of the write is not looked at.

use super::{Session, statement::Control};
use crate::{
    client::report,
    config::{Route, Writes},
    error::{Error, Kind},
    route::class::{Reason, command_of_write},
    wire::{TransactionStatus, backend, frame::Frame},
};

/// What is added to PostgreSQL's own words.
pub(super) const WRITE_HINT: &str =
    "This port reads from replicas: connect to the primary's port to write.";

impl Session {
    /// Answers the client's next message, which was read ahead, if it surely writes where nothing can be written.
    pub(super) fn refuses_write(&mut self, frame: Frame) -> bool {
        let listener = &self.listener;
        if listener.route != Route::Replica || listener.writes != Writes::Refuse {
            return false;
        }
        let Some(command) = self.refused_command(frame) else {
            return false;
        };
        self.statement_ahead();
        self.drop_frame(frame);
        self.unnamed.forget();
        let message = format!("cannot execute {command} in a read-only transaction");
        let error = Error::client(Kind::ReadOnly, message).hint(WRITE_HINT);
        self.context.counters.count_error(error.kind);
        report::error_response(&mut self.out, &error, None);
        backend::ready_for_query(&mut self.out, TransactionStatus::Idle.as_byte());
        true
    }

    fn refused_command(&self, frame: Frame) -> Option<String> {
        let statement = self.split.as_ref()?.ahead.as_ref()?;
        let reason = statement.class.as_ref()?.reason;
        // Several statements count as one that may commit; what pins is not understood.
        let is_alone = statement.control == Control::None && statement.pin.is_none();
        if reason != Reason::Write
            || !is_alone
            || frame.tag != b'Q'
            || self.is_text_malformed(frame)
        {
            return None;
        }
        let text = self.body(frame).strip_suffix(&[0])?;
        command_of_write(text, &self.reading)
    }
}
