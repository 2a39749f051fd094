//! What a probe can learn about its node. Plain values: made by `probe`, consumed by `record`, invented by tests.

use std::time::{Instant, SystemTime};

use super::Lsn;

/// One thing learned about one node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    /// The probe statement was answered on the long-lived link.
    Answer(Answer),
    /// The long-lived link ended, or did not answer in time. Until the next answer there is none.
    LinkLost,
    /// A fresh connection was tried: beside the link, or to get a new one.
    Dial(Dial),
}

impl Fact {
    /// A writable node has said how far it is.
    pub fn is_of_writer(&self) -> bool {
        matches!(self, Fact::Answer(answer) if matches!(answer.wal, Wal::Writing { .. }))
    }
}

/// The answer to the probe statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// When the question was sent.
    pub asked: Instant,
    pub system_id: u64,
    /// When the checkpointer started: another value means that the node was restarted. None when it was not asked this
    /// time, or the probe may not see it.
    pub checkpointer: Option<SystemTime>,
    pub wal: Wal,
}

/// Where a node's WAL is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wal {
    Writing {
        timeline: u32,
        insert: Lsn,
    },
    Replaying {
        /// The WAL receiver's; None without a receiver, or when the probe may not see it.
        timeline: Option<u32>,
        /// None before anything was replayed.
        replay: Option<Lsn>,
    },
}

/// How a fresh connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    /// Logged in.
    Accepted,
    /// 57P03: starting up, shutting down or recovering. The text that tells them apart is translated, so it isn't read.
    NotNow,
    /// 53300: no slot is free.
    Full,
    /// Nothing listens.
    Refused,
    /// Another error of the network, or a broken answer.
    Broken,
    /// No answer in time.
    TimedOut,
    /// The login failed: password, HBA, database, TLS.
    LoginRefused,
}
