//! Sessions whose statements have their own names on a server: SQL speaks of them, or they cannot be carried.

use super::{
    Link, Session,
    book::Named,
    frontend::Forwarded,
    marks::{Naming, deallocated},
    statement::{Control, Remains},
};
use crate::{
    config::PoolMode,
    wire::{
        TransactionStatus,
        frame::Frame,
        frontend,
        pipeline::{Sent, Show},
    },
};

impl Session {
    /// Names go to the server as they are.
    pub(super) fn names_are_native(&self) -> bool {
        self.prepared.is_native() || self.listener.mode == PoolMode::Session
    }

    /// A text is about to be passed that speaks of statements by their SQL names.
    pub(super) fn meet_naming(&mut self, naming: Naming, tag: u8) -> Forwarded {
        let Link::Held { server, .. } = &self.link else {
            return Forwarded::Passed;
        };
        let is_native = self.names_are_native();
        if naming == Naming::None || is_native || !server.pipeline.is_listening() {
            return Forwarded::Passed;
        }
        if self.must_settle() {
            return Forwarded::Waits;
        }
        match (naming, tag) {
            // Its CommandComplete says what became of them.
            (Naming::All, b'Q') => self.prepared.wait_for_answers(),
            _ => self.go_native(),
        }
        Forwarded::Passed
    }

    /// `DEALLOCATE name` of a statement that is carried: the server deallocates one of no consequence in its place. None:
    /// the text is to be passed as others are.
    pub(super) fn deallocate(&mut self, frame: Frame) -> Option<Forwarded> {
        let text = self.body(frame);
        let name = deallocated(text.strip_suffix(&[0])?, &self.reading)?;
        if self.names_are_native() || self.prepared.find(&name).is_none() {
            return None;
        }
        if self.must_settle() {
            return Some(Forwarded::Waits);
        }
        let Link::Held { server, .. } = &mut self.link else {
            return None;
        };
        let pipeline = &server.pipeline;
        let fails = pipeline.status() == TransactionStatus::Failed || pipeline.has_open_batch();
        if fails || !pipeline.is_listening() {
            return None;
        }
        let stand_in = server.statements.fresh_name();
        let mut message = Vec::new();
        frontend::parse_again(&mut message, stand_in.as_bytes(), &[0; 3]);
        self.send_own(&message, Sent::Parse, Show::Hide, None);
        message.clear();
        frontend::sync(&mut message);
        self.send_own(&message, Sent::Sync, Show::Hide, None);
        message.clear();
        frontend::query_bytes(
            &mut message,
            &[b"DEALLOCATE ", stand_in.as_bytes()].concat(),
        );
        self.unnamed.forget();
        self.note_flight(self.flight_of(Control::None, Remains::Nothing));
        self.replace(frame, &message, Sent::Query);
        self.prepared.remove(&name);
        // Its name is gone: run again it would fail.
        self.forget_kept();
        Some(Forwarded::Passed)
    }

    /// Whether answers are still to come on which the books depend. The server is asked to give them.
    pub(super) fn must_settle(&mut self) -> bool {
        let Link::Held { server, .. } = &self.link else {
            return false;
        };
        if server.pipeline.is_quiet() || !server.pipeline.is_listening() {
            self.prepared.set_asked(false);
            return false;
        }
        if server.pipeline.has_open_batch() && !self.prepared.set_asked(true) {
            let mut flush = Vec::new();
            frontend::flush(&mut flush);
            self.inject(&flush, Sent::Flush);
        }
        true
    }

    /// From here on the held server has this session's statements, and none of another's, under their own names. It must
    /// owe nothing.
    pub(super) fn go_native(&mut self) {
        let Link::Held { server, .. } = &mut self.link else {
            return;
        };
        // In a failed transaction nothing can be parsed, nor does a text that names statements come to them.
        if !server.pipeline.is_listening() || server.pipeline.status() == TransactionStatus::Failed
        {
            return;
        }
        server.statements.leave_all();
        let is_idle = server.pipeline.status() == TransactionStatus::Idle;
        let in_batch = server.pipeline.has_open_batch();
        self.close_leftovers();
        let names = self.prepared.turn_native();
        if !names.is_empty() {
            self.pin("prepared_statement");
        }
        let parsing = self.parsing();
        for (name, named) in names {
            let is_read_so = named.reading.is_some() && named.reading == parsing.reading;
            if in_batch {
                let mut parse = Vec::new();
                frontend::parse_again(&mut parse, &name, &named.text.rest);
                self.send_own(&parse, Sent::Parse, Show::Swallow, None);
            } else if is_read_so && is_idle {
                self.parse_alone(&name, &named);
            } else {
                self.parse_aside(&name, &named, None);
            }
        }
    }

    /// One whose table is gone must not take others with it.
    fn parse_alone(&mut self, name: &[u8], named: &Named) {
        let mut parse = Vec::new();
        frontend::parse_again(&mut parse, name, &named.text.rest);
        self.send_own(&parse, Sent::Parse, Show::Hide, None);
        let mut sync = Vec::new();
        frontend::sync(&mut sync);
        self.send_own(&sync, Sent::Sync, Show::Hide, None);
    }
}
