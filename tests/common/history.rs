//! What sessions wrote and read, in the order in which it happened, and whether a database may have answered so.
//!
//! Each key is a register with one writer, which writes 1, 2, 3, … to it. So a value tells which write it is, and every
//! question is one of numbers: a read must show at least what was acknowledged before it was asked, and nothing that had
//! not been asked for by the time of its answer; and nobody un-reads what another had read before.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

pub type Key = i32;
pub type Value = i64;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// It certainly has no effect.
    RolledBack,
    /// It has an effect, or none, for good.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    Write(Value, Outcome),
    Read(Value),
}

/// One statement of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub session: usize,
    pub key: Key,
    /// When it was asked, and when the answer came: moments of one count.
    pub asked: u64,
    pub answered: u64,
    pub did: Did,
}

/// What a listener promises its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Whatever anybody was told before is seen (the primary).
    RealTime,
    /// A session sees what it wrote and read itself (`consistency = "session"`).
    Session,
}

/// Written to by many at once.
#[derive(Debug, Default)]
pub struct History {
    moment: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl History {
    /// The next moment.
    pub fn now(&self) -> u64 {
        self.moment.fetch_add(1, SeqCst)
    }

    pub fn add(&self, session: usize, key: Key, asked: u64, did: Did) {
        let answered = self.now();
        self.events.lock().unwrap().push(Event {
            session,
            key,
            asked,
            answered,
            did,
        });
    }

    /// All so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

/// What cannot have happened, in words; at most one for each read and key.
pub fn violations(events: &[Event], promise: Promise) -> Vec<String> {
    let mut by_key: HashMap<Key, Vec<Event>> = HashMap::new();
    for event in events {
        by_key.entry(event.key).or_default().push(*event);
    }
    let mut found: Vec<_> = by_key
        .values()
        .flat_map(|events| match promise {
            Promise::RealTime => check(events),
            Promise::Session => {
                let mut sessions: Vec<_> = events.iter().map(|e| e.session).collect();
                sessions.sort_unstable();
                sessions.dedup();
                let own = |session| move |e: &&Event| e.session == session;
                let check_own = |session| {
                    // Others' writes may be seen, and only by reads that came after their asking.
                    let mine: Vec<_> = events.iter().filter(own(session)).copied().collect();
                    floor(&mine)
                };
                sessions
                    .into_iter()
                    .flat_map(check_own)
                    .chain(ceiling(events))
                    .collect()
            }
        })
        .collect();
    found.sort_unstable();
    found
}

fn check(events: &[Event]) -> Vec<String> {
    floor(events).into_iter().chain(ceiling(events)).collect()
}

/// Reads that show less than what was known before they were asked.
fn floor(events: &[Event]) -> Vec<String> {
    let mut known: Vec<_> = events
        .iter()
        .filter_map(|event| match event.did {
            Did::Write(value, Outcome::Acknowledged) | Did::Read(value) => {
                Some((event.answered, value))
            }
            Did::Write(..) => None,
        })
        .collect();
    known.sort_unstable();
    let mut reads: Vec<_> = reads(events).collect();
    reads.sort_unstable_by_key(|(event, _)| event.asked);
    let (mut known, mut least) = (known.into_iter().peekable(), 0);
    let mut found = Vec::new();
    for (event, value) in reads {
        while let Some((_, known)) = known.next_if(|(answered, _)| *answered < event.asked) {
            least = least.max(known);
        }
        if value < least {
            found.push(format!("read {value} when {least} was known: {event:?}"));
        }
    }
    found
}

/// Reads that show what had not been asked for, or was rolled back.
fn ceiling(events: &[Event]) -> Vec<String> {
    let writes: HashMap<Value, (u64, Outcome)> = events
        .iter()
        .filter_map(|event| match event.did {
            Did::Write(value, outcome) => Some((value, (event.asked, outcome))),
            Did::Read(_) => None,
        })
        .collect();
    let is_possible = |event: &Event, value: Value| match writes.get(&value) {
        _ if value == 0 => true,
        Some((asked, outcome)) => *asked < event.answered && *outcome != Outcome::RolledBack,
        None => false,
    };
    reads(events)
        .filter(|(event, value)| !is_possible(event, *value))
        .map(|(event, value)| format!("read {value}, which nobody wrote: {event:?}"))
        .collect()
}

fn reads(events: &[Event]) -> impl Iterator<Item = (Event, Value)> {
    events.iter().filter_map(|event| match event.did {
        Did::Read(value) => Some((*event, value)),
        Did::Write(..) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Did::*, Outcome::*, *};

    fn event(session: usize, asked: u64, answered: u64, did: Did) -> Event {
        Event {
            session,
            key: 1,
            asked,
            answered,
            did,
        }
    }

    /// How many violations there are, in real time and per session.
    fn count(events: &[Event]) -> (usize, usize) {
        let of = |promise| violations(events, promise).len();
        (of(Promise::RealTime), of(Promise::Session))
    }

    #[test]
    fn a_sound_history_has_no_violation() {
        let events = [
            event(1, 0, 1, Write(1, Acknowledged)),
            event(2, 2, 3, Read(1)),
            event(1, 4, 9, Write(2, Unknown)),
            // While it is under way either is right.
            event(2, 5, 6, Read(1)),
            event(2, 7, 8, Read(2)),
            event(1, 10, 11, Write(3, RolledBack)),
            event(2, 12, 13, Read(2)),
        ];
        assert_eq!(count(&events), (0, 0));
    }

    #[test]
    fn every_planted_fault_is_found() {
        let first = event(1, 0, 1, Write(1, Acknowledged));
        let second = event(1, 2, 3, Write(2, Acknowledged));
        for (name, last, expected) in [
            ("lost", event(1, 4, 5, Read(1)), (1, 1)),
            ("stale for another", event(2, 4, 5, Read(1)), (1, 0)),
            ("out of thin air", event(2, 4, 5, Read(7)), (1, 1)),
        ] {
            assert_eq!(count(&[first, second, last]), expected, "{name}");
        }
        let unread = [
            event(1, 0, 9, Write(1, Unknown)),
            event(2, 1, 2, Read(1)),
            event(2, 3, 4, Read(0)),
        ];
        assert_eq!(count(&unread), (1, 1));
        let others = [unread[0], unread[1], event(3, 3, 4, Read(0))];
        assert_eq!(count(&others), (1, 0));
        let undead = [
            event(1, 0, 1, Write(1, RolledBack)),
            event(2, 2, 3, Read(1)),
        ];
        assert_eq!(count(&undead), (1, 1));
        let early = [
            event(2, 0, 1, Read(1)),
            event(1, 2, 3, Write(1, Acknowledged)),
        ];
        assert_eq!(count(&early), (1, 1));
    }
}
