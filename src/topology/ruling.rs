//! Who is primary: one pure function over what all nodes last said.
//!
//! A last word outlives its speaker's silence. So a primary that is unreachable keeps its role until a higher timeline
//! is seen, and a second writable node on its timeline is a conflict even while the first is silent: which of the two
//! holds the acknowledged writes cannot be known from here.

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
}

/// What must survive every snapshot (and, later, every restart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Memory {
    /// The cluster's.
    pub system_id: Option<u64>,
    /// The highest timeline ever seen in that cluster.
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
}

/// Judges all nodes by their last words and what is remembered.
pub(super) fn rule(memory: Memory, claims: &[Claim]) -> Ruling {
    let memory = remember(memory, claims);
    let verdicts: Vec<Verdict> = match memory.certainty {
        Certainty::Settling => claims.iter().map(settling).collect(),
        Certainty::Settled => settled(memory, claims),
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
    }
}

fn settled(memory: Memory, claims: &[Claim]) -> Vec<Verdict> {
    let seat = seat(memory, claims);
    let judge = |(index, claim)| verdict(memory, &seat, index, claim);
    claims.iter().enumerate().map(judge).collect()
}

fn remember(memory: Memory, claims: &[Claim]) -> Memory {
    let memory = settle(memory, claims);
    if memory.certainty == Certainty::Settling {
        return memory;
    }
    let of_cluster = claims
        .iter()
        .filter(|node| node.system_id == memory.system_id);
    let seen = of_cluster.filter_map(|node| node.word.timeline()).max();
    Memory {
        highest: memory.highest.max(seen.unwrap_or(0)),
        ..memory
    }
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
enum Seat {
    Empty,
    Taken(usize),
    /// More than one node wrote on the highest timeline.
    Disputed,
}

fn seat(memory: Memory, claims: &[Claim]) -> Seat {
    let mut holders = claims.iter().enumerate().filter(|(_, node)| {
        node.system_id == memory.system_id && node.word == Word::Writing(memory.highest)
    });
    match (holders.next(), holders.next()) {
        (None, _) => Seat::Empty,
        (Some((index, _)), None) => Seat::Taken(index),
        (Some(_), Some(_)) => Seat::Disputed,
    }
}

fn settling(claim: &Claim) -> Verdict {
    let (health, reason) = match claim.standing {
        Standing::Serving | Standing::Draining => (Health::Down, Reason::Settling),
        other => health(other),
    };
    Verdict {
        role: Role::Unknown,
        health,
        reason,
    }
}

fn verdict(memory: Memory, seat: &Seat, index: usize, claim: &Claim) -> Verdict {
    let foreign = claim.system_id.is_some() && claim.system_id != memory.system_id;
    let seated = matches!(seat, Seat::Taken(holder) if *holder == index);
    let (role, fence) = match claim.word {
        _ if foreign => (Role::Unknown, Some(Reason::ForeignSystem)),
        Word::Nothing => (Role::Unknown, None),
        Word::Replaying(_) => (Role::Replica, None),
        Word::Writing(_) if seated => (Role::Primary, None),
        Word::Writing(timeline) if timeline < memory.highest => {
            (Role::Unknown, Some(Reason::OldTimeline))
        }
        Word::Writing(_) => (Role::Unknown, Some(Reason::Conflict)),
    };
    let (health, reason) = match (health(claim.standing), fence) {
        ((Health::Down, reason), _) => (Health::Down, reason),
        (_, Some(reason)) => (Health::Fenced, reason),
        (open, None) => open,
    };
    Verdict {
        role,
        health,
        reason,
    }
}

fn health(standing: Standing) -> (Health, Reason) {
    match standing {
        Standing::Unheard => (Health::Down, Reason::Unheard),
        Standing::Serving => (Health::Up, Reason::Answering),
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
        Alarm::ForeignNode => any(Reason::ForeignSystem),
    };
    Alarm::ALL.into_iter().filter(rises).collect()
}
