//! The judge under tables of cases and under random histories.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::{
    config::PrimaryReads,
    topology::{
        Health, Lsn, Reason, Role, balance,
        facts::{Answer, Dial, Wal},
    },
};

const PATIENCE: Duration = Duration::from_millis(800);
const SETTLE: Duration = Duration::from_secs(5);
/// Longer than anything but a test of it lasts.
const MAX_STALENESS: Duration = Duration::from_secs(10_000);
const TICK: Duration = Duration::from_millis(50);
const OURS: u64 = 7;
const FOREIGN: u64 = 8;

pub(super) fn node(index: usize) -> config::Node {
    config::Node {
        max_servers: 10,
        ..config::Node::at(format!("pg{index}"), format!("host{index}"), 5432)
    }
}

fn writing(timeline: u32) -> Wal {
    Wal::Writing {
        timeline,
        insert: Lsn(100),
    }
}

fn replaying(timeline: u32) -> Wal {
    Wal::Replaying {
        timeline: Some(timeline),
        replay: Some(Lsn(90)),
    }
}

/// A judge with a clock of its own, and the last snapshot.
struct Sim {
    judge: Judge,
    ids: Vec<NodeId>,
    now: Instant,
    last: Topology,
}

impl Sim {
    fn new(nodes: usize) -> Self {
        Sim::with(nodes, None, false)
    }

    fn with(nodes: usize, state: Option<State>, trust_promotion: bool) -> Self {
        let rules = Rules {
            patience: PATIENCE,
            settle: SETTLE,
            trust_promotion,
            max_staleness: MAX_STALENESS,
        };
        let mut judge = Judge::new(rules, state);
        let now = Instant::now();
        let nodes: Vec<_> = (0..nodes).map(node).collect();
        let (ids, last) = judge.set_nodes(&nodes, now);
        Sim {
            judge,
            ids,
            now,
            last,
        }
    }

    /// A cluster in order: node 0 writes timeline 1, the others replay it.
    fn steady(nodes: usize) -> Self {
        Sim::new(nodes).steadied()
    }

    /// The same, where every promotion is followed.
    fn trusting(nodes: usize) -> Self {
        Sim::with(nodes, None, true).steadied()
    }

    fn steadied(mut self) -> Self {
        let nodes = self.ids.len();
        let sim = &mut self;
        sim.answers(0, writing(1));
        for index in 1..nodes {
            sim.answers(index, replaying(1));
        }
        assert_eq!(sim.last.primary, Some(0));
        self
    }

    fn tell(&mut self, index: usize, fact: Fact) -> &Topology {
        self.now += TICK;
        if let Some(next) = self.judge.observe(self.ids[index], self.now, fact) {
            assert!(next.number > self.last.number);
            self.last = next;
        }
        &self.last
    }

    /// Two answers, as many as bring any node back.
    fn answers(&mut self, index: usize, wal: Wal) -> &Topology {
        for _ in 0..2 {
            let answer = self.answer(OURS, wal, None);
            self.tell(index, answer);
        }
        &self.last
    }

    /// An answer asked half a tick before it is told.
    fn answer(&self, system_id: u64, wal: Wal, started: Option<u64>) -> Fact {
        Fact::Answer(Answer {
            asked: self.now + TICK / 2,
            system_id,
            checkpointer: started.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)),
            wal,
        })
    }

    fn loses(&mut self, index: usize, dial: Dial) -> &Topology {
        self.tell(index, Fact::LinkLost);
        self.tell(index, Fact::Dial(dial))
    }

    fn node(&self, index: usize) -> &NodeView {
        &self.last.nodes[index]
    }

    fn state(&self, index: usize) -> (Role, Health, Reason) {
        let node = self.node(index);
        (node.role, node.health, node.reason)
    }
}

#[test]
fn nobody_is_primary_before_every_node_had_its_chance() {
    let mut sim = Sim::new(2);
    sim.answers(0, writing(1));
    assert_eq!(sim.last.primary, None);
    assert_eq!(
        sim.state(0),
        (Role::Unknown, Health::Down, Reason::Settling)
    );
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, Some(1));
    assert_eq!(
        sim.state(0),
        (Role::Unknown, Health::Fenced, Reason::OldTimeline)
    );
}

#[test]
fn a_node_that_never_speaks_holds_writes_until_the_start_is_settled() {
    for dial in [
        Dial::Refused,
        Dial::TimedOut,
        Dial::NotNow,
        Dial::LoginRefused,
    ] {
        let mut sim = Sim::new(3);
        let began = sim.now;
        sim.answers(0, writing(1));
        sim.answers(1, replaying(1));
        sim.now += PATIENCE;
        sim.tell(2, Fact::Dial(dial));
        while sim.now - began < SETTLE - TICK {
            sim.answers(0, writing(1));
            assert_eq!(
                sim.state(0),
                (Role::Unknown, Health::Down, Reason::Settling),
                "{dial:?}"
            );
            assert_eq!(sim.state(1).1, Health::Up, "reads go on");
        }
        sim.answers(0, writing(1));
        assert_eq!(sim.last.primary, Some(0), "{dial:?}");
    }
}

#[test]
fn the_start_is_over_as_soon_as_the_last_node_has_spoken() {
    let mut sim = Sim::new(2);
    sim.answers(0, writing(1));
    sim.tell(1, Fact::Dial(Dial::Refused));
    assert_eq!(sim.last.primary, None);
    sim.answers(1, replaying(1));
    assert_eq!(sim.last.primary, Some(0));
    sim.loses(1, Dial::Refused);
    assert_eq!(sim.last.primary, Some(0), "only the start waits");
}

fn state(timeline: u32, primary: Option<usize>) -> State {
    State {
        system_id: OURS,
        timeline,
        primary: primary.map(|index| format!("host{index}:5432")),
    }
}

#[test]
fn a_writable_node_below_the_remembered_timeline_is_fenced_after_a_restart() {
    let mut sim = Sim::with(2, Some(state(2, Some(1))), false);
    sim.answers(0, writing(1));
    sim.tell(1, Fact::Dial(Dial::Refused));
    sim.now += SETTLE * 100;
    sim.answers(0, writing(1));
    assert_eq!(sim.last.primary, None);
    assert_eq!(sim.state(0).2, Reason::OldTimeline);
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, Some(1));
    sim.loses(1, Dial::Refused);
    sim.answers(0, writing(3));
    assert_eq!(sim.last.primary, Some(0), "whoever was promoted since");
    assert_eq!(sim.judge.state(), Some(state(3, Some(0))));
}

#[test]
fn a_second_writer_on_the_remembered_timeline_gets_no_writes_while_the_first_is_silent() {
    let mut sim = Sim::with(2, Some(state(2, Some(1))), false);
    sim.answers(0, writing(2));
    sim.now += SETTLE;
    sim.tell(1, Fact::Dial(Dial::Refused));
    sim.answers(0, writing(2));
    assert_eq!((sim.last.primary, sim.state(0).2), (None, Reason::Conflict));
    sim.answers(1, replaying(2));
    assert_eq!(
        sim.last.primary,
        Some(0),
        "the first has given it up itself"
    );
}

#[test]
fn nodes_of_another_system_than_the_remembered_are_all_foreign() {
    let mut sim = Sim::with(1, Some(state(2, None)), false);
    let fact = sim.answer(FOREIGN, writing(9), None);
    sim.tell(0, fact);
    assert_eq!(sim.state(0).2, Reason::ForeignSystem);
    assert_eq!(sim.judge.state(), Some(state(2, None)));
}

#[test]
fn what_is_remembered_follows_the_primary() {
    let mut sim = Sim::new(2);
    assert_eq!(sim.judge.state(), None);
    sim = sim.steadied();
    assert_eq!(sim.judge.state(), Some(state(1, Some(0))));
    sim.loses(0, Dial::Refused);
    assert_eq!(sim.judge.state(), Some(state(1, Some(0))));
    sim.answers(1, replaying(2));
    assert_eq!(sim.judge.state(), Some(state(2, None)));
    sim.answers(1, writing(2));
    assert_eq!(sim.judge.state(), Some(state(2, Some(1))));
}

#[test]
fn a_state_that_cannot_be_saved_is_an_alarm_until_it_can() {
    let mut sim = Sim::steady(1);
    let alarmed = sim.judge.note_saved(false, sim.now).unwrap();
    assert_eq!(alarmed.alarms, [Alarm::StateNotSaved]);
    assert_eq!(alarmed.primary, Some(0), "and no reason to stop");
    assert!(sim.judge.note_saved(false, sim.now).is_none());
    assert_eq!(sim.judge.note_saved(true, sim.now).unwrap().alarms, []);
}

/// A promotion of node 1 beside node 0, which has node 2 streaming.
fn stray() -> Sim {
    let mut sim = Sim::steady(3);
    sim.answers(1, writing(2));
    sim
}

#[test]
fn a_promotion_beside_a_primary_that_answers_and_streams_holds_writes() {
    let sim = stray();
    let disputed = (Role::Unknown, Health::Fenced, Reason::Disputed);
    assert_eq!([sim.state(0), sim.state(1)], [disputed; 2]);
    assert_eq!(sim.state(2).1, Health::Up, "reads go on");
    assert_eq!(sim.last.alarms, [Alarm::NoPrimary, Alarm::StrayPromotion]);
    assert_eq!(sim.judge.state().unwrap().timeline, 1, "not yet");
}

#[test]
fn a_disputed_promotion_is_followed_once_the_old_primary_is_gone_or_its_replicas_follow_the_other()
{
    let gone: [fn(&mut Sim) -> &Topology; 3] = [
        |sim| {
            sim.tell(0, Fact::LinkLost);
            sim.now += PATIENCE;
            sim.tell(0, Fact::Dial(Dial::TimedOut))
        },
        |sim| sim.answers(2, replaying(2)),
        |sim| {
            sim.loses(0, Dial::Refused);
            assert_eq!(sim.last.primary, None, "it may be restarting");
            sim.now += SETTLE;
            sim.answers(1, writing(2))
        },
    ];
    for gone in gone {
        let mut sim = stray();
        gone(&mut sim);
        assert_eq!(sim.last.primary, Some(1));
        sim.answers(0, writing(1));
        sim.answers(2, replaying(1));
        assert_eq!(sim.last.primary, Some(1), "what was followed stays so");
        assert_eq!(sim.state(0).2, Reason::OldTimeline);
    }
}

#[test]
fn a_disputed_promotion_that_is_taken_back_leaves_the_primary_as_it_was() {
    let mut sim = stray();
    sim.loses(1, Dial::Refused);
    assert_eq!(sim.last.primary, None, "its last word stands");
    sim.answers(1, replaying(1));
    assert_eq!((sim.last.primary, &sim.last.alarms[..]), (Some(0), &[][..]));
}

#[test]
fn a_restart_of_the_primary_does_not_decide_a_dispute() {
    let mut sim = stray();
    let silent = Wal::Replaying {
        timeline: None,
        replay: None,
    };
    sim.loses(0, Dial::NotNow);
    sim.answers(2, silent);
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, None);
    sim.answers(0, writing(1));
    // Its replica takes longer to come back than the restart did.
    sim.now += SETTLE * 2;
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, None);
    sim.loses(2, Dial::Refused);
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, None);
    assert_eq!(sim.last.alarms, [Alarm::NoPrimary, Alarm::StrayPromotion]);
    sim.answers(1, replaying(1));
    assert_eq!(sim.last.primary, Some(0));
}

#[test]
fn a_trusted_promotion_is_followed_beside_a_primary_that_streams() {
    let mut sim = Sim::trusting(3);
    sim.answers(1, writing(2));
    assert_eq!(sim.last.primary, Some(1));
    assert_eq!(sim.state(0).2, Reason::OldTimeline);
}

fn leader(index: usize) -> source::Word {
    source::Word::Leader(format!("host{index}:5432"))
}

#[test]
fn the_leader_by_a_source_s_word_decides_a_dispute_and_nothing_else() {
    let mut sim = stray();
    let t = sim.judge.hear_source(leader(0), sim.now).unwrap();
    assert_eq!(
        (t.primary, &t.alarms[..]),
        (Some(0), &[Alarm::StrayPromotion][..])
    );
    assert_eq!(t.nodes[1].reason, Reason::Disputed);
    assert_eq!(sim.judge.state(), Some(state(1, Some(0))));
    let t = sim.judge.hear_source(leader(1), sim.now).unwrap();
    assert_eq!(
        (t.primary, t.nodes[0].reason),
        (Some(1), Reason::OldTimeline)
    );
    let late = sim.judge.hear_source(leader(0), sim.now);
    assert!(late.is_none(), "what was left behind stays so: {late:?}");
    sim.answers(0, writing(2));
    assert_eq!(sim.last.primary, None, "two on one timeline");
}

#[test]
fn a_source_that_is_silent_is_an_alarm_and_changes_nothing() {
    let mut sim = Sim::steady(2);
    sim.judge.hear_source(leader(0), sim.now);
    let t = sim
        .judge
        .hear_source(source::Word::Silent, sim.now)
        .unwrap();
    assert_eq!(
        (t.primary, &t.alarms[..]),
        (Some(0), &[Alarm::SourceSilent][..])
    );
    let t = sim
        .judge
        .hear_source(source::Word::Leaderless, sim.now)
        .unwrap();
    assert_eq!((t.primary, &t.alarms[..]), (Some(0), &[][..]));
}

#[test]
fn a_replica_that_lags_leaves_rotation_until_it_has_caught_up_well() {
    let at = |replay| Wal::Replaying {
        timeline: Some(1),
        replay: Some(Lsn(replay)),
    };
    let mut sim = Sim::steady(3);
    let lagging = (Role::Replica, Health::Down, Reason::Lagging);
    let write = |sim: &mut Sim, insert: u64, later: Duration| {
        sim.now += later;
        let insert = Lsn(insert);
        sim.answers(
            0,
            Wal::Writing {
                timeline: 1,
                insert,
            },
        );
        sim.answers(1, at(insert.0));
    };
    write(&mut sim, 200, TICK);
    write(&mut sim, 300, MAX_STALENESS / 2);
    sim.answers(2, at(199));
    assert_eq!(sim.state(2).1, Health::Up, "by half of it");
    write(&mut sim, 400, MAX_STALENESS);
    sim.answers(2, at(199));
    assert_eq!(sim.state(2), lagging);
    assert_eq!(sim.state(1).1, Health::Up);
    sim.answers(2, at(299));
    assert_eq!(sim.state(2), lagging, "as far behind as before");
    sim.loses(0, Dial::Refused);
    sim.now += MAX_STALENESS * 2;
    sim.answers(2, at(399));
    assert_eq!(sim.state(2).1, Health::Up, "caught up");
    sim.answers(2, at(399));
    assert_eq!(sim.state(2).1, Health::Up, "and nothing is written");
}

#[test]
fn what_a_replica_has_grows_no_older_while_there_is_no_primary() {
    let mut sim = Sim::steady(2);
    let (insert, timeline) = (Lsn(200), 1);
    sim.answers(0, Wal::Writing { timeline, insert });
    let replay = Some(insert);
    let timeline = Some(timeline);
    sim.answers(1, Wal::Replaying { timeline, replay });
    let later = |sim: &Sim| Moment::of(sim.now + MAX_STALENESS);
    let age = |sim: &Sim| sim.node(1).freshness.age(later(sim));
    assert!(age(&sim) > MAX_STALENESS);
    sim.loses(0, Dial::Refused);
    assert!(sim.last.primary.is_none() && sim.node(1).is_up());
    assert_eq!(age(&sim), Duration::ZERO);
    sim.answers(1, Wal::Replaying { timeline, replay });
    assert_eq!(age(&sim), Duration::ZERO, "and that stays proven");
}

#[test]
fn reads_pass_a_node_over_whose_probe_was_lost_before_it_counts_as_down() {
    let mut sim = Sim::steady(3);
    sim.tell(2, Fact::LinkLost);
    assert_eq!(sim.state(2).1, Health::Up);
    assert!(sim.node(2).load.is_shunned());
    assert!(!sim.node(1).load.is_shunned());
}

#[test]
fn replicas_that_do_not_follow_the_primary_leave_rotation() {
    let mut sim = Sim::trusting(4);
    sim.answers(1, writing(2));
    assert_eq!(sim.state(2).2, Reason::OtherTimeline, "of the old primary");
    sim.answers(2, replaying(2));
    assert_eq!(sim.state(2).2, Reason::Answering);
    let silent = Wal::Replaying {
        timeline: None,
        replay: None,
    };
    sim.answers(3, silent);
    assert_eq!(
        sim.state(3),
        (Role::Replica, Health::Down, Reason::NotStreaming)
    );
    sim.answers(2, silent);
    assert_eq!(sim.state(2).1, Health::Up, "not the last one");
    sim.answers(3, replaying(2));
    assert_eq!([sim.state(2).1, sim.state(3).1], [Health::Down, Health::Up]);
    sim.loses(1, Dial::Refused);
    assert_eq!(sim.state(2).1, Health::Up, "there is nothing to follow");
}

#[test]
fn a_replica_that_never_streamed_stays_in_rotation() {
    let mut sim = Sim::new(3);
    sim.answers(0, writing(1));
    sim.answers(1, replaying(1));
    sim.answers(
        2,
        Wal::Replaying {
            timeline: None,
            replay: None,
        },
    );
    assert_eq!(sim.state(2), (Role::Replica, Health::Up, Reason::Answering));
}

#[test]
fn a_lost_link_alone_moves_nothing() {
    for dial in [Dial::Broken, Dial::TimedOut, Dial::Full, Dial::LoginRefused] {
        let mut sim = Sim::steady(2);
        let before = sim.last.number;
        sim.loses(0, dial);
        assert_eq!(sim.last.primary, Some(0), "{dial:?}");
        sim.answers(0, writing(1));
        assert!(
            sim.last.number <= before + 1,
            "{dial:?}: only the incarnation is in doubt"
        );
    }
}

#[test]
fn silence_beyond_the_patience_takes_a_node_out() {
    let cases = [
        (Dial::Broken, Reason::Silent),
        (Dial::TimedOut, Reason::Silent),
        (Dial::Full, Reason::Full),
        (Dial::LoginRefused, Reason::LoginRefused),
    ];
    for (dial, reason) in cases {
        let mut sim = Sim::steady(2);
        sim.tell(1, Fact::LinkLost);
        sim.now += PATIENCE;
        sim.tell(1, Fact::Dial(dial));
        assert_eq!(sim.state(1), (Role::Replica, Health::Down, reason));
    }
}

#[test]
fn a_refused_dial_without_a_link_takes_a_node_out_at_once() {
    let mut sim = Sim::steady(2);
    sim.loses(0, Dial::Refused);
    assert_eq!(sim.state(0), (Role::Primary, Health::Down, Reason::Refused));
    assert_eq!(
        (sim.last.primary, &sim.last.alarms[..]),
        (None, &[Alarm::NoPrimary][..])
    );
}

#[test]
fn failed_dials_beside_a_living_link_count_only_in_a_row() {
    let mut sim = Sim::steady(1);
    sim.tell(0, Fact::Dial(Dial::TimedOut));
    sim.tell(0, Fact::Dial(Dial::Accepted));
    sim.tell(0, Fact::Dial(Dial::TimedOut));
    assert_eq!(sim.state(0).1, Health::Up);
    sim.tell(0, Fact::Dial(Dial::TimedOut));
    assert_eq!(
        sim.state(0),
        (Role::Primary, Health::Down, Reason::NoNewConnections)
    );
    sim.answers(0, writing(1));
    assert_eq!(
        sim.state(0).1,
        Health::Down,
        "the link alone does not bring it back"
    );
    sim.tell(0, Fact::Dial(Dial::Accepted));
    sim.answers(0, writing(1));
    assert_eq!(sim.state(0).1, Health::Up);
}

#[test]
fn a_refusal_beside_a_link_that_still_answers_is_a_smart_shutdown() {
    let mut sim = Sim::steady(2);
    sim.tell(0, Fact::Dial(Dial::NotNow));
    assert_eq!(sim.state(0).1, Health::Up);
    sim.answers(0, writing(1));
    assert_eq!(
        sim.state(0),
        (Role::Primary, Health::Draining, Reason::ShuttingDown)
    );
    assert_eq!(sim.last.primary, None);
    sim.loses(0, Dial::NotNow);
    assert_eq!(sim.state(0).1, Health::Draining);
    sim.tell(0, Fact::Dial(Dial::Refused));
    assert_eq!(sim.state(0).1, Health::Down);
}

#[test]
fn a_refusal_without_a_link_is_a_restart() {
    let mut sim = Sim::steady(2);
    sim.loses(0, Dial::NotNow);
    assert_eq!(
        sim.state(0),
        (Role::Primary, Health::Down, Reason::StartingUp)
    );
}

#[test]
fn a_crash_restart_keeps_the_role_and_changes_incarnation_and_generation() {
    let mut sim = Sim::steady(2);
    let fact = sim.answer(OURS, writing(1), Some(1));
    let before = sim.tell(0, fact).nodes[0].clone();
    sim.loses(0, Dial::NotNow);
    let fact = sim.answer(OURS, writing(1), Some(2));
    sim.tell(0, fact);
    sim.answers(0, writing(1));
    assert_eq!(sim.last.primary, Some(0));
    assert_eq!(sim.node(0).incarnation, before.incarnation + 1);
    assert!(sim.node(0).generation > before.generation);
    assert_eq!(sim.last.alarms, []);
}

#[test]
fn a_lost_link_to_the_same_incarnation_keeps_servers_usable() {
    let mut sim = Sim::steady(2);
    let fact = sim.answer(OURS, writing(1), Some(1));
    let before = sim.tell(0, fact).nodes[0].clone();
    sim.loses(0, Dial::Accepted);
    let fact = sim.answer(OURS, writing(1), Some(1));
    sim.tell(0, fact);
    assert_eq!(sim.node(0).generation, before.generation);
}

#[test]
fn a_promotion_moves_the_primary_and_fences_the_old_one() {
    let mut sim = Sim::steady(2);
    let before = sim.last.clone();
    let fact = sim.answer(OURS, writing(2), None);
    sim.tell(1, fact);
    assert_eq!(sim.last.primary, Some(1), "the first answer is enough");
    assert_eq!(
        sim.state(0),
        (Role::Unknown, Health::Fenced, Reason::OldTimeline)
    );
    assert_eq!(sim.last.alarms, [Alarm::StalePrimary]);
    for index in 0..2 {
        assert!(sim.node(index).generation > before.nodes[index].generation);
    }
    sim.answers(0, replaying(2));
    assert_eq!(sim.state(0), (Role::Replica, Health::Up, Reason::Answering));
    assert_eq!(sim.last.alarms, []);
}

#[test]
fn a_higher_timeline_seen_by_a_replica_fences_the_primary_at_once() {
    let mut sim = Sim::steady(2);
    sim.answers(1, replaying(2));
    assert_eq!(sim.last.primary, None);
    assert_eq!(sim.state(0).2, Reason::OldTimeline);
}

#[test]
fn two_writers_on_one_timeline_leave_nobody_primary() {
    let mut sim = Sim::steady(2);
    sim.answers(1, writing(1));
    assert_eq!(sim.last.primary, None);
    assert_eq!(
        sim.state(0),
        (Role::Unknown, Health::Fenced, Reason::Conflict)
    );
    assert_eq!(
        sim.state(1),
        (Role::Unknown, Health::Fenced, Reason::Conflict)
    );
    assert_eq!(sim.last.alarms, [Alarm::NoPrimary, Alarm::TwoPrimaries]);
}

#[test]
fn a_second_writer_does_not_inherit_from_a_silent_one_on_the_same_timeline() {
    let mut sim = Sim::steady(2);
    sim.loses(0, Dial::Refused);
    sim.answers(1, writing(1));
    assert_eq!(sim.last.primary, None);
}

#[test]
fn a_node_of_another_cluster_is_refused_by_name() {
    for timeline in [1, 9] {
        let mut sim = Sim::steady(2);
        let fact = sim.answer(FOREIGN, writing(timeline), None);
        sim.tell(1, fact);
        let fenced = (Role::Unknown, Health::Fenced, Reason::ForeignSystem);
        assert_eq!(sim.state(1), fenced);
        assert_eq!(sim.last.primary, Some(0), "its timeline counts for nothing");
        assert_eq!(sim.last.alarms, [Alarm::ForeignNode]);
    }
}

#[test]
fn a_replica_without_a_receiver_keeps_its_timeline() {
    let mut sim = Sim::steady(2);
    let number = sim.last.number;
    sim.answers(
        1,
        Wal::Replaying {
            timeline: None,
            replay: None,
        },
    );
    assert_eq!(sim.node(1).timeline, Some(1));
    assert_eq!(sim.last.number, number);
}

#[test]
fn positions_move_without_a_new_snapshot() {
    let mut sim = Sim::steady(2);
    let number = sim.last.number;
    let wal = Wal::Replaying {
        timeline: Some(1),
        replay: Some(Lsn(99)),
    };
    sim.answers(1, wal);
    assert_eq!(sim.last.number, number);
    assert_eq!(sim.last.lag_bytes(sim.node(1)), Some(1));
}

#[test]
fn a_reload_keeps_load_and_generation_of_nodes_that_stay() {
    let mut sim = Sim::steady(2);
    let before = sim.last.clone();
    let mut lighter = node(0);
    lighter.weight = 1;
    let mut moved = node(1);
    moved.port += 1;
    let (ids, after) = sim.judge.set_nodes(&[node(2), lighter, moved], sim.now);
    assert_eq!(after.primary, Some(1));
    assert!(Arc::ptr_eq(&before.nodes[0].load, &after.nodes[1].load));
    assert_eq!(before.nodes[0].generation, after.nodes[1].generation);
    assert_eq!(after.nodes[1].config.weight, 1);
    assert_eq!(
        (ids[1], after.nodes[2].reason),
        (sim.ids[0], Reason::Unheard)
    );
    assert!(!Arc::ptr_eq(&before.nodes[1].load, &after.nodes[2].load));
    assert!(after.nodes[2].generation > before.nodes[1].generation);
}

#[test]
fn a_fact_about_a_removed_node_is_nothing() {
    let mut sim = Sim::steady(2);
    let removed = sim.ids[1];
    sim.judge.set_nodes(&[node(0)], sim.now);
    let fact = sim.answer(OURS, writing(5), None);
    assert!(sim.judge.observe(removed, sim.now, fact).is_none());
}

#[test]
fn moving_to_another_cluster_by_reload_settles_anew() {
    let mut sim = Sim::steady(1);
    let (ids, t) = sim.judge.set_nodes(&[node(5)], sim.now);
    assert_eq!((t.primary, t.nodes[0].reason), (None, Reason::Unheard));
    let fact = sim.answer(FOREIGN, writing(1), None);
    let t = sim.judge.observe(ids[0], sim.now, fact).unwrap();
    assert_eq!(t.primary, Some(0));
}

#[test]
fn the_same_cluster_under_other_addresses_keeps_its_highest_timeline() {
    let mut sim = Sim::steady(1);
    sim.answers(0, writing(3));
    let (ids, _) = sim.judge.set_nodes(&[node(5)], sim.now);
    let fact = sim.answer(OURS, writing(2), None);
    let t = sim.judge.observe(ids[0], sim.now, fact).unwrap();
    assert_eq!((t.primary, t.nodes[0].reason), (None, Reason::OldTimeline));
}

fn any_wal() -> impl Strategy<Value = Wal> {
    prop_oneof![
        (1..5u32).prop_map(writing),
        (1..5u32).prop_map(replaying),
        Just(Wal::Replaying {
            timeline: None,
            replay: None
        }),
    ]
}

/// A fact without its time.
#[derive(Debug, Clone)]
enum Step {
    Answer(u64, Wal, Option<u64>),
    LinkLost,
    Dial(Dial),
    /// Nothing, for so many ticks.
    Wait(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let system = prop_oneof![9 => Just(OURS), 1 => Just(FOREIGN)];
    let dial = prop_oneof![
        Just(Dial::Accepted),
        Just(Dial::NotNow),
        Just(Dial::Full),
        Just(Dial::Refused),
        Just(Dial::Broken),
        Just(Dial::TimedOut),
        Just(Dial::LoginRefused),
    ];
    prop_oneof![
        5 => (system, any_wal(), proptest::option::of(1..4u64)).prop_map(|(s, w, c)| Step::Answer(s, w, c)),
        1 => Just(Step::LinkLost),
        2 => dial.prop_map(Step::Dial),
        1 => (1..30u32).prop_map(Step::Wait),
    ]
}

fn apply(sim: &mut Sim, index: usize, step: &Step) {
    match step {
        Step::Answer(system, wal, started) => {
            let fact = sim.answer(*system, *wal, *started);
            sim.tell(index, fact);
        }
        Step::LinkLost => drop(sim.tell(index, Fact::LinkLost).number),
        Step::Dial(dial) => drop(sim.tell(index, Fact::Dial(*dial)).number),
        Step::Wait(ticks) => sim.now += TICK * *ticks,
    }
}

/// What must hold in every snapshot.
pub(super) fn check(topology: &Topology, highest: u32) {
    let holders: Vec<usize> = (0..topology.nodes.len())
        .filter(|i| topology.nodes[*i].role == Role::Primary)
        .collect();
    assert!(holders.len() <= 1, "{topology:?}");
    if let Some(primary) = topology.primary() {
        assert_eq!(holders, [topology.primary.unwrap()]);
        assert!(primary.is_up());
        assert_eq!(primary.system_id, Some(OURS));
        assert!(primary.timeline.unwrap() >= highest, "{topology:?}");
    }
    for random in [[0, 0], [u32::MAX, 0], [u32::MAX / 2, u32::MAX]] {
        let draw = balance::Draw {
            random,
            now: crate::topology::Moment::now(),
            zone: "",
        };
        let reads = [PrimaryReads::Never, PrimaryReads::Last, PrimaryReads::Also];
        for index in reads
            .into_iter()
            .filter_map(|r| balance::choose(topology, r, &draw))
        {
            assert!(topology.nodes[index].is_up() && topology.nodes[index].role != Role::Unknown);
        }
    }
}

/// Whether this step, now, can be a reason for a node to leave.
fn is_evidence(step: &Step, silent: Duration) -> bool {
    match step {
        Step::Dial(Dial::Refused | Dial::NotNow) => true,
        // Beside a living link they need a second one, without it the patience must be over.
        Step::Dial(Dial::Broken | Dial::TimedOut) => true,
        Step::Dial(Dial::Full | Dial::LoginRefused) => silent >= PATIENCE,
        // The question that a smart shutdown's refusal left open.
        Step::Answer(..) => true,
        Step::Dial(Dial::Accepted) | Step::LinkLost | Step::Wait(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the nodes say, however absurd: at most one primary, never below the highest timeline followed, or told
    /// by a node that has not taken it back.
    #[test]
    fn never_two_primaries_and_never_one_on_an_old_timeline(
        history in proptest::collection::vec((0..3usize, any_step()), 0..80)
    ) {
        let mut sim = Sim::steady(3);
        let mut followed = 1;
        for (index, step) in &history {
            apply(&mut sim, *index, step);
            let ours = sim.last.nodes.iter().filter(|node| node.system_id == Some(OURS));
            let told = ours.filter_map(|node| node.timeline).max();
            check(&sim.last, followed.max(told.unwrap_or(0)));
            let primary = sim.last.primary().and_then(|node| node.timeline);
            followed = followed.max(primary.unwrap_or(0));
        }
    }

    /// After any history, a promotion to a new timeline is followed at its second answer at the latest.
    #[test]
    fn a_promotion_is_followed_after_any_history(
        history in proptest::collection::vec((0..3usize, any_step()), 0..60),
        promoted in 0..3usize,
    ) {
        let mut sim = Sim::trusting(3);
        history.iter().for_each(|(index, step)| apply(&mut sim, *index, step));
        sim.tell(promoted, Fact::LinkLost);
        sim.tell(promoted, Fact::Dial(Dial::Accepted));
        sim.answers(promoted, writing(9));
        prop_assert_eq!(sim.last.primary, Some(promoted));
    }

    /// A node changes its health only with a reason, and not more often than it changes what it shows.
    #[test]
    fn a_flapping_node_flaps_no_more_than_its_facts(
        steps in proptest::collection::vec(any_step(), 0..80)
    ) {
        let mut sim = Sim::steady(2);
        let (mut heard, mut changes, mut flaps) = (sim.now, 0, 0);
        let mut last = None;
        for step in &steps {
            let step = match step {
                Step::Answer(_, _, started) => Step::Answer(OURS, replaying(1), *started),
                other => other.clone(),
            };
            let before = sim.state(1).1;
            apply(&mut sim, 1, &step);
            if before != sim.state(1).1 {
                flaps += 1;
                let silent = sim.now - heard;
                prop_assert!(is_evidence(&step, silent), "{:?} after {:?}", step, silent);
            }
            if matches!(step, Step::Answer(..)) {
                heard = sim.now;
            }
            let kind = std::mem::discriminant(&step);
            changes += usize::from(last.replace(kind) != Some(kind));
            prop_assert!(flaps <= changes, "{flaps} flaps in {changes} changes");
            prop_assert_eq!(sim.last.primary, Some(0), "a replica's trouble is its own");
        }
    }

    /// Between two snapshots with the same generation nothing happened that makes old servers unusable.
    #[test]
    fn a_generation_stands_for_one_role_timeline_and_incarnation(
        history in proptest::collection::vec((0..2usize, any_step()), 0..80)
    ) {
        let mut sim = Sim::steady(2);
        let mut seen = std::collections::HashMap::new();
        for (index, step) in &history {
            apply(&mut sim, *index, step);
            for node in &sim.last.nodes {
                let what = (node.role, node.timeline, node.incarnation);
                let first = *seen.entry(node.generation).or_insert(what);
                prop_assert!(first == what || first.1.is_none(), "{:?} {:?}", first, what);
            }
        }
    }
}
