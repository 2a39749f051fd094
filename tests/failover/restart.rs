//! What looks like a failover and is none: crash restarts, ended backends, single failed connections, full nodes.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgsluice::topology::{Health, Topology};

use crate::{
    forwarder::Forwarder,
    nodes::{Server, installations, is_primary},
    proxied::{Cluster, READS, Session, Told, WHERE, WRITES, wait_running, wait_until},
};

#[test]
fn a_crash_restart_of_the_primary_is_no_failover_and_sessions_go_on() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let open = || cluster.proxied.session(WRITES);
        let (idle, in_transaction, busy) = (open(), open(), open());
        idle.sql("insert into t values (1)");
        in_transaction.sql("begin");
        in_transaction.sql("insert into t values (2)");
        let sleeping = busy.start("select pg_sleep(600)");
        wait_running(&cluster.pg1, "pg_sleep(600)");
        let find = "select pid from pg_stat_activity where query = 'select pg_sleep(600)'";
        let pid = cluster.pg1.sql(find).parse().unwrap();
        let backends = backends(&cluster.pg1);
        let before = cluster.proxied.wait_primary("pg1");
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let told = sleeping.wait().unwrap_err();
        assert!(told.is("FATAL", "08007"), "{told:?}");
        // The others' backends say so in a WARNING, and end: each when it gets to it.
        wait_until("they have ended", || {
            backends.iter().all(|pid| kill(*pid, None).is_err())
        });
        in_transaction.assert_rolled_back();
        idle.sql("insert into t values (3)");
        let incarnation = before.nodes[0].incarnation;
        let after = cluster.proxied.wait("a new incarnation", |t| {
            is_primary(t, "pg1") && t.nodes[0].incarnation > incarnation
        });
        assert_eq!(after.nodes[0].timeline, Some(1));
        assert!(
            !cluster
                .proxied
                .ever(|t| is_primary(t, "pg2") || is_primary(t, "pg3"))
        );
        let ids = "select string_agg(id::text, ' ' order by id) from t";
        assert_eq!(idle.sql(ids), "1 3");
    }
}

/// The processes that serve applications.
fn backends(server: &Server) -> Vec<Pid> {
    let pids = server.sql("select pid from pg_stat_activity where usename = 'app'");
    let pids = pids.lines().map(|pid| pid.parse().unwrap());
    pids.map(Pid::from_raw).collect()
}

/// Whether a node that was up has left rotation.
fn has_left(topology: &Topology) -> bool {
    topology.nodes.iter().any(|n| n.health != Health::Up)
}

#[test]
fn an_ended_backend_is_its_session_s_matter_alone() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        for (listener, server) in [(WRITES, &cluster.pg1), (READS, &cluster.pg2)] {
            cluster.proxied.forget_history();
            let (other, victim) = reader_pair(&cluster, listener, server.port);
            let sleeping = victim.start("select pg_sleep(600)");
            wait_running(server, "pg_sleep(600)");
            other.sql(WHERE);
            server.sql("select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(600)'");
            let told = sleeping.wait().unwrap_err();
            assert!(told.is("FATAL", "57P01"), "{told:?}");
            // Idle ones are replaced in silence.
            for _ in 0..5 {
                server.sql(
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'",
                );
                let gone = "select count(*) from pg_stat_activity where usename = 'app'";
                wait_until("they have ended", || server.sql(gone) == "0");
                other.sql(WHERE);
            }
            assert!(!cluster.proxied.ever(has_left));
        }
    }
}

/// Two sessions, the second in a transaction on the node at `port`.
fn reader_pair(cluster: &Cluster, listener: usize, port: u16) -> (Session, Session) {
    let other = cluster.proxied.session(listener);
    let victim = cluster.proxied.session(listener);
    wait_until("a transaction there", || {
        victim.sql("begin");
        let there = victim.sql(WHERE).starts_with(&port.to_string());
        if !there {
            victim.sql("rollback");
        }
        there
    });
    (other, victim)
}

#[test]
fn one_connection_that_fails_bans_nobody() {
    let bin = &installations()[0];
    let mut forwarder = None;
    let cluster = Cluster::start_with(bin, |config| {
        for node in &mut config.nodes[..2] {
            let to = Forwarder::start(node.port);
            node.port = to.port;
            forwarder.get_or_insert_with(Vec::new).push(to);
        }
    });
    let forwarders = forwarder.unwrap();
    let (writer, reader) = (
        cluster.proxied.session(WRITES),
        cluster.proxied.session(READS),
    );
    cluster.proxied.forget_history();
    for id in 0..6 {
        for (server, forwarder) in [&cluster.pg1, &cluster.pg2].iter().zip(&forwarders) {
            server.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'",
            );
            let gone = "select count(*) from pg_stat_activity where usename = 'app'";
            wait_until("they have ended", || server.sql(gone) == "0");
            forwarder.refuse(1);
        }
        writer.sql(&format!("insert into t values ({id})"));
        reader.sql(WHERE);
        reader.sql(WHERE);
        // A dial of the pool and one of the probe: the next refusal is a single one again.
        for forwarder in &forwarders {
            wait_until("others get through", || forwarder.accepted() >= 2);
        }
    }
    assert!(!cluster.proxied.ever(has_left));
}

#[test]
fn a_node_whose_slots_are_taken_is_full_and_not_down() {
    let bin = &installations()[0];
    let cluster = Cluster::start_with(bin, |config| {
        // So long it waits for a slot.
        config.pool.checkout_timeout = Duration::from_secs(1);
    });
    cluster.proxied.forget_history();
    let direct = ([127, 0, 0, 1], cluster.pg1.port).into();
    let mut outside = Vec::new();
    let told: Told = loop {
        match Session::try_open(direct) {
            Ok(session) => outside.push(session),
            Err(told) => break told,
        }
    };
    assert_eq!(told.code(), "53300");
    let told = Session::try_open(cluster.proxied.addresses[WRITES])
        .err()
        .unwrap();
    assert!(told.is("FATAL", "53300"), "{told:?}");
    assert!(!cluster.proxied.ever(has_left));
    drop(outside);
    // The first slot that is free is the session's: a second login might still find none.
    let mut session = None;
    wait_until("a slot is free", || {
        session = Session::try_open(cluster.proxied.addresses[WRITES]).ok();
        session.is_some()
    });
    let session = session.unwrap();
    session.sql("insert into t values (1)");
    assert!(!cluster.proxied.ever(has_left));
}
