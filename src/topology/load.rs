//! How a node is doing, as balancing sees it. Live, and shared by all workers; who serves a read is [`super::balance`]'s.
//!
//! A node's *pace* is a decaying maximum of its answers' times (peak EWMA), of their logarithms: it rises by more of a
//! slower answer than it falls by a faster one, and falls by itself while nothing is answered. A statement of a minute among
//! thousands of a millisecond would else stand for its node for as long; as it is it moves the pace by one octave.
//! A lost update between two workers is one answer less: nothing here is locked.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{AtomicMoment, Moment};

/// How long a node is shunned after a dial that failed. Longer than the pause between such dials (`pool.login_backoff`), so that
/// nobody is sent there again only to wait.
const SHUN: Duration = Duration::from_secs(2);
/// So much slower than the fastest for this long, in so many answers: an outlier, unless more than one in four of them was nearly
/// as fast. It would be busy with slow statements then, and answer others well.
const FAR: Octaves = Octaves(5 * OCTAVE);
const NEAR: Octaves = Octaves(2 * OCTAVE);
const SUSPICION: Duration = Duration::from_secs(5);
const SUSPECT_ANSWERS: u32 = 32;
/// So many reads that failed, one after another: an outlier.
const FAILURES: u32 = 5;
/// How long an outlier is passed over.
const EJECTION: Duration = Duration::from_secs(10);

/// Live load of one node, over all workers.
#[derive(Debug, Default)]
pub struct Load {
    /// Servers checked out just now.
    pub in_flight: AtomicU32,
    /// It could not be dialled: until then reads go elsewhere if they can.
    shunned: AtomicMoment,
    pace: Pace,
    /// Failures since the last answer.
    failures: AtomicU32,
    /// Since when it is found far slower than the others.
    suspected: AtomicMoment,
    evidence: Evidence,
    /// It is an outlier: until then reads go elsewhere if they can.
    ejected: AtomicMoment,
    ejections: [AtomicU64; Cause::ALL.len()],
}

/// What was answered while a node is suspected.
#[derive(Debug, Default)]
struct Evidence {
    /// In octaves: what is faster is nearly as fast as elsewhere.
    bar: AtomicU32,
    answers: AtomicU32,
    near: AtomicU32,
}

impl Evidence {
    fn begin(&self, bar: Octaves) {
        self.bar.store(u32::from(bar.0), Relaxed);
        self.answers.store(0, Relaxed);
        self.near.store(0, Relaxed);
    }

    #[cold]
    fn note(&self, time: Duration) {
        let is_near = u32::from(Octaves::of(time).0) <= self.bar.load(Relaxed);
        self.answers.fetch_add(1, Relaxed);
        self.near.fetch_add(u32::from(is_near), Relaxed);
    }

    fn is_enough(&self) -> bool {
        self.answers.load(Relaxed) >= SUSPECT_ANSWERS
    }

    fn convicts(&self) -> bool {
        self.near.load(Relaxed) < self.answers.load(Relaxed) / 4
    }
}

/// Why a node was passed over for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its answers took far longer than the others'.
    Latency,
    /// What was sent there failed, time after time.
    Failures,
}

impl Cause {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Latency => "latency",
            Cause::Failures => "failures",
        }
    }

    pub const ALL: [Cause; 2] = [Cause::Latency, Cause::Failures];
}

impl Load {
    /// Servers checked out just now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// A statement was answered at `now`, after `time`.
    #[inline]
    pub fn note_answer(&self, time: Duration, now: Moment) {
        self.pace.note(time, now);
        if self.suspected.load() != Moment::NEVER {
            self.evidence.note(time);
        }
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// What was sent there has failed, and not by its own fault. True if that makes it an outlier.
    #[must_use]
    pub fn note_failure(&self, now: Moment) -> bool {
        let is_outlier = self.failures.fetch_add(1, Relaxed) + 1 == FAILURES;
        if is_outlier {
            self.eject(Cause::Failures, now);
        }
        is_outlier
    }

    /// It is a candidate of the pace `own` beside others, of which the fastest has the pace `best`. True if that makes it
    /// an outlier.
    #[must_use]
    pub(super) fn compare(&self, own: Octaves, best: Octaves, now: Moment) -> bool {
        let is_far = own.beyond(best) > FAR;
        let since = self.suspected.load();
        match (is_far, since == Moment::NEVER) {
            (false, true) => false,
            (false, false) => {
                self.suspected.store(Moment::NEVER);
                false
            }
            (true, true) => {
                self.evidence.begin(Octaves(best.0 + NEAR.0));
                self.suspected.store(now);
                false
            }
            (true, false) => self.confirm(since, now),
        }
    }

    fn confirm(&self, since: Moment, now: Moment) -> bool {
        let is_ripe = now.since(since) >= SUSPICION && self.evidence.is_enough();
        // One of many who find it so.
        if !is_ripe || !self.suspected.take(since) {
            return false;
        }
        let is_outlier = self.evidence.convicts();
        if is_outlier {
            self.eject(Cause::Latency, now);
        }
        is_outlier
    }

    fn eject(&self, cause: Cause, now: Moment) {
        self.ejections[cause as usize].fetch_add(1, Relaxed);
        self.failures.store(0, Relaxed);
        self.ejected.raise(now.after(EJECTION));
    }

    /// How often it became an outlier.
    pub fn ejections(&self, cause: Cause) -> u64 {
        self.ejections[cause as usize].load(Relaxed)
    }

    /// It could not be dialled just now.
    pub fn shun(&self) {
        self.shun_at(Moment::now());
    }

    /// The same, as of `now`.
    pub(super) fn shun_at(&self, now: Moment) {
        self.shunned.raise(now.after(SHUN));
    }

    /// The probe has found it well since: what was known of it is of another time.
    pub(super) fn forgive(&self) {
        self.shunned.store(Moment::NEVER);
        self.ejected.store(Moment::NEVER);
        self.suspected.store(Moment::NEVER);
        self.failures.store(0, Relaxed);
        self.pace.forget();
    }

    /// Whether it could not be dialled a moment ago. Reads no clock where all is well.
    #[inline]
    pub fn is_shunned(&self) -> bool {
        let until = self.shunned.load();
        until != Moment::NEVER && Moment::now() < until
    }

    /// Whether it is an outlier that is passed over.
    #[inline]
    pub fn is_ejected(&self, now: Moment) -> bool {
        now < self.ejected.load()
    }

    /// What its answers take, by its pace; None while none came.
    pub fn latency(&self, now: Moment) -> Option<Duration> {
        self.pace_at(now).map(Octaves::time)
    }

    /// As its last answer left it.
    #[inline]
    pub(super) fn pace(&self) -> Option<Octaves> {
        self.pace.last().map(|(pace, _)| pace)
    }

    /// As it has fallen since.
    #[inline]
    pub(super) fn pace_at(&self, now: Moment) -> Option<Octaves> {
        self.pace.last().map(|(pace, at)| pace.fallen(at, now))
    }
}

/// Steps to the octave.
const OCTAVE: u16 = 256;
/// Below this all answers are equally fast: what is left is the proxy's own.
const LEAST: Duration = Duration::from_micros(64);
/// So long without an answer, and a pace has fallen by an octave.
const FALL: Duration = Duration::from_secs(2);

/// The logarithm of a time of at least a microsecond, in 256ths of an octave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Octaves(u16);

impl Octaves {
    fn of(time: Duration) -> Self {
        let micros = time.max(LEAST).as_micros().min(u128::from(u64::MAX)) as u64;
        let whole = micros.ilog2();
        // Straight lines between the powers of two: off by a tenth of an octave at most.
        let part = ((u128::from(micros) << 8) >> whole) as u16 % OCTAVE;
        Octaves(whole as u16 * OCTAVE + part)
    }

    fn time(self) -> Duration {
        let (whole, part) = (self.0 / OCTAVE, self.0 % OCTAVE);
        let micros = (u128::from(OCTAVE + part) << whole) >> 8;
        Duration::from_micros(micros as u64)
    }

    /// By how much it is slower.
    pub fn beyond(self, other: Octaves) -> Octaves {
        Octaves(self.0.saturating_sub(other.0))
    }

    /// A share of `whole` that halves with every octave, but for the first `spared` of them; at least 1.
    pub fn share_of(self, whole: u64, spared: u16) -> u64 {
        let over = self.0.saturating_sub(spared * OCTAVE);
        let part = u64::from(2 * OCTAVE - over % OCTAVE);
        let halved = (whole * part / u64::from(2 * OCTAVE)) >> (over / OCTAVE).min(63);
        halved.max(1)
    }

    fn fallen(self, at: u64, now: Moment) -> Self {
        let idle = millis(now).saturating_sub(at);
        let fall = idle.saturating_mul(u64::from(OCTAVE)) / FALL.as_millis() as u64;
        let least = Octaves::of(LEAST);
        let fall = u16::try_from(fall).unwrap_or(u16::MAX);
        Octaves(self.0.saturating_sub(fall)).max(least)
    }
}

fn millis(moment: Moment) -> u64 {
    moment.since(Moment::NEVER).as_millis() as u64
}

/// The last pace in the low 16 bits, and above it when it was noted, in milliseconds of [`Moment`]; 0 for never.
#[derive(Debug, Default)]
struct Pace(AtomicU64);

/// What an answer moves a pace by, in thousandths of the difference: up and down, at least. One that comes alone moves it by a
/// thousandth for each millisecond since the last.
const RISE: u64 = 64;
const DROP: u64 = 32;

impl Pace {
    #[inline]
    fn last(&self) -> Option<(Octaves, u64)> {
        match self.0.load(Relaxed) {
            0 => None,
            word => Some((Octaves(word as u16), word >> 16)),
        }
    }

    #[inline]
    fn note(&self, time: Duration, now: Moment) {
        let sample = Octaves::of(time);
        let pace = match self.last() {
            None => sample,
            Some((last, at)) => {
                let since = millis(now).saturating_sub(at);
                let least = if sample > last { RISE } else { DROP };
                let part = since.clamp(least, 1000) as i64;
                let step = (i64::from(sample.0) - i64::from(last.0)) * part / 1000;
                // Between two values of 16 bits.
                Octaves((i64::from(last.0) + step) as u16)
            }
        };
        self.0.store(millis(now) << 16 | u64::from(pace.0), Relaxed);
    }

    fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::NEVER.after(Duration::from_millis(millis))
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn octaves_tell_times_apart_within_a_tenth() {
        for micros in [64, 65, 100, 1000, 4_096, 77_777, 1_000_000, 3_600_000_000] {
            let time = Duration::from_micros(micros);
            let back = Octaves::of(time).time();
            let off = back.as_secs_f64() / time.as_secs_f64();
            assert!((0.98..=1.01).contains(&off), "{time:?} {back:?}");
        }
        assert_eq!(Octaves::of(Duration::ZERO), Octaves::of(LEAST));
        let twice = Octaves::of(ms(8)).beyond(Octaves::of(ms(4)));
        assert_eq!(twice, Octaves(OCTAVE));
    }

    #[test]
    fn a_share_is_whole_while_spared_and_halves_with_each_octave_then() {
        let share = |octaves: u16| Octaves(octaves * OCTAVE).share_of(64, 2);
        assert_eq!([0, 2, 3, 5, 8, 60].map(share), [64, 64, 32, 8, 1, 1]);
        assert_eq!(Octaves(2 * OCTAVE + OCTAVE / 2).share_of(64, 2), 48);
    }

    #[test]
    fn a_pace_follows_what_is_slow_faster_than_what_is_fast_and_falls_by_itself() {
        let pace = Pace::default();
        (1..1000).for_each(|i| pace.note(ms(1), at(i)));
        pace.note(ms(60_000), at(1000));
        let after_one = pace.last().unwrap().0.time();
        assert!(after_one > ms(1) && after_one < ms(3), "{after_one:?}");
        (1..=40).for_each(|i| pace.note(ms(100), at(1000 + i)));
        let slow = pace.last().unwrap();
        assert!(slow.0.time() > ms(50), "{slow:?}");
        let later = |millis: u64| slow.0.fallen(slow.1, at(1040 + millis)).time();
        assert!(later(2000) <= slow.0.time() / 2);
        assert_eq!(later(600_000), Octaves::of(LEAST).time());
        // What comes alone counts whole.
        pace.note(ms(1), at(9000));
        assert_eq!(pace.last().unwrap().0, Octaves::of(ms(1)));
    }

    #[test]
    fn five_failures_in_a_row_make_an_outlier_and_an_answer_between_them_does_not() {
        let load = Load::default();
        for i in 0..20 {
            assert!(!load.note_failure(at(i)), "{i}");
            if i % 3 == 2 {
                load.note_answer(ms(1), at(i));
            }
        }
        assert_eq!(load.ejections(Cause::Failures), 0);
        load.note_answer(ms(1), at(20));
        let outlier: Vec<_> = (0..6).map(|i| load.note_failure(at(30 + i))).collect();
        assert_eq!(outlier, [false, false, false, false, true, false]);
        assert!(load.is_ejected(at(40)));
        assert!(!load.is_ejected(at(34).after(EJECTION)));
    }
}
