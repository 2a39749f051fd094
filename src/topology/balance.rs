//! Which replica serves a read: power of two choices. Pure; the random numbers come in.
//!
//! Nodes that could not be dialled a moment ago are passed over while there is another: one of many clients' dials that fails is
//! enough, and the last node stays. Two candidates are drawn by weight, the one with fewer servers checked out per weight is taken. Drawing two keeps
//! the choice cheap and the workers from herding to the one node that looked idle a moment ago.

use super::{NodeView, Role, Topology};
use crate::config::PrimaryReads;

/// The node (index into `topology.nodes`) for a read of a listener with this `primary` rule; None when no node may
/// serve it. `random`: two independent uniform numbers.
///
/// Candidates are in rotation and have a weight above 0. `Last` adds the primary only while no replica is one.
pub fn choose(topology: &Topology, primary: PrimaryReads, random: [u32; 2]) -> Option<usize> {
    let of = |takes: fn(&NodeView) -> bool| Candidates { topology, takes }.choose(random);
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
    random: [u32; 2],
) -> Option<usize> {
    let takes = |node: &NodeView| node.role == Role::Replica && takes(node);
    Candidates { topology, takes }.choose(random)
}

struct Candidates<'a, F> {
    topology: &'a Topology,
    takes: F,
}

impl<F: Fn(&NodeView) -> bool> Candidates<'_, F> {
    /// (index, weight) of each.
    fn weights(&self) -> impl Iterator<Item = (usize, u64)> {
        let nodes = self.topology.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.is_up() && node.config.weight > 0 && (self.takes)(node))
            .map(|(index, node)| (index, u64::from(node.config.weight)))
    }

    fn choose(&self, random: [u32; 2]) -> Option<usize> {
        let is_shunned = |(index, _): (usize, u64)| self.topology.nodes[index].load.is_shunned();
        if self.weights().any(is_shunned) {
            let takes = |node: &NodeView| !node.load.is_shunned() && (self.takes)(node);
            let topology = self.topology;
            let other = Candidates { topology, takes }.draw_two(random);
            return other.or_else(|| self.draw_two(random));
        }
        self.draw_two(random)
    }

    fn draw_two(&self, random: [u32; 2]) -> Option<usize> {
        let first = self.draw(random[0], None)?;
        let Some(second) = self.draw(random[1], Some(first)) else {
            return Some(first);
        };
        Some(if self.busier(first, second) {
            second
        } else {
            first
        })
    }

    /// One candidate by weight, `without` left out.
    fn draw(&self, random: u32, without: Option<usize>) -> Option<usize> {
        let open = || self.weights().filter(|(index, _)| Some(*index) != without);
        let total: u64 = open().map(|(_, weight)| weight).sum();
        // `random / 2^32` of the total: always below it, as random < 2^32.
        let mut point = ((u128::from(random) * u128::from(total)) >> 32) as u64;
        for (index, weight) in open() {
            if point < weight {
                return Some(index);
            }
            point -= weight;
        }
        None
    }

    /// Whether `a` has more in flight per weight than `b`. Between equals the draw decides, which knows the weights:
    /// were the next one counted too, of two idle nodes the heavier would get everything.
    fn busier(&self, a: usize, b: usize) -> bool {
        let nodes = &self.topology.nodes;
        let in_flight = |i: usize| u64::from(nodes[i].load.in_flight());
        let weight = |i: usize| u64::from(nodes[i].config.weight);
        in_flight(a) * weight(b) > in_flight(b) * weight(a)
    }
}

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
                name: "n".into(),
                host: "h".into(),
                port: 1,
                weight: *weight,
                zone: String::new(),
                max_servers: 1,
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

    const UP: Health = Health::Up;
    const POINTS: [u32; 5] = [0, u32::MAX / 4, u32::MAX / 2, u32::MAX / 4 * 3, u32::MAX];

    /// Every node that can be chosen.
    fn chosen(topology: &Topology, primary: PrimaryReads) -> Vec<usize> {
        let pairs = POINTS.iter().flat_map(|a| POINTS.map(|b| [*a, b]));
        let mut all: Vec<_> = pairs.filter_map(|r| choose(topology, primary, r)).collect();
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
        assert_eq!(choose(&topology(&[]), PrimaryReads::Also, [0, 0]), None);
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
        let candidates = Candidates {
            topology: &t,
            takes: |_: &NodeView| true,
        };
        let first = draws.filter_map(|random| candidates.draw(random, None));
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
