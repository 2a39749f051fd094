//! The primary is killed or frozen, and another is promoted.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgsluice::topology::{Alarm, Health};

use crate::{
    nodes::{Server, installations},
    proxied::{
        Cluster, Pending, SPLIT, Session, WHERE, WRITES, WRITES_SESSION, wait_running, wait_until,
    },
};

#[test]
fn writes_go_on_at_the_promoted_node_after_the_primary_was_killed() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let sessions = [WRITES; 4].map(|listener| cluster.proxied.session(listener));
        for (id, session) in sessions.iter().enumerate() {
            session.sql(&format!("insert into t values ({id})"));
        }
        let in_transaction = cluster.proxied.session(WRITES);
        in_transaction.sql("begin");
        in_transaction.sql("insert into t values (100)");
        let pinned = cluster.proxied.session(WRITES_SESSION);
        pinned.sql("select 1");
        cluster.wait_replayed();

        // Stopped first, or its backends could still say goodbye.
        cluster.pg1.freeze();
        cluster.pg1.signal(Signal::SIGKILL);
        let sent = sessions[0].start("insert into t values (10)");
        cluster.proxied.wait_health("pg1", Health::Down);
        assert_eq!(pinned.wait_end().unwrap().code(), "08006");
        let held = sessions[1].start("insert into t values (11)");
        promote_and_wait(&cluster.pg2, held);
        // It went to the dead primary, or waited for the next one: nothing else.
        match sent.wait() {
            Ok(_) => assert!(sessions[0].is_open()),
            Err(told) => assert!(told.is("FATAL", "08007"), "{told:?}"),
        }
        for session in &sessions[1..] {
            assert_eq!(session.sql(WHERE), format!("{} primary", cluster.pg2.port));
        }
        in_transaction.assert_rolled_back();
        let ids = "select string_agg(id::text, ' ' order by id) from t where id <> 10";
        assert_eq!(cluster.pg2.sql(ids), "0 1 2 3 11");
        the_old_primary_is_fenced(&cluster, &sessions[1]);
    }
}

#[test]
fn reads_on_a_split_listener_go_on_while_there_is_no_primary_however_long_that_takes() {
    let max_staleness = Duration::from_secs(2);
    let cluster = Cluster::start_with(&installations()[0], |config| {
        config.reads.max_staleness = max_staleness;
    });
    let sessions = [SPLIT; 4].map(|listener| cluster.proxied.session(listener));
    cluster.proxied.wait_proven();
    cluster.pg1.freeze();
    cluster.pg1.signal(Signal::SIGKILL);
    cluster.proxied.wait_health("pg1", Health::Down);
    // Nobody knows of anything newer, so what replicas have grows no older.
    let began = Instant::now();
    while began.elapsed() < 2 * max_staleness {
        for session in &sessions {
            assert_eq!(session.sql("select count(*) from t"), "0");
        }
    }
}

/// Promotes, and shows how long a write that waited for it took.
fn promote_and_wait(next: &Server, held: Pending) {
    let asked = Instant::now();
    let (written, promoted) = std::thread::scope(|scope| {
        let promotion = scope.spawn(move || {
            next.promote();
            asked.elapsed()
        });
        held.wait().unwrap();
        let written = asked.elapsed();
        (written, promotion.join().unwrap())
    });
    eprintln!("first write {written:?} after pg_ctl promote began, which took {promoted:?}");
}

/// It comes back, still believing that it is the primary.
fn the_old_primary_is_fenced(cluster: &Cluster, session: &Session) {
    std::fs::remove_file(cluster.pg1.data().join("postmaster.pid")).unwrap();
    cluster.pg1.start();
    assert_eq!(cluster.pg1.sql("select pg_is_in_recovery()"), "f");
    let fenced = cluster.proxied.wait_health("pg1", Health::Fenced);
    assert_eq!(fenced.primary().unwrap().config.name, "pg2");
    assert_eq!(fenced.alarms, [Alarm::StalePrimary]);
    let before = cluster.pg1.sql("select count(*) from t");
    let fresh = cluster.proxied.session(WRITES);
    for id in 200..220 {
        session.sql(&format!("insert into t values ({id})"));
        fresh.sql(&format!("insert into t values ({})", id + 100));
    }
    assert_eq!(cluster.pg1.sql("select count(*) from t"), before);
    assert_eq!(visits(&cluster.pg1), "0");
    let written = "select count(*) from t where id >= 200";
    assert_eq!(cluster.pg2.sql(written), "40");
}

/// Sessions of applications on a node.
fn visits(server: &Server) -> String {
    server.sql("select count(*) from pg_stat_activity where usename = 'app'")
}

#[test]
fn sessions_on_a_frozen_primary_are_told_when_another_is_promoted() {
    for bin in installations() {
        freeze_and_promote(&bin);
    }
}

fn freeze_and_promote(bin: &Path) {
    let cluster = Cluster::start(bin);
    let open = |listener| cluster.proxied.session(listener);
    let (writer, idle) = (open(WRITES), open(WRITES));
    let (in_transaction, committing, in_statement) = (open(WRITES), open(WRITES), open(WRITES));
    let (pinned, busy_pinned) = (open(WRITES_SESSION), open(WRITES_SESSION));
    for (id, session) in [
        (50, &in_transaction),
        (51, &committing),
        (52, &in_statement),
    ] {
        session.sql("begin");
        session.sql(&format!("insert into t values ({id})"));
    }
    // The last to give their servers back, so that the next write finds one.
    for (id, session) in [&writer, &idle].iter().enumerate() {
        session.sql(&format!("insert into t values ({id})"));
    }
    pinned.sql("select 1");
    busy_pinned.sql("select 1");
    cluster.wait_replayed();

    cluster.pg1.freeze();
    let frozen = Instant::now();
    let write = writer.start("insert into t values (60)");
    let commit = committing.start("commit");
    let pinned_write = busy_pinned.start("insert into t values (61)");
    let statement = in_statement.start("insert into t values (62)");
    cluster.proxied.wait_health("pg1", Health::Down);
    eprintln!("{}: down after {:?}", bin.display(), frozen.elapsed());
    assert!(write.poll().is_none() && commit.poll().is_none() && statement.poll().is_none());
    let waiting = idle.start("insert into t values (2)");
    cluster.pg2.promote();
    let promoted = Instant::now();
    for stuck in [write, commit, pinned_write] {
        let told = stuck.wait().unwrap_err();
        assert!(told.is("FATAL", "08007"), "{told:?}");
        assert!(told.text.contains("lost its role"), "{told:?}");
    }
    let elapsed = promoted.elapsed();
    eprintln!("{}: stuck sessions told after {elapsed:?}", bin.display());
    let told = statement.wait().unwrap_err();
    assert!(told.is("ERROR", "40001"), "{told:?}");
    in_statement.sql("rollback");
    assert_eq!(pinned.wait_end().unwrap().code(), "08006");
    waiting.wait().unwrap();
    in_transaction.assert_rolled_back();

    cluster.pg1.thaw();
    cluster.proxied.wait_health("pg1", Health::Fenced);
    let fresh = open(WRITES);
    for (n, session) in [&idle, &in_transaction, &in_statement, &fresh]
        .iter()
        .enumerate()
    {
        session.sql(&format!("insert into t values ({})", 70 + n));
        assert_eq!(session.sql(WHERE), format!("{} primary", cluster.pg2.port));
    }
    let acknowledged = "select string_agg(id::text, ' ' order by id) from t";
    assert_eq!(cluster.pg2.sql(acknowledged), "0 1 2 70 71 72 73");
    // What was under way when it froze may have run there, and nobody was told so. No more than that came.
    wait_until("its clients have left", || visits(&cluster.pg1) == "0");
    let stray = "select count(*) from t where id not in (0, 1, 51, 60, 61)";
    assert_eq!(cluster.pg1.sql(stray), "0");
}

#[test]
fn a_statement_that_runs_while_its_primary_is_replaced_does_not_hang() {
    let bin = &installations()[0];
    let cluster = Cluster::start_with(bin, |config| config.failover.trust_promotion = true);
    let session = cluster.proxied.session(WRITES);
    let sleeping = session.start("select pg_sleep(600)");
    wait_running(&cluster.pg1, "pg_sleep(600)");
    cluster.pg3.promote();
    cluster.proxied.wait_primary("pg3");
    let told = sleeping.wait().unwrap_err();
    assert!(told.is("FATAL", "08007"), "{told:?}");
}
