//! Reads over replicas, through the whole proxy: how they are spread, and what readers see of a replica's end.
//!
//! Every test has a cluster of its own: a primary and two streaming replicas. Nothing here depends on how fast the
//! machine is, only on what comes after what.

#[path = "common/forwarder.rs"]
#[allow(dead_code)] // not every test needs all of it
mod forwarder;
mod nodes;
#[path = "failover/proxied.rs"]
mod proxied;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use forwarder::{Behaviour, Direction, Forwarder};
use nix::sys::signal::Signal;
use nodes::{Server, installations};
use pgsluice::topology::{Health, Topology};
use proxied::{
    Cluster, PROVEN, READS, READS_ALSO, READS_NEVER, READS_SESSION, Session, Told, WHERE, WRITES,
    config, is_running, wait_until,
};

fn is_replica_of(server: &Server) -> String {
    format!("{} replica", server.port)
}

/// How often each node answered.
fn count(answers: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    counts
}

#[track_caller]
fn assert_share(
    counts: &BTreeMap<String, usize>,
    server: &Server,
    percent: std::ops::Range<usize>,
) {
    let all: usize = counts.values().sum();
    let own = counts.get(&is_replica_of(server)).copied().unwrap_or(0);
    assert!(
        percent.contains(&(own * 100 / all)),
        "{} in {counts:?}",
        server.port
    );
}

#[test]
fn reads_are_spread_evenly_and_by_weight() {
    let cluster = Cluster::start(&installations()[0]);
    let proxied = &cluster.proxied;
    // As psql -c does: a connection for one query.
    let one_by_one = count((0..60).map(|_| proxied.session(READS).sql(WHERE)));
    let in_one_session = proxied.session(READS);
    let in_one_session = count((0..100).map(|_| in_one_session.sql(WHERE)));
    let sessions: Vec<_> = (0..8).map(|_| proxied.session(READS)).collect();
    let at_once = count((0..125).flat_map(|_| {
        let asked: Vec<_> = sessions.iter().map(|s| s.start(WHERE)).collect();
        asked
            .into_iter()
            .map(|p| p.wait().unwrap())
            .collect::<Vec<_>>()
    }));
    for counts in [&one_by_one, &in_one_session, &at_once] {
        assert_share(counts, &cluster.pg2, 35..66);
        assert_share(counts, &cluster.pg3, 35..66);
    }
    let mut config = config(&[&cluster.pg1, &cluster.pg2, &cluster.pg3]);
    config.nodes[2].weight = 300;
    proxied.reload(config);
    let weighted = count((0..400).map(|i| sessions[i % 8].sql(WHERE)));
    assert_share(&weighted, &cluster.pg3, 55..95);
    eprintln!("{one_by_one:?} {in_one_session:?} {at_once:?} {weighted:?}");
}

#[test]
fn a_replica_made_slow_gets_less_before_anything_queues_and_its_share_again_later() {
    let bin = &installations()[0];
    let mut slow = None;
    let cluster = Cluster::start_with(bin, |config| {
        // Probes go the same way unharmed: the node stays in rotation.
        let forwarder = Forwarder::to_as(config.nodes[2].port, "app");
        config.nodes[2].port = forwarder.port();
        slow = Some(forwarder);
    });
    let slow = slow.unwrap();
    let sessions: Vec<_> = (0..4).map(|_| cluster.proxied.session(READS)).collect();
    let read = |rounds: usize| count((0..rounds * 4).map(|i| sessions[i % 4].sql(WHERE)));
    let pg3 = is_replica_of(&cluster.pg3);
    let share = |counts: &BTreeMap<String, usize>| {
        let all: usize = counts.values().sum();
        counts.get(&pg3).copied().unwrap_or(0) * 100 / all
    };
    read(20);
    assert_share(&read(20), &cluster.pg3, 30..71);
    slow.set(
        Direction::ToClient,
        Behaviour::Delay(Duration::from_millis(300)),
    );
    // One read after the other: nothing queues, and what is in flight says nothing.
    read(5);
    let slowed = read(20);
    assert!(share(&slowed) < 20, "{slowed:?}");
    slow.set(Direction::ToClient, Behaviour::Pass);
    wait_until("pg3 has its share again", || share(&read(10)) >= 35);
}

/// Sessions that read in a loop, until they are dropped.
struct Readers {
    stop: Arc<AtomicBool>,
    rounds: Vec<Arc<AtomicU32>>,
    threads: Vec<thread::JoinHandle<Vec<Told>>>,
}

impl Readers {
    /// `count` sessions; one that is ended connects again.
    fn start(cluster: &Cluster, count: usize) -> Readers {
        let stop = Arc::<AtomicBool>::default();
        let rounds: Vec<_> = (0..count).map(|_| Arc::<AtomicU32>::default()).collect();
        let threads = rounds.iter().map(|round| {
            let (stop, round) = (stop.clone(), round.clone());
            let address = cluster.proxied.addresses[READS];
            thread::spawn(move || {
                let mut told = Vec::new();
                let mut session = Session::open(address);
                while !stop.load(SeqCst) {
                    told.extend(session.try_sql(PROVEN).err());
                    if !session.is_open() || told.last().is_some_and(|t| t.severity == "FATAL") {
                        session = Session::open(address);
                    }
                    round.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(1));
                }
                told
            })
        });
        let threads = threads.collect();
        Readers {
            stop,
            rounds,
            threads,
        }
    }

    /// Waits until every reader has read so often again.
    #[track_caller]
    fn wait_rounds(&self, more: u32) {
        let at: Vec<_> = self.rounds.iter().map(|r| r.load(SeqCst) + more).collect();
        wait_until("all readers read on", || {
            self.rounds
                .iter()
                .zip(&at)
                .all(|(r, at)| r.load(SeqCst) >= *at)
        });
    }

    /// What they were told that was no answer.
    fn end(self) -> Vec<Told> {
        self.stop.store(true, SeqCst);
        self.threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    }
}

/// How a replica goes, and returns when it is gone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Killed,
    Stopped(&'static str),
}

fn take_down(server: &Server, end: End) {
    match end {
        End::Stopped(mode) => server.ctl(&["stop", "-m", mode]),
        End::Killed => {
            server.freeze();
            let pids = server.pids();
            server.signal(Signal::SIGKILL);
            let gone = |pid: &nix::unistd::Pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                status.map_or(true, |s| s.contains(") Z "))
            };
            wait_until("it is gone", || pids.iter().all(gone));
        }
    }
}

fn bring_back(cluster: &Cluster, server: &Server, name: &str) {
    let _ = std::fs::remove_file(server.data().join("postmaster.pid"));
    server.start();
    cluster.proxied.wait_health(name, Health::Up);
    cluster.proxied.wait_proven();
}

#[test]
fn readers_see_nothing_of_an_idle_replica_s_end() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let sessions: Vec<_> = (0..16).map(|_| cluster.proxied.session(READS)).collect();
        let read_all = |rounds: usize| {
            count((0..rounds).flat_map(|_| {
                let asked: Vec<_> = sessions.iter().map(|s| s.start(WHERE)).collect();
                asked
                    .into_iter()
                    .map(|p| p.wait().unwrap())
                    .collect::<Vec<_>>()
            }))
        };
        for end in [
            End::Killed,
            End::Stopped("fast"),
            End::Stopped("smart"),
            End::Stopped("immediate"),
        ] {
            assert_eq!(read_all(4).len(), 2, "{end:?}");
            take_down(&cluster.pg3, end);
            let left = read_all(4);
            assert_eq!(
                left.into_keys().collect::<Vec<_>>(),
                [is_replica_of(&cluster.pg2)],
                "{end:?}"
            );
            cluster
                .proxied
                .wait("pg3 out", |t| t.node("pg3").is_some_and(|n| !n.is_up()));
            bring_back(&cluster, &cluster.pg3, "pg3");
        }
        assert!(sessions.iter().all(Session::is_open));
    }
}

#[test]
fn readers_in_a_loop_go_on_when_a_replica_is_killed_or_stopped() {
    let cluster = Cluster::start(&installations()[0]);
    cluster.proxied.wait_proven();
    for end in [End::Killed, End::Stopped("fast"), End::Stopped("smart")] {
        let readers = Readers::start(&cluster, 16);
        readers.wait_rounds(5);
        take_down(&cluster.pg3, end);
        readers.wait_rounds(10);
        let told = readers.end();
        assert!(told.is_empty(), "{end:?}: {told:?}");
        bring_back(&cluster, &cluster.pg3, "pg3");
    }
}

#[test]
fn a_frozen_replica_leaves_rotation_and_whoever_waits_for_it_is_told() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let in_transaction = on_node(&cluster, READS, &cluster.pg3);
        let idle_in_transaction = on_node(&cluster, READS, &cluster.pg3);
        let readers = Readers::start(&cluster, 16);
        readers.wait_rounds(5);
        cluster.pg3.freeze();
        let stuck = in_transaction.start("select 1");
        cluster
            .proxied
            .wait("pg3 out", |t| !t.node("pg3").unwrap().is_up());
        let told = stuck.wait().unwrap_err();
        assert!(told.is("ERROR", "40001"), "{told:?}");
        assert!(told.text.contains("stopped answering"), "{told:?}");
        // Nobody waits for its thaw.
        readers.wait_rounds(10);
        let late = idle_in_transaction.try_sql("select 1").unwrap_err();
        assert!(late.is("ERROR", "40001"), "{late:?}");
        cluster.pg3.thaw();
        cluster.proxied.wait_health("pg3", Health::Up);
        let session = cluster.proxied.session(READS);
        wait_until("pg3 reads again", || {
            session.sql(WHERE) == is_replica_of(&cluster.pg3)
        });
        readers.wait_rounds(5);
        for told in readers.end() {
            assert!(told.is("FATAL", "08006"), "{told:?}");
            assert!(told.text.contains("stopped answering"), "{told:?}");
        }
    }
}

/// A session in a transaction on `server`.
#[track_caller]
fn on_node(cluster: &Cluster, listener: usize, server: &Server) -> Session {
    landing(cluster, listener, server, "begin")
}

/// A session that keeps a server of `server`, once `hold` has run.
#[track_caller]
fn landing(cluster: &Cluster, listener: usize, server: &Server, hold: &str) -> Session {
    let there = format!("{} ", server.port);
    // Kept for the moment: the busier their nodes are, the sooner the other's turn comes.
    let mut elsewhere = Vec::new();
    for _ in 0..9 {
        let session = cluster.proxied.session(listener);
        session.sql(hold);
        if session.sql(WHERE).starts_with(&there) {
            return session;
        }
        elsewhere.push(session);
    }
    panic!("no session lands on {there}");
}

#[test]
fn an_unproven_statement_on_a_dying_replica_is_told_so_and_the_next_one_runs_elsewhere() {
    let cluster = Cluster::start(&installations()[0]);
    // No proven read: that would run once more elsewhere.
    let slow = "select pg_sleep(600), pg_is_in_recovery()";
    for (end, code) in [
        (End::Killed, "08006"),
        (End::Stopped("fast"), "57P01"),
        (End::Stopped("immediate"), "08006"),
    ] {
        let session = on_node(&cluster, READS, &cluster.pg3);
        session.sql("rollback");
        let (mut sessions, mut asleep) = (Vec::new(), Vec::new());
        // What has answered late or has just returned gets less: its turn comes when the other has more to do.
        wait_until("it runs on both", || {
            let session = cluster.proxied.session(READS);
            asleep.push(session.start(slow));
            sessions.push(session);
            is_running(&cluster.pg3, slow) && is_running(&cluster.pg2, slow)
        });
        take_down(&cluster.pg3, end);
        let kill = &format!(
            "select count(pg_cancel_backend(pid)) from pg_stat_activity where query = '{slow}'"
        );
        cluster.pg2.sql(kill);
        let told = count(
            asleep
                .into_iter()
                .map(|p| p.wait().unwrap_err().code().to_owned()),
        );
        assert_eq!(told.len(), 2, "{end:?}: {told:?}");
        assert!(
            told.contains_key(code) && told.contains_key("57014"),
            "{end:?}: {told:?}"
        );
        sessions.retain(Session::is_open);
        sessions.push(session);
        sessions.push(cluster.proxied.session(READS));
        for session in &sessions {
            assert_eq!(session.sql(WHERE), is_replica_of(&cluster.pg2));
        }
        bring_back(&cluster, &cluster.pg3, "pg3");
    }
}

#[test]
fn without_replicas_the_primary_serves_reads_as_the_listener_says_and_read_only() {
    for bin in installations() {
        let cluster = Cluster::start_with(&bin, |c| c.failover.hold = Duration::from_secs(1));
        let primary = format!("{} primary", cluster.pg1.port);
        let open = |listener| cluster.proxied.session(listener);
        let (last, never, also) = (open(READS), open(READS_NEVER), open(READS_ALSO));
        let all = |session: &Session, n| count((0..n).map(|_| session.sql(WHERE)));
        assert_eq!(all(&also, 40).len(), 3);
        assert!(!all(&last, 10).contains_key(&primary));
        for server in [&cluster.pg2, &cluster.pg3] {
            take_down(server, End::Stopped("fast"));
        }
        let none = |t: &Topology| t.replicas_up().count() == 0;
        cluster.proxied.wait("no replica", none);
        assert_eq!(all(&last, 5).keys().collect::<Vec<_>>(), [&primary]);
        assert_eq!(all(&also, 5).keys().collect::<Vec<_>>(), [&primary]);
        let told = never.try_sql(WHERE).unwrap_err();
        assert!(told.is("ERROR", "57P03"), "{told:?}");
        for session in [&last, &also] {
            assert_read_only(session);
        }
        assert_eq!(cluster.pg1.sql("select count(*) from t"), "0");
        bring_back(&cluster, &cluster.pg2, "pg2");
        assert_eq!(never.sql(WHERE), is_replica_of(&cluster.pg2));
        assert_eq!(open(READS).sql(WHERE), is_replica_of(&cluster.pg2));
    }
}

/// Whatever it tries, it cannot write.
fn assert_read_only(session: &Session) {
    // Only the server knows.
    let write = "with w as (insert into t values (1) returning id) select id from w";
    let told = session.try_sql("insert into t values (1)").unwrap_err();
    assert!(told.is("ERROR", "25006") && told.hint.is_some(), "{told:?}");
    for way_out in [
        "set default_transaction_read_only = off",
        "set session default_transaction_read_only to 'off'",
        "SET \"default_transaction_read_only\" = off",
        "begin read write",
        "start transaction isolation level serializable, read write",
        "set session characteristics as transaction read write",
        "select set_config('default_transaction_read_only', 'off', false)",
        "select pg_catalog.set_config('transaction_read_only', 'off', true)",
        "reset default_transaction_read_only; set default_transaction_read_only = off",
        "select 1; set transaction_read_only = off; insert into t values (1)",
    ] {
        let told = session.try_sql(way_out).err();
        assert!(
            told.as_ref().is_some_and(|t| t.code() == "25006"),
            "{way_out}: {told:?}"
        );
        let _ = session.sql("rollback");
        let told = session.try_sql(write).unwrap_err();
        assert!(told.is("ERROR", "25006"), "after {way_out}: {told:?}");
    }
    session.sql("begin");
    let told = session.try_sql("set transaction read write").unwrap_err();
    assert!(told.is("ERROR", "25006"), "{told:?}");
    session.sql("rollback");
}

#[test]
fn a_smart_shutdown_of_a_replica_ends_when_open_transactions_have_ended() {
    let cluster = Cluster::start(&installations()[0]);
    let in_transaction = on_node(&cluster, READS, &cluster.pg3);
    let pinned = landing(&cluster, READS_SESSION, &cluster.pg3, "select 1");
    thread::scope(|scope| {
        let stopping = scope.spawn(|| cluster.pg3.ctl(&["stop", "-m", "smart"]));
        cluster.proxied.wait_health("pg3", Health::Draining);
        let told = pinned.wait_end().unwrap();
        assert!(told.is("FATAL", "57P01"), "{told:?}");
        in_transaction.sql("select 1");
        assert!(!stopping.is_finished());
        in_transaction.sql("commit");
        stopping.join().unwrap();
    });
    assert_eq!(in_transaction.sql(WHERE), is_replica_of(&cluster.pg2));
}

#[test]
fn a_reload_adds_and_removes_replicas_under_running_sessions() {
    let cluster = Cluster::start(&installations()[0]);
    let added = cluster.pg1.replica();
    let sessions: Vec<_> = (0..8).map(|_| cluster.proxied.session(READS)).collect();
    let writer = cluster.proxied.session(WRITES);
    writer.sql("begin");
    let on_pg3 = on_node(&cluster, READS, &cluster.pg3);
    let pinned = landing(&cluster, READS_SESSION, &cluster.pg3, "select 1");

    let four = config(&[&cluster.pg1, &cluster.pg2, &cluster.pg3, &added]);
    cluster.proxied.reload(four);
    cluster.proxied.wait_health("pg4", Health::Up);
    let answers = count((0..90).map(|i| sessions[i % 8].sql(WHERE)));
    assert!(answers.contains_key(&is_replica_of(&added)), "{answers:?}");
    assert_eq!(pinned.sql(WHERE), is_replica_of(&cluster.pg3));

    let mut without = config(&[&cluster.pg1, &cluster.pg2, &added]);
    without.nodes[2].name = "pg4".into();
    cluster.proxied.reload(without);
    let told = pinned.wait_end().unwrap();
    assert!(told.is("FATAL", "57P01"), "{told:?}");
    on_pg3.sql("select 1");
    on_pg3.sql("commit");
    let there = "select count(*) from pg_stat_activity where usename in ('app', 'prober')";
    wait_until("pg3 is left alone", || cluster.pg3.sql(there) == "0");
    let answers = count((0..80).map(|i| sessions[i % 8].sql(WHERE)));
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(
        !answers.contains_key(&is_replica_of(&cluster.pg3)),
        "{answers:?}"
    );
    writer.sql("insert into t values (1)");
    writer.sql("commit");
}
