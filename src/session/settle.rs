//! What a session leaves on its server, asked for when the server comes to rest.
//!
//! PostgreSQL alone knows what a SET is worth after a ROLLBACK TO, or whether a lock is still held. So nothing is worked
//! out from texts but *what might have changed*: before the server leaves the session, it is asked, by one query of our
//! own whose answer the client does not see. Then settings are carried: the next server is set to them before it acts
//! on the session's first message ([`super::dressing`]). What cannot be carried keeps the server until a question finds it
//! gone. A question that a cancel hits which came too late for its statement, or a limit of time, is asked again.

use super::{
    Link, Session,
    parsing::decides_reading,
    pins::{Trace, Traces},
    relay::Step,
    statement::Changes,
};
use crate::{
    server::settings::{Settings, is_anyones, is_identity, literal},
    wire::{
        Violation,
        cursor::Cursor,
        frame::{Frame, HEADER_LEN},
        frontend,
        pipeline::{Sent, Show},
        report::Report,
    },
};

/// Settings that may be asked for at once.
const MAX_NAMES: usize = 64;
/// Questions in a row that a cancel, or a limit of time, may hit before the next waits for the session's next transaction.
const MAX_HITS: u8 = 10;

/// What may have changed since the server was asked last.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    names: Vec<Box<str>>,
    /// Everything was reset.
    all: bool,
    /// Traces may have come or gone.
    traces: bool,
    /// A transaction has ended since: it is no longer undone if the server is lost.
    for_good: bool,
    /// So many questions about it were hit in a row.
    hits: u8,
}

/// What the server is being asked.
#[derive(Debug)]
pub(super) struct Question {
    names: Vec<Box<str>>,
    /// So many of them were named by statements, the others are known from before.
    named: usize,
    /// Whether any setting is left.
    all: bool,
    traces: Traces,
    /// So many before it were hit.
    hits: u8,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Awaited,
    Got {
        settings: Settings,
        traces: Traces,
        /// Set by what is opaque; their values are still to be asked for.
        unnamed: Vec<Box<str>>,
    },
    /// It cannot be carried, or the server could not say.
    Refused,
    /// A cancel that came too late for its statement, or a limit of time, has hit the question.
    Hit,
}

impl Unsettled {
    /// Settings may have changed.
    pub(super) fn has_settings(&self) -> bool {
        self.all || !self.names.is_empty()
    }

    /// Some that decide how texts are read may have changed.
    pub(super) fn changes_reading(&self) -> bool {
        self.all || self.names.iter().any(|name| decides_reading(name))
    }

    /// A transaction has ended.
    pub(super) fn is_for_good(&mut self) {
        self.for_good = true;
        self.hits = 0;
    }

    /// What a question that was hit is still to find out.
    fn add(&mut self, question: Question) {
        self.all |= question.all;
        self.traces |= !question.traces.is_empty();
        self.for_good = true;
        self.hits = question.hits + 1;
        for name in question.names.into_iter().take(question.named) {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

impl Session {
    /// A statement that may change settings was sent.
    pub(super) fn unsettle(&mut self, changes: &Changes) {
        if self.pins.is_for_life() {
            return;
        }
        let unsettled = self.unsettled.get_or_insert_default();
        unsettled.all |= changes.resets_all;
        for name in &changes.names {
            if !unsettled.names.contains(name) {
                unsettled.names.push(name.clone());
            }
        }
        if unsettled.names.len() > MAX_NAMES {
            self.pin("set");
        }
    }

    /// The session may not do something: names in `message` were not set, and could not be set on another server either.
    /// Messages are translated, names are not. Who has acted as another role may have been allowed to before, and keeps
    /// the server.
    pub(super) fn refused_to_set(&mut self, message: &str) {
        let known = &self.settings;
        let Some(unsettled) = &mut self.unsettled else {
            return;
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
        let is_refused = |name: &str| {
            let mut words = message.split(|c| !is_part(c));
            !known.contains(name) && words.any(|word| word == name)
        };
        let others = unsettled.names.iter().map(|name| &**name);
        if !known.names().chain(others).any(is_identity) {
            unsettled.names.retain(|name| !is_refused(name));
        } else if unsettled.names.iter().any(|name| is_refused(name)) {
            self.pin("set");
        }
    }

    /// Something that keeps the server may have come, or gone.
    pub(super) fn doubt_pins(&mut self) {
        if self.pins.is_pinned() && !self.pins.is_for_life() {
            self.unsettled.get_or_insert_default().traces = true;
        }
    }

    /// Settings that the session has for good, and that nobody but its server knows.
    pub(super) fn has_unknown_settings(&self) -> bool {
        self.question.is_some() || self.unsettled.as_ref().is_some_and(|u| u.for_good)
    }

    /// The server has nothing to do and no transaction is open: it is asked what is unknown, or leaves.
    #[inline]
    pub(super) fn rest_on_server(&mut self) {
        if let Some(unsettled) = &self.unsettled
            && self.question.is_none()
        {
            if unsettled.hits >= MAX_HITS {
                return;
            }
            self.settle();
        }
        if self.question.is_none() && !self.pins.is_pinned() {
            self.release();
        }
    }

    fn settle(&mut self) {
        let Some(unsettled) = self.unsettled.take() else {
            return;
        };
        let question = self.question(*unsettled);
        if question.is_answered() {
            return self.looked(question.traces, Traces::default());
        }
        self.context.counters.audits.one();
        let mut query = Vec::new();
        frontend::query_bytes(&mut query, &question.text());
        self.question = Some(Box::new(question));
        self.ask(&query, Sent::Query);
    }

    fn question(&self, unsettled: Unsettled) -> Question {
        let mut names = unsettled.names;
        // It ends the role too.
        if names.iter().any(|name| &**name == "session_authorization") {
            names.retain(|name| &**name != "role");
            names.push("role".into());
        }
        let named = names.len();
        // Values are kept in the client's encoding: in a new one they are to be read again.
        let all = unsettled.all || names.iter().any(|name| &**name == "client_encoding");
        if all {
            let known = self
                .settings
                .names()
                .filter(|n| names.iter().all(|m| **m != **n));
            let known: Vec<_> = known.map(Box::from).collect();
            names.extend(known);
        }
        let traces = match unsettled.traces {
            true => self.pins.traces(),
            false => Traces::default(),
        };
        Question {
            // With nothing ever set there is nothing left either.
            all: unsettled.all && !names.is_empty(),
            names,
            named,
            traces,
            hits: unsettled.hits,
            answer: Answer::Awaited,
        }
    }

    /// A message that answers a query of our own; the last one of it has just been taken off the pipeline.
    pub(super) fn own_reply(&mut self, frame: Frame) -> Result<(), Step> {
        match (frame.tag, &self.question) {
            (b'E', None) => self.dressing_failed(frame)?,
            (b'E', Some(_)) => self.answer(self.refused_answer(frame)),
            (b'D', Some(_)) => {
                let answer = self.read_answer(frame);
                self.answer(answer.ok_or_else(|| self.server_broke(Violation::Malformed(b'D')))?);
            }
            _ => {}
        }
        self.show(frame, Show::Own);
        if frame.tag == b'Z' {
            match self.question.take() {
                Some(question) => self.answered(*question),
                None => self.dressing_ended(),
            }
        }
        Ok(())
    }

    fn refused_answer(&self, frame: Frame) -> Answer {
        match Report::parse_start(self.reply_body(frame)).sqlstate {
            Some(code) if matches!(&code, b"57014" | b"55P03") => Answer::Hit,
            _ => Answer::Refused,
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(question) = &mut self.question {
            question.answer = answer;
        }
    }

    /// None if the row is not what was asked for.
    fn read_answer(&self, frame: Frame) -> Option<Answer> {
        let question = self.question.as_ref()?;
        let body = self.reply_body(frame);
        if body.len() + HEADER_LEN < frame.len {
            return Some(Answer::Refused);
        }
        question.read(body, &self.settings)
    }

    fn answered(&mut self, question: Question) {
        let (settings, traces, unnamed) = match question.answer {
            Answer::Got {
                settings,
                traces,
                unnamed,
            } => (settings, traces, unnamed),
            Answer::Hit => return self.unsettled.get_or_insert_default().add(question),
            Answer::Awaited | Answer::Refused => return self.pin("settle"),
        };
        for name in unnamed.iter().filter(|name| !settings.contains(name)) {
            let unsettled = self.unsettled.get_or_insert_default();
            unsettled.names.push(name.clone());
        }
        if let Link::Held { server, .. } = &mut self.link {
            server.settings = settings.clone();
        }
        self.settings = self.as_begun(&settings);
        self.looked(question.traces, traces);
    }

    /// Traces were looked for, and `found`.
    fn looked(&mut self, traces: Traces, found: Traces) {
        // What the client has sent since may have left more: the next question decides.
        let is_outdated = self.unsettled.as_ref().is_some_and(|u| u.traces);
        if traces.is_empty() || is_outdated {
            return;
        }
        let is_free = self.pins.found(found);
        self.publish_pin();
        let is_still = matches!(&self.link, Link::Held { server, .. } if server.pipeline.is_free());
        if is_free && is_still && self.unsettled.is_none() {
            self.release_cleared();
        } else if is_free {
            // Its server is to be cleared when it leaves.
            self.pins.add("discard", false);
            self.doubt_pins();
        }
    }
}

impl Question {
    /// Only the server's own clearing is due, if anything.
    fn is_answered(&self) -> bool {
        let mut traces = self.traces.iter();
        self.names.is_empty() && !self.all && traces.all(|trace| trace == Trace::Discard)
    }

    /// Whether a setting of which nobody can see that it is set may have been set after all was reset.
    fn may_be_set_since(&self, name: &str) -> bool {
        let named = self.names.iter().take(self.named);
        name.contains('.') && named.into_iter().any(|known| **known == *name)
    }

    /// Whether the names of all that is set are asked for: others may be among them, or a SET may have failed of what the
    /// session may not set, on this server or any other.
    fn asks_for_names_set(&self) -> bool {
        self.traces.has(Trace::Opaque) || !self.names.iter().all(|name| is_anyones(name))
    }

    /// One SELECT of one row. Every name in it is qualified: the session's search_path is not to be trusted.
    fn text(&self) -> Vec<u8> {
        let mut sql = b"SELECT ".to_vec();
        for name in &self.names {
            sql.extend_from_slice(b"pg_catalog.current_setting(");
            literal(&mut sql, name.as_bytes());
            sql.extend_from_slice(b",true),");
        }
        if self.all {
            sql.extend_from_slice(SETTINGS_LEFT.as_bytes());
            sql.push(b',');
        }
        for trace in self.traces.iter() {
            sql.extend_from_slice(look_for(trace).as_bytes());
            sql.push(b',');
        }
        if self.asks_for_names_set() {
            sql.extend_from_slice(NAMES_SET.as_bytes());
            sql.push(b',');
        }
        // Something to select, whatever was asked.
        sql.extend_from_slice(b"true");
        sql
    }

    /// None if the row is not an answer to this. `before`: what was known to be set.
    fn read(&self, body: &[u8], before: &Settings) -> Option<Answer> {
        let mut row = Cursor::new(body);
        row.u16().ok()?;
        let mut values = Vec::with_capacity(self.names.len());
        for name in &self.names {
            values.push((&**name, column(&mut row)?));
        }
        let is_reset = self.all && column(&mut row)? == Some(b"f");
        let mut found = Traces::default();
        for trace in self.traces.iter() {
            if column(&mut row)? != Some(b"f") {
                found.add(trace);
            }
        }
        let mut set = Vec::new();
        if self.asks_for_names_set() {
            let list = column(&mut row)?.unwrap_or_default();
            let names = std::str::from_utf8(list).ok()?.split(',');
            set.extend(names.map(|name| Box::from(name.to_ascii_lowercase())));
            for (name, value) in &mut values {
                let is_set = is_anyones(name) || set.iter().any(|known| **known == **name);
                *value = value.filter(|_| is_set);
            }
        }
        if !self.traces.has(Trace::Opaque) {
            set.clear();
        }
        let settings = match before.with(values.into_iter()) {
            Ok(settings) if is_reset => settings.after_reset(|name| self.may_be_set_since(name)),
            Ok(settings) => settings,
            Err(_) => return Some(Answer::Refused),
        };
        Some(Answer::Got {
            settings,
            traces: found,
            unnamed: set,
        })
    }
}

/// A field of a DataRow; None within for NULL.
fn column<'a>(row: &mut Cursor<'a>) -> Option<Option<&'a [u8]>> {
    match row.i32().ok()? {
        -1 => Some(None),
        len => row.bytes(usize::try_from(len).ok()?).ok().map(Some),
    }
}

/// Any setting that RESET ALL would change; custom ones are never shown, and RESET ALL makes them empty.
const SETTINGS_LEFT: &str = "EXISTS (SELECT FROM pg_catalog.pg_show_all_settings() s \
     WHERE s.source OPERATOR(pg_catalog.=) 'session')";

/// True as long as there is such a trace on the server (POSTGRES.md 2.2).
fn look_for(trace: Trace) -> &'static str {
    match trace {
        Trace::Listen => "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())",
        // pg_my_temp_schema stays set after the last object in it is gone; 2615 is pg_namespace.
        Trace::TempTable => {
            "EXISTS (SELECT FROM pg_catalog.pg_depend d \
             WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid \
             AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
        }
        Trace::HoldCursor => "EXISTS (SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable)",
        Trace::Prepare => {
            "EXISTS (SELECT FROM pg_catalog.pg_prepared_statement() p WHERE p.from_sql)"
        }
        Trace::AdvisoryLock => {
            "EXISTS (SELECT FROM pg_catalog.pg_lock_status() l \
             WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())"
        }
        Trace::Opaque => OPAQUE,
        Trace::Discard => "false",
    }
}

/// Everything that can be seen of a session's state, but for what the other questions ask.
const OPAQUE: &str = "(EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
     WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid \
     AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_cursor() c WHERE c.is_holdable) \
     OR EXISTS (SELECT FROM pg_catalog.pg_prepared_statement() p WHERE p.from_sql) \
     OR EXISTS (SELECT FROM pg_catalog.pg_lock_status() l \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_get_replication_slots() s WHERE s.temporary \
     AND s.active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()))";

/// Every setting that is not what the session was started with; custom ones are never shown.
const NAMES_SET: &str = "(SELECT pg_catalog.string_agg(s.name, ',') \
     FROM pg_catalog.pg_show_all_settings() s WHERE s.source OPERATOR(pg_catalog.=) 'session')";
