//! What the client's messages mean: which need a server, what they pin, what they make the server owe.

use std::{ops::Range, time::Instant};

use super::{
    Inbound, Link, Session,
    application::Application,
    marks::Naming,
    opening::REFUSE_WITHIN,
    outcome::Flight,
    own,
    registry::Activity,
    relay::{End, Step},
    statement::{Control, Remains, Sequences, Statement},
};
use crate::{
    config,
    error::{Error, Kind},
    route::functions,
    server::profile::Access,
    wire::{
        TransactionStatus, Violation,
        cursor::{Cursor, Malformed},
        frame::{self, Frame, HEADER_LEN, Sender},
        frontend,
        pipeline::{Sent, Show, Ticket},
    },
};

/// Whether a message went on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarded {
    Passed,
    /// It stays where it is until the server has answered what was sent before.
    Waits,
}

/// What a Describe or a Close is about.
enum Subject {
    /// The one whose name stands at this place of the body.
    Statement(Range<usize>),
    Portal,
    /// The server knows what to say.
    Malformed,
}

/// Longest Query or Parse that is looked at whole; a longer one streams through and pins its session.
pub(super) const MAX_TEXT: usize = 1024 * 1024;
/// Names of portals and statements stand at the start of their messages.
const MAX_NAMES: usize = 8 * 1024;

/// Our own answers that may wait for a client to read them, before it gets no further ones.
const MAX_OUT: usize = 16 * 1024;

/// Raises 25006 on the server itself, so that transactions and batches fail just where the refused statement stood.
const REFUSE_WRITE: &str = "DO $pgsluice$BEGIN RAISE SQLSTATE '25006' USING \
     MESSAGE = 'cannot leave read-only mode on a replica listener', \
     HINT = 'Connect to the primary''s port to write.'; END$pgsluice$";

/// What PostgreSQL says where currval and lastval have nothing to look at, and what can be done about it.
const REFUSE_SEQUENCE: &str = "DO $pgsluice$BEGIN RAISE SQLSTATE '55000' USING \
     MESSAGE = 'currval and lastval are not defined on this server connection', \
     HINT = 'The value was drawn on another one. From now on this application keeps its server when it draws one: \
     run the transaction again, use RETURNING, or a listener with mode = \"session\".'; END$pgsluice$";

impl Session {
    /// Looks at what the client has sent, as far as it can be acted on now.
    pub(super) fn scan_client(&mut self) -> Result<(), Step> {
        while let Some(frame) = self.next_frame() {
            if self.split.is_some() && self.is_visit_over() {
                return Ok(());
            }
            match &self.link {
                Link::Held { .. } if self.waits_to_be_dressed(frame) || self.must_pause() => {
                    return Ok(());
                }
                Link::Free if is_ignored_when_idle(frame) => self.drop_frame(frame),
                // The next server, and the end, only when the last one's replies are out.
                Link::Free if !self.client_is_served() => return Ok(()),
                Link::Free if frame.tag == b'X' => return Err(Step::Ended(End::ClientGone)),
                Link::Free => {
                    if self.split.is_some() {
                        if self.may_say_more() && self.awaits_rest() {
                            return Ok(());
                        }
                        if self.opens_later(frame) {
                            continue;
                        }
                    }
                    self.take_idle_server(frame)?;
                }
                Link::Held { .. } if frame.tag == b'X' => {
                    return self.once_answered(End::ClientGone);
                }
                Link::Held { .. } => {
                    if self.split.is_some() && self.is_opening() && self.opens() {
                        return Ok(());
                    }
                    if self.application == Application::Pools
                        && self.restore_application() == Forwarded::Waits
                    {
                        return Ok(());
                    }
                    self.keep(frame);
                    if self.forward(frame)? == Forwarded::Waits {
                        self.keep_not(frame);
                        return Ok(());
                    }
                    self.note_looked_at(frame.len);
                    self.followed();
                    self.prepared.set_asked(false);
                }
                // A client that reads no answers gets no more of them.
                Link::Lost(_) if self.out.len() >= MAX_OUT || self.has_more_to_tell() => {
                    return Ok(());
                }
                Link::Lost(_) => self.answer_for_lost(frame)?,
            }
        }
        self.end_of_inbound()
    }

    /// The client has not ended its side of the connection.
    fn may_say_more(&self) -> bool {
        matches!(self.inbound, Inbound::Open)
    }

    /// Nothing more that can be acted on will come of the client.
    #[inline]
    fn end_of_inbound(&mut self) -> Result<(), Step> {
        match &self.inbound {
            Inbound::Open => Ok(()),
            Inbound::Ended(_) => self.once_answered(End::ClientGone),
            Inbound::Broken(violation) => {
                let end = match self.server_fatal {
                    true => End::Told,
                    false => ended_by(*violation),
                };
                // PostgreSQL says so behind all its answers, which a batch without an end has to be asked for.
                match self.must_settle() {
                    true => Ok(()),
                    false => self.once_answered(end),
                }
            }
        }
    }

    /// It keeps a server that must begin nothing new.
    #[inline]
    fn must_pause(&self) -> bool {
        match &self.link {
            Link::Held { server, pool } if self.context.is_any_paused() => {
                // What the session got the server for was begun before.
                let begins = server.pipeline.is_free() && self.entry.activity().0 == Activity::Idle;
                begins && self.context.is_paused(&pool.view())
            }
            _ => false,
        }
    }

    /// Ends the session when what the client sent before is run and answered, as PostgreSQL does. What is never answered
    /// without a Sync, or without the data of a COPY, is not waited for.
    fn once_answered(&self, end: End) -> Result<(), Step> {
        let waits = match &self.link {
            Link::Free | Link::Lost(_) => !self.client_is_served(),
            Link::Held { server, .. } => {
                let buffer = self.from_client.as_deref();
                let is_cut =
                    server.pipeline.is_copying_in() || buffer.is_some_and(|b| b.is_inside_frame());
                let unsent = buffer.is_some_and(|b| !b.pending().is_empty());
                let owes = server.pipeline.awaits_ready() || server.pipeline.owes_own() || unsent;
                !is_cut && (owes || !self.client_is_served())
            }
        };
        match waits {
            true => Ok(()),
            false => Err(Step::Ended(end)),
        }
    }

    /// The next frame, with as much of it in the buffer as its meaning needs.
    fn next_frame(&mut self) -> Option<Frame> {
        let Some(buffer) = &mut self.from_client else {
            return None;
        };
        if buffer.is_inside_frame() {
            return None;
        }
        let frame = match frame::peek(buffer.unseen(), Sender::Frontend) {
            Ok(peeked) => peeked?,
            Err(violation) => {
                self.inbound = Inbound::Broken(violation);
                return None;
            }
        };
        let needed = frame.len.min(match frame.tag {
            b'Q' | b'P' => MAX_TEXT,
            b'B' => MAX_NAMES,
            b'D' | b'C' => frame.len,
            b'F' => HEADER_LEN + 4,
            _ => HEADER_LEN,
        });
        if buffer.unseen().len() < needed {
            buffer.grow_for(needed);
            return None;
        }
        Some(frame)
    }

    /// The body of `frame`, or its beginning if it is longer than what is looked at.
    pub(super) fn body(&self, frame: Frame) -> &[u8] {
        let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
        let end = frame.len.min(unseen.len());
        unseen.get(HEADER_LEN..end).unwrap_or_default()
    }

    pub(super) fn drop_frame(&mut self, frame: Frame) {
        if let Some(buffer) = &mut self.from_client {
            buffer.discard(frame.len);
        }
    }

    fn forward(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        let sent = match frame.tag {
            b'Q' => return self.forward_query(frame),
            b'P' => return self.forward_parse(frame),
            b'B' => return self.forward_bind(frame),
            b'D' => return self.forward_describe(frame),
            b'C' => return self.forward_close(frame),
            b'E' => self.executes(),
            b'S' => {
                self.prepared.end_batch();
                Sent::Sync
            }
            b'H' if frame.len > HEADER_LEN => return self.forward_malformed_flush(frame),
            b'H' if self.split.is_some() && self.ends_piece(frame) => {
                self.end_piece(frame);
                return Ok(Forwarded::Passed);
            }
            b'H' => Sent::Flush,
            b'd' => Sent::CopyData,
            b'c' | b'f' => Sent::CopyEnd,
            _ if self.is_within() => return Ok(self.replace_query(frame, REFUSE_WITHIN)),
            _ => self.calls(frame),
        };
        if !matches!(sent, Sent::Flush | Sent::CopyData | Sent::CopyEnd) {
            self.note_flight(Flight::CannotCommit);
        }
        self.pass(frame, sent);
        Ok(Forwarded::Passed)
    }

    /// What the server itself refuses, by what its own rules make of such a message: it does nothing else.
    ///
    /// # Errors
    /// Not all of it was looked at.
    fn pass_malformed(&mut self, frame: Frame, sent: Sent) -> Result<Forwarded, Step> {
        if HEADER_LEN + self.body(frame).len() < frame.len {
            return Err(violated(frame));
        }
        self.note_flight(Flight::CannotCommit);
        self.pass(frame, sent);
        Ok(Forwarded::Passed)
    }

    /// A Flush with a body is an error of its batch, but in copy-in mode it is read over: only a server that owes nothing is
    /// certain to answer it.
    fn forward_malformed_flush(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        match &self.link {
            Link::Held { server, .. } if server.pipeline.is_quiet() => {
                self.pass_malformed(frame, Sent::DescribePortal)
            }
            _ => Err(violated(frame)),
        }
    }

    /// What a function leaves behind is known of those for large objects alone, which libpq calls so.
    fn calls(&mut self, frame: Frame) -> Sent {
        let function = Cursor::new(self.body(frame)).u32();
        if !function.is_ok_and(functions::is_large_object) {
            self.pin("function_call");
        }
        self.note_write();
        self.note_flight(Flight::MayCommit);
        Sent::FunctionCall
    }

    /// A portal that was bound in an earlier flight may be a COMMIT's.
    fn executes(&mut self) -> Sent {
        if self.flight == Flight::Nothing {
            self.note_flight(Flight::MayCommit);
        }
        Sent::Execute
    }

    pub(super) fn pass(&mut self, frame: Frame, sent: Sent) {
        self.note_sent(sent, Show::Client, None);
        if let Some(buffer) = &mut self.from_client {
            buffer.pass(frame.len);
        }
    }

    /// A message is about to go to the held server.
    #[inline]
    pub(super) fn note_sent(&mut self, sent: Sent, show: Show, ticket: Option<Ticket>) {
        if let Link::Held { server, .. } = &mut self.link {
            if server.pipeline.is_quiet() {
                server.asked = Instant::now();
                // A session that keeps its server was idle. A question of our own leaves it so.
                if show != Show::Own {
                    self.entry.set_activity(Activity::Active, server.asked);
                }
            }
            server.pipeline.send_ticketed(sent, show, ticket);
        }
    }

    /// Puts a frame of our own before the client's next one; only its error is shown.
    pub(super) fn inject(&mut self, frame: &[u8], sent: Sent) {
        self.send_own(frame, sent, Show::Swallow, None);
    }

    /// Asks the server something for ourselves: `sent` is what the messages in `query` are.
    pub(super) fn ask(&mut self, query: &[u8], sent: Sent) {
        self.from_client
            .get_or_insert_with(|| self.context.blocks.take());
        self.send_own(query, sent, Show::Own, None);
        // A simple Query ends the unnamed statement.
        self.unnamed.unsay();
    }

    /// Puts a frame of our own before the client's next one.
    pub(super) fn send_own(
        &mut self,
        frame: &[u8],
        sent: Sent,
        show: Show,
        ticket: Option<Ticket>,
    ) {
        self.note_sent(sent, show, ticket);
        if let Some(buffer) = &mut self.from_client {
            buffer.insert(frame);
        }
    }

    fn forward_query(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        let ahead = self.statement_ahead();
        if self.is_text_malformed(frame) {
            return self.pass_malformed(frame, Sent::Query);
        }
        if self.split.is_some()
            && ahead.as_ref().is_none_or(|statement| !statement.is_read())
            && let Some(command) =
                own::command(self.body(frame).strip_suffix(&[0]).unwrap_or_default())
            && (!self.is_within() || command.is_anywhere())
            && let Some(sql) = self.answer_for_proxy(&command)
        {
            let mut query = Vec::new();
            frontend::query_bytes(&mut query, &sql);
            self.note_flight(Flight::CannotCommit);
            self.replace(frame, &query, Sent::Query);
            return Ok(Forwarded::Passed);
        }
        let text = self.body(frame).strip_suffix(&[0]);
        let statement = match ahead {
            Some(statement) => statement,
            None if frame.len <= MAX_TEXT => self.statement(text.unwrap_or_default()),
            None => Statement::TOO_LONG,
        };
        if self.must_be_dressed_for(&statement) {
            return Ok(Forwarded::Waits);
        }
        if self.split.is_some() && self.is_refused_within(&statement) {
            self.unnamed.forget();
            return Ok(self.replace_query(frame, REFUSE_WITHIN));
        }
        if statement.marks.naming == Naming::One
            && let Some(forwarded) = self.deallocate(frame)
        {
            return Ok(forwarded);
        }
        if self.meet_naming(statement.marks.naming, frame.tag) == Forwarded::Waits {
            return Ok(Forwarded::Waits);
        }
        self.unnamed.forget();
        let refusal = self.refusal(&statement);
        self.clear_databases(&statement);
        self.note_execution(&statement);
        if let Some(sql) = refusal {
            return Ok(self.replace_query(frame, sql));
        }
        self.pass(frame, Sent::Query);
        Ok(Forwarded::Passed)
    }

    /// Has `sql` run, which raises an error, in the place of a message that answers like a Query.
    fn replace_query(&mut self, frame: Frame, sql: &str) -> Forwarded {
        let mut refusal = Vec::new();
        frontend::query(&mut refusal, sql);
        self.replace(frame, &refusal, Sent::Query);
        Forwarded::Passed
    }

    /// Has `sql`, which raises an error, stand for the unnamed statement on this server; elsewhere it is what it is.
    fn replace_parse(&mut self, frame: Frame, statement: Statement, sql: &str) {
        self.remember_unnamed(frame, statement);
        let mut refusal = Vec::new();
        frontend::parse(&mut refusal, "", sql);
        self.replace(frame, &refusal, Sent::Parse);
    }

    /// A Query's text ends where the message does, as far as that is looked at.
    #[inline]
    pub(super) fn is_text_malformed(&self, frame: Frame) -> bool {
        match memchr::memchr(0, self.body(frame)) {
            Some(at) => at + 1 + HEADER_LEN != frame.len,
            None => frame.len <= MAX_TEXT,
        }
    }

    fn forward_parse(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        let ahead = self.statement_ahead();
        let mut cursor = Cursor::new(self.body(frame));
        let name_len = cursor.cstr().map(<[u8]>::len);
        let text = match frame.len <= MAX_TEXT {
            true => cursor
                .cstr()
                .and_then(|sql| ends_with_types(cursor).map(|()| Some(sql))),
            false => Ok(None),
        };
        let (Ok(name_len), Ok(text)) = (name_len, text) else {
            return self.pass_malformed(frame, Sent::Parse);
        };
        let statement = match (ahead, text) {
            (Some(statement), _) => statement,
            (None, Some(sql)) => self.statement(sql),
            (None, None) => Statement::TOO_LONG,
        };
        if self.must_be_dressed_for(&statement) {
            return Ok(Forwarded::Waits);
        }
        if name_len > 0 {
            return Ok(self.forward_named_parse(frame, name_len, &statement));
        }
        if self.split.is_some() && self.is_refused_within(&statement) {
            self.replace_parse(frame, statement, REFUSE_WITHIN);
            return Ok(Forwarded::Passed);
        }
        if self.meet_naming(statement.marks.naming, frame.tag) == Forwarded::Waits {
            return Ok(Forwarded::Waits);
        }
        let refusal = self.refusal(&statement);
        self.clear_databases(&statement);
        self.note_flight(self.flight_of(statement.control, statement.remains));
        if let Some(sql) = refusal {
            self.replace_parse(frame, statement, sql);
        } else {
            self.remember_unnamed(frame, statement);
            self.pass(frame, Sent::Parse);
        }
        Ok(Forwarded::Passed)
    }

    fn forward_bind(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        let mut cursor = Cursor::new(self.body(frame));
        let (Ok(portal), Ok(name)) = (cursor.cstr(), cursor.cstr()) else {
            return self.pass_malformed(frame, Sent::Bind);
        };
        if !name.is_empty() {
            let start = portal.len() + 1;
            return Ok(self.forward_named(frame, start..start + name.len(), Sent::Bind));
        }
        let unnamed = self.unnamed.statement.as_ref();
        if unnamed.is_some_and(|statement| self.must_be_dressed_for(statement)) {
            return Ok(Forwarded::Waits);
        }
        self.bind_unnamed(frame);
        Ok(Forwarded::Passed)
    }

    fn bind_unnamed(&mut self, frame: Frame) {
        // Parsed for another server, it may have to be refused on this one.
        let refusal = match self.unnamed.statement.take() {
            None => {
                self.note_flight(Flight::MayCommit);
                None
            }
            Some(statement) => {
                let statement = self.judge_unnamed_again(statement, self.unnamed.parse());
                let refusal = match self.unnamed.is_told_in(self.hold) {
                    true => None,
                    false => self.refusal(&statement),
                };
                self.note_execution(&statement);
                self.unnamed.statement = Some(statement);
                refusal
            }
        };
        if let Some(sql) = refusal {
            return self.refuse_bind(frame, sql);
        }
        self.ensure_unnamed();
        self.pass(frame, Sent::Bind);
    }

    /// What Describe and Close are about.
    fn subject(&self, frame: Frame) -> Subject {
        let Some((kind, rest)) = self.body(frame).split_first() else {
            return Subject::Malformed;
        };
        let mut cursor = Cursor::new(rest);
        match (kind, cursor.cstr(), cursor.end()) {
            (b'S', Ok(name), Ok(())) => Subject::Statement(1..1 + name.len()),
            (b'P', Ok(_), Ok(())) => Subject::Portal,
            _ => Subject::Malformed,
        }
    }

    fn forward_describe(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        let sent = match self.subject(frame) {
            Subject::Malformed => return self.pass_malformed(frame, Sent::DescribePortal),
            Subject::Statement(name) if !name.is_empty() => {
                return Ok(self.forward_named(frame, name, Sent::DescribeStatement));
            }
            Subject::Statement(_) => {
                self.ensure_unnamed();
                Sent::DescribeStatement
            }
            Subject::Portal => Sent::DescribePortal,
        };
        self.note_flight(Flight::CannotCommit);
        self.pass(frame, sent);
        Ok(Forwarded::Passed)
    }

    fn forward_close(&mut self, frame: Frame) -> Result<Forwarded, Step> {
        match self.subject(frame) {
            Subject::Malformed => return self.pass_malformed(frame, Sent::Close),
            Subject::Statement(name) if !name.is_empty() => {
                return Ok(self.forward_named(frame, name, Sent::Close));
            }
            Subject::Statement(_) => self.unnamed.forget(),
            Subject::Portal => {}
        }
        self.note_flight(Flight::CannotCommit);
        self.pass(frame, Sent::Close);
        Ok(Forwarded::Passed)
    }

    /// Sends `other` in the place of a message that must not reach the server.
    pub(super) fn replace(&mut self, frame: Frame, other: &[u8], sent: Sent) {
        self.drop_frame(frame);
        self.send_own(other, sent, Show::Client, None);
    }

    /// Idle servers would be in the way.
    pub(super) fn clear_databases(&self, statement: &Statement) {
        if statement.alters_database {
            self.context.outside.clear_databases();
        }
    }

    /// It is about to be executed.
    pub(super) fn note_execution(&mut self, statement: &Statement) {
        if !statement.is_read() && !matches!(statement.control, Control::Begin) {
            self.note_write();
        }
        if let Some(reason) = statement.pin {
            self.pin(reason);
        }
        if statement.several_pins {
            self.pins.expect_all();
        }
        if statement.ends_state {
            self.doubt_pins();
        }
        if let Some(changes) = &statement.changes {
            self.unsettle(changes);
        }
        if statement.sequences == Sequences::Advances {
            self.note_sequences();
        }
        if statement.marks.changes_schema {
            self.schema.note(true);
            self.context.schema.advance();
        }
        self.sets = self.sets.max(statement.marks.sets);
        if statement.relies_on_catalogue {
            self.rely(statement.judged);
        }
        if statement.changes_catalogue {
            self.begin_change();
        }
        if statement.remains == Remains::Outside {
            self.forget_kept();
        }
        self.note_flight(self.flight_of(statement.control, statement.remains));
    }

    /// What is run in the place of a statement that must not be: it fails on the server, just where it stood.
    pub(super) fn refusal(&mut self, statement: &Statement) -> Option<&'static str> {
        let Link::Held { server, pool } = &self.link else {
            return None;
        };
        if self.split.is_some() && self.is_refused_within(statement) {
            return Some(REFUSE_WITHIN);
        }
        if statement.wants_write && pool.profile().access == Access::ReadOnly {
            return Some(REFUSE_WRITE);
        }
        let reads = statement.sequences == Sequences::Reads && !self.pins.is_pinned();
        // Where every draw pins, a session without a pin has drawn nothing, and no server remembers another's value.
        let pins = || self.context.config.borrow().pool.sequences == config::Sequences::Pin;
        if reads && self.sequences.are_strangers(server) && !pins() {
            self.identity.learn_sequences();
            return Some(REFUSE_SEQUENCE);
        }
        None
    }

    /// `pool.sequences`: what advances a sequence may have to keep its server.
    fn note_sequences(&mut self) {
        let Link::Held { server, .. } = &self.link else {
            return;
        };
        self.sequences.advanced_on(server);
        let keeps = match self.context.config.borrow().pool.sequences {
            config::Sequences::Pin => true,
            config::Sequences::Learn => self.identity.reads_sequences(),
            config::Sequences::None => false,
        };
        if keeps {
            self.pin("sequence");
        }
    }

    /// Keeps the server, from now until the reason is gone.
    pub(super) fn pin(&mut self, reason: &'static str) {
        let audits = self.context.config.borrow().pool.opaque == config::Opaque::Audit;
        if self.pins.add(reason, audits) {
            self.context.counters.count_pin(reason);
        }
        self.publish_pin();
        self.doubt_pins();
    }

    /// Others may see why the session keeps its server.
    pub(super) fn publish_pin(&self) {
        let (pools, counters) = (&self.context.pools, &self.context.counters);
        let reason = self.pins.reason();
        let before = self.entry.set_pin(reason, pools.now());
        if before != reason {
            counters.pinned(before, reason);
        }
    }

    pub(super) fn note_flight(&mut self, flight: Flight) {
        self.flight = self.flight.max(flight);
    }

    pub(super) fn flight_of(&self, control: Control, remains: Remains) -> Flight {
        let status = match &self.link {
            Link::Held { server, .. } => server.pipeline.status(),
            _ => TransactionStatus::Idle,
        };
        match (control, status, remains) {
            (Control::Rollback, ..) => Flight::RollsBack,
            (Control::Begin, ..) => Flight::CannotCommit,
            (Control::Commit, ..) | (Control::None, TransactionStatus::Idle, Remains::Parts) => {
                Flight::MayCommit
            }
            (Control::None, TransactionStatus::Idle, _) => Flight::Single,
            // The transaction that was open may be over before it runs.
            (Control::None, ..) if self.flight == Flight::RollsBack => Flight::MayCommit,
            (Control::None, ..) => Flight::CannotCommit,
        }
    }
}

/// What follows the text of a Parse: a count, and so many types.
fn ends_with_types(mut rest: Cursor<'_>) -> Result<(), Malformed> {
    let types = rest.u16()?;
    rest.bytes(usize::from(types) * 4)?;
    rest.end()
}

/// COPY messages and Flush mean nothing to a server that runs nothing.
fn is_ignored_when_idle(frame: Frame) -> bool {
    match frame.tag {
        b'd' | b'c' | b'f' => true,
        b'H' => frame.len == HEADER_LEN,
        _ => false,
    }
}

fn violated(frame: Frame) -> Step {
    Step::Ended(ended_by(Violation::Malformed(frame.tag)))
}

fn ended_by(violation: Violation) -> End {
    let kind = match violation {
        Violation::BadLength { len, .. } if len > 4 => Kind::TooLarge,
        _ => Kind::Protocol,
    };
    End::Error(Error::client(kind, violation.to_string()))
}
