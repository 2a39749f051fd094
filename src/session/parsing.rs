//! Under which settings a text is parsed, as far as its meaning depends on them.
//!
//! A statement is parsed anew on a server that has not seen it. Servers share what comes of a text only among sessions
//! of wholly equal settings: a plan may hold what a function said under them. Whether a session's own statement may
//! still stand under the number that it was given depends on less, since most settings do not change how a text is read.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use super::{
    Link, Session,
    book::Named,
    marks::{Sets, tells_time},
    pins::Trace,
    reread::Rereading,
    texts,
};
use crate::{
    server::statements::ContentId,
    wire::{TransactionStatus, cursor::Cursor, frame::Frame},
};

/// What ParameterStatus tells and no parse depends on.
const NOT_PARSED_BY: &[&str] = &["application_name", "in_hot_standby"];

/// Settings that sessions change by habit, and under all of whose values a text is read the same.
const NOT_READ_BY: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_min_messages",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "in_hot_standby",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "statement_timeout",
    "synchronous_commit",
    "transaction_timeout",
    "work_mem",
];

/// Whether a text may be read otherwise under another value of the setting `name`, which is in lower case. Custom ones
/// (with a dot) are for functions to look at, and none is called while a text is read.
pub(super) fn decides_reading(name: &str) -> bool {
    !name.contains('.') && !name.starts_with("enable_") && !NOT_READ_BY.contains(&name)
}

/// Digests of settings. None where they are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsing {
    /// Of all: sessions may share what is parsed under equal ones.
    pub shared: Option<u64>,
    /// Of those that decide how a text is read.
    pub reading: Option<u64>,
}

impl Session {
    /// What a text that is sent now would be parsed under.
    pub(super) fn parsing(&self) -> Parsing {
        let is_opaque = self.pins.is_for_life() || self.pins.traces().has(Trace::Opaque);
        let unsettled = self.unsettled.as_ref();
        let (mut shared, mut reading) = (None, None);
        if !is_opaque && self.sets == Sets::None && !unsettled.is_some_and(|u| u.has_settings()) {
            shared = Some(self.digest(|name| !NOT_PARSED_BY.contains(&name)));
        }
        let is_unread = unsettled.is_some_and(|u| u.changes_reading());
        if !is_opaque && self.sets < Sets::Reading && !is_unread {
            reading = Some(self.digest(decides_reading));
        }
        Parsing { shared, reading }
    }

    /// Of the settings whose names count.
    fn digest(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let mut hash = DefaultHasher::new();
        for (name, value) in &self.told.0 {
            if counts(name) {
                (name, value).hash(&mut hash);
            }
        }
        for (name, value) in self.settings.iter() {
            if counts(name) {
                (name, value).hash(&mut hash);
            }
        }
        hash.finish()
    }

    /// The name of `rest`, a text with its parameter types, parsed under `shared`.
    pub(super) fn content_of(&mut self, shared: Option<u64>, rest: &[u8]) -> ContentId {
        let serial = self.prepared.next_ticket().get();
        let sql = Cursor::new(rest).cstr().unwrap_or_default();
        match shared.map(|profile| texts::content(profile, rest)) {
            // Two names of a session are two statements: an error must name the right one.
            Some(id) if self.prepared.name_of(id).is_none() && !tells_time(sql, &self.reading) => {
                id
            }
            _ => texts::unique(self.entry.id, serial),
        }
    }

    /// `named`, as it is to be used on the held server. Where that has not parsed it, and would read it otherwise than
    /// it was read, it is parsed as it was ([`super::reread`]). Where that cannot be, it is another statement there: nobody
    /// else's is to be taken for it. None: the message waits.
    pub(super) fn read_here(
        &mut self,
        frame: Frame,
        name: Range<usize>,
        named: Named,
    ) -> Option<Named> {
        let is_rereading = self.is_rereading();
        let Link::Held { server, .. } = &mut self.link else {
            return Some(named);
        };
        // Until then even the transaction's status is of our making.
        if is_rereading && !server.pipeline.is_quiet() {
            return None;
        }
        let there = server.statements.epoch_of(named.text.id);
        let is_there = there.is_some_and(|epoch| epoch >= named.epoch);
        if is_there || server.pipeline.status() == TransactionStatus::Failed {
            self.prepared.end_rereading();
            return Some(named);
        }
        if self.is_dressing() || self.must_know_settings() {
            return None;
        }
        let parsing = self.parsing();
        let is_read_so = |read: &Named| read.reading.is_some() && read.reading == parsing.reading;
        if is_read_so(&named) {
            return Some(named);
        }
        match self.reread(&named, parsing) {
            Rereading::Read => return Some(named),
            Rereading::Awaited => return None,
            Rereading::CannotBe => {}
        }
        // What was read here under settings that nobody knows is not read once more: it may be just what is asked about.
        let is_here = |read: &Named| {
            let Link::Held { server, .. } = &self.link else {
                return false;
            };
            let is_unknown = read.reading.is_none() && parsing.reading.is_none();
            is_unknown && server.statements.epoch_of(read.text.id).is_some()
        };
        let elsewhere = named.elsewhere.as_ref();
        if let Some(other) = elsewhere.filter(|other| is_read_so(other) || is_here(other)) {
            return Some(Named::clone(other));
        }
        let id = self.content_of(parsing.shared, &named.text.rest);
        let statement = named.text.statement.borrow().clone();
        let rest = named.text.rest.clone();
        let text = self.context.texts.intern(id, rest, statement);
        let other = named.read_as(text, parsing.reading, self.settings.clone());
        let name: Box<[u8]> = self.name_in(frame, name).into();
        self.prepared.add_elsewhere(&name, other.clone());
        Some(other)
    }
}
