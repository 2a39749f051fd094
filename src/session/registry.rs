//! The sessions of one worker as others see them: to be cancelled, drained, ended, counted.
//!
//! A session writes what it holds into its [`Entry`]; the worker reads it. Nothing here decides anything.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use crate::{config::Limits, server::connection::Backend};

/// A session looks at its peers once in so many calls of [`Registry::look_at_peers`].
const TURNS: u64 = 5;

/// What a session was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    None,
    /// End as soon as no transaction is open.
    Drain,
    /// End now.
    End,
    /// End, if this is still what the session does: it has waited for its client since then, for too long.
    Expired(Activity, Instant),
}

/// What a session is doing, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It waits for the client, outside of a transaction.
    Idle,
    /// It waits for the client inside a transaction.
    IdleInTransaction,
    /// A server is working for it, or it waits for one.
    Active,
}

/// One session's entry.
#[derive(Debug)]
pub struct Entry {
    pub id: u64,
    signal: Cell<Signal>,
    waker: RefCell<Option<Waker>>,
    /// The server it holds just now.
    backend: RefCell<Option<Rc<Backend>>>,
    activity: Cell<(Activity, Instant)>,
    /// A CancelRequest came while it held no server.
    cancelled: Cell<bool>,
    /// It is to look whether its peers still answer.
    looks: Cell<bool>,
    /// One was sent on to its server, since it began to look for that.
    cancel_sent: Cell<bool>,
    pin: Cell<Option<Pinned>>,
}

/// The pin of every session of a listener in session mode.
pub const SESSION_MODE: &str = "session_mode";

/// Why a session keeps its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    pub reason: &'static str,
    pub since: Instant,
    /// That it has lasted long was logged.
    reported: bool,
}

impl Entry {
    /// A CancelRequest for a session that holds no server: if it waits for one, it waits no longer.
    pub fn cancel_wait(&self) {
        if self.activity.get().0 == Activity::Active {
            self.cancelled.set(true);
            self.wake();
        }
    }

    /// Whether it was cancelled since the last call.
    pub fn take_cancelled(&self) -> bool {
        self.cancelled.take()
    }

    /// Whether it is to look at its peers, as of the last call.
    #[inline]
    pub fn take_look(&self) -> bool {
        self.looks.get() && self.looks.take()
    }

    /// A CancelRequest is being sent on to its server.
    pub fn note_cancel_sent(&self) {
        self.cancel_sent.set(true);
    }

    /// From now on it looks whether one is.
    pub fn forget_cancel_sent(&self) {
        self.cancel_sent.set(false);
    }

    /// Whether one was, since then.
    pub fn was_cancel_sent(&self) -> bool {
        self.cancel_sent.get()
    }

    pub fn signal(&self) -> Signal {
        self.signal.get()
    }

    /// Where a signal wakes the session: called on every poll, cheap when the waker is still the same.
    #[inline]
    pub fn watch(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    #[inline]
    pub fn hold(&self, backend: Option<Rc<Backend>>) {
        *self.backend.borrow_mut() = backend;
    }

    /// The server that a CancelRequest for this session must go to.
    pub fn backend(&self) -> Option<Rc<Backend>> {
        self.backend.borrow().clone()
    }

    #[inline]
    pub fn set_activity(&self, activity: Activity, now: Instant) {
        if self.activity.get().0 != activity {
            self.activity.set((activity, now));
        }
    }

    pub fn activity(&self) -> (Activity, Instant) {
        self.activity.get()
    }

    pub fn pin(&self) -> Option<Pinned> {
        self.pin.get()
    }

    /// Says which reason it had before.
    pub fn set_pin(&self, reason: Option<&'static str>, now: Instant) -> Option<&'static str> {
        let before = self.pin.get();
        let pinned = |reason| Pinned {
            reason,
            since: before.map_or(now, |pin| pin.since),
            reported: before.is_some_and(|pin| pin.reported),
        };
        self.pin.set(reason.map(pinned));
        before.map(|pin| pin.reason)
    }

    /// A pin that has lasted `long` and was not reported before.
    fn take_long_pin(&self, long: Duration, now: Instant) -> Option<Pinned> {
        let pin = self.pin.get()?;
        let is_due =
            !pin.reported && pin.reason != SESSION_MODE && now.duration_since(pin.since) >= long;
        is_due.then(|| {
            self.pin.set(Some(Pinned {
                reported: true,
                ..pin
            }));
            pin
        })
    }

    pub fn send(&self, signal: Signal) {
        self.signal.set(signal);
        self.wake();
    }

    /// What was sent is not to be obeyed any more.
    pub fn take_back_signal(&self) {
        self.signal.set(Signal::None);
    }

    /// Asks the session to end if it has waited for its client too long.
    fn expire(&self, limits: &Limits, now: Instant) {
        let (activity, since) = self.activity.get();
        let limit = match activity {
            Activity::Idle => limits.idle_timeout,
            Activity::IdleInTransaction => limits.idle_transaction_timeout,
            Activity::Active => None,
        };
        let is_over = limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit);
        if is_over && self.signal.get() == Signal::None {
            self.send(Signal::Expired(activity, since));
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All sessions of one worker.
#[derive(Debug, Default)]
pub struct Registry {
    entries: RefCell<HashMap<u64, Rc<Entry>>>,
    /// Whose turn it is to look at its peers.
    turn: Cell<u64>,
}

impl Registry {
    pub fn insert(&self, id: u64, now: Instant) -> Rc<Entry> {
        let entry = Rc::new(Entry {
            id,
            signal: Cell::new(Signal::None),
            waker: RefCell::default(),
            backend: RefCell::default(),
            activity: Cell::new((Activity::Active, now)),
            cancelled: Cell::new(false),
            looks: Cell::new(false),
            cancel_sent: Cell::new(false),
            pin: Cell::new(None),
        });
        self.entries.borrow_mut().insert(id, entry.clone());
        entry
    }

    pub fn remove(&self, id: u64) {
        self.entries.borrow_mut().remove(&id);
    }

    pub fn find(&self, id: u64) -> Option<Rc<Entry>> {
        self.entries.borrow().get(&id).cloned()
    }

    /// Sessions that hold a server look at its node again.
    pub fn wake_holders(&self) {
        let entries = self.entries.borrow();
        let holders = entries.values().filter(|e| e.backend.borrow().is_some());
        holders.for_each(|entry| entry.wake());
    }

    /// Some sessions, at each call others, look whether their peers still answer.
    pub fn look_at_peers(&self) {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % TURNS);
        let entries = self.entries.borrow();
        for entry in entries.values().filter(|e| e.id % TURNS == turn) {
            entry.looks.set(true);
            entry.wake();
        }
    }

    /// Sessions that keep a server of `node`, and have nothing open there.
    pub fn idle_holders(&self, node: &str) -> usize {
        let holds = |entry: &&Rc<Entry>| {
            let backend = entry.backend.borrow();
            let is_there = backend.as_ref().is_some_and(|b| b.target.name == node);
            is_there && entry.activity.get().0 == Activity::Idle
        };
        self.entries.borrow().values().filter(holds).count()
    }

    /// Logs, once for each, the pins that have lasted `long`.
    pub fn report_long_pins(&self, long: Duration, now: Instant) {
        for entry in self.entries.borrow().values() {
            if let Some(Pinned { reason, since, .. }) = entry.take_long_pin(long, now) {
                let seconds = now.duration_since(since).as_secs();
                tracing::info!(session = entry.id, reason, seconds, "keeps its server");
            }
        }
    }

    /// Sessions that have waited for their clients too long are to end.
    pub fn expire(&self, limits: &Limits, now: Instant) {
        if limits
            .idle_timeout
            .or(limits.idle_transaction_timeout)
            .is_some()
        {
            let entries = self.entries.borrow();
            entries.values().for_each(|entry| entry.expire(limits, now));
        }
    }

    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    pub fn for_each(&self, visit: impl FnMut(&Rc<Entry>)) {
        // A copy, so that a visit may end sessions.
        let entries: Vec<_> = self.entries.borrow().values().cloned().collect();
        entries.iter().for_each(visit);
    }
}
