//! Read-only transactions on replicas (`reads.transactions = "replica"`).
//!
//! BEGIN READ ONLY is answered before there is a server: where the transaction opens, its first statement says. A proven
//! read opens it on a replica that is fresh enough, anything else on the primary. On a replica the transaction is a visit
//! that lasts ([`super::visit`]), and nothing in it can be sent again: what is neither a proven read nor on a short list
//! ([`crate::route::class`]) is refused there with 25006, raised where the statement stood, so that the transaction fails
//! as it should; the next one that begins so opens on the primary. Drivers that send BEGIN in one batch with the first
//! statement have the batch looked at as a whole ([`super::ahead`]).

use super::{
    Link, Session,
    dressing::Dressing,
    frontend::MAX_TEXT,
    registry::Activity,
    statement::{Begins, Statement},
    visit::Extent,
};
use crate::{
    config::{ReadTransactions, Route},
    route::lexer::Lexer,
    wire::{
        TransactionStatus, backend,
        frame::{Frame, HEADER_LEN},
        pipeline::{Sent, Show},
    },
};

/// What refuses a statement that must not run on a replica.
pub(super) const REFUSE_WITHIN: &str = "DO $pgsluice$BEGIN RAISE SQLSTATE '25006' USING \
     MESSAGE = 'this statement cannot run in a transaction that was opened on a replica', \
     HINT = 'It is not proven to read only. Without READ ONLY, or with the comment /* pgsluice: primary */ before its first \
     statement, the transaction runs on the primary.'; END$pgsluice$";

impl Session {
    /// Whether a transaction that `statement` begins may open on a replica.
    pub(super) fn may_open(&self, statement: &Statement) -> bool {
        let is_read_only = match statement.begins {
            Begins::No => false,
            Begins::ReadOnly => true,
            Begins::Default => matches!(
                self.settings.value("default_transaction_read_only"),
                Some(b"on" | b"true" | b"yes" | b"1")
            ),
        };
        is_read_only
            && self.listener.route == Route::Split
            && self.settings.value("default_transaction_isolation") != Some(b"serializable")
            && self.wants_transactions()
    }

    fn wants_transactions(&self) -> bool {
        self.reads().transactions == ReadTransactions::Replica
    }

    /// A BEGIN whose transaction waits for its first statement is answered here. False if this is none.
    pub(super) fn opens_later(&mut self, frame: Frame) -> bool {
        let is_query = frame.tag == b'Q' && frame.len <= MAX_TEXT;
        if !is_query || !self.wants_transactions() || self.is_opening() {
            return false;
        }
        let Some(text) = self.body(frame).strip_suffix(&[0]) else {
            return false;
        };
        let statement = self.statement(text);
        if !self.may_open(&statement) {
            return false;
        }
        let verb = Lexer::new(text, true).next();
        let starts = verb.is_some_and(|verb| verb.text(text).eq_ignore_ascii_case(b"start"));
        let tag = if starts { "START TRANSACTION" } else { "BEGIN" };
        let mut message = vec![frame.tag, 0, 0, 0, 0];
        message[1..HEADER_LEN].copy_from_slice(&(frame.len as u32 - 1).to_be_bytes());
        message.extend_from_slice(self.body(frame));
        self.drop_frame(frame);
        self.unnamed.forget();
        if let Some(split) = &mut self.split {
            split.opening = Some(message.into());
        }
        backend::command_complete(&mut self.out, tag);
        backend::ready_for_query(&mut self.out, TransactionStatus::Transaction.as_byte());
        let now = self.context.pools.now();
        self.entry.set_activity(Activity::IdleInTransaction, now);
        true
    }

    /// The client is in a transaction of which no server knows yet.
    pub(super) fn is_opening(&self) -> bool {
        let split = self.split.as_ref();
        split.is_some_and(|split| split.opening.is_some())
    }

    /// Opens the transaction on the held server. True while the client's next message has to wait for that.
    pub(super) fn opens(&mut self) -> bool {
        let (Link::Held { server, .. }, Some(split)) = (&self.link, &mut self.split) else {
            return false;
        };
        if server.pipeline.status() == TransactionStatus::Transaction {
            split.opening = None;
            return false;
        }
        let Some(begin) = split
            .opening
            .as_ref()
            .filter(|_| server.pipeline.is_quiet())
        else {
            return true;
        };
        let begin = begin.clone();
        self.dressing = Dressing::Alone;
        self.send_own(&begin, Sent::Query, Show::Own, None);
        true
    }

    /// No server can be had: the transaction has failed before it was opened.
    pub(super) fn opening_fails(&mut self) -> bool {
        let split = self.split.as_mut();
        split.is_some_and(|split| split.opening.take().is_some())
    }

    /// The held server runs a transaction on a replica.
    #[inline]
    pub(super) fn is_within(&self) -> bool {
        let extent = self.visit().map(|visit| visit.extent);
        extent == Some(Extent::Transaction)
    }

    /// In a replica's transaction the next batch waits for the end of the last, which may end the transaction.
    pub(super) fn waits_within(&self) -> bool {
        match &self.link {
            Link::Held { server, .. } => self.is_within() && server.pipeline.awaits_ready(),
            _ => false,
        }
    }

    /// The visited replica has all that the catalogue was read with: it may have had other definitions before.
    fn knows_definitions(&self) -> bool {
        match &self.link {
            Link::Held { pool, .. } => pool.view().freshness.as_of() >= self.defined(),
            _ => false,
        }
    }

    /// The transaction is over, and has left something on the replica that cannot be carried.
    pub(super) fn is_stranded(&self) -> bool {
        match &self.link {
            Link::Held { server, .. } => {
                let is_over = self.visit().is_some_and(|visit| visit.left == 0);
                self.is_within() && is_over && self.pins.is_pinned() && server.pipeline.is_free()
            }
            _ => false,
        }
    }

    /// The statement must not run in the replica's transaction, and the next one that begins alike opens elsewhere.
    pub(super) fn is_refused_within(&self, statement: &Statement) -> bool {
        let begins = statement.begins != Begins::No;
        if !self.is_within() || statement.moves_within || begins {
            return false;
        }
        if statement.is_read() && self.knows_definitions() {
            return false;
        }
        if let Some(visit) = self.visit() {
            self.context.learned.refute_opening(visit.kept.unseen());
        }
        true
    }
}
