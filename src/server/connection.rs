//! One open server connection, as pools and sessions hold it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tokio::sync::Notify;

use super::{budget::Permit, settings::Settings, statements::Statements};
use crate::{
    net::{Stream, Target},
    topology::{Freshness, Load, Moment},
    wire::{cancel_key::CancelKey, pipeline::Pipeline},
};

/// What a CancelRequest needs to know, and how many are under way. Shared by the server and its session's entry in
/// the worker, so that a cancel finds the server that the session holds just then.
#[derive(Debug)]
pub struct Backend {
    pub target: Arc<Target>,
    /// `pg_backend_pid()` there.
    pub pid: i32,
    pub key: CancelKey,
    /// CancelRequests that were dialled and whose connection has not reached EOF: while there are any, the server
    /// must not run anything of another session (POSTGRES.md 10).
    cancels: Cell<u32>,
    ended: Notify,
    /// What the session that used it last was told as its pid; 0 for none.
    user: Cell<i32>,
}

impl Backend {
    pub fn new(target: Arc<Target>, pid: i32, key: CancelKey) -> Self {
        Backend {
            target,
            pid,
            key,
            cancels: Cell::new(0),
            ended: Notify::new(),
            user: Cell::new(0),
        }
    }

    /// The session that was told this pid has it now.
    #[inline]
    pub fn set_user(&self, pid: i32) {
        self.user.set(pid);
    }

    /// The pid of the session that used it last, if `other` is of the same node, where it is known by `pid`.
    pub(super) fn user_of(&self, other: &Backend, pid: i32) -> Option<i32> {
        let is_it = self.pid == pid && self.target.name == other.target.name;
        (is_it && self.user.get() != 0).then(|| self.user.get())
    }

    pub fn is_being_cancelled(&self) -> bool {
        self.cancels.get() > 0
    }

    /// Returns when no CancelRequest is under way.
    pub async fn cancels_ended(&self) {
        while self.is_being_cancelled() {
            self.ended.notified().await;
        }
    }

    /// A CancelRequest is about to be dialled; it is under way until the guard is dropped.
    pub fn begin_cancel(self: &Rc<Self>) -> Cancelling {
        self.cancels.set(self.cancels.get() + 1);
        Cancelling(self.clone())
    }
}

/// A CancelRequest under way.
#[derive(Debug)]
pub struct Cancelling(Rc<Backend>);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancels.set(self.0.cancels.get() - 1);
        // One gate at most waits for a server; a permit stored for nobody is taken by the next.
        self.0.ended.notify_one();
    }
}

/// Names that a server may tell by ParameterStatus: PostgreSQL 18 has 15.
pub const MAX_PARAMETERS: usize = 256;

/// The values that ParameterStatus told, in the server's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters(pub Vec<(Box<str>, Box<str>)>);

impl Parameters {
    /// What is the node's and no setting of the session: never told as the server that happens to serve tells it.
    pub fn is_of_node(name: &str) -> bool {
        name == "in_hot_standby"
    }

    /// False if that would be more names than any server has: it is hostile, and must not fill our memory.
    #[must_use]
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let is_full = self.0.len() >= MAX_PARAMETERS;
        match self.0.iter_mut().find(|(n, _)| &**n == name) {
            Some((_, old)) => *old = value.into(),
            None if is_full => return false,
            None => self.0.push((name.into(), value.into())),
        }
        true
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }
}

/// An open, logged-in server connection.
#[derive(Debug)]
pub struct Server {
    pub stream: Stream,
    pub backend: Rc<Backend>,
    /// What it owes. An idle server's is free.
    pub pipeline: Pipeline,
    pub statements: Statements,
    /// Shared with every server and session that was told the same.
    pub parameters: Rc<Parameters>,
    /// What it was told to set since its login.
    pub settings: Settings,
    /// The node's generation when this server was dialled.
    pub generation: u64,
    /// The session that used it last; 0 before the first.
    pub last_session: u64,
    /// Grows whenever another session gets it: what an earlier tenure left (currval, lastval) is a stranger's.
    pub tenure: u64,
    /// When it was last given something to do.
    pub asked: Instant,
    pub born: Instant,
    /// As of then its node is known to have had everything. See [`Server::fresh_as_of`].
    pub(super) fresh: Moment,
    pub idle_since: Instant,
    /// While it is checked out.
    pub(super) busy: Option<Busy>,
    pub(super) _open: Open,
    pub(super) permit: Permit,
}

/// Counts a server as in flight on its node.
#[derive(Debug)]
pub(super) struct Busy(Arc<Load>);

impl Busy {
    pub(super) fn new(load: &Arc<Load>) -> Self {
        load.in_flight.fetch_add(1, Relaxed);
        Busy(load.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Counts a worker's open servers of one pool.
#[derive(Debug)]
pub(super) struct Open(Rc<Cell<usize>>);

impl Open {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Open(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What an idle server has said unasked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    Kept,
    /// It spoke or ended: either way it is of no use.
    Broken,
}

impl Server {
    /// Looks for unasked bytes or an end, without a system call when there was no event.
    pub(super) fn silence(&mut self) -> Silence {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.stream).poll_read(&mut cx, &mut buf) {
            Poll::Pending => Silence::Kept,
            Poll::Ready(_) => Silence::Broken,
        }
    }

    /// As of when its node has everything, as far as was proven while this connection was in use. It stays true when the
    /// node's freshness is void: no node goes back in time under a connection that lives on.
    pub fn fresh_as_of(&mut self, node: &Freshness) -> Moment {
        self.fresh = self.fresh.max(node.as_of());
        self.fresh
    }

    /// What it was asked was answered at `now`, after `time`.
    #[inline]
    pub fn note_answer(&self, time: Duration, now: Instant) {
        if let Some(Busy(load)) = &self.busy {
            load.note_answer(time, Moment::of(now));
        }
    }

    /// `session` has it now.
    pub fn assign(&mut self, session: u64) {
        if self.last_session != session {
            self.last_session = session;
            self.tenure += 1;
        }
    }

    /// Says Terminate, if the socket takes it at once, and closes.
    pub fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let terminate = [b'X', 0, 0, 0, 4];
        let _: Poll<io::Result<usize>> = Pin::new(&mut self.stream).poll_write(&mut cx, &terminate);
        let _: Poll<io::Result<()>> = Pin::new(&mut self.stream).poll_flush(&mut cx);
    }
}
