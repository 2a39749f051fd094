//! Sessions that write in the judge's made-up worlds (`crate::topology::sim`): how they wait for a primary, which server they get,
//! and what becomes of them when it is replaced, on two workers that hear of a new snapshot at different times.
//!
//! What decides is the program's own code: the judge, [`writable`], [`Times`], [`Held`], [`Line`], [`Ramp`], [`Budget`],
//! [`NodeView::admits`], [`tenure`] and [`balance`]. Around it there is, in place of sockets and tasks, what follows from a
//! decision: a dial that is answered or not, a server that goes from hand to hand. Seeds are chosen as for the judge.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use super::{
    checkout::Times,
    context::writable,
    held::{Held, Place},
    tenure::{Tenure, tenure},
};
use crate::{
    config::{PrimaryReads, Route},
    error::{Error, Kind},
    metrics::Metrics,
    server::{
        budget::{Budget, Budgets, Permit},
        line::{Line, Resolve, Waiter},
        profile::Access,
        ramp::Ramp,
    },
    topology::{
        Health, Moment, NodeView, Topology,
        balance::{self, Draw},
        sim::{self, CALM, Dice, Life, TICK, TROUBLE, World, first_failure, run_seeds},
    },
};

const WORKERS: usize = 2;
/// `pool.size`, `failover.hold`, `failover.max_held`, `pool.checkout_timeout` and `pool.login_backoff` of these worlds.
const SIZE: usize = 3;
const HOLD: Duration = Duration::from_millis(600);
const MAX_HELD: usize = 6;
const PATIENCE: Duration = Duration::from_secs(2);
const BACKOFF: Duration = Duration::from_millis(200);

/// Within so many ticks of calm beyond the judge's, everybody has been served or told.
const SERVED: u32 = 60;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// A defect to plant, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Fence: what was dialled before the node lost its role is handed out all the same.
    KeepsServers,
    /// Fence: a session stays on a primary that was replaced.
    KeepsSessions,
    /// Hold: whoever waited for a node gets in line behind those who came later.
    LosesTurn,
    /// Hold: a new primary wakes nobody.
    SleepsOn,
    /// Hold: the first refused dial takes those away who wait.
    ForgetsWaiters,
}

type Law = Result<(), String>;

/// A server connection.
struct Conn {
    node: usize,
    generation: u64,
    /// The node's process that it is to.
    process: u32,
    permit: Permit,
}

struct Dial {
    due: u32,
    generation: u64,
    permit: Permit,
}

struct Pool {
    view: Arc<NodeView>,
    budget: Arc<Budget>,
    line: Line<usize>,
    ramp: Ramp,
    idle: Vec<Conn>,
    dials: Vec<Dial>,
}

struct Worker {
    topology: Arc<Topology>,
    coming: VecDeque<(u32, Arc<Topology>)>,
    /// The highest timeline of a primary that it has heard of.
    highest: u32,
    pools: Vec<Pool>,
}

enum Phase {
    /// There is no node.
    Held,
    /// Of this node's pool.
    InLine(usize),
    Writes {
        on: Conn,
        left: u32,
    },
    Ended,
}

struct Session {
    worker: usize,
    came: Instant,
    times: Times,
    place: Option<Place>,
    phase: Phase,
}

/// One life of the proxy.
struct Proxy {
    world: World,
    life: u32,
    /// Per node: how often it has died.
    processes: Vec<u32>,
    workers: Vec<Worker>,
    sessions: Vec<Session>,
    held: Arc<Held>,
    is_calm: bool,
    bug: Bug,
}

impl Worker {
    fn new(index: usize, topology: &Arc<Topology>, budgets: &Budgets) -> Worker {
        let pool = |view: &Arc<NodeView>| {
            let name = (view.config.name.as_str(), view.config.max_servers);
            let budget = budgets.budget(name, "db", "user", SIZE);
            budget.set_oldest(index, None);
            Pool {
                view: view.clone(),
                budget,
                line: Line::default(),
                ramp: Ramp::default(),
                idle: Vec::new(),
                dials: Vec::new(),
            }
        };
        Worker {
            topology: topology.clone(),
            coming: VecDeque::new(),
            highest: 0,
            pools: topology.nodes.iter().map(pool).collect(),
        }
    }
}

impl Proxy {
    fn new(seed: u64, bug: Bug, now: Instant) -> Proxy {
        let world = World::new(seed, sim::Bug::None, now);
        let mut proxy = Proxy {
            life: 0,
            processes: vec![0; world.servers.len()],
            world,
            workers: Vec::new(),
            sessions: Vec::new(),
            held: Held::new(&METRICS),
            is_calm: false,
            bug,
        };
        proxy.begin();
        proxy
    }

    /// The proxy starts, or starts again: its clients are others.
    fn begin(&mut self) {
        self.life = self.world.lives;
        self.sessions.clear();
        let (budgets, topology) = (Budgets::new(WORKERS), Arc::new(self.world.last.clone()));
        self.workers = (0..WORKERS)
            .map(|index| Worker::new(index, &topology, &budgets))
            .collect();
    }

    fn dice(&mut self) -> &mut Dice {
        &mut self.world.dice
    }

    fn now(&self) -> Instant {
        self.world.now
    }

    fn run(&mut self) -> Law {
        for _ in 0..TROUBLE {
            if self.dice().one_in(2) {
                self.world.trouble();
            }
            self.tick()?;
            self.arrivals()?;
        }
        self.world.calm();
        self.is_calm = true;
        for _ in 0..CALM + SERVED {
            self.tick()?;
            let is_over = |session: &Session| matches!(session.phase, Phase::Ended);
            if self.sessions.iter().all(is_over) {
                return Ok(());
            }
        }
        Err("somebody was never served".to_owned())
    }

    fn tick(&mut self) -> Law {
        let before = self.world.last.number;
        self.world.tick(!self.is_calm)?;
        if self.world.lives != self.life {
            self.begin();
        }
        for (index, server) in self.world.servers.iter().enumerate() {
            self.processes[index] += u32::from(server.life == Life::Dead);
        }
        if self.world.last.number != before {
            self.publish();
        }
        for worker in 0..WORKERS {
            self.follow(worker)?;
            self.expire(worker);
            self.answer_dials(worker)?;
        }
        self.work()?;
        for worker in 0..WORKERS {
            self.supply_all(worker)?;
            self.look(worker)?;
        }
        Ok(())
    }

    /// Each worker hears of it in its own time, and in order.
    fn publish(&mut self) {
        let topology = Arc::new(self.world.last.clone());
        for index in 0..WORKERS {
            let delay = self.world.dice.below(3) as u32;
            let coming = &mut self.workers[index].coming;
            let before = coming.back().map_or(0, |(due, _)| *due);
            let due = (self.world.ticks + delay).max(before);
            coming.push_back((due, topology.clone()));
        }
    }

    fn arrivals(&mut self) -> Law {
        let count = match self.dice().below(8) {
            0 => 5,
            1..4 => 1,
            _ => 0,
        };
        for nth in 0..count {
            // Within one tick as well, one comes after the other.
            let came = self.now() + Duration::from_micros(nth);
            self.sessions.push(Session {
                worker: self.world.dice.below(WORKERS),
                came,
                times: Times::begin(came),
                place: None,
                phase: Phase::Ended,
            });
            self.seek(self.sessions.len() - 1)?;
        }
        Ok(())
    }

    /// A new snapshot reaches a worker.
    fn follow(&mut self, index: usize) -> Law {
        while let Some((due, _)) = self.workers[index].coming.front()
            && *due <= self.world.ticks
            && let Some((_, topology)) = self.workers[index].coming.pop_front()
        {
            let worker = &mut self.workers[index];
            let timeline = topology.primary().and_then(|primary| primary.timeline);
            worker.highest = worker.highest.max(timeline.unwrap_or(0));
            worker.topology = topology;
            let mut woken = Vec::new();
            for node in 0..worker.pools.len() {
                woken.extend(self.set_view(index, node));
            }
            for (id, session) in self.sessions.iter_mut().enumerate() {
                if session.worker == index && matches!(session.phase, Phase::Held) {
                    session.times.node_found(self.world.now);
                    woken.push(id);
                }
            }
            self.end_deposed(index);
            if self.bug == Bug::SleepsOn {
                continue;
            }
            // Nobody's turn depends on who is woken first.
            while !woken.is_empty() {
                let next = self.world.dice.below(woken.len());
                self.seek(woken.swap_remove(next))?;
            }
        }
        Ok(())
    }

    /// Returns those who choose again.
    fn set_view(&mut self, index: usize, node: usize) -> Vec<usize> {
        let worker = &mut self.workers[index];
        let (pool, view) = (&mut worker.pools[node], &worker.topology.nodes[node]);
        let renewed = pool.view.generation != view.generation;
        pool.view = view.clone();
        if renewed {
            pool.ramp = Ramp::default();
        }
        if !renewed && view.is_up() {
            return Vec::new();
        }
        if self.bug != Bug::KeepsServers {
            pool.idle.clear();
        }
        let again = pool.line.dismiss_all();
        pool.budget.set_oldest(index, None);
        again
    }

    fn end_deposed(&mut self, index: usize) {
        if self.bug == Bug::KeepsSessions {
            return;
        }
        let topology = &self.workers[index].topology;
        for session in self.sessions.iter_mut().filter(|it| it.worker == index) {
            if let Phase::Writes { on, .. } = &session.phase {
                let view = &topology.nodes[on.node];
                if tenure(Route::Primary, Access::Full, view) == Tenure::Deposed {
                    session.phase = Phase::Ended;
                }
            }
        }
    }

    /// As `checkout` does.
    fn seek(&mut self, id: usize) -> Law {
        let (now, index) = (self.now(), self.sessions[id].worker);
        let node = match writable(&self.workers[index].topology, None) {
            Ok(node) => node,
            Err(_) => return self.wait_for_node(id),
        };
        let is_late = matches!(self.sessions[id].phase, Phase::Held);
        let session = &mut self.sessions[id];
        session.place = None;
        let mut waits = session.times.waits(PATIENCE, Resolve::Stay);
        if self.bug == Bug::LosesTurn && is_late {
            waits.came = now;
        }
        session.phase = Phase::InLine(node);
        let pool = &mut self.workers[index].pools[node];
        if pool.line.is_empty()
            && let Some(conn) = pool.idle.pop()
        {
            return self.checkin(index, conn, Some(id));
        }
        pool.line.join(Waiter {
            came: waits.came,
            until: waits.until,
            resolve: waits.resolve,
            grant: id,
        });
        self.line_changed(index, node);
        self.supply(index, node)
    }

    fn wait_for_node(&mut self, id: usize) -> Law {
        let now = self.now();
        let is_held = |session: &&Session| session.place.is_some();
        let count = self.sessions.iter().filter(is_held).count();
        let session = &mut self.sessions[id];
        session.phase = Phase::Held;
        if session.place.is_none() {
            session.place = self.held.enter(MAX_HELD);
        }
        let waited = now.saturating_duration_since(session.came);
        let is_over = session.times.left(HOLD, now).is_zero();
        match (&session.place, is_over) {
            (Some(_), false) => return Ok(()),
            (None, _) if count < MAX_HELD => {
                return Err(format!("session {id} was turned away by {count} others"));
            }
            (Some(_), true) if waited < HOLD => {
                return Err(format!("session {id} was refused after {waited:?}"));
            }
            _ => {}
        }
        session.place = None;
        session.phase = Phase::Ended;
        Ok(())
    }

    fn line_changed(&mut self, index: usize, node: usize) {
        let pool = &self.workers[index].pools[node];
        pool.budget.set_oldest(index, pool.line.oldest());
    }

    fn expire(&mut self, index: usize) {
        let now = self.now();
        for node in 0..self.workers[index].pools.len() {
            let pool = &mut self.workers[index].pools[node];
            for id in pool.line.dismiss(|waiter| waiter.until <= now) {
                self.sessions[id].phase = Phase::Ended;
            }
            self.line_changed(index, node);
        }
        for session in self.sessions.iter_mut().filter(|it| it.worker == index) {
            let is_held = matches!(session.phase, Phase::Held);
            if is_held && session.times.left(HOLD, now).is_zero() {
                session.place = None;
                session.phase = Phase::Ended;
            }
        }
    }

    fn supply_all(&mut self, index: usize) -> Law {
        (0..self.workers[index].pools.len()).try_for_each(|node| self.supply(index, node))
    }

    /// Dials what the line wants, or gets it from another worker.
    fn supply(&mut self, index: usize, node: usize) -> Law {
        loop {
            let now = self.now();
            let pool = &mut self.workers[index].pools[node];
            let under_way = pool.dials.len();
            if under_way >= pool.line.len() || pool.ramp.room(under_way, now) == 0 {
                return Ok(());
            }
            match pool.budget.try_acquire(index) {
                Ok(permit) => {
                    let generation = pool.view.generation;
                    let due = self.world.ticks + 1 + self.world.dice.below(2) as u32;
                    self.workers[index].pools[node].dials.push(Dial {
                        due,
                        generation,
                        permit,
                    });
                }
                Err(_) => {
                    let other = &mut self.workers[1 - index].pools[node];
                    return match other.idle.pop() {
                        Some(conn) => self.hand_over(conn, index),
                        None => Ok(()),
                    };
                }
            }
        }
    }

    fn answer_dials(&mut self, index: usize) -> Law {
        for node in 0..self.workers[index].pools.len() {
            loop {
                let ticks = self.world.ticks;
                let dials = &mut self.workers[index].pools[node].dials;
                let Some(at) = dials.iter().position(|dial| dial.due <= ticks) else {
                    break;
                };
                let dial = dials.swap_remove(at);
                self.answer_dial(index, node, dial)?;
            }
        }
        Ok(())
    }

    fn answer_dial(&mut self, index: usize, node: usize, dial: Dial) -> Law {
        let server = self.world.servers[node];
        let is_full = !self.is_calm && self.world.dice.one_in(8);
        let gets_in = server.life == Life::Running && !server.is_cut_off && !is_full;
        let now = self.now();
        let pool = &mut self.workers[index].pools[node];
        if gets_in {
            pool.ramp.got_in();
            let conn = Conn {
                node,
                generation: dial.generation,
                process: self.processes[node],
                permit: dial.permit,
            };
            return self.checkin(index, conn, None);
        }
        drop(dial.permit);
        if pool.view.generation == dial.generation {
            let error = Error::proxy(Kind::Full, "refused");
            pool.ramp.failed(error, now, BACKOFF);
            if self.bug == Bug::ForgetsWaiters {
                pool.line.dismiss_all();
            }
        }
        Ok(())
    }

    /// A server that owes nothing goes to `next`, who finds it idle, or where it is needed.
    fn checkin(&mut self, index: usize, conn: Conn, next: Option<usize>) -> Law {
        let pool = &self.workers[index].pools[conn.node];
        let (node, admits) = (conn.node, pool.view.admits(conn.generation));
        if !admits && self.bug != Bug::KeepsServers {
            drop(conn);
            if let Some(id) = next {
                return self.seek(id);
            }
            return self.supply(index, node);
        }
        if let Some(id) = next {
            return self.grant(id, conn);
        }
        match pool.budget.neediest(index, pool.line.oldest()) {
            Some(other) => {
                self.hand_over(conn, other)?;
                self.supply(index, node)
            }
            None => self.give(index, conn),
        }
    }

    fn hand_over(&mut self, mut conn: Conn, to: usize) -> Law {
        conn.permit.move_to(to);
        match self.workers[to].pools[conn.node]
            .view
            .admits(conn.generation)
        {
            true => self.give(to, conn),
            false => Ok(()),
        }
    }

    fn give(&mut self, index: usize, conn: Conn) -> Law {
        let node = conn.node;
        let next = self.workers[index].pools[node].line.take_first();
        self.line_changed(index, node);
        match next {
            Some(id) => self.grant(id, conn),
            None => {
                self.workers[index].pools[node].idle.push(conn);
                Ok(())
            }
        }
    }

    /// A session gets a server for its write.
    fn grant(&mut self, id: usize, on: Conn) -> Law {
        let (came, worker) = (
            self.sessions[id].came,
            &self.workers[self.sessions[id].worker],
        );
        let (node, view) = (on.node, &worker.topology.nodes[on.node]);
        let is_primary = worker.topology.primary == Some(node);
        if !is_primary || view.generation != on.generation || view.timeline < Some(worker.highest) {
            return Err(format!(
                "session {id} was let through to node {node}: {view:?}"
            ));
        }
        let waits_longer = |other: &Session| {
            other.worker == self.sessions[id].worker
                && matches!(other.phase, Phase::InLine(of) if of == node)
                && other.came < came
        };
        if let Some(other) = self.sessions.iter().position(waits_longer) {
            return Err(format!(
                "session {id} was served before {other}, which came first"
            ));
        }
        let left = 1 + self.world.dice.below(3) as u32;
        self.sessions[id].phase = Phase::Writes { on, left };
        Ok(())
    }

    /// Those who have a server wait for its answer.
    fn work(&mut self) -> Law {
        for id in 0..self.sessions.len() {
            let Phase::Writes { on, left } = &mut self.sessions[id].phase else {
                continue;
            };
            *left = left.saturating_sub(1);
            let server = self.world.servers[on.node];
            let is_dead = self.processes[on.node] != on.process;
            let is_silent = server.life == Life::Frozen || server.is_cut_off;
            if !is_dead && (*left > 0 || is_silent) {
                continue;
            }
            let phase = std::mem::replace(&mut self.sessions[id].phase, Phase::Ended);
            let Phase::Writes { on, .. } = phase else {
                continue;
            };
            if !is_dead {
                self.acknowledged(id, on)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, id: usize, on: Conn) -> Law {
        let index = self.sessions[id].worker;
        let topology = &self.workers[index].topology;
        let is_replaced = topology.primary.is_some_and(|primary| primary != on.node);
        if is_replaced || topology.nodes[on.node].health == Health::Fenced {
            let node = on.node;
            return Err(format!(
                "node {node} was replaced, and acknowledged a write of {id}"
            ));
        }
        self.checkin(index, on, None)
    }

    /// What must be so after every tick.
    fn look(&mut self, index: usize) -> Law {
        let draw = Draw {
            random: [self.world.dice.below(1 << 32) as u32, 7],
            now: Moment::of(self.now()),
            zone: "",
        };
        let (now, worker) = (self.now(), &self.workers[index]);
        let (topology, node) = (&worker.topology, worker.topology.primary);
        let chosen = balance::choose(topology, PrimaryReads::Last, &draw);
        let reads = chosen.is_some_and(|node| topology.nodes[node].is_up());
        if topology.replicas_up().next().is_some() && !reads {
            return Err(format!("reads do not go on: {topology:?}"));
        }
        let all = self.sessions.iter().enumerate();
        for (id, session) in all.filter(|(_, session)| session.worker == index) {
            let longest = match session.phase {
                Phase::Held if node.is_some() => {
                    return Err(format!("session {id} sleeps beside a primary"));
                }
                Phase::InLine(of) if Some(of) != node => {
                    return Err(format!("session {id} waits for {of}, which is no primary"));
                }
                Phase::Held => HOLD,
                Phase::InLine(_) => HOLD + PATIENCE,
                Phase::Writes { .. } | Phase::Ended => continue,
            };
            if now > session.came + longest + TICK {
                return Err(format!("session {id} waits for ever"));
            }
        }
        Ok(())
    }
}

#[test]
fn no_world_makes_a_waiting_writer_overtaken_forgotten_or_let_through_to_a_replaced_primary() {
    let now = Instant::now();
    run_seeds(5_000, |seed| Proxy::new(seed, Bug::None, now).run());
}

#[test]
fn a_planted_bug_is_found() {
    let now = Instant::now();
    for (bug, says) in [
        (Bug::KeepsServers, "was let through to"),
        (Bug::KeepsSessions, "acknowledged a write"),
        (Bug::LosesTurn, "which came first"),
        (Bug::SleepsOn, "sleeps beside a primary"),
        (Bug::ForgetsWaiters, "which came first"),
    ] {
        let run = |seed| Proxy::new(seed, bug, now).run();
        let found = first_failure(0..5_000, run);
        let (seed, error) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        assert!(error.contains(says), "{bug:?}, seed {seed}: {error}");
        assert_eq!(run(seed), Err(error));
    }
}
