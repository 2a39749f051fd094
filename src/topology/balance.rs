//! Which replica serves a read: power of two choices. Pure; the random numbers and the time come in.
//!
//! Two candidates are drawn by their *share*, and the one with fewer servers checked out per share is taken. A share is the
//! node's weight, less while it has just returned, and less by as much as its answers take longer than the fastest's. Drawing two
//! keeps the choice cheap and the workers from herding to the one node that looked idle a moment ago.
//!
//! Passed over while there is another are nodes that could not be dialled a moment ago, outliers ([`super::load`]), and those of
//! other zones than the proxy's own.

use std::time::Duration;

use smallvec::SmallVec;

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
    let candidates = candidates(topology, draw, takes);
    if draw.zone.is_empty() {
        return draw_two(&candidates, draw.random).map(|it| it.index);
    }
    let (near, far): (Candidates, Candidates) = candidates.into_iter().partition(|it| it.is_near);
    let (near, far) = (draw_two(&near, draw.random), draw_two(&far, draw.random));
    match (near, far) {
        (Some(own), Some(other)) => {
            let (doing, could) = (own.in_flight, other.in_flight + 1);
            let overflows = doing * other.share > OVERFLOW * could * own.share;
            Some(if overflows { other } else { own })
        }
        (own, other) => own.or(other),
    }
    .map(|it| it.index)
}

/// More nodes than this, and a choice allocates.
type Candidates = SmallVec<[Candidate; 8]>;

/// A node that may be chosen, as it was when the choice began: other workers change it meanwhile.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// In `topology.nodes`.
    index: usize,
    share: u64,
    in_flight: u64,
    /// It is of the proxy's zone.
    is_near: bool,
}

fn candidates(topology: &Topology, draw: &Draw, takes: Takes) -> Candidates {
    let nodes = topology.nodes.iter().map(|node| &**node).enumerate();
    let open = nodes.filter(|(_, node)| node.is_up() && node.config.weight > 0 && takes(node));
    let open: SmallVec<[(usize, &NodeView); 8]> = open.collect();
    let up_for = |node: &NodeView| draw.now.since(Moment::of(node.since));
    // While none has been in rotation for long, none is spared.
    let is_alone = open.len() < 2;
    let spares = !is_alone && open.iter().any(|(_, node)| up_for(node) >= SLOW_START);
    let best = open.iter().filter_map(|(_, node)| node.load.pace()).min();
    let of = |&(index, node): &(usize, &NodeView)| {
        let pace = best.zip(node.load.pace_at(draw.now));
        if let Some((best, own)) = pace {
            look_for_outlier(node, own, best, draw.now);
        }
        let ramp = if spares { ramp(up_for(node)) } else { WHOLE };
        let speed = pace.map_or(WHOLE, |(best, own)| {
            own.beyond(best).share_of(WHOLE, SPARED)
        });
        Candidate {
            index,
            share: u64::from(node.config.weight) * ramp * speed,
            in_flight: u64::from(node.load.in_flight()),
            is_near: node.config.zone == draw.zone,
        }
    };
    open.iter().map(of).collect()
}

fn look_for_outlier(node: &NodeView, own: Octaves, best: Octaves, now: Moment) {
    if node.load.compare(own, best, now) {
        let latency = node.load.latency(now);
        let node = &node.config.name;
        tracing::warn!(
            node,
            ?latency,
            "far slower than others: passed over for a while"
        );
    }
}

/// Of [`WHOLE`], for a node that has been in rotation so long.
fn ramp(up: Duration) -> u64 {
    let up = up.min(SLOW_START).as_millis() as u64;
    (WHOLE * up / SLOW_START.as_millis() as u64).max(FIRST)
}

fn draw_two(candidates: &[Candidate], [one, other]: [u32; 2]) -> Option<Candidate> {
    let first = draw_one(candidates, one, None)?;
    let second = draw_one(candidates, other, Some(first.index));
    // Between equals the draw decides, which knows the shares: were the next one counted too, of two idle nodes the
    // heavier would get everything.
    let is_busier = |a: Candidate, b: Candidate| a.in_flight * b.share > b.in_flight * a.share;
    Some(match second {
        Some(second) if is_busier(first, second) => second,
        _ => first,
    })
}

/// One candidate by share, that of the index `without` left out.
fn draw_one(candidates: &[Candidate], random: u32, without: Option<usize>) -> Option<Candidate> {
    let open = || candidates.iter().filter(|it| Some(it.index) != without);
    let total: u64 = open().map(|it| it.share).sum();
    // `random / 2^32` of the total: always below it, as random < 2^32.
    let mut point = ((u128::from(random) * u128::from(total)) >> 32) as u64;
    for candidate in open() {
        if point < candidate.share {
            return Some(*candidate);
        }
        point -= candidate.share;
    }
    None
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
        let candidates = candidates(&t, &draw, &|_| true);
        let first = draws.filter_map(|random| draw_one(&candidates, random, None));
        assert_eq!(first.filter(|it| it.index == 0).count(), 100);
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
