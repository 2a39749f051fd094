//! The servers of one (node, database, user, startup parameters) on one worker.
//!
//! A session checks a server out, or waits: oldest waiter first. Dials are made here and not by sessions, so that a
//! server that comes too late for one session serves the next. Between workers only the [`Budget`] is shared; a
//! server can move to a worker that has waiters and no place left for one of its own ([`super::pools`]).
//!
//! Invariants: a server in `idle` owes nothing, has no transaction open, carries no session's state but settings
//! that it knows of, and no CancelRequest for it is under way. Every server holds a permit of the budget.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    budget::{Budget, Exhausted},
    connection::{Busy, Open, Parameters, Server, Silence},
    pools::Shared,
    profile::Profile,
    reset,
    settings::Settings,
};
use crate::{
    error::{Error, Kind},
    topology::{Health, NodeView},
    wire::pipeline::Pipeline,
};

/// First pause after a failed dial; it doubles up to `pool.login_backoff`.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Dials of one pool that may be under way at once on a worker: more would be a storm on the node.
const MAX_DIALS: usize = 8;

/// What a waiting session gets.
#[derive(Debug)]
pub enum Grant {
    Server(Box<Server>),
    Failed(Error),
    /// The node has left its role: choose again.
    Reroute,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    grant: oneshot::Sender<Grant>,
}

/// After dials that failed.
#[derive(Debug)]
struct Backoff {
    until: Instant,
    pause: Duration,
    error: Error,
}

/// See the module's header.
pub struct Pool {
    shared: Rc<Shared>,
    pub(super) profile: Arc<Profile>,
    pub(super) budget: Arc<Budget>,
    view: RefCell<Arc<NodeView>>,
    // Servers are boxed everywhere: they move from hand to hand, and are large.
    #[allow(clippy::vec_box)]
    idle: RefCell<Vec<Box<Server>>>,
    waiters: RefCell<VecDeque<Waiter>>,
    /// Open servers of this pool on this worker, checked out ones among them.
    open: Rc<Cell<usize>>,
    dialling: Cell<usize>,
    backoff: RefCell<Option<Backoff>>,
    /// When the other workers were last asked for a server.
    pub(super) asked: Cell<Instant>,
    /// What the newest server told at its login: what a new session is told.
    welcome: RefCell<Option<Rc<Parameters>>>,
}

impl Pool {
    pub(super) fn new(shared: Rc<Shared>, profile: Arc<Profile>, view: Arc<NodeView>) -> Rc<Self> {
        let budget = shared.budget(&view, &profile);
        let asked = Cell::new(shared.now());
        Rc::new(Pool {
            asked,
            shared,
            profile,
            budget,
            view: RefCell::new(view),
            idle: RefCell::default(),
            waiters: RefCell::default(),
            open: Rc::default(),
            dialling: Cell::new(0),
            backoff: RefCell::default(),
            welcome: RefCell::default(),
        })
    }

    /// The node as of the last snapshot that the worker has seen.
    pub fn view(&self) -> Arc<NodeView> {
        self.view.borrow().clone()
    }

    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// What a server of this pool told last at login, if there was one in the node's present generation.
    pub fn welcome(&self) -> Option<Rc<Parameters>> {
        self.welcome.borrow().clone()
    }

    /// An idle server, at once: the one that `session` had last if it is free, else one that is set as it wants it, else
    /// the one used last.
    #[inline]
    pub fn try_checkout(&self, session: u64, settings: &Settings) -> Option<Box<Server>> {
        if !self.waiters.borrow().is_empty() {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        loop {
            let at = idle
                .iter()
                .rposition(|server| server.last_session == session)
                .or_else(|| idle.iter().rposition(|s| s.settings.is_same(settings)))
                .or(idle.len().checked_sub(1))?;
            let mut server = idle.swap_remove(at);
            if self.is_current(&server) && server.silence() == Silence::Kept {
                self.hand_out(&mut server);
                server.assign(session);
                return Some(server);
            }
            server.close();
        }
    }

    /// Queues for a server, and dials one if there is a place for it.
    pub fn wait(self: &Rc<Self>) -> oneshot::Receiver<Grant> {
        let (grant, granted) = oneshot::channel();
        if let Some(error) = self.refusal() {
            // The receiver is alive: it is returned below.
            let _ = grant.send(Grant::Failed(error));
            return granted;
        }
        let since = self.shared.now();
        self.waiters.borrow_mut().push_back(Waiter { since, grant });
        self.waiters_changed();
        self.supply();
        granted
    }

    /// While dials fail and no server is open there is nothing to wait for.
    fn refusal(&self) -> Option<Error> {
        let backoff = self.backoff.borrow();
        let backoff = backoff.as_ref()?;
        let hopeless = self.open.get() == 0 && self.shared.now() < backoff.until;
        hopeless.then(|| backoff.error.clone())
    }

    /// A server comes back. It must owe nothing, have no transaction open and carry no state.
    pub fn checkin(self: &Rc<Self>, mut server: Box<Server>) {
        let is_surplus = self.shared.is_worn(&server) || self.budget.is_exceeded();
        if is_surplus || !self.is_current(&server) {
            server.close();
            return self.supply();
        }
        if server.backend.is_being_cancelled() {
            return self.gate(server);
        }
        let own = self.oldest();
        if let Some(worker) = self.budget.neediest(self.shared.worker, own) {
            match self.shared.hand_over(worker, &self.profile, server) {
                Ok(()) => return self.supply(),
                Err(kept) => server = kept,
            }
        }
        if let Some(starving) = own.and_then(|own| self.shared.starving(self, own)) {
            server.close();
            starving.supply();
            return self.supply();
        }
        self.give(server);
    }

    /// Since when the oldest waiter waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiters.borrow().front().map(|w| w.since)
    }

    /// To the oldest waiter, else to the idle ones.
    pub(super) fn give(&self, mut server: Box<Server>) {
        while let Some(waiter) = self.next_waiter() {
            self.hand_out(&mut server);
            match waiter.grant.send(Grant::Server(server)) {
                Ok(()) => return,
                Err(Grant::Server(back)) => server = back,
                // A channel gives back what was put in.
                Err(_) => return,
            }
        }
        server.busy = None;
        server.idle_since = self.shared.now();
        self.idle.borrow_mut().push(server);
    }

    /// Ends a server that must not be used again; says what it still owed.
    #[allow(clippy::boxed_local)] // boxed as everywhere
    pub fn close(self: &Rc<Self>, mut server: Box<Server>) -> Pipeline {
        let pipeline = std::mem::take(&mut server.pipeline);
        server.close();
        self.supply();
        pipeline
    }

    /// Takes back a server that carries a session's state: it is cleared before anyone else gets it.
    pub fn reset(self: &Rc<Self>, mut server: Box<Server>) {
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            server.backend.cancels_ended().await;
            match reset::discard_all(&mut server).await {
                Ok(()) => pool.checkin(server),
                Err(error) => {
                    tracing::debug!(%error, "closed a server that could not be reset");
                    pool.close(server);
                }
            }
        });
    }

    /// Whether the node lets anybody in just now: it is asked, on a connection that serves nobody. A node that shuts down
    /// refuses from before its servers are told.
    pub async fn lets_in(&self) -> bool {
        match self.shared.dial(&self.view(), &self.profile).await {
            Ok(_) => true,
            Err(error) => !matches!(error.kind, Kind::ServerGone | Kind::NoNode),
        }
    }

    fn next_waiter(&self) -> Option<Waiter> {
        let waiter = self.waiters.borrow_mut().pop_front();
        self.waiters_changed();
        waiter
    }

    fn hand_out(&self, server: &mut Server) {
        server.busy = Some(Busy::new(&self.view.borrow().load));
    }

    /// Keeps a server back until the cancels that were sent for it have reached EOF.
    fn gate(self: &Rc<Self>, server: Box<Server>) {
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            server.backend.cancels_ended().await;
            pool.checkin(server);
        });
    }

    /// A server of this pool was closed, or a limit was raised: its place may serve a waiter.
    pub fn supply(self: &Rc<Self>) {
        while self.wants_dial() {
            match self.budget.try_acquire(self.shared.worker) {
                Ok(permit) => self.spawn_dial(permit),
                // An idle server under other startup parameters, here or on another worker, can make a place.
                Err(exhausted) if self.shared.evict_for(self, exhausted) => {}
                Err(exhausted) => return self.shared.ask_peers(self, exhausted),
            }
        }
    }

    fn wants_dial(&self) -> bool {
        let paused = self
            .backoff
            .borrow()
            .as_ref()
            .is_some_and(|b| self.shared.now() < b.until);
        !paused && self.dialling.get() < self.waiters.borrow().len().min(MAX_DIALS)
    }

    fn spawn_dial(self: &Rc<Self>, permit: super::budget::Permit) {
        let pool = self.clone();
        self.dialling.set(self.dialling.get() + 1);
        let open = Open::new(&self.open);
        tokio::task::spawn_local(async move {
            let view = pool.view();
            let dialled = pool.shared.dial(&view, &pool.profile).await;
            pool.dialling.set(pool.dialling.get() - 1);
            match dialled {
                Ok(fresh) => pool.dialled(fresh.into_server(view.generation, open, permit)),
                Err(error) => {
                    drop((open, permit));
                    pool.dial_failed(error);
                }
            }
        });
    }

    fn dialled(self: &Rc<Self>, mut server: Box<Server>) {
        *self.backoff.borrow_mut() = None;
        self.shared.note_backend(&server.backend);
        server.fresh_as_of(&self.view.borrow().freshness);
        if self.is_current(&server) {
            self.remember_welcome(&mut server);
        }
        self.checkin(server);
    }

    fn remember_welcome(&self, server: &mut Server) {
        server.parameters = self.shared.intern(&server.parameters);
        *self.welcome.borrow_mut() = Some(server.parameters.clone());
    }

    fn dial_failed(self: &Rc<Self>, error: Error) {
        let view = self.view();
        self.shared.dial_failed(&view, &error);
        if matches!(error.kind, Kind::ServerGone | Kind::NoNode | Kind::Full) {
            view.load.shun();
        }
        let pause = match &*self.backoff.borrow() {
            Some(backoff) => (backoff.pause * 2).min(self.shared.max_backoff()),
            None => MIN_BACKOFF,
        };
        let until = self.shared.now() + pause;
        // With servers open the waiters have something to wait for: a full or restarting node is not their error.
        if self.open.get() == 0 {
            for waiter in self.take_waiters() {
                let _ = waiter.grant.send(Grant::Failed(error.clone()));
            }
        }
        *self.backoff.borrow_mut() = Some(Backoff {
            until,
            pause,
            error,
        });
    }

    fn take_waiters(&self) -> VecDeque<Waiter> {
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        self.waiters_changed();
        waiters
    }

    fn waiters_changed(&self) {
        self.shared.publish_oldest(&self.budget);
    }

    /// Whether the node is in rotation, and what it was when the server was dialled.
    #[inline]
    pub fn is_current(&self, server: &Server) -> bool {
        let view = self.view.borrow();
        server.generation == view.generation && view.is_up()
    }

    /// Whether the server was dialled at another address than the node now has.
    pub fn has_moved(&self, server: &Server) -> bool {
        let view = self.view.borrow();
        let target = &server.backend.target;
        (&*target.host, target.port) != (&*view.config.host, view.config.port)
    }

    /// Takes an idle server away, the one idle longest.
    pub(super) fn take_idle(&self) -> Option<Box<Server>> {
        let mut idle = self.idle.borrow_mut();
        let oldest = (0..idle.len()).min_by_key(|&i| idle[i].idle_since)?;
        Some(idle.swap_remove(oldest))
    }

    /// Whether neither a server nor a waiter nor a dial is left.
    pub(super) fn is_empty(&self) -> bool {
        self.open.get() == 0 && self.waiters.borrow().is_empty()
    }

    /// Servers open and idle, and sessions waiting.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.open.get(),
            self.idle.borrow().len(),
            self.waiters.borrow().len(),
        )
    }

    /// The node as a newer snapshot has it. Servers of another generation are closed; if the node no longer takes
    /// sessions, waiters choose again.
    pub(super) fn set_view(self: &Rc<Self>, view: Arc<NodeView>) {
        let renewed = view.generation != self.view.borrow().generation;
        let usable = view.is_up();
        if view.config.max_servers != self.view.borrow().config.max_servers {
            // A reload of the node's limit: it comes with a snapshot, before or after the other settings.
            self.shared.budget(&view, &self.profile);
        }
        *self.view.borrow_mut() = view;
        if renewed {
            *self.welcome.borrow_mut() = None;
            *self.backoff.borrow_mut() = None;
        }
        if renewed || !usable {
            for server in self.idle.take() {
                server.close();
            }
            self.reroute_waiters();
        }
    }

    /// Whoever waits for a server chooses again.
    pub(super) fn reroute_waiters(&self) {
        for waiter in self.take_waiters() {
            let _ = waiter.grant.send(Grant::Reroute);
        }
    }

    /// Called every tick of the worker: waiters past `checkout_timeout` fail, places freed elsewhere are used.
    pub(super) fn tick(self: &Rc<Self>) {
        self.expire_waiters();
        self.supply();
    }

    fn expire_waiters(&self) {
        let timeout = self.shared.checkout_timeout();
        let now = self.shared.now();
        loop {
            let mut waiters = self.waiters.borrow_mut();
            match waiters.front() {
                Some(w) if now.duration_since(w.since) >= timeout || w.grant.is_closed() => {}
                _ => return,
            }
            let Some(waiter) = waiters.pop_front() else {
                return;
            };
            drop(waiters);
            self.waiters_changed();
            let _ = waiter.grant.send(Grant::Failed(self.full(timeout)));
        }
    }

    /// What is full, for the client; by which names, for the log.
    fn full(&self, timeout: Duration) -> Error {
        if let Some(backoff) = &*self.backoff.borrow() {
            return backoff.error.clone();
        }
        let timeout = humantime::format_duration(timeout);
        let text = match self.budget.try_acquire(self.shared.worker) {
            Ok(_) => format!("no server connection could be opened within {timeout}"),
            Err(Exhausted::Pool { size }) => format!(
                "no server connection became free within {timeout}: all {size} of this database and user are in use"
            ),
            Err(Exhausted::Node { max_servers }) => format!(
                "no server connection became free within {timeout}: all {max_servers} of the node are in use"
            ),
        };
        Error::proxy(Kind::Full, text)
            .hint("Raise pool.size or the node's max_servers, or shorten transactions.")
    }

    /// Takes in a server that comes from another worker.
    pub(super) fn adopt(self: &Rc<Self>, server: impl FnOnce(Open) -> Box<Server>) {
        let server = server(Open::new(&self.open));
        if self.is_current(&server) {
            self.shared.note_backend(&server.backend);
            self.give(server);
        } else {
            server.close();
        }
        // It may have come for a pool of other startup parameters, which can dial in its place.
        self.shared.supply_under(&self.budget);
    }

    /// The node is no longer configured.
    pub(super) fn retire(self: &Rc<Self>) {
        let mut view = (*self.view()).clone();
        view.health = Health::Draining;
        view.generation = u64::MAX;
        self.set_view(Arc::new(view));
    }

    /// Closes what has been idle for too long, has ended by itself, or is above a limit that was lowered.
    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let now = self.shared.now();
        let mut idle = self.idle.borrow_mut();
        let mut at = 0;
        while at < idle.len() {
            let server = &mut idle[at];
            let stale = now.duration_since(server.idle_since) >= idle_timeout
                || self.shared.is_worn(server)
                || self.budget.is_exceeded()
                || server.silence() == Silence::Broken;
            if stale {
                idle.swap_remove(at).close();
            } else {
                at += 1;
            }
        }
    }
}
