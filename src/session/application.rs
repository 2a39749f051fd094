//! `application_name`: a setting that sessions of one pool begin with differently.
//!
//! Servers for sessions with a name are logged in under one for all, and set to the session's as to any other setting. What RESET
//! goes back to on them is therefore [`POOLED`], which no client sees: wherever it comes up, the session's own is put in
//! its place, before the client's next message at the latest.

use std::rc::Rc;

use super::{Link, Session, frontend::Forwarded};
use crate::{
    server::{
        connection::Parameters,
        settings::{APPLICATION_NAME, POOLED, Settings, literal},
    },
    wire::{TransactionStatus, backend, frame::Frame, pipeline::Show},
};

/// What the server's `application_name` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Application {
    #[default]
    Sessions,
    /// The pool's: the session has reset it.
    Pools,
}

impl Session {
    /// What `application_name` was at login, if the pool has another.
    fn own_application(&self) -> Option<&str> {
        let value = self.identity.home().value(APPLICATION_NAME)?;
        std::str::from_utf8(value).ok()
    }

    /// What a server tells, as the session is to be told it.
    pub(super) fn as_told(&self, parameters: &Rc<Parameters>) -> Rc<Parameters> {
        match self.own_application() {
            Some(own) if parameters.value(APPLICATION_NAME) == Some(POOLED) => {
                let mut told = Parameters::clone(parameters);
                // There is one already.
                let _ = told.set(APPLICATION_NAME, own);
                self.context.pools.share(&Rc::new(told))
            }
            _ => parameters.clone(),
        }
    }

    /// What is left set on a server, as the session is to have it on the next one.
    pub(super) fn as_begun(&self, left: &Settings) -> Settings {
        let home = self.identity.home();
        let is_reset = match left.value(APPLICATION_NAME) {
            None => !home.is_empty(),
            Some(value) => value == POOLED.as_bytes(),
        };
        if !is_reset {
            return left.clone();
        }
        let own = home.iter().map(|(name, value)| (name, Some(value)));
        let all = left.with(own).unwrap_or_default();
        match all.is_same(home) {
            true => home.clone(),
            false => all,
        }
    }

    /// The server has told this name to the session. True if `frame` needs no further look: the client is told its own, and
    /// nothing where it was told the same `before`.
    pub(super) fn application_told(
        &mut self,
        frame: Frame,
        value: &str,
        before: Option<&str>,
    ) -> bool {
        let Some(own) = self.own_application() else {
            return false;
        };
        let (is, told) = match value == POOLED {
            true => (Application::Pools, own.to_owned()),
            false => (Application::Sessions, value.to_owned()),
        };
        self.application = is;
        if before == Some(&told) {
            self.show(frame, Show::Own);
        } else if is == Application::Pools {
            let mut status = Vec::new();
            backend::parameter_status(&mut status, APPLICATION_NAME, &told);
            self.show_instead(frame, &status);
        } else {
            return false;
        }
        true
    }

    /// Before a message of the client's: the server gets the name that it should have gone back to, for as long as it would
    /// have gone back to it.
    pub(super) fn restore_application(&mut self) -> Forwarded {
        let home = self.identity.home().clone();
        let (Link::Held { server, .. }, Some(own)) = (&mut self.link, home.value(APPLICATION_NAME))
        else {
            return Forwarded::Passed;
        };
        let pipeline = &server.pipeline;
        if pipeline.has_open_batch() || !pipeline.is_listening() {
            return Forwarded::Passed;
        }
        if !pipeline.is_quiet() {
            return Forwarded::Waits;
        }
        let mut sql = match pipeline.status() {
            TransactionStatus::Failed => return Forwarded::Passed,
            // It goes back once more at the end, and what the session is left with is asked then.
            TransactionStatus::Transaction => b"SET LOCAL application_name = ".to_vec(),
            TransactionStatus::Idle => b"SET application_name = ".to_vec(),
        };
        literal(&mut sql, own);
        let set = [(APPLICATION_NAME, Some(own))].into_iter();
        if pipeline.status() == TransactionStatus::Idle
            && let Ok(settings) = server.settings.with(set)
        {
            server.settings = settings;
        }
        self.application = Application::Sessions;
        self.query_aside(&sql);
        Forwarded::Passed
    }
}
