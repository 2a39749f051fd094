//! Who is primary: one pure function over what all nodes last said.
//!
//! A last word outlives its speaker's silence. So a primary that is unreachable keeps its role until a higher timeline
//! is seen, and a second writable node on its timeline is a conflict even while the first is silent: which of the two
//! holds the acknowledged writes cannot be known from here.
//!
//! The highest timeline wins, with one exception: a primary that answers and has replicas streaming was not replaced.
//! A promotion beside it is a mistake, or a change of plan that is not finished; until one of the two yields, nobody
//! gets writes. A restart is no yielding, unless it takes longer than `failover.settle`.

use super::{
    Alarm, Health, Reason, Role,
    record::{Standing, Word},
};

/// What one node last said, and whether it still answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Claim {
    pub standing: Standing,
    pub system_id: Option<u64>,
    pub word: Word,
    /// Its WAL receiver ran at its last answer.
    pub receiving: bool,
    /// A replica that was too far behind when it last answered.
    pub lagging: bool,
    /// It was the last to be seated on the highest timeline.
    pub incumbent: bool,
    /// A source calls it the leader.
    pub vouched: bool,
}

/// What the operator decided, and where the proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Follow a promotion even while the old primary answers and streams.
    pub trust_promotion: bool,
    /// After a start: somebody has not spoken yet, who could know of a higher timeline.
    pub hold_writes: bool,
    pub earlier: Earlier,
}

/// Whether the last ruling found a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    Agreed,
    /// The primary in it answered a moment ago: it may be restarting.
    Disputed,
    /// It has not answered for long.
    Stale,
}

/// Whether the highest timeline is one that nobody may follow yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispute {
    None,
    /// The primary below it goes on. Once there is a dispute it takes no replicas for that, only that none follows the
    /// other.
    Open,
    /// The primary below it is restarting, which a crash may have caused. It has some time for that.
    Restarting,
}

/// What must survive every snapshot, and every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Memory {
    /// The cluster's.
    pub system_id: Option<u64>,
    /// The highest timeline ever seen in that cluster; one that is disputed does not count yet.
    pub highest: u32,
    /// How sure `system_id` is.
    pub certainty: Certainty,
}

/// Whether the nodes are known to be of the remembered cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Certainty {
    /// Not every node had its chance to speak: nobody is named yet.
    #[default]
    Settling,
    /// Another system identifier is foreign from now on.
    Settled,
}

/// The judgement on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub role: Role,
    pub health: Health,
    pub reason: Reason,
}

/// The judgement on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ruling {
    pub memory: Memory,
    /// The node that gets writes now.
    pub primary: Option<usize>,
    pub verdicts: Vec<Verdict>,
    pub alarms: Vec<Alarm>,
    pub dispute: Dispute,
}

/// Judges all nodes by their last words and what is remembered.
pub(super) fn rule(rules: Rules, memory: Memory, claims: &[Claim]) -> Ruling {
    let memory = settle(memory, claims);
    let (memory, dispute, verdicts) = match memory.certainty {
        Certainty::Settling => {
            let verdicts: Vec<Verdict> = claims.iter().map(settling).collect();
            (memory, Dispute::None, verdicts)
        }
        Certainty::Settled => settled(rules, memory, claims),
    };
    let primary = verdicts
        .iter()
        .position(|node| node.role == Role::Primary && node.health == Health::Up);
    let alarms = alarms(primary, &verdicts);
    Ruling {
        memory,
        primary,
        verdicts,
        alarms,
        dispute,
    }
}

fn settled(rules: Rules, memory: Memory, claims: &[Claim]) -> (Memory, Dispute, Vec<Verdict>) {
    let bench = Bench::new(rules, memory, claims);
    let verdicts = claims.iter().enumerate();
    let verdicts = verdicts.map(|(index, claim)| bench.verdict(index, claim));
    (bench.memory, bench.dispute, verdicts.collect())
}

/// Decides which cluster this is, once nobody is unheard.
fn settle(memory: Memory, claims: &[Claim]) -> Memory {
    let unheard = claims.iter().any(|node| node.standing == Standing::Unheard);
    match commonest_system(claims) {
        Some(id) if memory.certainty == Certainty::Settling && !unheard => Memory {
            system_id: Some(id),
            highest: if memory.system_id == Some(id) {
                memory.highest
            } else {
                0
            },
            certainty: Certainty::Settled,
        },
        _ => memory,
    }
}

/// The system identifier of most nodes; the first in the order of the configuration where two are equally common.
fn commonest_system(claims: &[Claim]) -> Option<u64> {
    let count = |id: u64| claims.iter().filter(|n| n.system_id == Some(id)).count();
    let ids = claims.iter().filter_map(|node| node.system_id);
    ids.rev().max_by_key(|id| count(*id))
}

/// Who has the highest timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Empty,
    Taken(usize),
    /// More than one node wrote on the highest timeline.
    Conflict,
}

/// What the verdicts on single nodes rest on.
struct Bench {
    rules: Rules,
    memory: Memory,
    seat: Seat,
    dispute: Dispute,
    /// The seated node answers, and a replica receives its timeline.
    is_followed: bool,
}

impl Bench {
    fn new(rules: Rules, memory: Memory, claims: &[Claim]) -> Self {
        let ours = |node: &&Claim| node.system_id == memory.system_id;
        let told = claims.iter().filter(ours);
        let told = told.filter_map(|node| node.word.timeline()).max();
        let told = told.unwrap_or(0);
        let dispute = dispute(rules, memory, told, claims);
        let is_disputed = dispute != Dispute::None;
        let vouched = vouched(memory, claims).filter(|_| is_disputed);
        let highest = match (is_disputed, vouched) {
            (false, _) => memory.highest.max(told),
            (true, Some((_, timeline))) => timeline,
            (true, None) => memory.highest,
        };
        let raised = highest > memory.highest;
        let memory = Memory { highest, ..memory };
        let seat = match (is_disputed, vouched) {
            (false, _) => seat(memory, raised, claims),
            (true, Some((index, _))) => Seat::Taken(index),
            (true, None) => Seat::Empty,
        };
        let is_followed = match seat {
            Seat::Taken(holder) if claims[holder].standing.is_serving() => {
                claims.iter().any(|node| receives(memory, highest, node))
            }
            _ => false,
        };
        Bench {
            rules,
            memory,
            seat,
            dispute,
            is_followed,
        }
    }

    fn verdict(&self, index: usize, claim: &Claim) -> Verdict {
        let (role, barred) = self.role(index, claim);
        let (health, reason) = match (health(claim.standing), barred) {
            ((Health::Down, reason), _) => (Health::Down, reason),
            (_, Some(barred)) => barred,
            (open, None) => open,
        };
        Verdict {
            role,
            health,
            reason,
        }
    }

    /// What the node is, and why it takes no work although it answers.
    fn role(&self, index: usize, claim: &Claim) -> (Role, Option<(Health, Reason)>) {
        let fenced = |reason| (Role::Unknown, Some((Health::Fenced, reason)));
        let foreign = claim.system_id.is_some() && claim.system_id != self.memory.system_id;
        match claim.word {
            _ if foreign => fenced(Reason::ForeignSystem),
            Word::Nothing => (Role::Unknown, None),
            Word::Replaying(_) => (Role::Replica, self.astray(claim)),
            Word::Writing(timeline) if timeline < self.memory.highest => {
                fenced(Reason::OldTimeline)
            }
            Word::Writing(_) if self.seat == Seat::Taken(index) => {
                let held = self.rules.hold_writes && !claim.vouched;
                match held {
                    true => (Role::Unknown, Some((Health::Down, Reason::Settling))),
                    false => (Role::Primary, None),
                }
            }
            Word::Writing(_) if self.dispute != Dispute::None => fenced(Reason::Disputed),
            Word::Writing(_) => fenced(Reason::Conflict),
        }
    }

    /// Why a replica is out of rotation although it answers: it shows what the primary does not, or will not for long.
    fn astray(&self, claim: &Claim) -> Option<(Health, Reason)> {
        let timeline = claim.word.timeline()?;
        let reason = match claim.receiving {
            true if timeline != self.memory.highest => Reason::OtherTimeline,
            // Without any that follows, those that did are still the best there is.
            false if self.is_followed => Reason::NotStreaming,
            _ if claim.lagging => Reason::Lagging,
            _ => return None,
        };
        matches!(self.seat, Seat::Taken(_)).then_some((Health::Down, reason))
    }
}

/// Neither the operator nor a source says that `told` is to be followed, and a primary below it goes on.
fn dispute(rules: Rules, memory: Memory, told: u32, claims: &[Claim]) -> Dispute {
    let is_vouched = vouched(memory, claims).is_some_and(|(_, timeline)| timeline == told);
    if rules.trust_promotion || is_vouched {
        return Dispute::None;
    }
    let is_settled = || claims.iter().any(|node| receives(memory, told, node));
    let goes_on = olds(memory, told, claims).any(|(node, timeline)| {
        let streams = claims.iter().any(|it| receives(memory, timeline, it));
        node.standing.is_serving() && streams
    });
    if goes_on {
        return Dispute::Open;
    }
    if rules.earlier == Earlier::Agreed || is_settled() {
        return Dispute::None;
    }
    let standings = || olds(memory, told, claims).map(|(node, _)| node.standing);
    let answers = |standing: Standing| standing.is_serving() || standing == Standing::Draining;
    let restarts = |standing| {
        standing == Standing::Gone(Reason::Refused)
            || standing == Standing::Gone(Reason::StartingUp)
    };
    match () {
        () if standings().any(answers) => Dispute::Open,
        () if rules.earlier == Earlier::Disputed && standings().any(restarts) => {
            Dispute::Restarting
        }
        () => Dispute::None,
    }
}

/// Writers below `told` that were not left behind before, and their timelines.
fn olds(memory: Memory, told: u32, claims: &[Claim]) -> impl Iterator<Item = (&Claim, u32)> {
    let ours = claims
        .iter()
        .filter(move |n| n.system_id == memory.system_id);
    ours.filter_map(move |node| match node.word {
        Word::Writing(timeline) if (memory.highest..told).contains(&timeline) => {
            Some((node, timeline))
        }
        _ => None,
    })
}

/// The writable node that a source calls the leader, and its timeline. One that was left behind before is none: a
/// source may be the last to hear.
fn vouched(memory: Memory, claims: &[Claim]) -> Option<(usize, u32)> {
    let mut all = claims.iter().enumerate();
    all.find_map(|(index, node)| match node.word {
        Word::Writing(timeline) if node.vouched && timeline >= memory.highest => {
            (node.system_id == memory.system_id).then_some((index, timeline))
        }
        _ => None,
    })
}

/// Whether a node answers and receives WAL of this timeline.
fn receives(memory: Memory, timeline: u32, node: &Claim) -> bool {
    node.receiving
        && node.word == Word::Replaying(Some(timeline))
        && node.standing.is_serving()
        && node.system_id == memory.system_id
}

/// An incumbent that has not spoken since a restart counts as a second holder, as its last word would have: another one
/// may not have its writes. `raised`: the timeline is new, and the incumbent one of the past.
fn seat(memory: Memory, raised: bool, claims: &[Claim]) -> Seat {
    let mut holders = claims.iter().enumerate().filter(|(_, node)| {
        let writes = node.word == Word::Writing(memory.highest);
        let may_write = !raised && node.incumbent && node.word == Word::Nothing;
        (node.system_id == memory.system_id && writes) || may_write
    });
    match (holders.next(), holders.next()) {
        (Some((index, node)), None) if node.word != Word::Nothing => Seat::Taken(index),
        (None, _) | (Some(_), None) => Seat::Empty,
        (Some(_), Some(_)) => Seat::Conflict,
    }
}

fn settling(claim: &Claim) -> Verdict {
    let (health, reason) = match claim.standing {
        Standing::Serving | Standing::Crowded | Standing::Draining => {
            (Health::Down, Reason::Settling)
        }
        other => health(other),
    };
    Verdict {
        role: Role::Unknown,
        health,
        reason,
    }
}

fn health(standing: Standing) -> (Health, Reason) {
    match standing {
        Standing::Unheard => (Health::Down, Reason::Unheard),
        Standing::Serving => (Health::Up, Reason::Answering),
        Standing::Crowded => (Health::Up, Reason::Full),
        Standing::Draining => (Health::Draining, Reason::ShuttingDown),
        Standing::Gone(reason) => (Health::Down, reason),
    }
}

fn alarms(primary: Option<usize>, verdicts: &[Verdict]) -> Vec<Alarm> {
    let any = |reason| verdicts.iter().any(|node| node.reason == reason);
    let rises = |alarm: &Alarm| match alarm {
        Alarm::NoPrimary => primary.is_none(),
        Alarm::TwoPrimaries => any(Reason::Conflict),
        Alarm::StalePrimary => any(Reason::OldTimeline),
        Alarm::StrayPromotion => any(Reason::Disputed),
        Alarm::ForeignNode => any(Reason::ForeignSystem),
        // Not a matter of nodes: the judge's.
        Alarm::StateNotSaved | Alarm::SourceSilent => false,
    };
    Alarm::ALL.into_iter().filter(rises).collect()
}
