//! The servers of one (node, database, user, startup parameters) on one worker.
//!
//! A session checks a server out, or waits: oldest waiter first ([`super::line`]). Dials are made here and not by sessions, so that
//! a server that comes too late for one session serves the next, and a node that refuses is not stormed ([`super::ramp`]). Between workers only the [`Budget`] is shared; a
//! server can move to a worker that has waiters and no place left for one of its own ([`super::pools`]).
//!
//! Invariants: a server in `idle` owes nothing, has no transaction open, carries no session's state but settings
//! that it knows of, and no CancelRequest for it is under way. Every server holds a permit of the budget.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    budget::{Budget, Exhausted},
    connection::{Busy, Open, Parameters, Server, Silence},
    line::{Line, Resolve, Waiter},
    pools::Shared,
    profile::Profile,
    ramp::Ramp,
    reset,
    settings::Settings,
};
use crate::{
    error::{Error, Kind},
    topology::{Health, NodeView},
    wire::pipeline::Pipeline,
};

/// What a waiting session gets.
#[derive(Debug)]
pub enum Grant {
    Server(Box<Server>),
    Failed(Error),
    /// The node has left its role: choose again.
    Reroute,
}

/// A session in line, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// When it first wanted a server, of whatever pool.
    pub came: Instant,
    /// It waits no longer than until then.
    pub until: Instant,
    pub resolve: Resolve,
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
    line: RefCell<Line<oneshot::Sender<Grant>>>,
    /// Open servers of this pool on this worker, checked out ones among them.
    open: Rc<Cell<usize>>,
    dialling: Cell<usize>,
    ramp: RefCell<Ramp>,
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
            line: RefCell::default(),
            open: Rc::default(),
            dialling: Cell::new(0),
            ramp: RefCell::default(),
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
        if !self.line.borrow().is_empty() {
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

    /// Gets in line for a server, and dials one if there is a place for it.
    pub fn wait(self: &Rc<Self>, waits: Waits) -> oneshot::Receiver<Grant> {
        let (grant, granted) = oneshot::channel();
        if let Some(error) = self.refusal(waits.resolve) {
            // The receiver is alive: it is returned below.
            let _ = grant.send(Grant::Failed(error));
            return granted;
        }
        self.line.borrow_mut().join(Waiter {
            came: waits.came,
            until: waits.until,
            resolve: waits.resolve,
            grant,
        });
        self.waiters_changed();
        self.supply();
        granted
    }

    /// While dials fail and no server is open there is nothing to wait for, unless only this node will do.
    fn refusal(&self, resolve: Resolve) -> Option<Error> {
        let ramp = self.ramp.borrow();
        let hopeless = self.open.get() == 0 && ramp.pauses(self.shared.now());
        let error = ramp.error().filter(|_| hopeless)?;
        let stays = resolve == Resolve::Stay && may_pass(error.kind);
        (!stays).then(|| error.clone())
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

    /// When the first in line came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.line.borrow().oldest()
    }

    /// To the oldest waiter, else to the idle ones.
    pub(super) fn give(&self, mut server: Box<Server>) {
        while let Some(grant) = self.next_waiter() {
            self.hand_out(&mut server);
            match grant.send(Grant::Server(server)) {
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

    fn next_waiter(&self) -> Option<oneshot::Sender<Grant>> {
        let next = self.line.borrow_mut().take_first();
        self.waiters_changed();
        next
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
        let dialling = self.dialling.get();
        dialling < self.line.borrow().len()
            && self.ramp.borrow().room(dialling, self.shared.now()) > 0
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
                    pool.dial_failed(view.generation, error);
                }
            }
        });
    }

    fn dialled(self: &Rc<Self>, mut server: Box<Server>) {
        self.ramp.borrow_mut().got_in();
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

    /// A dial of the node as it was in `generation` failed.
    fn dial_failed(self: &Rc<Self>, generation: u64, error: Error) {
        let view = self.view();
        self.shared.dial_failed(&view, &error);
        if view.generation != generation {
            // Of what the node is now it says nothing.
            return self.supply();
        }
        let passes = may_pass(error.kind);
        if passes {
            view.load.shun();
        }
        let (now, max_pause) = (self.shared.now(), self.shared.max_backoff());
        self.ramp.borrow_mut().failed(error.clone(), now, max_pause);
        // With servers open the waiters have something to wait for: a full or restarting node is not their error.
        if self.open.get() == 0 {
            let is_told = |waiter: &Waiter<_>| !passes || waiter.resolve == Resolve::Choose;
            let told = self.line.borrow_mut().dismiss(is_told);
            self.waiters_changed();
            for grant in told {
                let _ = grant.send(Grant::Failed(error.clone()));
            }
        }
    }

    fn waiters_changed(&self) {
        self.shared.publish_oldest(&self.budget);
    }

    /// Whether the node is in rotation, and what it was when the server was dialled.
    #[inline]
    pub fn is_current(&self, server: &Server) -> bool {
        self.view.borrow().admits(server.generation)
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
        self.open.get() == 0 && self.line.borrow().is_empty()
    }

    /// Servers open and idle, and sessions waiting.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.open.get(),
            self.idle.borrow().len(),
            self.line.borrow().len(),
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
            *self.ramp.borrow_mut() = Ramp::default();
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
        let all = self.line.borrow_mut().dismiss_all();
        self.waiters_changed();
        for grant in all {
            let _ = grant.send(Grant::Reroute);
        }
    }

    /// Called every tick of the worker: whoever has waited for too long fails, places freed elsewhere are used.
    pub(super) fn tick(self: &Rc<Self>) {
        self.expire_waiters();
        self.supply();
    }

    fn expire_waiters(&self) {
        let now = self.shared.now();
        let is_over =
            |waiter: &Waiter<oneshot::Sender<_>>| waiter.until <= now || waiter.grant.is_closed();
        let over = self.line.borrow_mut().dismiss(is_over);
        if over.is_empty() {
            return;
        }
        self.waiters_changed();
        for grant in over {
            let _ = grant.send(Grant::Failed(self.full()));
        }
    }

    /// What is full, for the client; by which names, for the log.
    fn full(&self) -> Error {
        if let Some(error) = self.ramp.borrow().error() {
            return error.clone();
        }
        let timeout = humantime::format_duration(self.shared.checkout_timeout());
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

/// Whether what a dial was refused with may be over in a moment: it speaks of the node, not of the login.
fn may_pass(kind: Kind) -> bool {
    matches!(kind, Kind::ServerGone | Kind::NoNode | Kind::Full)
}
