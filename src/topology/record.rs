//! What is known of one node, with hysteresis: facts move its [`Standing`]. Pure; times come in with the facts.
//!
//! One lost link, one late answer or one refused dial moves nothing. A node is gone when its link is lost *and* a fresh
//! dial shows why (refused, 57P03) or nothing was heard for the patience, or when dials fail again and again beside a
//! link that lives. It is back after [`ANSWERS_TO_RETURN`] answers in a row.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Lsn, Reason,
    facts::{Answer, Dial, Fact, Wal},
};

/// So many answers in a row bring a node back: one could be the last word of a node that is going.
const ANSWERS_TO_RETURN: u32 = 2;

/// So many failed dials in a row, beside a link that answers, show a node that takes no new session.
const FAILED_DIALS: u32 = 2;

/// Whether a node takes work, as far as its own connections show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No probe has ended yet.
    Unheard,
    Serving,
    /// Sessions go on, and every connection slot is taken.
    Crowded,
    /// Sessions go on, new ones get 57P03.
    Draining,
    Gone(Reason),
}

impl Standing {
    /// Whether it answers, and means to go on.
    pub fn is_serving(self) -> bool {
        matches!(self, Standing::Serving | Standing::Crowded)
    }
}

/// What a node last said about its WAL. It outlives the node's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Nothing,
    Writing(u32),
    /// The timeline is None until it was told: by the WAL receiver, or by the node when it still wrote.
    Replaying(Option<u32>),
}

impl Word {
    pub fn timeline(self) -> Option<u32> {
        match self {
            Word::Nothing => None,
            Word::Writing(timeline) => Some(timeline),
            Word::Replaying(timeline) => timeline,
        }
    }
}

/// Whether the probe has a connection, and what was asked on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Answering,
    /// A dial beside it got 57P03 at this time: an answer to a question asked later shows a smart shutdown.
    Doubted(Instant),
}

/// One node's history, as far as it matters.
#[derive(Debug, Clone)]
pub(super) struct Record {
    standing: Standing,
    link: Link,
    /// When the last question was asked that got an answer; at first, when the node was added.
    heard: Instant,
    /// Answers in a row since the node was lost.
    answers: u32,
    /// Failed dials in a row while the link answered.
    failed_dials: u32,
    system_id: Option<u64>,
    word: Word,
    /// Whether its WAL receiver ran at the last answer, as far as the probe may see it.
    receiving: bool,
    insert: Lsn,
    replay: Lsn,
    checkpointer: Option<SystemTime>,
    incarnation: u64,
}

impl Record {
    pub fn new(now: Instant) -> Self {
        Record {
            standing: Standing::Unheard,
            link: Link::None,
            heard: now,
            answers: 0,
            failed_dials: 0,
            system_id: None,
            word: Word::Nothing,
            receiving: false,
            insert: Lsn(0),
            replay: Lsn(0),
            checkpointer: None,
            incarnation: 0,
        }
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub fn word(&self) -> Word {
        self.word
    }

    /// Whether a WAL receiver was connected when the node last answered. False without pg_monitor.
    pub fn is_receiving(&self) -> bool {
        self.receiving
    }

    pub fn system_id(&self) -> Option<u64> {
        self.system_id
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Last insert position; 0/0 when it never wrote.
    pub fn insert(&self) -> Lsn {
        self.insert
    }

    /// Last replay position; 0/0 when it never replayed.
    pub fn replay(&self) -> Lsn {
        self.replay
    }

    /// Takes in what was learned at `now`. `patience`: how long a node may be silent.
    pub fn observe(&mut self, now: Instant, fact: Fact, patience: Duration) {
        match fact {
            Fact::Answer(answer) => self.handle_answer(answer),
            Fact::LinkLost => self.handle_loss(),
            Fact::Dial(dial) => self.handle_dial(now, dial, patience),
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        self.heard = self.heard.max(answer.asked);
        self.answers = self.answers.saturating_add(1);
        self.note_identity(&answer);
        self.note_wal(answer.wal);
        self.standing = self.standing_after(answer.asked);
        if self.link == Link::None {
            self.link = Link::Answering;
        }
    }

    fn standing_after(&self, asked: Instant) -> Standing {
        match (self.standing, self.link) {
            (_, Link::Doubted(since)) if asked >= since => Standing::Draining,
            (Standing::Gone(_), _) if !self.may_return() => self.standing,
            (Standing::Draining, Link::Doubted(_)) => Standing::Draining,
            (Standing::Crowded, _) => Standing::Crowded,
            _ => Standing::Serving,
        }
    }

    fn may_return(&self) -> bool {
        self.answers >= ANSWERS_TO_RETURN && self.failed_dials < FAILED_DIALS
    }

    /// Another data directory or another start of the server: what was known of its WAL is void.
    fn note_identity(&mut self, answer: &Answer) {
        let moved = self.system_id.is_some_and(|id| id != answer.system_id);
        let restarted = matches!((self.checkpointer, answer.checkpointer),
            (Some(before), Some(now)) if before != now);
        if moved {
            self.word = Word::Nothing;
        }
        if moved || restarted {
            self.incarnation += 1;
        }
        self.system_id = Some(answer.system_id);
        self.checkpointer = answer.checkpointer.or(self.checkpointer);
    }

    fn note_wal(&mut self, wal: Wal) {
        match wal {
            Wal::Writing { timeline, insert } => {
                self.word = Word::Writing(timeline);
                self.receiving = false;
                self.insert = insert;
            }
            Wal::Replaying { timeline, replay } => {
                self.word = Word::Replaying(timeline.or(self.word.timeline()));
                self.receiving = timeline.is_some();
                self.replay = replay.unwrap_or(self.replay);
            }
        }
    }

    /// Where the restart cannot be seen (no pg_monitor), every lost link may have been one.
    fn handle_loss(&mut self) {
        self.link = Link::None;
        self.answers = 0;
        if self.checkpointer.is_none() && self.system_id.is_some() {
            self.incarnation += 1;
        }
    }

    fn handle_dial(&mut self, now: Instant, dial: Dial, patience: Duration) {
        match (dial, self.link) {
            (Dial::Accepted, _) => self.handle_accepted(),
            (Dial::NotNow, Link::Answering) => self.link = Link::Doubted(now),
            (Dial::Full, Link::Answering) if self.standing == Standing::Serving => {
                self.standing = Standing::Crowded;
            }
            (
                Dial::Full | Dial::LoginRefused | Dial::NotNow,
                Link::Answering | Link::Doubted(_),
            ) => {}
            (_, Link::Answering | Link::Doubted(_)) => self.handle_failed_dial(),
            (_, Link::None) => self.handle_unreached(now, dial, patience),
        }
    }

    fn handle_accepted(&mut self) {
        self.failed_dials = 0;
        if self.standing == Standing::Crowded {
            self.standing = Standing::Serving;
        }
        if self.link != Link::None {
            self.link = Link::Answering;
        }
    }

    fn handle_failed_dial(&mut self) {
        self.failed_dials = self.failed_dials.saturating_add(1);
        if self.failed_dials >= FAILED_DIALS {
            self.leave(Reason::NoNewConnections);
        }
    }

    /// No link, and no new one: gone at once if the node says why, else when the patience is over.
    fn handle_unreached(&mut self, now: Instant, dial: Dial, patience: Duration) {
        let silent = now.saturating_duration_since(self.heard) >= patience;
        match dial {
            Dial::NotNow if self.standing == Standing::Draining => {}
            Dial::NotNow => self.leave(Reason::StartingUp),
            Dial::Refused => self.leave(Reason::Refused),
            Dial::Full if silent => self.leave(Reason::Full),
            Dial::LoginRefused if silent => self.leave(Reason::LoginRefused),
            Dial::Broken | Dial::TimedOut if silent => self.leave(Reason::Silent),
            Dial::Full | Dial::LoginRefused | Dial::Broken | Dial::TimedOut | Dial::Accepted => {}
        }
    }

    fn leave(&mut self, reason: Reason) {
        self.standing = Standing::Gone(reason);
        self.answers = 0;
    }
}
