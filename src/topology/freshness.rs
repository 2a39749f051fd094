//! How fresh each replica is, by no clock but this process's own.
//!
//! The primary is asked for its insert position, and the moment *before* the question is noted: a [`Sample`]. A replica
//! whose replay position has reached a sample's has every commit that was acknowledged before that moment: it is fresh as
//! of then. Sessions compare that with the moment of what they must see, and probes hurry while sessions wait
//! ([`Demand`]). Samples are of one line of WAL only: one primary, timeline and incarnation.

use std::{
    collections::VecDeque,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::Notified};

use super::Lsn;

/// A point of this process's monotonic time, in nanoseconds since about its start; 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// Before everything.
    pub const NEVER: Moment = Moment(0);

    pub fn now() -> Self {
        Moment::of(Instant::now())
    }

    /// An instant before the process's first use of this is [`Moment::NEVER`].
    pub fn of(instant: Instant) -> Self {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since = instant.saturating_duration_since(*ORIGIN).as_nanos();
        Moment(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn after(self, wait: Duration) -> Self {
        Moment(self.0.saturating_add(wait.as_nanos() as u64))
    }
}

/// A moment that threads share.
#[derive(Debug, Default)]
pub struct AtomicMoment(AtomicU64);

impl AtomicMoment {
    #[inline]
    pub fn load(&self) -> Moment {
        Moment(self.0.load(Relaxed))
    }

    pub(super) fn store(&self, moment: Moment) {
        self.0.store(moment.0, Relaxed);
    }

    /// Makes it [`Moment::NEVER`], unless it is no longer `moment`: true for one of many who try.
    pub(super) fn take(&self, moment: Moment) -> bool {
        let never = Moment::NEVER.0;
        self.0
            .compare_exchange(moment.0, never, Relaxed, Relaxed)
            .is_ok()
    }

    /// Makes it `moment`, unless it is later already.
    pub fn raise(&self, moment: Moment) {
        self.0.fetch_max(moment.0, Relaxed);
    }
}

/// What the probes have proven of one replica. Moves between snapshots, with each probe.
#[derive(Debug, Default)]
pub struct Freshness {
    as_of: AtomicMoment,
    proven: AtomicMoment,
    /// While there is no primary: until when it is known what one had written.
    known_until: AtomicMoment,
}

impl Freshness {
    /// It has all that was acknowledged before this moment; [`Moment::NEVER`] while nothing is proven.
    #[inline]
    pub fn as_of(&self) -> Moment {
        self.as_of.load()
    }

    /// When the question was asked whose answer proved it. A connection that was dialled later may be to a node that has
    /// been restarted since, in its own past.
    #[inline]
    pub fn proven(&self) -> Moment {
        self.proven.load()
    }

    /// How old what it has may be at `now`. While there is no primary that does not grow: nothing newer is written, as far as
    /// anybody knows.
    #[inline]
    pub fn age(&self, now: Moment) -> Duration {
        let until = match self.known_until.load() {
            Moment::NEVER => now,
            until => until,
        };
        until.since(self.as_of.load())
    }

    /// The newest sample, if there is no primary any more.
    pub(super) fn set_known_until(&self, newest: Option<Moment>) {
        self.known_until.store(newest.unwrap_or(Moment::NEVER));
    }

    fn prove(&self, as_of: Moment, asked: Moment) {
        self.as_of.store(as_of);
        self.proven.store(asked);
    }

    /// Nothing is proven any more.
    pub(super) fn void(&self) {
        self.prove(Moment::NEVER, Moment::NEVER);
    }
}

/// The line of WAL that samples are positions on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// The primary's generation: another one for every primary, timeline and incarnation.
    pub generation: u64,
    pub timeline: u32,
    pub system_id: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    asked: Instant,
    insert: Lsn,
}

/// So many are kept: at the busiest interval more than a minute.
const MAX_SAMPLES: usize = 16 * 1024;

/// What the primary has said of its insert position, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    line: Option<Line>,
    taken: VecDeque<Sample>,
}

impl Samples {
    /// From now on only samples of `line` count. True if those before were of another.
    pub fn follow(&mut self, line: Option<Line>) -> bool {
        let moved = self.line != line;
        if moved {
            self.line = line;
            self.taken.clear();
        }
        moved
    }

    /// The primary, asked at `asked`, has said `insert`.
    pub fn note(&mut self, asked: Instant, insert: Lsn) {
        // A position that falls is of another life than the one we know of.
        if self.taken.back().is_some_and(|last| insert < last.insert) {
            self.taken.clear();
        }
        if self.taken.len() == MAX_SAMPLES {
            self.taken.pop_front();
        }
        self.taken.push_back(Sample { asked, insert });
    }

    /// When the newest was asked.
    pub fn newest(&self) -> Option<Moment> {
        self.taken.back().map(|sample| Moment::of(sample.asked))
    }

    /// A replica of `system_id` and `timeline`, asked at `asked`, has replayed up to `replay`. Returns how far that is behind the
    /// newest sample, at least; it grows no more while the primary is away.
    pub fn prove(
        &self,
        freshness: &Freshness,
        system_id: u64,
        timeline: Option<u32>,
        asked: Instant,
        replay: Option<Lsn>,
    ) -> Duration {
        let of_line = self
            .line
            .is_some_and(|line| line.system_id == system_id && Some(line.timeline) == timeline);
        let Some(replay) = replay.filter(|_| of_line) else {
            freshness.void();
            return Duration::ZERO;
        };
        let reached = self.taken.partition_point(|s| s.insert <= replay);
        match reached.checked_sub(1).map(|last| self.taken[last].asked) {
            Some(as_of) => freshness.prove(Moment::of(as_of), Moment::of(asked)),
            None => freshness.void(),
        }
        self.age(reached)
    }

    /// How much older a sample is than the newest; zero if there is none of this index.
    fn age(&self, index: usize) -> Duration {
        match (self.taken.get(index), self.taken.back()) {
            (Some(sample), Some(newest)) => newest.asked.saturating_duration_since(sample.asked),
            _ => Duration::ZERO,
        }
    }
}

/// What sessions wait for: that replicas become as fresh as what they have just seen.
#[derive(Debug, Default)]
pub struct Demand {
    wanted: AtomicMoment,
    raised: Notify,
    sampled: Notify,
}

/// Demand is met or given up after this time: a replica that has stopped must not be asked for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Demand is raised by at least so much at a time, so that sessions do not wake the probes with each statement.
const STEP: Duration = Duration::from_millis(5);

impl Demand {
    /// A session can go on at a replica once one is fresh as of `moment`.
    #[inline]
    pub fn raise(&self, moment: Moment) {
        if moment > self.wanted.load() {
            self.wanted.store(moment.after(STEP));
            self.raised.notify_waiters();
        }
    }

    /// Whether a replica with this freshness is to hurry.
    pub(super) fn is_met_by(&self, freshness: &Freshness) -> bool {
        let wanted = self.wanted.load();
        wanted <= freshness.as_of() || Moment::now().since(wanted) > PATIENCE
    }

    /// There is a new sample to measure replicas by.
    pub(super) fn note_sample(&self) {
        self.sampled.notify_waiters();
    }

    /// Returns when there was one.
    pub(super) fn sampled(&self) -> Notified<'_> {
        self.sampled.notified()
    }

    /// Returns when demand was raised.
    pub(super) fn raised(&self) -> Notified<'_> {
        self.raised.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line {
        generation: 1,
        timeline: 3,
        system_id: 7,
    };

    fn samples(taken: &[(u64, u64)]) -> (Instant, Samples) {
        let start = Instant::now();
        // The process's time begins with its first use.
        let _ = Moment::of(start);
        let start = start + Duration::from_secs(1);
        let mut samples = Samples::default();
        samples.follow(Some(LINE));
        for (ms, insert) in taken {
            samples.note(start + Duration::from_millis(*ms), Lsn(*insert));
        }
        (start, samples)
    }

    /// In milliseconds after `start`.
    fn proven(samples: &Samples, start: Instant, timeline: u32, replay: u64) -> Option<u128> {
        let freshness = Freshness::default();
        let asked = start + Duration::from_secs(1);
        samples.prove(&freshness, 7, Some(timeline), asked, Some(Lsn(replay)));
        let as_of = freshness.as_of();
        (as_of != Moment::NEVER).then(|| as_of.since(Moment::of(start)).as_millis())
    }

    #[test]
    fn a_replica_is_as_fresh_as_the_newest_sample_that_it_has_replayed() {
        let (start, samples) = samples(&[(0, 100), (50, 200), (100, 200), (150, 300)]);
        assert_eq!(proven(&samples, start, 3, 99), None);
        assert_eq!(proven(&samples, start, 3, 100), Some(0));
        assert_eq!(proven(&samples, start, 3, 199), Some(0));
        assert_eq!(proven(&samples, start, 3, 200), Some(100));
        assert_eq!(proven(&samples, start, 3, 1000), Some(150));
    }

    #[test]
    fn positions_on_another_timeline_or_line_prove_nothing() {
        let (start, mut samples) = samples(&[(0, 100)]);
        assert_eq!(proven(&samples, start, 2, 1000), None);
        let other = Line {
            generation: 2,
            ..LINE
        };
        assert!(samples.follow(Some(other)));
        assert!(!samples.follow(Some(other)));
        assert_eq!(proven(&samples, start, 3, 1000), None);
    }

    #[test]
    fn an_insert_position_that_falls_voids_the_samples_before_it() {
        let (start, mut samples) = samples(&[(0, 100), (50, 400)]);
        samples.note(start + Duration::from_millis(100), Lsn(300));
        assert_eq!(proven(&samples, start, 3, 299), None);
        assert_eq!(proven(&samples, start, 3, 300), Some(100));
    }

    #[test]
    fn demand_is_met_by_freshness_or_given_up() {
        let (demand, freshness) = (Demand::default(), Freshness::default());
        assert!(demand.is_met_by(&freshness), "nobody waits");
        let now = Moment::now();
        demand.raise(now.after(PATIENCE));
        assert!(!demand.is_met_by(&freshness));
        freshness.prove(now.after(PATIENCE * 2), now);
        assert!(demand.is_met_by(&freshness));
    }
}
