//! What ends by age, and what a client is told at a limit or about a database that is not there.

use std::{io::Write, net::TcpStream, time::Duration};

use crate::{
    bed::{Bed, USER, wait_until},
    nodes::{self, PATIENCE, runtime},
    raw::{Client, cancel, query, startup, word},
};

/// What a client hears instead of a session.
fn refusal(addr: std::net::SocketAddr, parameters: &[(&str, &str)]) -> String {
    let mut client = open(addr, parameters);
    word(&client.until_end())
}

/// A connection that has asked for a session.
fn open(addr: std::net::SocketAddr, parameters: &[(&str, &str)]) -> Client {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A proxy that is full may have closed already; what it said is still there.
    let _ = stream.write_all(&startup(parameters));
    Client {
        stream,
        pid: 0,
        key: Vec::new(),
        told: Vec::new(),
    }
}

#[test]
fn a_server_that_nobody_uses_is_closed_and_its_session_gets_another() {
    let bed = Bed::with(2, |c| c.pool.idle_timeout = Duration::from_millis(100));
    let mut client = bed.client();
    let first = client.value("SELECT pg_backend_pid()");
    wait_until("the idle server is closed", || bed.servers() == 0);
    assert_ne!(client.value("SELECT pg_backend_pid()"), first);
}

#[test]
fn a_server_is_replaced_at_the_end_of_its_lifetime_but_not_inside_a_transaction() {
    let bed = Bed::with(1, |c| c.pool.lifetime = Duration::from_millis(300));
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("BEGIN");
    let first = client.value("SELECT pg_backend_pid()");
    let age = "SELECT clock_timestamp() - backend_start > '600ms' \
               FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    wait_until("it is old", || client.value(age) == "t");
    assert_eq!(client.value("SELECT pg_backend_pid()"), first);
    client.ok("COMMIT");
    assert_ne!(other.value("SELECT pg_backend_pid()"), first);
}

#[test]
fn sessions_that_idle_too_long_are_ended_by_where_they_idle_and_those_at_work_are_not() {
    let bed = Bed::with(3, |c| {
        c.limits.idle_timeout = Some(Duration::from_secs(4));
        c.limits.idle_transaction_timeout = Some(Duration::from_secs(2));
    });
    let (mut idle, mut failed, mut working) = (bed.client(), bed.client(), bed.client());
    let mut pinned = Client::connect(bed.session, &bed.database, USER);
    let mut opened = bed.client();
    working.send(&query("SELECT pg_sleep(7)"));
    opened.ok("CREATE TABLE t (i int)");
    opened.ok("BEGIN; INSERT INTO t VALUES (1)");
    failed.ok("BEGIN");
    failed.error("SELECT 1/0");
    assert_eq!(opened.farewell(), "E[FATAL 25P03]");
    assert_eq!(failed.farewell(), "E[FATAL 25P03]");
    assert_eq!(idle.farewell(), "E[FATAL 57P05]");
    assert_eq!(pinned.farewell(), "E[FATAL 57P05]");
    assert_eq!(word(&working.until_ready()), "TDCZI");
    // Both transactions were rolled back, and their servers are no lost places.
    let mut again: Vec<_> = (0..3).map(|_| bed.client()).collect();
    for client in &mut again {
        client.ok("BEGIN");
        assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn a_session_that_speaks_before_its_time_is_over_begins_anew() {
    let bed = Bed::with(1, |c| c.limits.idle_timeout = Some(Duration::from_secs(2)));
    let mut client = bed.client();
    let born = "SELECT clock_timestamp() - backend_start > '5s' \
                FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    wait_until("it has lived much longer", || client.value(born) == "t");
}

/// Whether a login gets as far as ReadyForQuery.
fn is_let_in(addr: std::net::SocketAddr, parameters: &[(&str, &str)]) -> bool {
    let mut client = open(addr, parameters);
    loop {
        match client.try_next() {
            Some(frame) if frame.tag == b'Z' => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

#[test]
fn one_client_too_many_is_told_so_and_may_come_again_later() {
    let bed = Bed::with(2, |c| c.limits.max_clients = 2);
    let (mut first, second) = (bed.client(), bed.client());
    let login = [("user", USER), ("database", &bed.database)];
    assert!(refusal(bed.addr, &login).ends_with("E[FATAL 53300]"));
    // Over all listeners.
    assert!(refusal(bed.replica, &login).ends_with("E[FATAL 53300]"));
    assert_eq!(first.value("SELECT 1"), "1");
    second.cut();
    wait_until("there is room again", || is_let_in(bed.addr, &login));
}

#[test]
fn a_session_can_be_cancelled_while_there_is_no_room_for_another() {
    let bed = Bed::with(1, |c| c.limits.max_clients = 1);
    let mut client = bed.client();
    client.send(&query("SELECT pg_sleep(3600)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    cancel(bed.addr, client.pid, &client.key);
    assert_eq!(word(&client.until_ready()), "TE[57014]ZI");
}

#[test]
fn a_database_that_does_not_exist_is_refused_in_the_servers_words() {
    let bed = Bed::new(2);
    for addr in [bed.addr, bed.session] {
        let login = [("user", USER), ("database", "no_such_database")];
        assert!(refusal(addr, &login).ends_with("E[FATAL 3D000]"));
    }
    assert_eq!(bed.client().value("SELECT 1"), "1");
}

#[test]
fn all_workers_and_pools_together_open_no_more_servers_than_the_node_takes() {
    let bed = Bed::with(3, |c| {
        c.workers = 2;
        c.nodes[0].max_servers = 3;
    });
    let spread = (0..12).map(|i| {
        let options = format!("-c work_mem={}MB", 1 + i % 4);
        let login = [
            ("user", USER),
            ("database", bed.database.as_str()),
            ("options", options.as_str()),
        ];
        Client::connect_with(bed.addr, &login)
    });
    let mut clients: Vec<_> = spread.collect();
    for _ in 0..5 {
        for client in &mut clients {
            client.send(&crate::raw::query("SELECT pg_sleep(0.005)"));
        }
        // One that makes way for another may still be on its way out.
        wait_until("no more than three", || bed.servers() <= 3);
        for client in &mut clients {
            assert_eq!(word(&client.until_ready()), "TDCZI");
        }
    }
}

#[test]
fn a_replication_connection_does_not_hold_a_drain_up() {
    let bed = Bed::with(2, |c| {
        c.limits.drain_timeout = PATIENCE * 10;
        c.users.push(pgsluice::config::User {
            name: "streamer".into(),
            password: pgsluice::config::Secret::new("unused"),
        });
    });
    bed.server.sql("CREATE ROLE streamer LOGIN REPLICATION");
    let login = [("user", "streamer"), ("replication", "true")];
    let mut client = Client::connect_with(bed.addr, &login);
    assert_eq!(
        word(&{
            client.send(&crate::raw::query("IDENTIFY_SYSTEM"));
            client.until_ready()
        }),
        "TDCZI"
    );
    let drained = bed.drain();
    assert_eq!(client.farewell(), "E[FATAL 57P01]");
    let waited = runtime().block_on(async { tokio::time::timeout(nodes::PATIENCE, drained).await });
    waited.expect("the drain ends").unwrap();
}

/// A replication client that has logged in at a proxy whose only node is not there.
fn waiting_for_a_primary(hold: Duration) -> (Bed, Client) {
    let bed = Bed::with(2, |c| {
        c.failover.hold = hold;
        // Nothing listens there.
        c.nodes[0].port = 1;
        c.users.push(pgsluice::config::User {
            name: "streamer".into(),
            password: pgsluice::config::Secret::new("unused"),
        });
    });
    let mut client = open(bed.addr, &[("user", "streamer"), ("replication", "true")]);
    assert_eq!(client.next().tag, b'R');
    (bed, client)
}

#[test]
fn a_replication_connection_waits_for_a_primary_no_longer_than_the_hold() {
    let (_bed, mut client) = waiting_for_a_primary(Duration::from_millis(200));
    assert_eq!(client.farewell(), "E[FATAL 57P03]");
}

#[test]
fn a_replication_connection_that_waits_does_not_hold_a_drain_up() {
    for leaves in [false, true] {
        let (bed, mut client) = waiting_for_a_primary(PATIENCE * 10);
        if leaves {
            client.cut();
            wait_until("it is forgotten", || bed.clients() == 0);
        } else {
            drop(bed.drain());
            assert_eq!(client.farewell(), "E[FATAL 57P01]");
        }
    }
}
