//! What the server's messages mean: what the client sees, when the server is free again.

use std::{rc::Rc, time::Instant};

use super::{
    Link, Session,
    marks::Sets,
    outcome::{Cause, Flight, Place, Ties},
    readonly::WRITE_HINT,
    registry::Activity,
    relay::{ServerEnd, Step},
    schema::SchemaTrace,
    statement,
    told::another,
    visit::{Extent, Refused},
    welcome::told_by_route,
};
use crate::{
    config::Route,
    error::{Error, Kind},
    server::{connection::Parameters, settings::APPLICATION_NAME, statements::PREFIX},
    topology::{Evidence, Moment},
    wire::{
        TransactionStatus, Violation,
        cursor::Cursor,
        frame::{self, Frame, HEADER_LEN, Sender},
        pipeline::Show,
        report::Report,
    },
};

/// Errors are judged by their first fields; longer ones are not waited for.
const MAX_REPORT: usize = 4 * 1024;
/// The answer to a question of our own is looked at whole.
const MAX_ANSWER: usize = 64 * 1024;
/// A description that the client keeps is compared by its beginning.
const MAX_DESCRIPTION: usize = 64 * 1024;
/// CommandComplete of what drops all prepared statements, and what else is not longer.
const MAX_DROPPED: usize = HEADER_LEN + 15;
/// ParameterStatus is looked at whole: the longest frame that `wire::frame` lets pass.
const MAX_PARAMETER: usize = 30_001;

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Session {
    /// Looks at what the server has sent. On return the server may have been given back.
    pub(super) fn scan_server(&mut self) -> Result<(), Step> {
        let was_waiting = self.is_only_dressing() || self.is_rereading();
        while let Some((frame, first)) = self.next_reply()? {
            if frame.tag == b'E'
                && let Some(words) = self.last_words(frame)
            {
                return Err(Step::ServerEnded(ServerEnd::ShutDown(words)));
            }
            if frame.tag == b'E' && self.is_within() && self.ends_within(frame) {
                return Err(Step::ServerEnded(ServerEnd::GivenUp(Cause::Ended)));
            }
            if frame.tag == b'E' && self.speaks_to_nobody(frame) {
                let gone = ServerEnd::Gone("it ended after its answer".to_owned());
                return Err(Step::ServerEnded(gone));
            }
            let shown = self.receive(frame, first)?;
            if self.split.is_some() && frame.tag != b'E' {
                match shown {
                    Show::Client => self.note_reply(frame.tag),
                    Show::AsParse => self.note_reply(b'1'),
                    _ => {}
                }
            }
            match frame.tag {
                _ if self.is_to_repeat() && frame.tag != b'S' => self.withhold(frame),
                _ if shown == Show::Own => self.own_reply(frame)?,
                b'S' => self.parameter_changed(frame)?,
                b'E' => self.error_reported(frame, shown),
                b'N' if shown == Show::Client => {
                    self.noticed(frame);
                    self.show(frame, shown);
                }
                b'A' => self.notified(frame),
                b'C' => self.completed(frame, shown),
                _ => self.show(frame, shown),
            }
            if frame.tag == b'Z' && self.is_to_repeat() {
                self.note_repeat();
                self.release();
                self.resend();
                return Ok(());
            }
            if frame.tag == b'Z' && shown == Show::Client {
                self.ready();
            } else if frame.tag == b'Z'
                && self.split.is_some()
                && let Some(piece) = self.piece_over()
            {
                self.leave_piece(piece);
                return Ok(());
            }
        }
        // A server that has just been dressed, or told a statement, has not begun to serve.
        if !was_waiting {
            self.release_if_free();
        }
        Ok(())
    }

    /// The next frame, with as much of it in the buffer as its meaning needs, and its body's first byte.
    #[inline]
    fn next_reply(&mut self) -> Result<Option<(Frame, Option<u8>)>, Step> {
        let Some(buffer) = &mut self.to_client else {
            return Ok(None);
        };
        if buffer.is_inside_frame() {
            return Ok(None);
        }
        let unseen = buffer.unseen();
        let frame = match frame::peek(unseen, Sender::Backend) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(violation) => return Err(self.server_broke(violation)),
        };
        let needed = match frame.tag {
            b'Z' => HEADER_LEN + 1,
            b'A' => HEADER_LEN + 4,
            b'D' if self.question.is_some() => frame.len.min(MAX_ANSWER),
            b'S' => frame.len.min(MAX_PARAMETER),
            b'E' | b'N' => frame.len.min(MAX_REPORT),
            b'C' => frame.len.min(MAX_DROPPED),
            b't' | b'T' if self.prepared.is_describing() => frame.len.min(MAX_DESCRIPTION),
            _ => HEADER_LEN,
        };
        if unseen.len() < needed.min(frame.len) {
            buffer.grow_for(needed);
            return Ok(None);
        }
        Ok(Some((frame, unseen.get(HEADER_LEN).copied())))
    }

    #[inline]
    fn receive(&mut self, frame: Frame, first: Option<u8>) -> Result<Show, Step> {
        let Link::Held { server, .. } = &mut self.link else {
            return Ok(Show::Client);
        };
        let ticket = match frame.tag {
            b'E' => {
                self.unnamed.failed(server.pipeline.thrown_away());
                if let Some(last) = server.pipeline.last_lost_ticket() {
                    self.prepared.throw_away(last, &mut server.statements);
                }
                None
            }
            b'1' | b'3' | b't' | b'T' | b'n' => server.pipeline.head_ticket(),
            _ => None,
        };
        match server.pipeline.receive(frame.tag, first) {
            Ok(show) => {
                match ticket {
                    None => {}
                    Some(ticket) if matches!(frame.tag, b'1' | b'3') => {
                        self.prepared.settle(ticket)
                    }
                    Some(ticket) => self.described(frame, ticket),
                }
                Ok(show)
            }
            Err(violation) => Err(self.server_broke(violation)),
        }
    }

    /// What drops all prepared statements says so, whoever asked for it.
    #[inline]
    fn completed(&mut self, frame: Frame, shown: Show) {
        if matches!(
            self.reply_body(frame),
            b"DEALLOCATE ALL\0" | b"DISCARD ALL\0"
        ) {
            self.statements_dropped();
        }
        self.show(frame, shown);
    }

    pub(super) fn server_broke(&self, violation: Violation) -> Step {
        let name = match &self.link {
            Link::Held { pool, .. } => pool.view().config.name.clone(),
            _ => String::new(),
        };
        let error = Error::server(Kind::Protocol, name, "the server broke the protocol")
            .detail(violation.to_string());
        Step::ServerEnded(ServerEnd::Broke(error))
    }

    #[inline]
    pub(super) fn show(&mut self, frame: Frame, shown: Show) {
        if let Some(buffer) = &mut self.to_client {
            match shown {
                Show::Client | Show::AsChanged => buffer.pass(frame.len),
                Show::Swallow | Show::Own | Show::Hide => buffer.discard(frame.len),
                Show::AsParse => {
                    buffer.patch(0, b"1");
                    buffer.pass(frame.len);
                }
            }
        }
    }

    pub(super) fn reply_body(&self, frame: Frame) -> &[u8] {
        let unseen = self.to_client.as_ref().map_or(&[][..], |b| b.unseen());
        let end = frame.len.min(unseen.len());
        unseen.get(HEADER_LEN..end).unwrap_or_default()
    }

    /// Keeps server and session in step; what the listener's route tells is not told again.
    fn parameter_changed(&mut self, frame: Frame) -> Result<(), Step> {
        let mut cursor = Cursor::new(self.reply_body(frame));
        let mut fields = cursor;
        let whole = fields.cstr().and_then(|_name| fields.cstr());
        if whole.and_then(|_value| fields.end()).is_err() {
            return Err(self.server_broke(Violation::Malformed(frame.tag)));
        }
        // What is not UTF-8 is the client's affair alone.
        let told = match (cursor.text(), cursor.text()) {
            (Ok(name), Ok(_)) if Parameters::is_of_node(name) => Show::Swallow,
            (Ok(name), Ok(value)) => {
                let (name, value) = (name.to_owned(), value.to_owned());
                let before = self.told.clone();
                if !self.set_parameter(&name, &value) {
                    return Err(self.server_broke(Violation::Unexpected(frame.tag)));
                }
                if name == APPLICATION_NAME
                    && !self.is_changing_settings()
                    && self.application_told(frame, &value, before.value(&name))
                {
                    return Ok(());
                }
                match told_by_route(self.listener.route, &name) {
                    Some(_) => Show::Swallow,
                    // The client is told what is different once all of it is known.
                    None if self.is_changing_settings() => Show::Own,
                    None => Show::Client,
                }
            }
            _ => Show::Client,
        };
        self.show(frame, told);
        Ok(())
    }

    /// A session knows who sent a notification by the pid that the sender, or it itself, was given at its login.
    fn notified(&mut self, frame: Frame) {
        let pid = Cursor::new(self.reply_body(frame)).i32().ok();
        if let (Link::Held { server, .. }, Some(pid)) = (&self.link, pid)
            && let Some(told) = self.context.pools.sender(&server.backend, pid)
            && let Some(buffer) = &mut self.to_client
        {
            buffer.patch(HEADER_LEN, &told.to_be_bytes());
        }
        self.show(frame, Show::Client);
    }

    /// False if the server tells more than it may.
    fn set_parameter(&mut self, name: &str, value: &str) -> bool {
        let is_dressing = self.is_changing_settings();
        let Link::Held { server, .. } = &mut self.link else {
            return true;
        };
        let taken = Rc::make_mut(&mut server.parameters).set(name, value);
        if !is_dressing {
            let parameters = server.parameters.clone();
            self.told = self.as_told(&parameters);
            self.reading = statement::reading(&self.told);
        }
        taken
    }

    /// FATAL 57P01 of what may be the primary, whole: what it means depends on whether its node goes. Taken away from the
    /// client, who is told later, or never.
    fn last_words(&mut self, frame: Frame) -> Option<Box<[u8]>> {
        let report = Report::parse_start(self.reply_body(frame));
        if report.severity != b"FATAL" || report.sqlstate != Some(*b"57P01") {
            return None;
        }
        let Link::Held { pool, .. } = &self.link else {
            return None;
        };
        if self.place_of(pool) != Place::Primary {
            return None;
        }
        let buffer = self.to_client.as_mut()?;
        let words = Box::from(buffer.unseen().get(..frame.len)?);
        buffer.discard(buffer.unseen().len());
        Some(words)
    }

    /// A replica's server ends in the middle of a transaction, and says so in `frame`: the transaction is over, the session
    /// goes on.
    fn ends_within(&mut self, frame: Frame) -> bool {
        let report = Report::parse_start(self.reply_body(frame));
        if !matches!(report.severity, b"FATAL" | b"PANIC") {
            return false;
        }
        self.report_evidence(
            report
                .sqlstate
                .and_then(|code| Evidence::from_sqlstate(&code)),
        );
        if let Some(buffer) = &mut self.to_client {
            buffer.discard(buffer.unseen().len());
        }
        true
    }

    /// FATAL behind a whole answer, of a server that has nothing of the session's left: told to whoever had it next, or to
    /// nobody. It is taken away.
    fn speaks_to_nobody(&mut self, frame: Frame) -> bool {
        let Link::Held { server, .. } = &self.link else {
            return false;
        };
        if !server.pipeline.is_free() || self.ties() != Ties::None {
            return false;
        }
        let report = Report::parse_start(self.reply_body(frame));
        let is_fatal = matches!(report.severity, b"FATAL" | b"PANIC");
        if is_fatal {
            let sqlstate = report.sqlstate.unwrap_or_default();
            self.report_evidence(Evidence::from_sqlstate(&sqlstate));
            if let Some(buffer) = &mut self.to_client {
                buffer.discard(buffer.unseen().len());
            }
        }
        is_fatal
    }

    fn error_reported(&mut self, frame: Frame, shown: Show) {
        // Whole or not, malformed or not: what can be read of it decides.
        let report = Report::parse_start(self.reply_body(frame));
        let fatal = matches!(report.severity, b"FATAL" | b"PANIC");
        let sqlstate = report.sqlstate.unwrap_or_default();
        let of_visit = Refused::of(&report, &sqlstate, fatal);
        let (again, refutes) = (of_visit.again(), of_visit.is_write());
        let refused = shown != Show::Hide && matches!(&sqlstate, b"42501" | b"55P02");
        if let Some(message) = refused.then(|| report.message.to_ascii_lowercase()) {
            self.refused_to_set(&message);
        }
        if shown == Show::Client && self.repeats_after_error(again, refutes) {
            self.report_evidence(Evidence::from_sqlstate(&sqlstate).filter(|_| fatal));
            return self.withhold(frame);
        }
        if shown != Show::Hide {
            self.note_error_told();
        }
        if fatal {
            self.server_fatal = true;
            self.report_evidence(Evidence::from_sqlstate(&sqlstate));
        } else if shown == Show::Hide {
            return self.show(frame, shown);
        }
        if self.names_are_native() {
            return self.show_error(frame, &sqlstate);
        }
        if shown == Show::AsChanged && sqlstate == *b"26000" {
            return self.show_instead(frame, &another());
        }
        // A message may name a statement.
        let renamed = self.by_the_clients_names(self.reply_body(frame), frame);
        self.doubt_statements(frame, &sqlstate);
        match renamed {
            Some(renamed) => self.show_instead(frame, &renamed),
            None => self.show_error(frame, &sqlstate),
        }
    }

    /// A part of an answer that another node is to give.
    fn withhold(&mut self, frame: Frame) {
        if let Some(buffer) = &mut self.to_client {
            buffer.discard(frame.len);
        }
    }

    fn show_error(&mut self, frame: Frame, sqlstate: &[u8; 5]) {
        match sqlstate {
            b"25006" if self.listener.route == Route::Replica => self.show_with_hint(frame),
            _ => self.show(frame, Show::Client),
        }
    }

    /// Errors that say that statements are not what the books say.
    fn doubt_statements(&mut self, frame: Frame, sqlstate: &[u8; 5]) {
        match sqlstate {
            b"0A000" => self.context.schema.advance(),
            b"26000" if contains(self.reply_body(frame), PREFIX) => {
                if let Link::Held { server, .. } = &mut self.link {
                    server.statements.leave_all();
                }
            }
            _ => {}
        }
    }

    pub(super) fn report_evidence(&self, evidence: Option<Evidence>) {
        if let (Link::Held { pool, .. }, Some(evidence)) = (&self.link, evidence) {
            let name = &pool.view().config.name;
            self.context.outside.report(name, evidence);
        }
    }

    /// PostgreSQL gives no hint with 25006; ours says where to go.
    fn show_with_hint(&mut self, frame: Frame) {
        let body = self.reply_body(frame);
        let whole = body.len() + HEADER_LEN == frame.len;
        let Some(fields) = body.strip_suffix(&[0]).filter(|_| whole) else {
            return self.show(frame, Show::Client);
        };
        let len = (fields.len() + WRITE_HINT.len() + 7) as u32;
        let mut hinted = vec![b'E'];
        hinted.extend_from_slice(&len.to_be_bytes());
        hinted.extend_from_slice(fields);
        hinted.push(b'H');
        hinted.extend_from_slice(WRITE_HINT.as_bytes());
        hinted.extend_from_slice(&[0, 0]);
        self.show_instead(frame, &hinted);
    }

    pub(super) fn show_instead(&mut self, frame: Frame, other: &[u8]) {
        if let Some(buffer) = &mut self.to_client {
            buffer.discard(frame.len);
            buffer.insert(other);
        }
    }

    /// The client hears nothing of the end of a piece.
    fn leave_piece(&mut self, extent: Extent) {
        self.ready();
        self.release_if_free();
        if extent == Extent::PieceFailed && matches!(self.link, Link::Free) {
            self.skip_to_sync();
        }
    }

    fn ready(&mut self) {
        let Link::Held { server, .. } = &self.link else {
            return;
        };
        let status = server.pipeline.status();
        let now = Instant::now();
        if self.split.is_some() {
            let is_quiet = server.pipeline.is_quiet();
            self.note_ready(Moment::of(now), status, is_quiet);
        }
        let Link::Held { server, .. } = &self.link else {
            return;
        };
        if status == TransactionStatus::Idle && self.schema.end() {
            self.context.schema.advance();
            if self.schema == SchemaTrace::Lasting {
                // Which statement it was nobody looked at.
                drop(self.identity.database().begin_change());
            }
        }
        self.context.counters.queries.one();
        if status == TransactionStatus::Idle
            && let Some(unsettled) = &mut self.unsettled
        {
            unsettled.is_for_good();
        }
        if server.pipeline.is_quiet() {
            if status == TransactionStatus::Idle {
                self.sets = Sets::None;
            }
            let time = now.saturating_duration_since(server.asked);
            server.note_answer(time, now);
            self.context.counters.query_time.record(time);
            self.flight = Flight::Nothing;
            self.end_keeping();
            if status == TransactionStatus::Idle {
                self.change = None;
            }
            let activity = match status {
                TransactionStatus::Idle => Activity::Idle,
                _ => Activity::IdleInTransaction,
            };
            self.entry.set_activity(activity, self.context.pools.now());
        }
    }

    /// Gives the server back when nothing of the session's is left on it.
    #[inline]
    pub(super) fn release_if_free(&mut self) {
        let Link::Held { server, .. } = &self.link else {
            return;
        };
        let seen = self
            .to_client
            .as_ref()
            .is_none_or(|b| b.unseen().is_empty() && !b.is_inside_frame());
        // After a COPY that the server failed, the client may be in the middle of a message.
        let seen = seen && self.from_client.as_ref().is_none_or(|b| b.is_sent());
        let is_free = server.pipeline.is_free() && seen && !self.server_fatal;
        if is_free {
            self.recheck_catalogue();
        }
        if is_free && !self.pins.is_for_life() {
            self.rest_on_server();
        }
    }
}
