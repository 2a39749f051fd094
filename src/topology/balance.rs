//! Which replica serves a read: power of two choices. Pure; the random numbers and the time come in.
//!
//! Two candidates are drawn by their *share*, and the one with fewer servers checked out per share is taken. A share is the
//! node's weight, less while it has just returned, and less by as much as its answers take longer than the fastest's. Drawing two
//! keeps the choice cheap and the workers from herding to the one node that looked idle a moment ago.
//!
//! Passed over while there is another are nodes that could not be dialled a moment ago, outliers ([`super::load`]), and those of
//! other zones than the proxy's own.

use std::time::Duration;

use super::{Moment, NodeView, Role, Topology, load::Octaves};
use crate::config::PrimaryReads;

/// A node that returns to others has a part of its share at first, and all of it after this time: its caches are cold.
const SLOW_START: Duration = Duration::from_secs(10);
/// All of a share, before the weight.
const WHOLE: u64 = 64;
/// Of [`WHOLE`], that a node begins with.
const FIRST: u64 = 8;
/// So many octaves slower than the fastest a node has its whole share: as much may be by what it was asked.
const SPARED: u16 = 2;
/// A node of another zone is taken when those of the own have so much more to do.
const OVERFLOW: u64 = 8;

/// What a choice is made with.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Two independent uniform numbers.
    pub random: [u32; 2],
    pub now: Moment,
    /// Where the proxy stands; empty: anywhere.
    pub zone: &'a str,
}

/// The node (index into `topology.nodes`) for a read of a listener with this `primary` rule; None when no node may
/// serve it.
///
/// Candidates are in rotation and have a weight above 0. `Last` adds the primary only while no replica is one.
pub fn choose(topology: &Topology, primary: PrimaryReads, draw: &Draw) -> Option<usize> {
    let of = |takes: fn(&NodeView) -> bool| choose_among(topology, draw, &takes);
    let replica = || of(|node| node.role == Role::Replica);
    match primary {
        PrimaryReads::Never => replica(),
        PrimaryReads::Also => of(|node| node.role != Role::Unknown),
        PrimaryReads::Last => replica().or_else(|| of(|node| node.role == Role::Primary)),
    }
}

/// A replica that `takes` the read, chosen as by [`choose`].
pub fn choose_replica(
    topology: &Topology,
    takes: impl Fn(&NodeView) -> bool,
    draw: &Draw,
) -> Option<usize> {
    let takes = |node: &NodeView| node.role == Role::Replica && takes(node);
    choose_among(topology, draw, &takes)
}

type Takes<'a> = &'a dyn Fn(&NodeView) -> bool;

fn choose_among(topology: &Topology, draw: &Draw, takes: Takes) -> Option<usize> {
    let reachable = |node: &NodeView| takes(node) && !node.load.is_shunned();
    let sound = |node: &NodeView| reachable(node) && !node.load.is_ejected(draw.now);
    choose_by_zone(topology, draw, &sound)
        .or_else(|| choose_by_zone(topology, draw, &reachable))
        .or_else(|| choose_by_zone(topology, draw, takes))
}

fn choose_by_zone(topology: &Topology, draw: &Draw, takes: Takes) -> Option<usize> {
    if draw.zone.is_empty() {
        return Candidates::new(topology, draw, takes).draw_two();
    }
    let is_near = |node: &NodeView| takes(node) && node.config.zone == draw.zone;
    let is_far = |node: &NodeView| takes(node) && node.config.zone != draw.zone;
    let near = Candidates::new(topology, draw, &is_near);
    let far = Candidates::new(topology, draw, &is_far);
    match (near.draw_two(), far.draw_two()) {
        (Some(own), Some(other)) => {
            let (doing, could) = (near.in_flight(own), far.in_flight(other) + 1);
            let overflows = doing * far.share_of(other) > OVERFLOW * could * near.share_of(own);
            Some(if overflows { other } else { own })
        }
        (own, other) => own.or(other),
    }
}

struct Candidates<'a> {
    topology: &'a Topology,
    draw: &'a Draw<'a>,
    takes: Takes<'a>,
    /// The fastest's pace.
    best: Option<Octaves>,
    /// One of them has been in rotation for long. While none has, none is spared.
    has_settled: bool,
}

impl<'a> Candidates<'a> {
    fn new(topology: &'a Topology, draw: &'a Draw<'a>, takes: Takes<'a>) -> Self {
        let mut candidates = Candidates {
            topology,
            draw,
            takes,
            best: None,
            has_settled: false,
        };
        let paces = candidates.nodes().filter_map(|(_, node)| node.load.pace());
        let best = paces.min();
        let has_settled = candidates
            .nodes()
            .any(|(_, node)| candidates.up_for(node) >= SLOW_START);
        candidates.best = best;
        candidates.has_settled = has_settled;
        candidates.look_for_outliers();
        candidates
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &'a NodeView)> {
        let nodes = self.topology.nodes.iter().map(|node| &**node).enumerate();
        nodes.filter(|(_, node)| node.is_up() && node.config.weight > 0 && (self.takes)(node))
    }

    fn look_for_outliers(&self) {
        let Some(best) = self.best else {
            return;
        };
        for (_, node) in self.nodes() {
            if node.load.compare(best, self.draw.now) {
                let latency = node.load.latency(self.draw.now);
                tracing::warn!(
                    node = node.config.name,
                    ?latency,
                    "far slower than others: passed over for a while"
                );
            }
        }
    }

    fn up_for(&self, node: &NodeView) -> Duration {
        self.draw.now.since(Moment::of(node.since))
    }

    fn share(&self, node: &NodeView) -> u64 {
        u64::from(node.config.weight) * self.ramp(node) * self.speed(node)
    }

    /// Of [`WHOLE`].
    fn ramp(&self, node: &NodeView) -> u64 {
        if !self.has_settled {
            return WHOLE;
        }
        let up = self.up_for(node).min(SLOW_START).as_millis() as u64;
        (WHOLE * up / SLOW_START.as_millis() as u64).max(FIRST)
    }

    /// Of [`WHOLE`].
    fn speed(&self, node: &NodeView) -> u64 {
        let own = node.load.pace_at(self.draw.now);
        let beyond = self.best.zip(own).map(|(best, own)| own.beyond(best));
        beyond.map_or(WHOLE, |octaves| octaves.share_of(WHOLE, SPARED))
    }

    fn share_of(&self, index: usize) -> u64 {
        self.share(&self.topology.nodes[index])
    }

    fn in_flight(&self, index: usize) -> u64 {
        u64::from(self.topology.nodes[index].load.in_flight())
    }

    fn draw_two(&self) -> Option<usize> {
        let [one, other] = self.draw.random;
        let first = self.draw_one(one, None)?;
        let Some(second) = self.draw_one(other, Some(first)) else {
            return Some(first);
        };
        Some(if self.busier(first, second) {
            second
        } else {
            first
        })
    }

    /// One candidate by share, `without` left out.
    fn draw_one(&self, random: u32, without: Option<usize>) -> Option<usize> {
        let open = || self.nodes().filter(|(index, _)| Some(*index) != without);
        let total: u64 = open().map(|(_, node)| self.share(node)).sum();
        // `random / 2^32` of the total: always below it, as random < 2^32.
        let mut point = ((u128::from(random) * u128::from(total)) >> 32) as u64;
        let mut last = None;
        for (index, node) in open() {
            let share = self.share(node);
            if point < share {
                return Some(index);
            }
            point -= share;
            // Another worker may make a share smaller meanwhile.
            last = Some(index);
        }
        last
    }

    /// Whether `a` has more in flight per share than `b`. Between equals the draw decides, which knows the shares:
    /// were the next one counted too, of two idle nodes the heavier would get everything.
    fn busier(&self, a: usize, b: usize) -> bool {
        self.in_flight(a) * self.share_of(b) > self.in_flight(b) * self.share_of(a)
    }
}

#[cfg(test)]
mod sim;

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::Ordering},
        time::Instant,
    };

    use super::*;
    use crate::{
        config,
        topology::{Health, Role},
    };

    /// A topology of nodes (role, health, weight, in flight).
    fn topology(nodes: &[(Role, Health, u32, u32)]) -> Topology {
        let view = |(role, health, weight, in_flight): &(Role, Health, u32, u32)| {
            let node = config::Node {
                weight: *weight,
                max_servers: 1,
                ..config::Node::at("n", "h", 1)
            };
            let mut view = NodeView::unheard(Arc::new(node), Instant::now());
            (view.role, view.health) = (*role, *health);
            view.load.in_flight.store(*in_flight, Ordering::Relaxed);
            Arc::new(view)
        };
        let up = |n: &(Role, Health, u32, u32)| (n.0, n.1) == (Role::Primary, Health::Up);
        Topology {
            number: 1,
            primary: nodes.iter().position(up),
            nodes: nodes.iter().map(view).collect(),
            alarms: Vec::new(),
        }
    }

    fn draw(random: [u32; 2]) -> Draw<'static> {
        Draw {
            random,
            now: Moment::now(),
            zone: "",
        }
    }

    const UP: Health = Health::Up;
    const POINTS: [u32; 5] = [0, u32::MAX / 4, u32::MAX / 2, u32::MAX / 4 * 3, u32::MAX];

    /// Every node that can be chosen.
    fn chosen(topology: &Topology, primary: PrimaryReads) -> Vec<usize> {
        let pairs = POINTS.iter().flat_map(|a| POINTS.map(|b| [*a, b]));
        let mut all: Vec<_> = pairs
            .filter_map(|r| choose(topology, primary, &draw(r)))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn the_primary_reads_never_last_or_also() {
        use PrimaryReads::{Also, Last, Never};
        let both = topology(&[(Role::Primary, UP, 1, 0), (Role::Replica, UP, 1, 0)]);
        assert_eq!(chosen(&both, Never), [1]);
        assert_eq!(chosen(&both, Last), [1]);
        let tie = [
            chosen(&both, Also).contains(&0),
            chosen(&both, Also).contains(&1),
        ];
        assert_eq!(tie, [true, true]);
        let alone = topology(&[
            (Role::Primary, UP, 1, 0),
            (Role::Replica, Health::Down, 1, 0),
        ]);
        assert!(chosen(&alone, Never).is_empty());
        assert_eq!(chosen(&alone, Last), [0]);
        assert_eq!(chosen(&alone, Also), [0]);
    }

    #[test]
    fn only_nodes_in_rotation_with_a_weight_are_chosen() {
        let t = topology(&[
            (Role::Replica, Health::Down, 1, 0),
            (Role::Replica, Health::Draining, 1, 0),
            (Role::Unknown, Health::Fenced, 1, 0),
            (Role::Unknown, UP, 1, 0),
            (Role::Replica, UP, 0, 0),
            (Role::Primary, Health::Draining, 1, 0),
            (Role::Replica, UP, 1, 9),
        ]);
        for primary in [PrimaryReads::Never, PrimaryReads::Last, PrimaryReads::Also] {
            assert_eq!(chosen(&t, primary), [6], "{primary:?}");
        }
        assert_eq!(
            choose(&topology(&[]), PrimaryReads::Also, &draw([0, 0])),
            None
        );
    }

    #[test]
    fn the_less_loaded_of_two_is_taken_load_counting_per_weight() {
        let t = topology(&[(Role::Replica, UP, 1, 3), (Role::Replica, UP, 1, 2)]);
        assert_eq!(chosen(&t, PrimaryReads::Never), [1]);
        let t = topology(&[(Role::Replica, UP, 1, 3), (Role::Replica, UP, 4, 5)]);
        assert_eq!(chosen(&t, PrimaryReads::Never), [1]);
    }

    #[test]
    fn idle_nodes_are_drawn_by_their_weight() {
        let t = topology(&[(Role::Replica, UP, 100, 0), (Role::Replica, UP, 300, 0)]);
        let total = t.nodes.iter().map(|n| n.config.weight).sum::<u32>();
        let draws = (0..total).map(|i| (u64::from(i) * (1 << 32) / u64::from(total)) as u32 + 1);
        let draw = draw([0, 0]);
        let candidates = Candidates::new(&t, &draw, &|_| true);
        let first = draws.filter_map(|random| candidates.draw_one(random, None));
        assert_eq!(first.filter(|index| *index == 0).count(), 100);
    }

    #[test]
    fn a_node_that_cannot_be_dialled_is_passed_over_unless_it_is_the_last() {
        let t = topology(&[(Role::Replica, UP, 1, 0), (Role::Replica, UP, 1, 9)]);
        t.nodes[0].load.shun();
        assert_eq!(chosen(&t, PrimaryReads::Never), [1]);
        t.nodes[1].load.shun();
        assert_eq!(chosen(&t, PrimaryReads::Never), [0]);
    }

    #[test]
    fn of_two_idle_nodes_each_gets_its_share() {
        let t = topology(&[(Role::Replica, UP, 100, 0), (Role::Replica, UP, 300, 0)]);
        assert_eq!(chosen(&t, PrimaryReads::Never), [0, 1]);
    }
}
