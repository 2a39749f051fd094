//! What a client was told of its statements, and whether it still holds.
//!
//! Drivers keep a statement's description and do not ask again: rows of other types would be misread. On its own server
//! a client whose statement has come to mean something else gets an error that drivers know. So before a statement is
//! bound on a server that has parsed it after a change of the schema, its description there is compared with what the
//! client was told: the client's batch waits for that, which happens once after such a change.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use super::{
    Link, Session,
    book::{Named, Undo},
};
use crate::{
    server::statements::ServerName,
    wire::{
        backend::{self, Fields},
        frame::Frame,
        frontend,
        pipeline::{Sent, Show, Ticket},
    },
};

/// What PostgreSQL says of a statement whose rows have come to have other types.
const ANOTHER: Fields<'static> = Fields {
    severity: "ERROR",
    sqlstate: "0A000",
    message: "cached plan must not change result type",
    hint: None,
    routine: Some("RevalidateCachedQuery"),
};

/// ParameterDescription and RowDescription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub digest: u64,
    /// The schema epoch of the parse that was described; None if the statement was read anew since.
    pub epoch: Option<u64>,
}

/// For whom a statement is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Describing {
    ForClient,
    ForUs,
}

/// What a statement means on the held server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What the client was told, or it was told nothing.
    Same,
    /// The server is being asked.
    Asked,
    Another,
}

impl Session {
    /// Of the statement that `frame` names, at `name` of its body.
    #[inline]
    pub(super) fn still_means(
        &mut self,
        frame: Frame,
        name: Range<usize>,
        named: &Named,
    ) -> Meaning {
        let (Some(told), Link::Held { server, .. }) = (named.told, &mut self.link) else {
            return Meaning::Same;
        };
        let now = self.context.schema.now();
        let epoch = server.statements.epoch_of(named.text.id).unwrap_or(now);
        if Some(epoch.max(named.epoch)) <= told.epoch {
            return Meaning::Same;
        }
        if named.differs_in == Some(epoch) {
            return Meaning::Another;
        }
        if !self.prepared.is_asking(named.text.id) {
            let name = Box::from(self.name_in(frame, name));
            self.ask_meaning(name, named);
        }
        Meaning::Asked
    }

    fn ask_meaning(&mut self, name: Box<[u8]>, named: &Named) {
        let number = self.number_of(named);
        let ticket = self.prepared.next_ticket();
        self.book_description(ticket, name, named, Describing::ForUs);
        let mut message = Vec::new();
        frontend::describe_statement(&mut message, ServerName::of(number).as_bytes());
        self.send_own(
            &message,
            Sent::DescribeStatement,
            Show::Swallow,
            Some(ticket),
        );
        message.clear();
        frontend::flush(&mut message);
        self.inject(&message, Sent::Flush);
    }

    /// Describe of `named`, which the held server has, is about to be sent.
    pub(super) fn book_description(
        &mut self,
        ticket: Ticket,
        name: Box<[u8]>,
        named: &Named,
        describing: Describing,
    ) {
        let content = named.text.id;
        let epoch = match &self.link {
            Link::Held { server, .. } => server.statements.epoch_of(content),
            _ => None,
        };
        let described = Undo::Description {
            name,
            content,
            epoch: epoch.unwrap_or_default(),
            describing,
        };
        self.prepared.book(ticket, described);
    }

    /// ParameterDescription, RowDescription or NoData of a statement with a ticket.
    pub(super) fn described(&mut self, frame: Frame, ticket: Ticket) {
        let body = self.reply_body(frame);
        let mut hash = DefaultHasher::new();
        (frame.tag, body).hash(&mut hash);
        self.prepared.described(frame.tag, hash.finish(), ticket);
    }

    /// Binds what is not there in the place of a statement that has come to mean something else; the error of that is told
    /// as PostgreSQL's own for it.
    pub(super) fn refuse_another(&mut self, frame: Frame) {
        let mut bind = Vec::new();
        frontend::bind(&mut bind, ServerName::of(0).as_bytes());
        self.drop_frame(frame);
        self.send_own(&bind, Sent::Bind, Show::AsChanged, None);
    }
}

pub(super) fn another() -> Vec<u8> {
    let mut error = Vec::new();
    backend::error_response(&mut error, ANOTHER);
    error
}
