//! Named prepared statements, carried from server to server.
//!
//! The client's names are known here, a server's in [`crate::server::statements`]; between them stands a statement's
//! content. A message that names one is passed with the server's name in it. What the server has not seen is parsed
//! there first, swallowed, in the same write; a Parse of what it has seen becomes a Close of nothing, whose answer is
//! told as ParseComplete, so that order, errors and what an error skips stay the server's own.
//!
//! Books are kept at once, for messages that may yet be thrown away: what an error takes with it is undone
//! ([`super::book`]). What depends on an earlier batch waits until that is answered.
//!
//! Where SQL speaks of statements by name, and where names cannot be kept, the session goes native: its statements get
//! their own names on its server, which it keeps.

use std::{ops::Range, rc::Rc};

use super::{
    Link, Session,
    book::{Named, Undo},
    frontend::Forwarded,
    marks::Naming,
    outcome::Flight,
    parsing::Parsing,
    statement::{Control, Statement},
    texts::Text,
    told::{Describing, Meaning},
};
use crate::{
    server::statements::{PREFIX, ServerName},
    wire::{
        TransactionStatus,
        cursor::Cursor,
        frame::{Frame, HEADER_LEN},
        frontend,
        pipeline::{Sent, Show, Ticket},
        rename::pass_renamed,
    },
};

/// The longest name of which PostgreSQL sees all (`NAMEDATALEN`).
const MAX_NAME: usize = 63;

/// How a message that names a statement goes on.
enum Way {
    /// As it is: the server knows what to say, or does not listen.
    Verbatim,
    /// With the name of this content.
    Carried,
    Waits,
}

impl Session {
    /// Parse of a named statement; the name begins the body.
    pub(super) fn forward_named_parse(
        &mut self,
        frame: Frame,
        name_len: usize,
        statement: &Statement,
    ) -> Forwarded {
        match self.way_of_parse(frame, name_len, statement) {
            Way::Waits => Forwarded::Waits,
            Way::Verbatim => self.parse_verbatim(frame, name_len, statement),
            Way::Carried => {
                self.note_flight(Flight::CannotCommit);
                self.close_leftovers();
                if self
                    .prepared
                    .find(self.name_in(frame, 0..name_len))
                    .is_some()
                {
                    self.parse_taken(frame, name_len);
                } else {
                    self.parse_carried(frame, name_len, statement);
                }
                Forwarded::Passed
            }
        }
    }

    fn way_of_parse(&mut self, frame: Frame, name_len: usize, statement: &Statement) -> Way {
        let way = self.way(frame, 0, name_len);
        if !matches!(way, Way::Carried) {
            return way;
        }
        let too_much = *statement == Statement::TOO_LONG || self.prepared.is_full(frame.len);
        if self.is_dressing() || self.must_know_settings() {
            return Way::Waits;
        }
        // Within a replica's transaction it is refused when it is bound.
        let is_plain = statement.marks.naming == Naming::None || self.is_within();
        if !too_much && is_plain {
            return Way::Carried;
        }
        self.way_to_native()
    }

    /// Whether the server is still to say under which settings a text would be parsed: once it is free it is asked.
    pub(super) fn must_know_settings(&mut self) -> bool {
        let unsettled = self.unsettled.as_ref().is_some_and(|u| u.has_settings());
        self.question.is_some() || (unsettled && self.must_settle())
    }

    /// How a message with a statement's name at `start` of its body goes on.
    fn way(&mut self, frame: Frame, start: usize, len: usize) -> Way {
        let Link::Held { server, .. } = &self.link else {
            return Way::Verbatim;
        };
        if !server.pipeline.is_listening() || self.names_are_native() {
            return Way::Verbatim;
        }
        let name = self.name_in(frame, start..start + len);
        // Whose bytes another encoding would change, of which the server takes only the beginning, or that could be one of
        // ours.
        let is_strange = !name.is_ascii() || name.len() > MAX_NAME || name.starts_with(PREFIX);
        // A session that will never leave its server has them there as on one of its own.
        let pipeline = &server.pipeline;
        let stays = self.pins.is_for_life()
            && pipeline.status() != TransactionStatus::Failed
            && !pipeline.has_open_batch();
        if is_strange || stays {
            return self.way_to_native();
        }
        if self.prepared.waits_for_batch() {
            return Way::Waits;
        }
        let waits_for_all = self.prepared.waits_for_all() || self.prepared.is_crowded();
        if waits_for_all && self.must_settle() {
            return Way::Waits;
        }
        self.prepared.end_wait();
        Way::Carried
    }

    fn way_to_native(&mut self) -> Way {
        if self.must_settle() {
            return Way::Waits;
        }
        self.go_native();
        self.pin("prepared_statement");
        Way::Verbatim
    }

    pub(super) fn name_in(&self, frame: Frame, name: Range<usize>) -> &[u8] {
        self.body(frame).get(name).unwrap_or_default()
    }

    /// The server is to judge it. A statement of a session whose names are native is not looked at when it is bound, so
    /// that what it leaves behind counts from here.
    fn parse_verbatim(
        &mut self,
        frame: Frame,
        name_len: usize,
        statement: &Statement,
    ) -> Forwarded {
        if self.names_are_native() {
            let refusal = self.refusal(statement);
            self.clear_databases(statement);
            self.note_execution(statement);
            self.schema.note_lasting(statement.marks.changes_schema);
            if let Some(sql) = refusal {
                let mut refusal = Vec::new();
                let rest = [sql.as_bytes(), &[0; 3]].concat();
                frontend::parse_again(&mut refusal, self.name_in(frame, 0..name_len), &rest);
                self.replace(frame, &refusal, Sent::Parse);
                return Forwarded::Passed;
            }
            self.pin("prepared_statement");
        }
        self.pass(frame, Sent::Parse);
        Forwarded::Passed
    }

    /// The client's name is in use: with a statement of that name there, the server itself says so, or what comes first.
    fn parse_taken(&mut self, frame: Frame, name_len: usize) {
        let name: Box<[u8]> = self.name_in(frame, 0..name_len).into();
        let mut parse = Vec::new();
        frontend::parse_again(&mut parse, &name, &[0; 3]);
        self.inject(&parse, Sent::Parse);
        if let Link::Held { server, .. } = &mut self.link {
            server.statements.leave_name(name);
        }
        self.pass(frame, Sent::Parse);
    }

    fn parse_carried(&mut self, frame: Frame, name_len: usize, statement: &Statement) {
        let epoch = self.context.schema.now();
        let parsing = self.parsing();
        let text = self.text_of(frame, name_len, statement.clone(), parsing);
        let is_there = self.may_reuse(&text, epoch);
        if !is_there {
            // Before the ticket is given out: they are settled in their order.
            self.make_place();
        }
        let ticket = self.prepared.next_ticket();
        let name: Box<[u8]> = self.name_in(frame, 0..name_len).into();
        let named = Named::new(text.clone(), epoch, parsing.reading, self.settings.clone());
        let before = self.prepared.insert(&name, named);
        self.prepared.book(ticket, Undo::Name { name, before });
        if is_there {
            self.context.counters.statements_reused.one();
            self.close_nothing(frame, Show::AsParse, ticket);
        } else {
            let number = self.add_to_server(&text, epoch, ticket);
            self.pass_named(frame, 0..name_len, number, Sent::Parse, Some(ticket));
        }
    }

    /// Whether the server need not parse `text` for a Parse of the client's. In a failed transaction, or where one may
    /// have failed by then, only a real Parse is refused as it must be; and where a COPY may await rows by then.
    fn may_reuse(&mut self, text: &Rc<Text>, epoch: u64) -> bool {
        let Link::Held { server, .. } = &mut self.link else {
            return false;
        };
        let pipeline = &server.pipeline;
        !pipeline.awaits_ready()
            && !pipeline.may_be_copying()
            && pipeline.status() != TransactionStatus::Failed
            && server.statements.find(text.id, epoch).is_some()
    }

    /// What the Parse message holds behind its name, as all sessions of the worker share it, read under `parsing`.
    fn text_of(
        &mut self,
        frame: Frame,
        name_len: usize,
        statement: Statement,
        parsing: Parsing,
    ) -> Rc<Text> {
        let rest = self.body(frame).get(name_len + 1..).unwrap_or_default();
        let rest: Box<[u8]> = rest.into();
        let id = self.content_of(parsing.shared, &rest);
        self.context.texts.intern(id, rest, statement)
    }

    /// Bind, Describe or Close of a named statement, whose name stands at `name` in the body.
    pub(super) fn forward_named(
        &mut self,
        frame: Frame,
        name: Range<usize>,
        sent: Sent,
    ) -> Forwarded {
        match self.way(frame, name.start, name.len()) {
            Way::Waits => return Forwarded::Waits,
            Way::Verbatim => self.pass_unknown(frame, sent),
            Way::Carried => {
                self.close_leftovers();
                let known = self.name_in(frame, name.clone());
                let Some(named) = self.prepared.find(known).cloned() else {
                    self.pass_unknown(frame, sent);
                    return Forwarded::Passed;
                };
                if sent == Sent::Close {
                    self.close_named(frame, name);
                    return Forwarded::Passed;
                }
                let Some(named) = self.read_here(frame, name.clone(), named) else {
                    return Forwarded::Waits;
                };
                match sent {
                    Sent::Bind => return self.bind_named(frame, name, &named),
                    _ => self.describe_named(frame, name, &named),
                }
            }
        }
        Forwarded::Passed
    }

    fn pass_unknown(&mut self, frame: Frame, sent: Sent) {
        self.note_flight(match sent {
            Sent::Bind => Flight::MayCommit,
            _ => Flight::CannotCommit,
        });
        self.pass(frame, sent);
    }

    fn bind_named(&mut self, frame: Frame, name: Range<usize>, named: &Named) -> Forwarded {
        self.judge_again(&named.text);
        let statement = &named.text.statement.borrow();
        if self.must_be_dressed_for(statement) {
            return Forwarded::Waits;
        }
        let refusal = self.refusal(statement);
        // Bind itself is to be refused, not a Parse before it; that of an empty text is not.
        let refusal = refusal.or_else(|| self.cannot_parse(named).then_some(""));
        if refusal.is_none() {
            match self.still_means(frame, name.clone(), named) {
                Meaning::Same => {}
                Meaning::Asked => return Forwarded::Waits,
                Meaning::Another => {
                    self.note_execution(statement);
                    self.refuse_another(frame);
                    return Forwarded::Passed;
                }
            }
        }
        self.clear_databases(statement);
        self.note_execution(statement);
        if let Some(sql) = refusal {
            self.refuse_bind(frame, sql);
        } else {
            let number = self.number_of(named);
            self.pass_named(frame, name, number, Sent::Bind, None);
        }
        Forwarded::Passed
    }

    fn describe_named(&mut self, frame: Frame, name: Range<usize>, named: &Named) {
        self.note_flight(Flight::CannotCommit);
        let number = self.number_of(named);
        let ticket = self.prepared.next_ticket();
        let known = Box::from(self.name_in(frame, name.clone()));
        self.book_description(ticket, known, named, Describing::ForClient);
        self.pass_named(frame, name, number, Sent::DescribeStatement, Some(ticket));
    }

    /// Binds `sql`, which raises an error when it is executed, in the place of the statement.
    pub(super) fn refuse_bind(&mut self, frame: Frame, sql: &str) {
        let mut refusal = Vec::new();
        frontend::parse(&mut refusal, "", sql);
        self.inject(&refusal, Sent::Parse);
        self.unnamed.unsay();
        refusal.clear();
        let portal = Cursor::new(self.body(frame)).cstr().unwrap_or_default();
        frontend::bind_unnamed(&mut refusal, portal);
        self.replace(frame, &refusal, Sent::Bind);
    }

    /// The statement's number on the held server, which is told it if it does not have it.
    #[inline]
    pub(super) fn number_of(&mut self, named: &Named) -> u64 {
        if let Link::Held { server, .. } = &mut self.link
            && let Some(number) = server.statements.find(named.text.id, named.epoch)
        {
            return number;
        }
        self.parse_again(&named.text)
    }

    /// The server has not got the statement, and in a failed transaction does not take it.
    fn cannot_parse(&mut self, named: &Named) -> bool {
        let Link::Held { server, .. } = &mut self.link else {
            return false;
        };
        server.pipeline.status() == TransactionStatus::Failed
            && !named.text.statement.borrow().ends_transaction
            && server.statements.find(named.text.id, named.epoch).is_none()
    }

    pub(super) fn parse_again(&mut self, text: &Rc<Text>) -> u64 {
        self.make_place();
        let ticket = self.prepared.next_ticket();
        let number = self.add_to_server(text, self.context.schema.now(), ticket);
        let mut parse = Vec::new();
        frontend::parse_again(&mut parse, ServerName::of(number).as_bytes(), &text.rest);
        self.inject_booked(&parse, Sent::Parse, ticket);
        number
    }

    /// A Parse of `text` is about to be sent with `ticket`.
    pub(super) fn add_to_server(&mut self, text: &Rc<Text>, epoch: u64, ticket: Ticket) -> u64 {
        self.context.counters.statements_parsed.one();
        let Link::Held { server, .. } = &mut self.link else {
            return 0;
        };
        let number = server.statements.add(text.id, epoch);
        let content = text.id;
        self.prepared.book(ticket, Undo::Parse { content, number });
        number
    }

    /// A session that keeps its server may have been told statements there that can be parsed nowhere else.
    pub(super) fn make_place(&mut self) {
        if let Link::Held { server, .. } = &mut self.link
            && !self.pins.is_for_life()
            && server.statements.evict()
        {
            self.context.counters.statements_evicted.one();
        }
        self.close_leftovers();
    }

    fn close_named(&mut self, frame: Frame, name: Range<usize>) {
        self.note_flight(Flight::CannotCommit);
        let name: Box<[u8]> = self.name_in(frame, name.clone()).into();
        let ticket = self.prepared.next_ticket();
        let before = self.prepared.remove(&name);
        self.prepared.book(ticket, Undo::Name { name, before });
        self.close_nothing(frame, Show::Client, ticket);
    }

    /// Sends a Close of a statement that nobody has in the place of `frame`.
    fn close_nothing(&mut self, frame: Frame, show: Show, ticket: Ticket) {
        let mut close = Vec::new();
        frontend::close_statement(&mut close, ServerName::of(0).as_bytes());
        self.drop_frame(frame);
        self.send_own(&close, Sent::Close, show, Some(ticket));
    }

    fn pass_named(
        &mut self,
        frame: Frame,
        name: Range<usize>,
        number: u64,
        sent: Sent,
        ticket: Option<Ticket>,
    ) {
        self.note_sent(sent, Show::Client, ticket);
        if let Some(buffer) = &mut self.from_client {
            let name = name.start + HEADER_LEN..name.end + HEADER_LEN;
            pass_renamed(buffer, frame, name, ServerName::of(number).as_bytes());
        }
    }

    /// Closes what nobody is to meet on the held server. Later, where a COPY may await rows: its error would name the Close.
    /// But at once what a client could name.
    pub(super) fn close_leftovers(&mut self) {
        while let Link::Held { server, .. } = &mut self.link
            && (!server.pipeline.may_be_copying() || server.statements.leaves_clients_name())
            && let Some(name) = server.statements.take_leftover()
        {
            let mut close = Vec::new();
            frontend::close_statement(&mut close, &name);
            let ticket = self.prepared.next_ticket();
            self.prepared.book(ticket, Undo::Leftover(name));
            self.inject_booked(&close, Sent::Close, ticket);
        }
    }

    fn inject_booked(&mut self, frame: &[u8], sent: Sent, ticket: Ticket) {
        self.send_own(frame, sent, Show::Swallow, Some(ticket));
    }

    /// The error `body` of `frame`, whole, with the client's names where it has ours; None if it has none.
    pub(super) fn by_the_clients_names(&self, body: &[u8], frame: Frame) -> Option<Vec<u8>> {
        if body.len() + HEADER_LEN != frame.len || memchr::memmem::find(body, PREFIX).is_none() {
            return None;
        }
        let Link::Held { server, .. } = &self.link else {
            return None;
        };
        let mut renamed = vec![frame.tag, 0, 0, 0, 0];
        let mut rest = body;
        while let Some(at) = memchr::memmem::find(rest, PREFIX) {
            let (before, found) = rest.split_at(at);
            let digits = found[PREFIX.len()..].iter();
            let len = PREFIX.len() + digits.take_while(|b| b.is_ascii_digit()).count();
            let (ours, after) = found.split_at(len);
            let content = server.statements.content_of(ours);
            let name = content.and_then(|content| self.prepared.name_of(content));
            renamed.extend_from_slice(before);
            renamed.extend_from_slice(name.unwrap_or(ours));
            rest = after;
        }
        renamed.extend_from_slice(rest);
        let len = (renamed.len() - 1) as u32;
        renamed[1..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        Some(renamed)
    }

    /// The server has run DEALLOCATE ALL or DISCARD ALL.
    pub(super) fn statements_dropped(&mut self) {
        if let Link::Held { server, .. } = &mut self.link {
            server.statements.clear();
        }
        self.prepared.clear_names();
    }

    /// How the execution of the statement that `name` names ends the transaction, if it does.
    pub(super) fn ending_of_named(&self, name: &[u8]) -> Control {
        let named = self.prepared.find(name);
        named.map_or(Control::None, |named| {
            named.text.statement.borrow().ending()
        })
    }

    /// A Parse that was answered in the place of a lost server.
    pub(super) fn remember_unparsed(&mut self, frame: Frame) {
        let body = self.body(frame);
        let mut cursor = Cursor::new(body);
        let (Ok(name), Ok(sql)) = (cursor.cstr(), cursor.cstr()) else {
            return;
        };
        if name.is_empty() || !name.is_ascii() || name.len() > MAX_NAME || name.starts_with(PREFIX)
        {
            return;
        }
        let (name, statement): (Box<[u8]>, _) = (name.into(), self.statement(sql));
        let parsing = self.parsing();
        let text = self.text_of(frame, name.len(), statement, parsing);
        let epoch = self.context.schema.now();
        let named = Named::new(text, epoch, parsing.reading, self.settings.clone());
        self.prepared.insert(&name, named);
    }

    /// A Close that was answered in the place of a lost server; `subject` is its body.
    pub(super) fn forget_unparsed(&mut self, frame: Frame) {
        let name = match self.body(frame).split_last() {
            Some((0, [b'S', name @ ..])) => Box::<[u8]>::from(name),
            _ => return,
        };
        self.prepared.remove(&name);
    }
}
