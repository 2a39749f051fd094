//! Who waits for a server of one pool, in the order in which they came. Pure.
//!
//! A session came when it first wanted a server, wherever it has waited since: for a node, in the line of one that left its role,
//! or over a dial that failed. So nobody is overtaken because a primary was replaced, and the order does not depend on who was
//! woken first.

use std::{collections::VecDeque, time::Instant};

/// What whoever waits does when the node cannot be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// Only this node will do: stays in line until there is a server, or the node leaves its role.
    Stay,
    /// Another node might do: is told, and chooses again.
    Choose,
}

/// Whoever waits.
#[derive(Debug)]
pub struct Waiter<G> {
    /// When it first wanted a server.
    pub came: Instant,
    /// It waits no longer than until then.
    pub until: Instant,
    pub resolve: Resolve,
    /// How it gets what it waits for.
    pub grant: G,
}

/// See the module's header.
#[derive(Debug)]
pub struct Line<G> {
    /// In order of `came`.
    waiters: VecDeque<Waiter<G>>,
}

impl<G> Default for Line<G> {
    fn default() -> Self {
        Line {
            waiters: VecDeque::new(),
        }
    }
}

impl<G> Line<G> {
    /// Behind all who came before it.
    pub fn join(&mut self, waiter: Waiter<G>) {
        let earlier = self.waiters.iter().rev();
        let behind = earlier.take_while(|other| other.came > waiter.came).count();
        self.waiters.insert(self.waiters.len() - behind, waiter);
    }

    /// Whose turn it is.
    pub fn take_first(&mut self) -> Option<G> {
        self.waiters.pop_front().map(|waiter| waiter.grant)
    }

    /// When the first in line came.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiters.front().map(|waiter| waiter.came)
    }

    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Those for whom `leaves` holds go, in order.
    pub fn dismiss(&mut self, leaves: impl Fn(&Waiter<G>) -> bool) -> Vec<G> {
        if !self.waiters.iter().any(&leaves) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.waiters).into_iter();
        let (gone, kept) = all.partition::<VecDeque<_>, _>(leaves);
        self.waiters = kept;
        gone.into_iter().map(|waiter| waiter.grant).collect()
    }

    /// All go, in order.
    pub fn dismiss_all(&mut self) -> Vec<G> {
        self.dismiss(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waiter(start: Instant, came: u64, until: u64, resolve: Resolve) -> Waiter<u64> {
        Waiter {
            came: start + Duration::from_millis(came),
            until: start + Duration::from_millis(until),
            resolve,
            grant: came,
        }
    }

    fn line(start: Instant, came: &[u64]) -> Line<u64> {
        let mut line = Line::default();
        for came in came {
            line.join(waiter(start, *came, came + 10, Resolve::Stay));
        }
        line
    }

    #[test]
    fn whoever_came_first_is_next_in_whatever_order_they_join() {
        let start = Instant::now();
        for joined in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2]] {
            let mut line = line(start, &joined);
            assert_eq!(line.oldest(), Some(start + Duration::from_millis(1)));
            let served: Vec<_> = std::iter::from_fn(|| line.take_first()).collect();
            assert_eq!(served, [1, 2, 3, 4], "{joined:?}");
        }
    }

    #[test]
    fn of_those_who_came_at_once_the_first_to_join_is_next() {
        let start = Instant::now();
        let mut line = Line::default();
        for grant in 0..4 {
            let mut waiter = waiter(start, 5, 9, Resolve::Stay);
            waiter.grant = grant;
            line.join(waiter);
        }
        assert_eq!(line.dismiss_all(), [0, 1, 2, 3]);
        assert!(line.is_empty());
    }

    #[test]
    fn those_who_leave_take_nobody_s_place_with_them() {
        let start = Instant::now();
        let mut line = line(start, &[1, 2, 30, 40]);
        line.join(waiter(start, 35, 99, Resolve::Choose));
        let at = start + Duration::from_millis(12);
        assert_eq!(line.dismiss(|waiter| waiter.until <= at), [1, 2]);
        assert!(line.dismiss(|waiter| waiter.until <= at).is_empty());
        assert_eq!(line.dismiss(|w| w.resolve == Resolve::Choose), [35]);
        assert_eq!(
            (line.len(), line.take_first(), line.take_first()),
            (2, Some(30), Some(40))
        );
    }
}
