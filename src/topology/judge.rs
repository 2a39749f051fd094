//! The judge: keeps one [`Record`] per node, applies the ruling, and numbers the snapshots. Pure: it has no clock, no
//! I/O and no lock; whoever owns it passes facts with their times in and publishes what comes out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Alarm, Freshness, Health, Moment, NodeView, Reason, Role, Topology,
    facts::{Answer, Fact, Wal},
    freshness::{Line, Samples},
    record::{Record, Word},
    ruling::{self, Certainty, Claim, Dispute, Earlier, Memory, Ruling, Verdict},
    source,
    state::State,
};
use crate::config;

/// Names one node over reloads: the same while its name, host and port stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NodeId(u64);

#[derive(Clone)]
struct Entry {
    id: NodeId,
    /// How the state file names the node.
    place: String,
    record: Record,
    view: Arc<NodeView>,
    /// An operator wants no reads there. It outlives reloads, and what the node is meanwhile.
    is_drained: bool,
    /// A replica that replays what is older than [`Rules::max_staleness`].
    lags: bool,
}

/// What became of an operator's wish to drain a node, or to end that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// It is as wished.
    Done,
    /// It is the primary: that is paused, not drained.
    IsPrimary,
    UnknownNode,
}

/// What the configuration says about judging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// How long a node may be silent before it is down.
    pub patience: Duration,
    /// How long writes wait after a start for nodes that have not spoken.
    pub settle: Duration,
    /// Follow a promotion even while the old primary answers and streams.
    pub trust_promotion: bool,
    /// A replica that is further behind serves no reads.
    pub max_staleness: Duration,
}

/// Where writes stand after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// No node was ever named.
    Empty,
    /// Until then, a node that has not spoken may know of a higher timeline.
    Cold(Instant),
    Over,
}

#[derive(Clone)]
pub(super) struct Judge {
    rules: Rules,
    memory: Memory,
    /// Where the node is that was last seated on the highest timeline. It keeps its claim over a restart.
    incumbent: Option<String>,
    start: Start,
    /// The memory could not be written down.
    is_unsaved: bool,
    source: source::Word,
    /// When the primary in a dispute about the highest timeline last answered; None without a dispute.
    disputed: Option<Instant>,
    entries: Vec<Entry>,
    /// The last snapshot's.
    number: u64,
    primary: Option<usize>,
    alarms: Vec<Alarm>,
    /// Of the primary.
    samples: Samples,
    /// For `NodeId` and `generation`: grows only.
    next: u64,
}

impl Judge {
    /// `state`: what an earlier process remembered.
    pub fn new(rules: Rules, state: Option<State>) -> Self {
        let remembered = state.as_ref().map(|state| Memory {
            system_id: Some(state.system_id),
            highest: state.timeline,
            certainty: Certainty::Settled,
        });
        Judge {
            rules,
            memory: remembered.unwrap_or_default(),
            incumbent: state.and_then(|state| state.primary),
            start: Start::Empty,
            is_unsaved: false,
            source: source::Word::None,
            disputed: None,
            entries: Vec::new(),
            number: 0,
            primary: None,
            alarms: Vec::new(),
            samples: Samples::default(),
            next: 1,
        }
    }

    /// A source will be asked who else there is.
    pub fn await_source(&mut self) {
        self.source = source::Word::Awaited;
    }

    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What must outlive this process; None before the cluster is known.
    pub fn state(&self) -> Option<State> {
        let settled = self.memory.certainty == Certainty::Settled && self.memory.highest > 0;
        let system_id = self.memory.system_id.filter(|_| settled)?;
        Some(State {
            system_id,
            timeline: self.memory.highest,
            primary: self.incumbent.clone(),
        })
    }

    /// What a source says of the leader; returns the next snapshot if that changed anything.
    pub fn hear_source(&mut self, word: source::Word, now: Instant) -> Option<Topology> {
        self.source = word;
        self.apply_ruling(now).then(|| self.snapshot())
    }

    /// Whether the state could be written down; returns the next snapshot if that is news.
    pub fn note_saved(&mut self, saved: bool, now: Instant) -> Option<Topology> {
        self.is_unsaved = !saved;
        self.apply_ruling(now).then(|| self.snapshot())
    }

    /// Takes a replica out of rotation for maintenance, or back in. One that is promoted meanwhile is a primary as any other.
    pub fn drain(&mut self, name: &str, drains: bool, now: Instant) -> (Drained, Option<Topology>) {
        let mut entries = self.entries.iter_mut();
        let Some(entry) = entries.find(|entry| entry.view.config.name == name) else {
            return (Drained::UnknownNode, None);
        };
        if drains && entry.view.role == Role::Primary {
            return (Drained::IsPrimary, None);
        }
        entry.is_drained = drains;
        let changed = self.apply_ruling(now);
        (Drained::Done, changed.then(|| self.snapshot()))
    }

    /// The nodes from now on, in this order; returns their ids. What is known of a node that stays is kept, its load
    /// too. Where no node of the remembered cluster is left, an operator may have moved to another cluster: the nodes
    /// are asked anew which one it is.
    pub fn set_nodes(&mut self, nodes: &[config::Node], now: Instant) -> (Vec<NodeId>, Topology) {
        let mut old = std::mem::take(&mut self.entries);
        let first = old.is_empty();
        for node in nodes {
            let known = old.iter().position(|e| same_place(&e.view.config, node));
            let entry = match known {
                Some(index) => reconfigured(old.swap_remove(index), node),
                None => self.new_entry(node, now),
            };
            self.entries.push(entry);
        }
        match first {
            true => self.start = Start::Cold(now + self.rules.settle),
            false => self.settle_anew_if_moved(now),
        }
        let ids = self.entries.iter().map(|entry| entry.id).collect();
        (ids, self.next_snapshot(now))
    }

    /// Takes in a fact learned at `now`; returns the next snapshot if the fact changed anything that a snapshot shows.
    /// A fact about a node that was removed is nothing.
    pub fn observe(&mut self, node: NodeId, now: Instant, fact: Fact) -> Option<Topology> {
        let index = self.entries.iter().position(|entry| entry.id == node)?;
        let entry = &mut self.entries[index];
        entry.record.observe(now, fact.clone(), self.rules.patience);
        entry.view.position.set_insert(entry.record.insert());
        entry.view.position.set_replay(entry.record.replay());
        let changed = self.apply_ruling(now);
        self.note_freshness(index, now, &fact);
        changed.then(|| self.snapshot())
    }

    /// What a fact proves of how fresh its node is, or what samples it gives to measure others by.
    fn note_freshness(&mut self, index: usize, now: Instant, fact: &Fact) {
        // Until a primary speaks nothing newer is known to be written: what was proven stays true.
        let is_primary = self.primary == Some(index);
        if is_primary
            && matches!(fact, Fact::Answer(answer) if matches!(answer.wal, Wal::Writing { .. }))
            && self.samples.follow(line(&self.entries[index]))
        {
            self.entries.iter().for_each(|e| e.view.freshness.void());
        }
        let Entry { view, lags, .. } = &mut self.entries[index];
        match fact {
            Fact::Answer(Answer {
                asked,
                wal: Wal::Writing { insert, .. },
                ..
            }) => {
                view.freshness.void();
                if is_primary {
                    self.samples.note(*asked, *insert);
                }
            }
            Fact::Answer(Answer {
                asked,
                system_id,
                wal: Wal::Replaying { replay, .. },
                ..
            }) => {
                let timeline = view.timeline;
                let lag =
                    self.samples
                        .prove(&view.freshness, *system_id, timeline, *asked, *replay);
                // One that was too far behind returns when it has caught up well, or it would go and come with each answer.
                let max_staleness = self.rules.max_staleness;
                *lags = lag
                    > if *lags {
                        max_staleness / 2
                    } else {
                        max_staleness
                    };
            }
            // Until the next answer it may have been restarted in its own past; and a read there could not be told from one
            // of before what the catalogue shows, so that it would not be repeated if the node is gone.
            Fact::LinkLost => {
                view.freshness.void();
                view.load.shun_at(Moment::of(now));
            }
            Fact::Dial(_) => {}
        }
    }

    /// Whether `node` is a replica in rotation that `lags`, or the primary while one does.
    pub fn waits_for(&self, node: NodeId, lags: impl Fn(&Freshness) -> bool) -> bool {
        let primary = self.primary.map(|primary| self.entries[primary].id);
        let mut replicas = self.lagging(lags);
        replicas.any(|replica| replica == node || primary == Some(node))
    }

    /// Whether it is a replica that does.
    pub fn waits_for_replica(&self, node: NodeId, lags: impl Fn(&Freshness) -> bool) -> bool {
        self.lagging(lags).any(|replica| replica == node)
    }

    fn lagging(&self, lags: impl Fn(&Freshness) -> bool) -> impl Iterator<Item = NodeId> {
        let replicas = self.entries.iter().filter(move |entry| {
            entry.view.role == Role::Replica && entry.view.is_up() && lags(&entry.view.freshness)
        });
        replicas.map(|entry| entry.id)
    }

    fn next_snapshot(&mut self, now: Instant) -> Topology {
        if !self.apply_ruling(now) {
            self.number += 1;
        }
        self.snapshot()
    }

    fn snapshot(&self) -> Topology {
        Topology {
            number: self.number,
            primary: self.primary,
            nodes: self.entries.iter().map(|e| e.view.clone()).collect(),
            alarms: self.alarms.clone(),
        }
    }

    /// Returns whether the snapshot is another than the last.
    fn apply_ruling(&mut self, now: Instant) -> bool {
        let rules = ruling::Rules {
            trust_promotion: self.rules.trust_promotion,
            hold_writes: self.is_cold(now),
            earlier: self.earlier(now),
        };
        let claims: Vec<Claim> = self.entries.iter().map(|entry| self.claim(entry)).collect();
        let mut ruling = ruling::rule(rules, self.memory, &claims);
        ruling.alarms.extend(self.own_alarms());
        self.remember(&ruling);
        self.disputed = match ruling.dispute {
            Dispute::None => None,
            Dispute::Open => Some(now),
            Dispute::Restarting => self.disputed,
        };
        let mut changed = (self.primary, &self.alarms) != (ruling.primary, &ruling.alarms);
        for (entry, verdict) in self.entries.iter_mut().zip(&ruling.verdicts) {
            let verdict = as_drained(*verdict, entry.is_drained);
            changed |= update_view(entry, &verdict, now, &mut self.next);
        }
        self.primary = ruling.primary;
        self.alarms = ruling.alarms;
        let known_until = match self.primary {
            Some(_) => None,
            None => self.samples.newest(),
        };
        for entry in &self.entries {
            entry.view.freshness.set_known_until(known_until);
        }
        self.number += u64::from(changed);
        changed
    }

    fn earlier(&self, now: Instant) -> Earlier {
        match self.disputed {
            None => Earlier::Agreed,
            Some(at) if now < at + self.rules.settle => Earlier::Disputed,
            Some(_) => Earlier::Stale,
        }
    }

    /// Those that are not about nodes, in the order of [`Alarm::ALL`].
    fn own_alarms(&self) -> impl Iterator<Item = Alarm> + use<> {
        let unsaved = self.is_unsaved.then_some(Alarm::StateNotSaved);
        let silent = (self.source == source::Word::Silent).then_some(Alarm::SourceSilent);
        unsaved.into_iter().chain(silent)
    }

    fn remember(&mut self, ruling: &Ruling) {
        let same_line = self.memory.system_id == ruling.memory.system_id
            && self.memory.highest == ruling.memory.highest;
        if !same_line {
            self.incumbent = None;
        }
        self.memory = ruling.memory;
        let seated = ruling.primary.and_then(|index| self.entries.get(index));
        if let Some(entry) = seated
            && self.incumbent.as_ref() != Some(&entry.place)
        {
            self.incumbent = Some(entry.place.clone());
        }
    }

    /// Whether the start still holds writes.
    fn is_cold(&mut self, now: Instant) -> bool {
        let spoken = |entry: &Entry| entry.record.word() != Word::Nothing;
        match self.start {
            Start::Cold(until) => {
                // A source may know of nodes that have not even been listed.
                let is_complete = self.source != source::Word::Awaited;
                if now >= until || (is_complete && self.entries.iter().all(spoken)) {
                    self.start = Start::Over;
                }
            }
            Start::Empty | Start::Over => {}
        }
        self.start != Start::Over
    }

    fn claim(&self, entry: &Entry) -> Claim {
        Claim {
            standing: entry.record.standing(),
            system_id: entry.record.system_id(),
            word: entry.record.word(),
            receiving: entry.record.is_receiving(),
            lagging: entry.lags,
            incumbent: self.incumbent.as_ref() == Some(&entry.place),
            vouched: matches!(&self.source, source::Word::Leader(place) if *place == entry.place),
        }
    }

    fn new_entry(&mut self, node: &config::Node, now: Instant) -> Entry {
        let mut view = NodeView::unheard(Arc::new(node.clone()), now);
        view.generation = take(&mut self.next);
        Entry {
            id: NodeId(take(&mut self.next)),
            place: place(node),
            record: Record::new(now),
            view: Arc::new(view),
            is_drained: false,
            lags: false,
        }
    }

    fn settle_anew_if_moved(&mut self, now: Instant) {
        let ours = |entry: &Entry| entry.record.system_id() == self.memory.system_id;
        if !self.entries.iter().any(ours) {
            self.memory.certainty = Certainty::Settling;
            self.start = Start::Cold(now + self.rules.settle);
        }
    }
}

/// The line of WAL that the primary writes.
fn line(primary: &Entry) -> Option<Line> {
    Some(Line {
        generation: primary.view.generation,
        timeline: primary.view.timeline?,
        system_id: primary.view.system_id?,
    })
}

fn take(next: &mut u64) -> u64 {
    *next += 1;
    *next - 1
}

/// As sources name leaders, and the state file the last primary.
pub(super) fn place(node: &config::Node) -> String {
    match node.address {
        Some(address) => format!("{address}:{}", node.port),
        None => format!("{}:{}", node.host, node.port),
    }
}

fn same_place(a: &config::Node, b: &config::Node) -> bool {
    (&a.name, &a.host, a.port) == (&b.name, &b.host, b.port)
}

/// The same node with other settings (weight, zone, limits).
fn reconfigured(mut entry: Entry, node: &config::Node) -> Entry {
    if *entry.view.config != *node {
        let mut view = NodeView::clone(&entry.view);
        view.config = Arc::new(node.clone());
        entry.view = Arc::new(view);
    }
    entry
}

/// Brings a view up to the verdict; returns whether anything is new.
fn update_view(entry: &mut Entry, verdict: &Verdict, now: Instant, next: &mut u64) -> bool {
    let (old, record) = (&entry.view, &entry.record);
    let timeline = record.word().timeline();
    let same_verdict = *verdict == verdict_of(old);
    let same_identity = old.timeline == timeline
        && old.system_id == record.system_id()
        && old.incarnation == record.incarnation();
    if same_verdict && same_identity {
        return false;
    }
    let mut view = NodeView::clone(old);
    if outdates_servers(old, record, verdict) {
        view.generation = take(next);
    }
    if !same_verdict {
        view.since = now;
        if verdict.reason == Reason::Answering {
            view.load.forgive();
        }
    }
    view.role = verdict.role;
    view.health = verdict.health;
    view.reason = verdict.reason;
    view.timeline = timeline;
    view.system_id = record.system_id();
    view.incarnation = record.incarnation();
    entry.view = Arc::new(view);
    true
}

/// The verdict on a node that an operator may have drained: nothing but a replica in rotation leaves it by that.
fn as_drained(verdict: Verdict, is_drained: bool) -> Verdict {
    let applies = is_drained && verdict.role == Role::Replica && verdict.health == Health::Up;
    let (health, reason) = match applies {
        true => (Health::Draining, Reason::Drained),
        false => (verdict.health, verdict.reason),
    };
    Verdict {
        health,
        reason,
        ..verdict
    }
}

fn verdict_of(view: &NodeView) -> Verdict {
    Verdict {
        role: view.role,
        health: view.health,
        reason: view.reason,
    }
}

/// Whether servers dialled under `old` must not be used again.
fn outdates_servers(old: &NodeView, record: &Record, verdict: &Verdict) -> bool {
    let other_line = old.timeline.is_some() && old.timeline != record.word().timeline();
    old.role != verdict.role || other_line || old.incarnation != record.incarnation()
}

#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;
