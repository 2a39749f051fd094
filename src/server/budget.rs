//! How many servers may be open, over all workers: per (node, database, user), and per node.
//!
//! Workers share these counters and nothing else of a pool. A [`Permit`] is one server's place under both limits and
//! is given back when it is dropped, whatever became of the server.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Counts against a limit that a reload may change.
#[derive(Debug)]
struct Quota {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Quota {
    fn new(limit: usize) -> Self {
        Quota {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    fn try_take(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.used
            .fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1))
            .is_ok()
    }

    fn is_exceeded(&self) -> bool {
        self.used.load(Relaxed) > self.limit.load(Relaxed)
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Relaxed);
    }
}

/// One worker's share in a budget, for the others to see.
#[derive(Debug)]
struct Share {
    held: AtomicUsize,
    /// Since when its oldest waiter waits, in milliseconds of [`Budget::epoch`]; [`NOBODY`] when none does.
    oldest: AtomicU64,
}

/// No one waits.
const NOBODY: u64 = u64::MAX;
/// A waiter of another worker, or of another login under the same limit, comes first when it has waited for so much
/// longer: moving a server there costs system calls or a new login, so it is not done for less.
pub const MAX_LEAD: Duration = Duration::from_millis(100);

impl Share {
    fn new() -> Self {
        Share {
            held: AtomicUsize::new(0),
            oldest: AtomicU64::new(NOBODY),
        }
    }
}

/// The limits that servers of one (node, database, user) are under.
#[derive(Debug)]
pub struct Budget {
    pool: Quota,
    node: Arc<Quota>,
    shares: Box<[Share]>,
    epoch: Instant,
}

/// What stands in the way of one more server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// `pool.size`.
    Pool { size: usize },
    /// The node's `max_servers`.
    Node { max_servers: usize },
}

/// The place of one server under its limits, held by one worker.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    worker: usize,
}

impl Budget {
    /// A place for one more server of `worker`.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn try_acquire(self: &Arc<Self>, worker: usize) -> Result<Permit, Exhausted> {
        if !self.pool.try_take() {
            let size = self.pool.limit.load(Relaxed);
            return Err(Exhausted::Pool { size });
        }
        if !self.node.try_take() {
            self.pool.give_back();
            let max_servers = self.node.limit.load(Relaxed);
            return Err(Exhausted::Node { max_servers });
        }
        self.shares[worker].held.fetch_add(1, Relaxed);
        let budget = self.clone();
        Ok(Permit { budget, worker })
    }

    /// The limit that is reached, if any; the answer may be old at once.
    pub fn exhausted(&self) -> Option<Exhausted> {
        let (pool, node) = (&self.pool, &self.node);
        if pool.used.load(Relaxed) >= pool.limit.load(Relaxed) {
            let size = pool.limit.load(Relaxed);
            return Some(Exhausted::Pool { size });
        }
        let max_servers = node.limit.load(Relaxed);
        (node.used.load(Relaxed) >= max_servers).then_some(Exhausted::Node { max_servers })
    }

    /// Says since when the oldest session of `worker` waits for a server.
    pub fn set_oldest(&self, worker: usize, since: Option<Instant>) {
        let oldest = since.map_or(NOBODY, |since| self.millis(since));
        self.shares[worker].oldest.store(oldest, Relaxed);
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }

    /// The worker that a server returned at `worker` should go to instead, if any: one with waiters, when `worker` has
    /// none itself (`own` says since when its oldest waits), holds at least two servers more, or its oldest waiter
    /// came [`MAX_LEAD`] later.
    pub fn neediest(&self, worker: usize, own: Option<Instant>) -> Option<usize> {
        let held = |i: usize| self.shares[i].held.load(Relaxed);
        let oldest = |i: usize| self.shares[i].oldest.load(Relaxed);
        let lead = MAX_LEAD.as_millis() as u64;
        let goes_before = |i: usize| match own {
            None => true,
            Some(own) => {
                held(i) + 2 <= held(worker) || oldest(i).saturating_add(lead) < self.millis(own)
            }
        };
        (0..self.shares.len())
            .filter(|&i| i != worker && oldest(i) != NOBODY && goes_before(i))
            .min_by_key(|&i| (held(i), oldest(i)))
    }

    /// More servers are open than a limit allows: it was lowered meanwhile.
    pub fn is_exceeded(&self) -> bool {
        self.pool.is_exceeded() || self.node.is_exceeded()
    }

    /// Servers open under this budget, over all workers.
    pub fn used(&self) -> usize {
        self.pool.used.load(Relaxed)
    }
}

impl Permit {
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The server moves to another worker.
    pub fn move_to(&mut self, worker: usize) {
        self.budget.shares[self.worker].held.fetch_sub(1, Relaxed);
        self.budget.shares[worker].held.fetch_add(1, Relaxed);
        self.worker = worker;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.shares[self.worker].held.fetch_sub(1, Relaxed);
        self.budget.pool.give_back();
        self.budget.node.give_back();
    }
}

/// All budgets of the process.
#[derive(Debug)]
pub struct Budgets {
    workers: usize,
    epoch: Instant,
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    nodes: HashMap<String, Arc<Quota>>,
    pools: HashMap<(String, String, String), Arc<Budget>>,
}

impl Budgets {
    pub fn new(workers: usize) -> Self {
        Budgets {
            workers,
            epoch: Instant::now(),
            maps: Mutex::default(),
        }
    }

    /// The budget of (node, database, user) under the limits in force; made at first need. Limits given later replace
    /// earlier ones for all.
    pub fn budget(
        &self,
        (node, max_servers): (&str, usize),
        database: &str,
        user: &str,
        size: usize,
    ) -> Arc<Budget> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let quota = maps
            .nodes
            .entry(node.to_owned())
            .or_insert_with(|| Arc::new(Quota::new(max_servers)))
            .clone();
        quota.limit.store(max_servers, Relaxed);
        let key = (node.to_owned(), database.to_owned(), user.to_owned());
        if !maps.pools.contains_key(&key) {
            // Clients name databases as they like: those that no pool or server is under any more must not pile up.
            maps.pools.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let budget = maps.pools.entry(key).or_insert_with(|| {
            Arc::new(Budget {
                pool: Quota::new(size),
                node: quota,
                shares: (0..self.workers).map(|_| Share::new()).collect(),
                epoch: self.epoch,
            })
        });
        budget.pool.limit.store(size, Relaxed);
        budget.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_refused_at_either_limit_and_given_back_on_drop() {
        let budgets = Budgets::new(2);
        let a = budgets.budget(("pg1", 3), "db", "a", 2);
        let b = budgets.budget(("pg1", 3), "db", "b", 2);
        let first = a.try_acquire(0).unwrap();
        let _second = a.try_acquire(1).unwrap();
        assert_eq!(a.try_acquire(0).err(), Some(Exhausted::Pool { size: 2 }));
        let _third = b.try_acquire(0).unwrap();
        assert_eq!(
            b.try_acquire(0).err(),
            Some(Exhausted::Node { max_servers: 3 })
        );
        assert_eq!(b.used(), 1);
        drop(first);
        assert!(b.try_acquire(0).is_ok());
    }

    #[test]
    fn budgets_that_nobody_is_under_do_not_pile_up() {
        let budgets = Budgets::new(1);
        let kept = budgets.budget(("pg1", 9), "kept", "a", 1);
        let permit = kept.try_acquire(0).unwrap();
        drop(kept);
        for n in 0..1000 {
            budgets.budget(("pg1", 9), &format!("db{n}"), "a", 1);
        }
        assert!(budgets.maps.lock().unwrap().pools.len() <= 3);
        let kept = budgets.budget(("pg1", 9), "kept", "a", 1);
        assert!(kept.try_acquire(0).is_err());
        drop(permit);
        assert!(kept.try_acquire(0).is_ok());
    }

    #[test]
    fn a_returned_server_goes_to_the_worker_in_need() {
        let budget = Budgets::new(2).budget(("pg1", 9), "db", "a", 9);
        let permits: Vec<_> = (0..4).map(|_| budget.try_acquire(0).unwrap()).collect();
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(budget.neediest(0, None), None);
        budget.set_oldest(1, Some(now));
        assert_eq!(budget.neediest(0, None), Some(1));
        assert_eq!(budget.neediest(0, Some(now)), Some(1));
        let mut permits = permits.into_iter();
        let mut moved: Vec<_> = permits.by_ref().take(2).collect();
        moved.iter_mut().for_each(|p| p.move_to(1));
        assert_eq!(budget.neediest(0, Some(now)), None);
        assert_eq!(budget.neediest(0, None), Some(1));
        // Nor does holding as many make up for a much longer wait.
        let later = now + MAX_LEAD + Duration::from_millis(2);
        assert_eq!(budget.neediest(0, Some(later)), Some(1));
        budget.set_oldest(1, None);
        assert_eq!(budget.neediest(0, Some(later)), None);
    }
}
