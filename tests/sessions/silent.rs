//! Peers that the network takes away without a word, while something is on its way to them.

use std::{net::SocketAddr, time::Duration};

use crate::{
    bed::{Bed, config, shared, wait_until},
    forwarder::{Forwarder, cut_off},
    raw::query,
};

const PEER_TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn a_client_that_the_network_took_away_amid_its_rows_frees_its_server() {
    const ROWS: usize = 50_000;
    let bed = Bed::with(2, |c| c.limits.peer_timeout = PEER_TIMEOUT);
    let rows = query(&format!(
        "SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"
    ));
    let [mut slow, mut gone] = [bed.client(), bed.client()];
    slow.send(&rows);
    gone.send(&rows);
    let waiting = || bed.count("wait_event = 'ClientWrite'");
    wait_until("nobody reads", || waiting() == 2);
    cut_off(&gone.stream);
    let mut told = Vec::new();
    wait_until("one client", || {
        told.push(slow.next());
        bed.clients() == 1
    });
    wait_until("one server", || waiting() == 1);
    told.extend(slow.until_ready());
    assert_eq!(told.iter().filter(|f| f.tag == b'D').count(), ROWS);
}

#[test]
fn a_client_that_the_network_took_away_before_a_notification_keeps_no_server() {
    let bed = Bed::with(1, |c| c.limits.peer_timeout = PEER_TIMEOUT);
    let mut gone = bed.client();
    gone.ok("LISTEN ear");
    cut_off(&gone.stream);
    bed.sql("NOTIFY ear");
    wait_until("no client", || bed.clients() == 0);
    assert_eq!(bed.client().value("SELECT 1"), "1");
}

#[test]
fn a_transaction_on_a_server_that_the_network_took_away_has_failed() {
    let server = shared();
    let forwarder = Forwarder::start(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mut node = server.node("pg1");
    node.port = forwarder.addr.port();
    let mut config = config(vec![node], 2);
    config.limits.peer_timeout = PEER_TIMEOUT;
    let bed = Bed::start(server, config);
    let mut client = bed.client();
    client.ok("BEGIN");
    forwarder.cut_off();
    assert_eq!(client.word(&query("SELECT 1")), "E[40001]ZE");
    assert_eq!(client.word(&query("ROLLBACK")), "CZI");
    assert_eq!(client.value("SELECT 2"), "2");
}
