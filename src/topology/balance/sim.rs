//! Replicas of made-up speed in virtual time: who gets how many reads.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::*;
use crate::{config, topology::Health};

/// Long enough after the process's start for moments before it.
const START: Duration = Duration::from_secs(3600);

struct World {
    topology: Topology,
    zone: &'static str,
    /// Since [`START`], in microseconds.
    clock: u64,
    /// (when, on which node, took) of what is under way.
    under_way: BinaryHeap<Reverse<(u64, usize, u64)>>,
    turn: u64,
    served: Vec<u64>,
}

impl World {
    /// Replicas of the given weights and zones, long in rotation.
    fn new(replicas: &[(u32, &str)]) -> World {
        // Before what counts as now in this world.
        let since = Instant::now();
        let view = |(weight, zone): &(u32, &str)| {
            let mut node = config::Node::at("n", "h", 1);
            (node.weight, node.zone) = (*weight, (*zone).to_owned());
            let mut view = NodeView::unheard(Arc::new(node), since);
            (view.role, view.health) = (Role::Replica, Health::Up);
            Arc::new(view)
        };
        World {
            topology: Topology {
                nodes: replicas.iter().map(view).collect(),
                ..Topology::default()
            },
            zone: "",
            clock: 0,
            under_way: BinaryHeap::new(),
            turn: 0,
            served: vec![0; replicas.len()],
        }
    }

    fn now(&self) -> Moment {
        Moment::NEVER
            .after(START)
            .after(Duration::from_micros(self.clock))
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.turn = self.turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.turn;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn answer_until(&mut self, clock: u64) {
        while let Some(Reverse((at, node, took))) = self.under_way.peek().copied() {
            if at > clock {
                break;
            }
            self.under_way.pop();
            self.clock = at;
            let load = &self.topology.nodes[node].load;
            load.in_flight.fetch_sub(1, Relaxed);
            load.note_answer(Duration::from_micros(took), self.now());
        }
        self.clock = clock;
    }

    /// A read every `every` microseconds for so many seconds; `takes(node, random)` is what it takes. The shares, in percent.
    fn run(&mut self, secs: u64, every: u64, takes: impl Fn(usize, u64) -> u64) -> Vec<u64> {
        self.served.fill(0);
        let end = self.clock + secs * 1_000_000;
        while self.clock < end {
            self.answer_until(self.clock + every);
            let random = self.random();
            let draw = Draw {
                random: [random as u32, (random >> 32) as u32],
                now: self.now(),
                zone: self.zone,
            };
            let node = choose(&self.topology, PrimaryReads::Never, &draw).unwrap();
            let took = takes(node, self.random());
            self.served[node] += 1;
            let load = &self.topology.nodes[node].load;
            load.in_flight.fetch_add(1, Relaxed);
            self.under_way
                .push(Reverse((self.clock + took, node, took)));
        }
        let all: u64 = self.served.iter().sum();
        self.served.iter().map(|n| n * 100 / all).collect()
    }

    fn ejections(&self) -> u64 {
        let nodes = self.topology.nodes.iter();
        nodes
            .map(|node| node.load.ejections(crate::topology::Cause::Latency))
            .sum()
    }

    /// This replica has just returned.
    fn returns(&mut self, node: usize) {
        let mut view = NodeView::clone(&self.topology.nodes[node]);
        let start = Instant::now();
        view.since = start + self.now().since(Moment::of(start));
        view.load.forgive();
        self.topology.nodes[node] = Arc::new(view);
    }
}

const MS: u64 = 1000;

#[test]
fn equal_replicas_share_evenly_whatever_the_load() {
    for every in [100, MS, 20 * MS, 500 * MS] {
        let mut world = World::new(&[(100, ""), (100, "")]);
        let shares = world.run(20, every, |_, random| MS / 2 + random % MS);
        assert!(
            shares.iter().all(|share| (35..=65).contains(share)),
            "{every}: {shares:?}"
        );
        assert_eq!(world.ejections(), 0);
    }
}

#[test]
fn weights_are_shares() {
    let mut world = World::new(&[(100, ""), (300, "")]);
    let shares = world.run(20, 5 * MS, |_, _| MS);
    assert!((70..=80).contains(&shares[1]), "{shares:?}");
}

#[test]
fn a_slow_replica_gets_less_before_anything_queues_and_its_share_when_it_is_well() {
    let mut world = World::new(&[(100, ""), (100, "")]);
    world.run(10, 5 * MS, |_, _| MS);
    // Never two at once on the slow one: what is in flight says nothing.
    let slow = world.run(10, 50 * MS, |node, _| if node == 1 { 16 * MS } else { MS });
    assert!((5..=30).contains(&slow[1]), "{slow:?}");
    assert_eq!(world.ejections(), 0);
    world.run(10, 5 * MS, |_, _| MS);
    let well = world.run(10, 5 * MS, |_, _| MS);
    assert!((40..=60).contains(&well[1]), "{well:?}");
}

#[test]
fn a_replica_that_is_far_slower_for_long_is_ejected_and_returns() {
    let mut world = World::new(&[(100, ""), (100, ""), (100, "")]);
    let takes = |node, _| if node == 2 { 200 * MS } else { MS };
    world.run(20, MS, takes);
    assert!(world.ejections() > 0);
    let shares = world.run(60, MS, takes);
    assert!(shares[2] <= 1, "{shares:?}");
    world.run(20, MS, |_, _| MS);
    let shares = world.run(10, MS, |_, _| MS);
    assert!((28..=38).contains(&shares[2]), "{shares:?}");
}

#[test]
fn the_last_replica_is_never_ejected() {
    let mut world = World::new(&[(100, ""), (0, "")]);
    let shares = world.run(
        60,
        10 * MS,
        |_, random| {
            if random % 2 == 0 { 2000 * MS } else { MS }
        },
    );
    assert_eq!((shares[0], world.ejections()), (100, 0));
    let now = world.now();
    while !world.topology.nodes[0].load.note_failure(now) {}
    assert_eq!(world.run(1, 10 * MS, |_, _| MS)[0], 100);
}

#[test]
fn reports_among_short_statements_neither_eject_a_replica_nor_starve_it() {
    for every in [2 * MS, 20 * MS, 200 * MS] {
        let mut world = World::new(&[(100, ""), (100, "")]);
        let shares = world.run(
            120,
            every,
            |_, random| {
                if random % 20 == 0 { 3000 * MS } else { MS }
            },
        );
        assert!(
            shares.iter().all(|share| (25..=75).contains(share)),
            "{every}: {shares:?}"
        );
        assert_eq!(world.ejections(), 0, "{every}");
    }
}

#[test]
fn a_replica_that_returns_to_others_begins_with_a_part_of_its_share() {
    let mut world = World::new(&[(100, ""), (100, "")]);
    world.run(20, 2 * MS, |_, _| MS);
    world.returns(1);
    let at_first = world.run(1, 2 * MS, |_, _| MS);
    assert!((4..=20).contains(&at_first[1]), "{at_first:?}");
    world.run(9, 2 * MS, |_, _| MS);
    let later = world.run(10, 2 * MS, |_, _| MS);
    assert!((40..=60).contains(&later[1]), "{later:?}");
    // All of them are as new.
    world.returns(0);
    world.returns(1);
    let both = world.run(1, 2 * MS, |_, _| MS);
    assert!((35..=65).contains(&both[1]), "{both:?}");
}

#[test]
fn reads_stay_in_the_zone_until_it_has_far_more_to_do_or_nobody() {
    let mut world = World::new(&[(100, "a"), (100, "b"), (100, "b")]);
    world.zone = "a";
    assert_eq!(world.run(10, MS, |_, _| 2 * MS)[0], 100);
    let overflow = world.run(10, MS, |_, _| 50 * MS);
    assert!((30..=90).contains(&overflow[0]), "{overflow:?}");
    let now = world.now();
    while !world.topology.nodes[0].load.note_failure(now) {}
    let without = world.run(5, 10 * MS, |_, _| MS);
    assert_eq!(without[0], 0, "{without:?}");
    world.zone = "elsewhere";
    world.run(20, 10 * MS, |_, _| MS);
    let anywhere = world.run(10, 10 * MS, |_, _| MS);
    assert!(anywhere.iter().all(|share| *share > 25), "{anywhere:?}");
}
