//! How a session gets a server, and what becomes of it afterwards.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Link, Session,
    aim::Aim,
    application::Application,
    context::{Context, Identity, NoPool},
    held::Place,
    outcome::Flight,
    registry::Activity,
    relay::Step,
    statement,
    welcome::told_by_route,
};
use crate::{
    config::{Listener, Route},
    error::{Error, Kind, Result},
    server::{
        connection::Server,
        line::Resolve,
        pool::{Grant, Pool, Waits},
        settings::Settings,
    },
    topology::{Alarm, Health, Moment, Reason, Role, Topology},
    wire::{backend, frame::Frame},
};

/// Pause before a read that must not go to the primary looks for a fresh replica again.
const FRESHNESS_PAUSE: Duration = Duration::from_millis(10);
/// How often, and after what pause, a read looks whether a replica was measured that it could have then.
const MEASURE_PAUSE: Duration = Duration::from_millis(5);
const MEASURE_PAUSES: u32 = 10;
/// Pause before a failed dial is tried again on what may be the same node.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Session {
    /// Takes a server that is idle just now for `frame`, if that needs one.
    ///
    /// # Errors
    /// `Step::WantsServer`: there is none, and the session must wait for one.
    pub(super) fn take_idle_server(&mut self, frame: Frame) -> std::result::Result<(), Step> {
        let aim = self.take_aim();
        if self.refuses_write(frame) {
            return Ok(());
        }
        let pool = self
            .context
            .choose(&self.identity, &self.listener, aim)
            .map_err(|_| Step::WantsServer(None))?;
        match pool.try_checkout(self.entry.id, &self.settings) {
            Some(server) if aim.is_met_by_age(&server, &pool) => self.hold(server, pool),
            Some(server) => {
                pool.checkin(server);
                return Err(Step::WantsServer(None));
            }
            // Another choice would be the next one's turn, and a node without idle servers would never get any.
            None => return Err(Step::WantsServer(Some(pool))),
        }
        Ok(())
    }

    /// Waits for a server, oldest waiter first, of `pool` if it stays in rotation. False when the session has ended meanwhile.
    pub(super) async fn take_server(&mut self, pool: Option<Rc<Pool>>) -> bool {
        self.entry
            .set_activity(Activity::Active, self.context.pools.now());
        self.entry.take_cancelled();
        let (context, identity) = (self.context.clone(), self.identity.clone());
        let (listener, id) = (self.listener.clone(), self.entry.id);
        let (settings, aim) = (self.settings.clone(), self.aim());
        let waiting = checkout(&context, &identity, &listener, id, &settings, aim, pool);
        let since = Instant::now();
        let granted = self.unless_interrupted(waiting).await;
        self.context.counters.checkout_waits.one();
        self.context.counters.checkout_wait.record(since.elapsed());
        match granted {
            Ok(Ok((server, pool))) => {
                self.hold(server, pool);
                true
            }
            Ok(Err(error)) => self.cannot_have_server(error).await,
            Err(interrupted) => self.interrupted(interrupted).await,
        }
    }

    /// The server is the session's: the client is told what is different there.
    pub(super) fn hold(&mut self, mut server: Box<Server>, pool: Rc<Pool>) {
        self.context.counters.checkouts.one();
        // 0 stands for none.
        self.hold = self.hold.wrapping_add(1).max(1);
        self.server_fatal = false;
        self.application = Application::Sessions;
        self.flight = Flight::Nothing;
        if self.split.is_some() {
            self.begin_visit(&mut server, &pool);
        }
        self.begin_to_keep();
        // A session that has not been told a pid yet will be told the server's own.
        server
            .backend
            .set_user(self.key.as_ref().map_or(0, |key| key.0));
        self.entry.hold(Some(server.backend.clone()));
        self.entry
            .set_activity(Activity::Active, self.context.pools.now());
        let is_dressed = server.settings.is_same(&self.settings);
        self.link = Link::Held { server, pool };
        match is_dressed {
            true => self.tell_parameters(),
            false => self.dress(),
        }
    }

    /// Tells the client what its server says otherwise than the last one did.
    pub(super) fn tell_parameters(&mut self) {
        let Link::Held { server, .. } = &mut self.link else {
            return;
        };
        if Rc::ptr_eq(&server.parameters, &self.told) {
            return;
        }
        // Sessions that were told the same share it, or each that has a setting of its own would hold all of them.
        server.parameters = self.context.pools.share(&server.parameters);
        let parameters = server.parameters.clone();
        let parameters = self.as_told(&parameters);
        let route = self.listener.route;
        for (name, value) in &parameters.0 {
            if self.told.value(name) != Some(value) && told_by_route(route, name).is_none() {
                backend::parameter_status(&mut self.out, name, value);
            }
        }
        self.told = parameters;
        self.reading = statement::reading(&self.told);
    }

    /// The server goes back: nothing of the session's is left on it.
    pub(super) fn release(&mut self) {
        self.prepared.end_native();
        self.end_lasting_visit();
        if let Link::Held { server, pool } = std::mem::replace(&mut self.link, Link::Free) {
            self.entry.hold(None);
            self.context.counters.transactions.one();
            pool.checkin(server);
        }
    }

    /// The server goes back after a pin: whatever the session left there is cleared first.
    pub(super) fn release_cleared(&mut self) {
        self.prepared.end_native();
        self.end_lasting_visit();
        if let Link::Held { server, pool } = std::mem::replace(&mut self.link, Link::Free) {
            self.entry.hold(None);
            self.context.counters.transactions.one();
            pool.reset(server);
        }
    }

    /// The session ends: a server that is clean goes back, one that only carries state is reset, any other is closed.
    pub(super) fn give_up_server(&mut self) {
        self.recheck_catalogue();
        let Link::Held { server, pool } = std::mem::replace(&mut self.link, Link::Free) else {
            return;
        };
        self.entry.hold(None);
        let unsent = !self.from_client.as_ref().is_none_or(|b| b.is_sent());
        let lasting = self.pins.leave_lasting_traces();
        // What it said last has been read in part: the rest would reach the next session.
        let unheard = self.is_inside_reply();
        let is_dirty = self.server_fatal || unsent || unheard || lasting;
        if is_dirty || !server.pipeline.is_free() {
            pool.close(server);
        } else if self.pins.is_pinned() || self.unsettled.is_some() {
            pool.reset(server);
        } else {
            pool.checkin(server);
        }
    }
}

/// Where to look on after a replica's server was too young, or the replica no longer fresh enough.
async fn turned_down(aim: Aim) -> Aim {
    match aim {
        Aim::Replica(_) => {
            tokio::time::sleep(FRESHNESS_PAUSE).await;
            aim
        }
        _ => Aim::Primary,
    }
}

/// Waits for a replica that is fresh enough if that is worth it: probes hurry since the session was last on the primary.
async fn wait_for_freshness(context: &Context, aim: Aim) -> Aim {
    let Aim::Fresh(mut need) = aim else {
        return aim;
    };
    if need.is_worth_waiting {
        for _ in 0..MEASURE_PAUSES {
            if context.has_fresh(&need) {
                break;
            }
            tokio::time::sleep(MEASURE_PAUSE).await;
        }
        need.is_worth_waiting = false;
    }
    Aim::Fresh(need)
}

/// Whether `server` may serve, in a moment if not at once: one that was dialled since its replica was last measured may as
/// soon as that has been measured again, which probes hurry to do.
async fn may_serve(context: &Context, aim: Aim, server: &Server, pool: &Pool) -> bool {
    for _ in 0..MEASURE_PAUSES {
        if aim.may_be_served_by(server, pool) || !aim.is_met_by(pool) {
            break;
        }
        context.outside.want_fresh(Moment::of(server.born));
        tokio::time::sleep(MEASURE_PAUSE).await;
    }
    aim.may_be_served_by(server, pool)
}

/// What a session does when the node that it waits for cannot be dialled.
fn resolve(aim: Aim, route: Route) -> Resolve {
    match (aim, route) {
        (Aim::Primary, _) | (Aim::Listener, Route::Primary | Route::Split) => Resolve::Stay,
        _ => Resolve::Choose,
    }
}

/// A server for a session, wherever the topology has one. Waits while the listener's route has no node
/// (`failover.hold`), in the pool's queue, and over failed dials. `chosen` is tried first.
pub(super) async fn checkout(
    context: &Context,
    identity: &Identity,
    listener: &Listener,
    session: u64,
    settings: &Settings,
    aim: Aim,
    mut chosen: Option<Rc<Pool>>,
) -> Result<(Box<Server>, Rc<Pool>)> {
    let mut search = Search::new(context);
    let mut aim = wait_for_freshness(context, aim).await;
    loop {
        let choice = chosen
            .take()
            .map_or_else(|| context.choose(identity, listener, aim), Ok);
        let pool = match choice {
            Ok(pool) => {
                search.node_found();
                pool
            }
            Err(none) => {
                search.wait_for_node(none, &aim).await?;
                continue;
            }
        };
        if let Some(server) = pool.try_checkout(session, settings) {
            if may_serve(context, aim, &server, &pool).await {
                return Ok((server, pool));
            }
            pool.checkin(server);
            aim = turned_down(aim).await;
            continue;
        }
        match pool.wait(search.waits(resolve(aim, listener.route))).await {
            Ok(Grant::Server(mut server)) => {
                if may_serve(context, aim, &server, &pool).await {
                    server.assign(session);
                    return Ok((server, pool));
                }
                pool.checkin(server);
                aim = turned_down(aim).await;
            }
            Ok(Grant::Failed(error)) if is_elsewhere(&error, &pool) => search.pause(error).await?,
            Ok(Grant::Failed(error)) => search.dial_failed(error).await?,
            Ok(Grant::Reroute) | Err(_) => {}
        }
    }
}

/// PostgreSQL's own words: what was to run has not begun.
pub(super) fn cancelled() -> Error {
    Error::client(Kind::Cancelled, "canceling statement due to user request")
}

/// How long a session that has no server yet goes on looking for one.
pub(super) struct Search<'a> {
    context: &'a Context,
    times: Times,
    /// While there is no node.
    place: Option<Place>,
}

/// What a session's patience is counted from. Pure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When it first wanted a server.
    came: Instant,
    /// Since when there is a node to dial.
    found: Instant,
}

impl Times {
    pub fn begin(now: Instant) -> Self {
        Times {
            came: now,
            found: now,
        }
    }

    /// What is left of `failover.hold` while there is no node.
    pub fn left(&self, hold: Duration, now: Instant) -> Duration {
        hold.saturating_sub(now.saturating_duration_since(self.came))
    }

    /// There may be a node from now on.
    pub fn node_found(&mut self, now: Instant) {
        self.found = now;
    }

    /// How it gets in a pool's line: by when it came, until it has waited for a server as long as it may.
    pub fn waits(&self, patience: Duration, resolve: Resolve) -> Waits {
        Waits {
            came: self.came,
            until: self.found + patience,
            resolve,
        }
    }
}

impl<'a> Search<'a> {
    pub fn new(context: &'a Context) -> Self {
        Search {
            context,
            times: Times::begin(Instant::now()),
            place: None,
        }
    }

    /// Waits for a newer snapshot.
    ///
    /// # Errors
    /// `failover.hold` has passed since the search began, or as many sessions wait already as may.
    pub async fn wait_for_node(&mut self, none: NoPool, aim: &Aim) -> Result<()> {
        let (hold, max_held) = {
            let config = self.context.config.borrow();
            (config.failover.hold, config.failover.max_held)
        };
        if self.place.is_none() {
            let place = self.context.held.enter(max_held);
            self.place = Some(place.ok_or_else(|| self.crowded(none, max_held))?);
        }
        let left = self.times.left(hold, Instant::now());
        let pause = match aim {
            // Of how fresh replicas are, no snapshot tells.
            Aim::Replica(_) => left.min(FRESHNESS_PAUSE),
            _ => left,
        };
        let changed = tokio::time::timeout(pause, self.context.topology_changed()).await;
        self.times.node_found(Instant::now());
        match changed.is_err() && pause == left {
            true => Err(self.no_node(none, hold)),
            false => Ok(()),
        }
    }

    /// There is a node.
    pub fn node_found(&mut self) {
        self.place = None;
    }

    fn waits(&self, resolve: Resolve) -> Waits {
        self.times.waits(self.patience(), resolve)
    }

    /// `pool.checkout_timeout`.
    fn patience(&self) -> Duration {
        self.context.config.borrow().pool.checkout_timeout
    }

    fn no_node(&self, none: NoPool, hold: Duration) -> Error {
        let hold = humantime::format_duration(hold);
        let text = match none {
            NoPool::Paused => format!("the operator has paused the primary, for {hold} by now"),
            none => format!("{} for {hold}{}", unreachable(none), self.because(none)),
        };
        Error::proxy(Kind::NoNode, text)
    }

    /// There is no place to wait in.
    fn crowded(&self, none: NoPool, max_held: usize) -> Error {
        let reason = match none {
            NoPool::Paused => "the operator has paused the primary".to_owned(),
            none => format!("{}{}", unreachable(none), self.because(none)),
        };
        let text =
            format!("{reason}, and as many sessions wait as may: failover.max_held is {max_held}");
        Error::proxy(Kind::NoNode, text)
    }

    fn because(&self, none: NoPool) -> &'static str {
        match none {
            NoPool::NoPrimary => self.context.with_topology(why_no_primary),
            NoPool::NoReplica | NoPool::Paused => "",
        }
    }

    /// Dials that fail are tried again as long as a session would wait for a free server: the topology follows within a
    /// second what is more than one failed connection. Returns when it is time to try.
    ///
    /// # Errors
    /// `error`, where another node or the same a moment later would say the same, or `pool.checkout_timeout` has passed
    /// since there was a node.
    pub async fn dial_failed(&mut self, error: Error) -> Result<()> {
        match is_final(&error) {
            true => Err(error),
            false => self.pause(error).await,
        }
    }

    /// As [`Search::dial_failed`], whatever the error is.
    async fn pause(&mut self, error: Error) -> Result<()> {
        if self.times.found.elapsed() >= self.patience() {
            return Err(error);
        }
        let _ = tokio::time::timeout(RETRY_PAUSE, self.context.topology_changed()).await;
        Ok(())
    }
}

/// A replica without a free slot is not the only node: what cannot be had there can be had elsewhere.
fn is_elsewhere(error: &Error, pool: &Pool) -> bool {
    error.kind == Kind::Full && pool.view().role == Role::Replica
}

/// Whether another node, or the same a moment later, would say the same.
fn is_final(error: &Error) -> bool {
    !matches!(error.kind, Kind::ServerGone | Kind::NoNode)
}

fn unreachable(none: NoPool) -> &'static str {
    match none {
        NoPool::NoReplica => "no replica could be reached",
        NoPool::NoPrimary | NoPool::Paused => "no primary could be reached",
    }
}

/// In a few words for clients, behind the fact that there is none.
fn why_no_primary(topology: &Topology) -> &'static str {
    let has = |alarm| topology.alarms.contains(&alarm);
    if has(Alarm::TwoPrimaries) {
        return ": two nodes write on one timeline";
    }
    if has(Alarm::StrayPromotion) {
        return ": a node was promoted beside the last one";
    }
    if topology.nodes.iter().any(|n| n.reason == Reason::Settling) {
        return ": not all nodes have answered since the proxy's start";
    }
    let last = topology.nodes.iter().find(|n| n.role == Role::Primary);
    match last.map(|node| (node.health, node.reason)) {
        Some((Health::Draining, _)) | Some((_, Reason::StartingUp | Reason::ShuttingDown)) => {
            ": the last one is starting up or shutting down"
        }
        Some((_, Reason::Refused)) => ": the last one refuses connections",
        Some((_, Reason::Silent)) => ": the last one does not answer",
        Some((_, Reason::LoginRefused)) => ": the last one refuses the probe's login",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config::Node, topology::NodeView};

    fn topology(role: Role, reason: Reason, alarms: &[Alarm]) -> Topology {
        let mut view = NodeView::unheard(Arc::new(Node::at("n", "h", 1)), Instant::now());
        (view.role, view.reason) = (role, reason);
        Topology {
            nodes: vec![Arc::new(view)],
            alarms: alarms.to_vec(),
            ..Topology::default()
        }
    }

    #[test]
    fn a_client_is_told_why_there_is_no_primary_and_never_who_it_was() {
        for (role, reason, alarms, told) in [
            (
                Role::Primary,
                Reason::Silent,
                &[][..],
                ": the last one does not answer",
            ),
            (
                Role::Primary,
                Reason::Refused,
                &[Alarm::NoPrimary],
                ": the last one refuses connections",
            ),
            (
                Role::Unknown,
                Reason::Conflict,
                &[Alarm::NoPrimary, Alarm::TwoPrimaries],
                ": two nodes write on one timeline",
            ),
            (
                Role::Unknown,
                Reason::Settling,
                &[],
                ": not all nodes have answered since the proxy's start",
            ),
            (Role::Replica, Reason::Answering, &[Alarm::NoPrimary], ""),
        ] {
            assert_eq!(why_no_primary(&topology(role, reason, alarms)), told);
        }
    }
}
