//! The judge in made-up worlds: a seed makes nodes die, freeze, thaw, get cut off, promoted and demoted, facts come late,
//! clocks jump, and the proxy restart; time is virtual. What must never happen is in [`Law`]; when the world is calm
//! again, the right node must be primary.
//!
//! `PGSLUICE_SIM_SEEDS` says how many seeds are run, `PGSLUICE_SIM_SEED` runs one of them alone. The worlds are also those in
//! which sessions wait for a primary (`crate::session::sim`).
//! Beside it, a small model check: all histories of two nodes up to `PGSLUICE_MODEL_DEPTH` facts (5 by default).

use std::{collections::VecDeque, fmt::Debug, time::SystemTime};

use super::{
    tests::{check, node},
    *,
};
use crate::topology::{
    Lsn,
    facts::{Answer, Dial, Wal},
};

pub(crate) const TICK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(300);
const SYSTEM: u64 = 7;

/// So many ticks of trouble in one history.
pub(crate) const TROUBLE: u32 = 24;
/// Within so many calm ticks the right node is primary: patience, settling, late facts, and the two answers in a row.
pub(crate) const CALM: u32 = 40;

/// SplitMix64.
pub(crate) struct Dice(pub u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What must hold over all lives of the proxy.
#[derive(Clone, Default)]
struct Law {
    /// The highest timeline that was followed or written down.
    known: u32,
    /// (timeline, node): who got writes on it, and has not said since that it no longer writes there.
    owners: Vec<(u32, usize)>,
}

impl Law {
    fn hear(&mut self, node: usize, fact: &Fact) {
        if let Fact::Answer(answer) = fact {
            let writes = match answer.wal {
                Wal::Writing { timeline, .. } => Some(timeline),
                Wal::Replaying { .. } => None,
            };
            self.owners
                .retain(|(timeline, owner)| *owner != node || Some(*timeline) == writes);
        }
    }

    fn judge(&mut self, topology: &Topology, state: Option<&State>) -> Result<(), String> {
        check(topology, 0);
        let told = topology.nodes.iter().filter_map(|node| node.timeline).max();
        let written = state.map(|state| state.timeline);
        self.known = self.known.max(written.unwrap_or(0));
        let Some((index, primary)) = topology.primary.zip(topology.primary()) else {
            return Ok(());
        };
        let timeline = primary.timeline.unwrap_or(0);
        let known = self.known.max(told.unwrap_or(0));
        if timeline < known {
            return Err(format!(
                "node {index} gets writes on {timeline}, and {known} is known"
            ));
        }
        self.known = timeline;
        match self.owners.iter().find(|(owned, _)| *owned == timeline) {
            None => self.owners.push((timeline, index)),
            Some((_, owner)) if *owner == index => {}
            Some((_, owner)) => {
                return Err(format!("{owner} and {index} both got writes on {timeline}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Frozen,
    Dead,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub life: Life,
    /// None: it writes.
    upstream: Option<usize>,
    timeline: u32,
    /// What its clock said when it started.
    started: u64,
    clock: u64,
    /// The proxy cannot reach it.
    pub is_cut_off: bool,
    /// As far as the probe knows.
    has_link: bool,
}

/// A defect to plant, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A restart forgets everything.
    NoStateFile,
    /// A restart remembers the timeline and forgets who had it.
    NoIncumbent,
    /// The judge takes what is highest now for the highest ever.
    ForgetsHighest,
}

pub(crate) struct World {
    pub dice: Dice,
    rules: Rules,
    pub now: Instant,
    pub ticks: u32,
    pub servers: Vec<Server>,
    /// Per node, in order: when the proxy learns what.
    on_the_way: Vec<VecDeque<(u32, Fact)>>,
    judge: Judge,
    ids: Vec<NodeId>,
    /// The judge's last snapshot.
    pub last: Topology,
    /// How often the proxy has started.
    pub lives: u32,
    law: Law,
    bug: Bug,
}

const RULES: Rules = Rules {
    patience: PATIENCE,
    settle: SETTLE,
    trust_promotion: false,
    max_staleness: Duration::MAX,
};

fn start(
    rules: Rules,
    nodes: usize,
    state: Option<State>,
    now: Instant,
) -> (Judge, Vec<NodeId>, Topology) {
    let mut judge = Judge::new(rules, state);
    let nodes: Vec<_> = (0..nodes).map(node).collect();
    let (ids, last) = judge.set_nodes(&nodes, now);
    (judge, ids, last)
}

impl World {
    pub fn new(seed: u64, bug: Bug, now: Instant) -> World {
        let mut dice = Dice(seed);
        let count = 2 + dice.below(3);
        let server = |index| Server {
            life: Life::Running,
            upstream: (index > 0).then_some(0),
            timeline: 1,
            started: 1,
            clock: 1,
            is_cut_off: false,
            has_link: false,
        };
        let rules = Rules {
            trust_promotion: dice.one_in(4),
            ..RULES
        };
        let (judge, ids, last) = start(rules, count, None, now);
        World {
            dice,
            rules,
            now,
            ticks: 0,
            servers: (0..count).map(server).collect(),
            on_the_way: vec![VecDeque::new(); count],
            judge,
            ids,
            last,
            lives: 1,
            law: Law::default(),
            bug,
        }
    }

    fn pick(&mut self) -> usize {
        self.dice.below(self.servers.len())
    }

    /// One thing goes wrong, or right.
    pub fn trouble(&mut self) {
        let index = self.pick();
        let server = &mut self.servers[index];
        match self.dice.below(11) {
            0 => server.life = Life::Dead,
            1 if server.life == Life::Running => server.life = Life::Frozen,
            2 | 3 => self.revive(index),
            4 => server.is_cut_off = true,
            5 => server.is_cut_off = false,
            6 | 7 => self.promote(index),
            8 => self.demote(index),
            9 => self.restart_proxy(),
            // The clock jumps, back too: a restart may seem to have begun at the same time as the one before.
            _ => server.clock = self.dice.below(3) as u64,
        }
    }

    /// Thaws or starts; whatever it was when it stopped, it believes that it still is.
    fn revive(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.life == Life::Dead {
            server.started = server.clock;
            server.clock += 1;
        }
        server.life = Life::Running;
    }

    /// Somebody promotes a replica: with reason or without, and not knowing of what others promoted.
    fn promote(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.life == Life::Running && server.upstream.take().is_some() {
            server.timeline += 1;
        }
    }

    /// A writer that is not on the highest timeline alone becomes a replica of one that is, and so do replicas.
    fn demote(&mut self, index: usize) {
        let winner = self.winner();
        if winner != index && self.servers[index].life == Life::Running {
            self.servers[index].upstream = Some(winner);
            self.servers[index].timeline = self.servers[winner].timeline;
        }
    }

    /// The writer with the highest timeline.
    fn winner(&self) -> usize {
        let writers = self.servers.iter().enumerate();
        let writers = writers.filter(|(_, server)| server.upstream.is_none());
        let best = writers.max_by_key(|(index, server)| (server.timeline, *index));
        best.map_or(0, |(index, _)| index)
    }

    fn restart_proxy(&mut self) {
        let mut state = self.judge.state();
        match self.bug {
            Bug::NoStateFile => state = None,
            Bug::NoIncumbent => {
                if let Some(state) = &mut state {
                    state.primary = None;
                }
            }
            Bug::None | Bug::ForgetsHighest => {}
        }
        self.lives += 1;
        self.on_the_way.iter_mut().for_each(VecDeque::clear);
        self.servers.iter_mut().for_each(|it| it.has_link = false);
        (self.judge, self.ids, self.last) = start(self.rules, self.servers.len(), state, self.now);
    }

    /// What the probe of a node finds now.
    fn probe(&mut self, index: usize) -> Vec<Fact> {
        let server = self.servers[index];
        let answers = server.life == Life::Running && !server.is_cut_off;
        let silent = match server.life {
            Life::Dead if !server.is_cut_off => Dial::Refused,
            _ => Dial::TimedOut,
        };
        let facts = match (answers, server.has_link) {
            (true, true) if self.dice.one_in(8) => vec![Fact::Dial(Dial::Accepted)],
            (true, true) => vec![self.answer(server)],
            (true, false) => vec![Fact::Dial(Dial::Accepted), self.answer(server)],
            (false, true) => vec![Fact::LinkLost, Fact::Dial(silent)],
            (false, false) => vec![Fact::Dial(silent)],
        };
        self.servers[index].has_link = answers;
        facts
    }

    fn answer(&self, server: Server) -> Fact {
        let wal = match server.upstream {
            None => Wal::Writing {
                timeline: server.timeline,
                insert: Lsn(1),
            },
            Some(upstream) => {
                let from = &self.servers[upstream];
                // A frozen upstream is not noticed; one that went another way is.
                let streams = from.life != Life::Dead && from.timeline == server.timeline;
                Wal::Replaying {
                    timeline: streams.then_some(server.timeline),
                    replay: Some(Lsn(1)),
                }
            }
        };
        Fact::Answer(Answer {
            asked: self.now,
            system_id: SYSTEM,
            checkpointer: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(server.started)),
            wal,
        })
    }

    /// Every node is probed, and what has arrived is judged. `late`: facts may take up to eight ticks.
    pub fn tick(&mut self, late: bool) -> Result<(), String> {
        self.now += TICK;
        self.ticks += 1;
        for index in 0..self.servers.len() {
            let delay = match late && self.dice.one_in(6) {
                true => self.dice.below(8) as u32,
                false => 0,
            };
            let facts = self.probe(index);
            let queue = &mut self.on_the_way[index];
            let before = queue.back().map_or(0, |(due, _)| *due);
            let due = (self.ticks + delay).max(before);
            queue.extend(facts.into_iter().map(|fact| (due, fact)));
        }
        let first = self.pick();
        for turn in 0..self.servers.len() {
            self.deliver((first + turn) % self.servers.len())?;
        }
        Ok(())
    }

    fn deliver(&mut self, index: usize) -> Result<(), String> {
        while let Some((due, _)) = self.on_the_way[index].front()
            && *due <= self.ticks
            && let Some((_, fact)) = self.on_the_way[index].pop_front()
        {
            self.law.hear(index, &fact);
            if self.bug == Bug::ForgetsHighest {
                self.judge.memory.highest = 0;
            }
            if let Some(next) = self.judge.observe(self.ids[index], self.now, fact) {
                self.last = next;
            }
            self.law.judge(&self.last, self.judge.state().as_ref())?;
        }
        Ok(())
    }

    /// All nodes answer, and all follow one.
    pub fn calm(&mut self) {
        let winner = self.winner();
        for index in 0..self.servers.len() {
            self.revive(index);
            self.servers[index].is_cut_off = false;
            self.demote(index);
        }
        self.servers[winner].upstream = None;
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..TROUBLE {
            if self.dice.one_in(2) {
                self.trouble();
            }
            self.tick(true)?;
        }
        self.calm();
        let winner = self.winner();
        for _ in 0..CALM {
            self.tick(false)?;
            let up = self.last.nodes.iter().filter(|node| node.is_up()).count();
            if self.last.primary == Some(winner) && up == self.servers.len() {
                return Ok(());
            }
        }
        Err(format!("node {winner} should be primary: {:?}", self.last))
    }
}

fn number<T: std::str::FromStr<Err: Debug>>(name: &str) -> Option<T> {
    let set = std::env::var(name).ok()?;
    Some(set.parse().unwrap())
}

/// The first seed of these at which `run` finds the law broken, and how.
pub(crate) fn first_failure(
    seeds: impl Iterator<Item = u64>,
    run: impl Fn(u64) -> Result<(), String>,
) -> Option<(u64, String)> {
    let mut failures = seeds.map(|seed| (seed, run(seed).err()));
    failures.find_map(|(seed, error)| Some((seed, error?)))
}

/// Runs all seeds that the environment asks for, or so many, on all cores.
///
/// # Panics
/// A seed broke the law: says which.
pub(crate) fn run_seeds(count: u64, run: impl Fn(u64) -> Result<(), String> + Sync) {
    let seeds = match number("PGSLUICE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PGSLUICE_SIM_SEEDS").unwrap_or(count),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<_> = std::thread::scope(|scope| {
        let (seeds, run) = (&seeds, &run);
        let share = move |first| seeds.clone().skip(first).step_by(threads);
        let running: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || first_failure(share(first), run)))
            .collect();
        let ended = running.into_iter().map(|thread| thread.join().unwrap());
        ended.flatten().collect()
    });
    if let Some((seed, error)) = failures.first() {
        panic!("PGSLUICE_SIM_SEED={seed} shows it again: {error}");
    }
}

#[test]
fn no_world_makes_the_judge_break_the_law_and_calm_brings_the_right_primary() {
    let now = Instant::now();
    run_seeds(10_000, |seed| World::new(seed, Bug::None, now).run());
}

#[test]
fn a_planted_bug_is_found() {
    let now = Instant::now();
    for bug in [Bug::NoStateFile, Bug::NoIncumbent, Bug::ForgetsHighest] {
        let run = |seed| World::new(seed, bug, now).run();
        let found = first_failure(0..5_000, run);
        let (seed, error) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        assert!(error.contains("writes on"), "{bug:?}, seed {seed}: {error}");
        assert_eq!(run(seed), Err(error));
    }
}

/// All that two nodes can say in the model check, and a restart of the proxy.
#[derive(Debug, Clone, Copy)]
enum Step {
    Writes(u32),
    Receives(u32),
    Dies,
    Restart,
}

const STEPS: [Step; 5] = [
    Step::Writes(1),
    Step::Writes(2),
    Step::Receives(1),
    Step::Receives(2),
    Step::Dies,
];

#[derive(Clone)]
struct Model {
    judge: Judge,
    ids: Vec<NodeId>,
    now: Instant,
    law: Law,
}

impl Model {
    fn new(now: Instant) -> Model {
        let (judge, ids, _) = start(RULES, 2, None, now);
        Model {
            judge,
            ids,
            now,
            law: Law::default(),
        }
    }

    fn take(&mut self, index: usize, step: Step) -> Result<(), String> {
        // Each step may be the one at which the start is settled, or the patience over.
        self.now += SETTLE;
        let wal = match step {
            Step::Writes(timeline) => Wal::Writing {
                timeline,
                insert: Lsn(1),
            },
            Step::Receives(timeline) => Wal::Replaying {
                timeline: Some(timeline),
                replay: None,
            },
            Step::Dies => {
                self.tell(index, Fact::LinkLost)?;
                return self.tell(index, Fact::Dial(Dial::Refused));
            }
            Step::Restart => {
                let state = self.judge.state();
                (self.judge, self.ids, _) = start(RULES, 2, state, self.now);
                return Ok(());
            }
        };
        let answer = Fact::Answer(Answer {
            asked: self.now,
            system_id: SYSTEM,
            checkpointer: None,
            wal,
        });
        // Twice, as it takes to come back.
        self.tell(index, answer.clone())?;
        self.tell(index, answer)
    }

    fn tell(&mut self, index: usize, fact: Fact) -> Result<(), String> {
        self.law.hear(index, &fact);
        match self.judge.observe(self.ids[index], self.now, fact) {
            Some(topology) => self.law.judge(&topology, self.judge.state().as_ref()),
            None => Ok(()),
        }
    }

    /// All histories of up to `depth` more steps; the one that broke the law comes back in the error.
    fn explore(&self, depth: u32, path: &mut Vec<(usize, Step)>) -> Result<u64, String> {
        if depth == 0 {
            return Ok(1);
        }
        let of_nodes = (0..2).flat_map(|index| STEPS.map(|step| (index, step)));
        let mut histories = 1;
        for (index, step) in of_nodes.chain([(0, Step::Restart)]) {
            path.push((index, step));
            let mut next = self.clone();
            next.take(index, step)
                .map_err(|error| format!("{error}, after {path:?}"))?;
            histories += next.explore(depth - 1, path)?;
            path.pop();
        }
        Ok(histories)
    }
}

#[test]
fn no_history_of_two_nodes_breaks_the_law() {
    let depth = number("PGSLUICE_MODEL_DEPTH").unwrap_or(5);
    let histories = Model::new(Instant::now()).explore(depth, &mut Vec::new());
    assert!(histories.unwrap() > 11u64.pow(depth));
}
