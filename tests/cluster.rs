//! Clusters themselves: what the demo, and every other integration test, stand on.

mod common;

use std::time::Duration;

use common::{Behaviour, Direction, Forwarder, Pg, TestCluster, per_version, shared};
use pgsluice::cluster::{Error, NodeState, Replication, Shutdown};

per_version! {
    fn rows_reach_every_replica(pg) {
        let cluster = TestCluster::new(&pg, 2);
        cluster.primary().sql("CREATE TABLE t AS SELECT 7 AS a").unwrap();
        cluster.wait_caught_up().unwrap();
        assert_eq!(cluster.replicas().len(), 2);
        for node in cluster.nodes() {
            assert_eq!(node.value("SELECT a FROM t").unwrap().as_deref(), Some("7"));
        }
    }

    fn a_promoted_replica_is_followed_by_the_others_and_by_the_old_primary(pg) {
        let cluster = TestCluster::new(&pg, 2);
        let old = cluster.primary();
        old.sql("CREATE TABLE t (a int)").unwrap();
        cluster.wait_caught_up().unwrap();
        // WAL that no replica gets: it must be gone when the old primary is back.
        for replica in cluster.replicas() {
            replica.stop(Shutdown::Fast).unwrap();
        }
        old.sql("INSERT INTO t VALUES (-1)").unwrap();
        old.kill().unwrap();
        cluster.start_node("pg2").unwrap();
        cluster.start_node("pg3").unwrap();
        cluster.promote("pg2").unwrap();
        cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
        cluster.start_node("pg1").unwrap();
        cluster.wait_caught_up().unwrap();
        for node in cluster.nodes() {
            let rows = node.sql("SELECT a, pg_is_in_recovery() FROM t").unwrap();
            let is_replica = if node.name() == "pg2" { "f" } else { "t" };
            assert_eq!(rows, [[Some("1".to_owned()), Some(is_replica.to_owned())]], "{}", node.name());
        }
    }

    fn a_replica_that_had_received_more_than_the_promoted_one_follows_it_too(pg) {
        let cluster = TestCluster::new(&pg, 2);
        let old = cluster.primary();
        old.sql("CREATE TABLE t (a int)").unwrap();
        cluster.wait_caught_up().unwrap();
        cluster.node("pg2").unwrap().stop(Shutdown::Fast).unwrap();
        old.sql("INSERT INTO t VALUES (-1)").unwrap();
        cluster.wait_caught_up().unwrap();
        old.kill().unwrap();
        cluster.start_node("pg2").unwrap();
        cluster.promote("pg2").unwrap();
        cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
        cluster.wait_caught_up().unwrap();
        let rows = cluster.node("pg3").unwrap().sql("SELECT a FROM t").unwrap();
        assert_eq!(rows, [[Some("1".to_owned())]]);
    }

    fn a_stopped_node_comes_back_with_what_it_missed(pg) {
        let cluster = TestCluster::new(&pg, 1);
        let replica = cluster.node("pg2").unwrap();
        replica.stop(Shutdown::Fast).unwrap();
        assert_eq!(replica.state(), NodeState::Stopped);
        cluster.primary().sql("CREATE TABLE t AS SELECT 1 AS a").unwrap();
        cluster.start_node("pg2").unwrap();
        cluster.wait_caught_up().unwrap();
        assert_eq!(replica.value("SELECT a FROM t").unwrap().as_deref(), Some("1"));
    }

    fn paused_replay_shows_the_past_until_it_is_resumed(pg) {
        let cluster = TestCluster::new(&pg, 1);
        let replica = cluster.node("pg2").unwrap();
        cluster.primary().sql("CREATE TABLE t (a int)").unwrap();
        cluster.wait_caught_up().unwrap();
        replica.pause_replay().unwrap();
        cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(replica.value("SELECT count(*) FROM t").unwrap().as_deref(), Some("0"));
        replica.resume_replay().unwrap();
        cluster.wait_caught_up().unwrap();
        assert_eq!(replica.value("SELECT count(*) FROM t").unwrap().as_deref(), Some("1"));
    }

    fn a_synchronous_commit_waits_while_no_replica_is_there(pg) {
        let cluster = TestCluster::build(pg.builder().replicas(1).replication(Replication::Synchronous));
        let primary = cluster.primary();
        primary.sql("CREATE TABLE t (a int)").unwrap();
        cluster.node("pg2").unwrap().stop(Shutdown::Fast).unwrap();
        let waiting = primary.login().query("INSERT INTO t VALUES (1)", Duration::from_millis(500));
        assert!(matches!(waiting, Err(Error::Sql { sqlstate: None, .. })), "{waiting:?}");
        cluster.start_node("pg2").unwrap();
        primary.sql("INSERT INTO t VALUES (2)").unwrap();
    }

    fn a_replica_is_added_to_a_running_cluster(pg) {
        let cluster = TestCluster::new(&pg, 0);
        cluster.primary().sql("CREATE TABLE t AS SELECT 1 AS a").unwrap();
        let replica = cluster.add_replica().unwrap();
        assert_eq!(replica.name(), "pg2");
        cluster.wait_caught_up().unwrap();
        assert_eq!(replica.value("SELECT a FROM t").unwrap().as_deref(), Some("1"));
    }
}

#[test]
fn where_a_statement_ran_is_seen_in_the_logs() {
    let cluster = shared(&Pg::any());
    cluster
        .node("pg3")
        .unwrap()
        .sql("SELECT 1 /* only-there */")
        .unwrap();
    assert_eq!(cluster.ran("only-there"), ["pg3"]);
    assert_eq!(cluster.times_ran("pg3", "only-there"), 1);
    assert!(cluster.ran("nowhere").is_empty());
}

#[test]
fn a_frozen_node_keeps_its_connections_and_answers_after_thawing() {
    let cluster = TestCluster::new(&Pg::any(), 0);
    let node = cluster.primary();
    node.freeze();
    let asked = node.login().query("SELECT 1", Duration::from_millis(300));
    assert!(
        matches!(asked, Err(Error::Sql { sqlstate: None, .. })),
        "{asked:?}"
    );
    node.thaw();
    assert_eq!(node.value("SELECT 1").unwrap().as_deref(), Some("1"));
}

// ---- The forwarder

/// Through `forwarder`, as superuser.
fn ask(cluster: &TestCluster, forwarder: &Forwarder, sql: &str, limit: Duration) -> Option<String> {
    let node = cluster.primary();
    let mut login = node.login();
    login.port = forwarder.port();
    let rows = login.query(sql, limit).ok()?;
    rows.first()?.first()?.clone()
}

#[test]
fn the_forwarder_passes_single_bytes_both_ways() {
    let cluster = shared(&Pg::any());
    let forwarder = Forwarder::to(cluster.primary().port());
    forwarder.set(Direction::ToServer, Behaviour::SingleBytes);
    forwarder.set(Direction::ToClient, Behaviour::SingleBytes);
    let answer = ask(
        &cluster,
        &forwarder,
        "SELECT repeat('x', 1000)",
        common::PATIENCE,
    );
    assert_eq!(answer.unwrap().len(), 1000);
}

#[test]
fn the_forwarder_delays_stalls_and_cuts() {
    let cluster = shared(&Pg::any());
    let forwarder = Forwarder::to(cluster.primary().port());
    let short = Duration::from_millis(300);
    forwarder.set(Direction::ToClient, Behaviour::Stall);
    assert_eq!(ask(&cluster, &forwarder, "SELECT 1", short), None);
    forwarder.set(Direction::ToClient, Behaviour::CutAfter(1000));
    assert_eq!(
        ask(
            &cluster,
            &forwarder,
            "SELECT repeat('x', 2000)",
            common::PATIENCE
        ),
        None
    );
    forwarder.set(
        Direction::ToClient,
        Behaviour::Delay(Duration::from_millis(50)),
    );
    let start = std::time::Instant::now();
    assert_eq!(
        ask(&cluster, &forwarder, "SELECT 1", common::PATIENCE).as_deref(),
        Some("1")
    );
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "login and answer are late"
    );
    forwarder.refuse();
    assert_eq!(
        ask(&cluster, &forwarder, "SELECT 1", common::PATIENCE),
        None
    );
    forwarder.accept();
    assert_eq!(
        ask(&cluster, &forwarder, "SELECT 1", common::PATIENCE).as_deref(),
        Some("1")
    );
}
