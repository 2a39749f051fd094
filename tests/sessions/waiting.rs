//! Waiting for a server: limits, order, fairness over workers, databases and startup parameters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, USER, config, database, shared},
    nodes::PATIENCE,
    raw::{Client, query, run, sync, word},
};

#[test]
fn a_checkout_that_takes_too_long_fails_and_the_session_survives() {
    let bed = Bed::with(1, |c| c.pool.checkout_timeout = Duration::from_millis(200));
    let mut holder = bed.client();
    let mut client = bed.client();
    holder.ok("BEGIN");
    let error = client.error("SELECT 1");
    assert_eq!(
        (&*error.field(b'V'), &*error.field(b'C')),
        ("ERROR", "53300")
    );
    let text = error.field(b'M');
    assert!(text.contains("all 1 of this database and user"), "{text}");
    assert_eq!(
        client.word(&[run("SELECT 1"), sync()].concat()),
        "E[53300]ZI"
    );
    assert_eq!(client.word(&query("BEGIN")), "E[53300]ZI");
    holder.ok("COMMIT");
    assert_eq!(client.value("SELECT 2"), "2");
    let bed = Bed::with(9, |c| {
        c.pool.checkout_timeout = Duration::from_millis(200);
        c.nodes[0].max_servers = 1;
    });
    let mut holder = bed.client();
    holder.ok("BEGIN");
    let text = bed.client().error("SELECT 1").field(b'M');
    assert!(text.contains("all 1 of the node"), "{text}");
}

#[test]
fn waiters_are_served_oldest_first() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int, at timestamptz DEFAULT clock_timestamp())");
    let mut holder = bed.client();
    holder.ok("BEGIN");
    let mut waiters: Vec<_> = (0..6)
        .map(|i| {
            let mut client = bed.client();
            client.send(&query(&format!("INSERT INTO t VALUES ({i})")));
            // The one worker has seen it when it has let two more clients in.
            drop((bed.client(), bed.client()));
            client
        })
        .collect();
    holder.ok("COMMIT");
    for waiter in &mut waiters {
        assert_eq!(word(&waiter.until_ready()), "CZI");
    }
    let order = bed.sql("SELECT string_agg(i::text, '' ORDER BY at) FROM t");
    assert_eq!(order, "012345");
}

#[test]
fn an_idle_server_of_another_database_or_other_parameters_makes_way() {
    for workers in [1, 2] {
        let bed = Bed::with(1, |c| {
            c.workers = workers;
            c.nodes[0].max_servers = 1;
        });
        let other = database(&bed.server);
        let mut clients = [
            bed.client(),
            Client::connect(bed.addr, &other, USER),
            Client::connect_with(
                bed.addr,
                &[
                    ("user", USER),
                    ("database", &bed.database),
                    ("options", "-c work_mem=1MB"),
                ],
            ),
            bed.client(),
        ];
        for _ in 0..3 {
            for client in &mut clients {
                client.ok("SELECT 1");
            }
        }
        assert!(bed.servers() <= 1);
    }
}

/// Every client runs transactions until each has run `least`.
fn all_get_their_turn(clients: Vec<Client>, least: usize) {
    let behind = Arc::new(AtomicUsize::new(clients.len()));
    let deadline = Instant::now() + 2 * PATIENCE;
    let running: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let behind = behind.clone();
            std::thread::spawn(move || {
                for done in 1.. {
                    client.ok("BEGIN; SELECT pg_sleep(0.002); COMMIT");
                    if done == least {
                        behind.fetch_sub(1, SeqCst);
                    }
                    if behind.load(SeqCst) == 0 {
                        return;
                    }
                    assert!(Instant::now() < deadline, "someone gets no turn");
                }
            })
        })
        .collect();
    running.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn no_worker_keeps_the_only_server_from_another() {
    let bed = Bed::with(1, |c| c.workers = 2);
    // The emptier worker gets the next client: the second and every idle one are on the other worker.
    let mut busy = vec![bed.client(), bed.client()];
    let mut idle = Vec::new();
    for _ in 0..4 {
        busy.push(bed.client());
        idle.push(bed.client());
    }
    all_get_their_turn(busy, 20);
    assert_eq!(bed.servers(), 1);
}

#[test]
fn no_login_keeps_the_only_server_from_another() {
    let bed = Bed::with(1, |c| c.workers = 1);
    let with_options = [
        ("user", USER),
        ("database", &bed.database),
        ("options", "-c work_mem=1MB"),
    ];
    let mut clients: Vec<_> = (0..4).map(|_| bed.client()).collect();
    clients.push(Client::connect_with(bed.addr, &with_options));
    all_get_their_turn(clients, 5);
    let bed = Bed::start(shared(), {
        let mut node = shared().node("pg1");
        node.max_servers = 1;
        config(vec![node], 5)
    });
    let other = database(&bed.server);
    let mut clients: Vec<_> = (0..4).map(|_| bed.client()).collect();
    clients.push(Client::connect(bed.addr, &other, USER));
    all_get_their_turn(clients, 5);
}
