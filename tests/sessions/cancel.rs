//! CancelRequest: hits the statement it was meant for, and nobody else's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    bed::{Bed, USER, wait_until},
    raw::{Client, cancel, flush, parse, query, run, sync, word},
};

#[test]
fn a_cancel_ends_the_running_statement_and_leaves_the_session() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    client.send(&query("SELECT pg_sleep(3600)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    cancel(bed.addr, client.pid, &client.key);
    assert_eq!(word(&client.until_ready()), "TE[57014]ZI");
    assert_eq!(client.value("SELECT 1"), "1");
    client.send(&[run("SELECT pg_sleep(3600)"), sync()].concat());
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    cancel(bed.session, client.pid, &client.key);
    assert_eq!(word(&client.until_ready()), "12E[57014]ZI");
    assert_eq!(bed.client().value("SELECT 2"), "2");
}

#[test]
fn a_session_of_a_session_listener_is_cancelled_by_its_servers_pid() {
    let bed = Bed::new(1);
    let mut client = Client::connect(bed.session, &bed.database, USER);
    client.send(&query("SELECT pg_sleep(3600)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    cancel(bed.session, client.pid, &client.key);
    assert_eq!(word(&client.until_ready()), "TE[57014]ZI");
}

#[test]
fn a_cancel_with_a_wrong_key_or_of_an_idle_session_hits_nobody() {
    let bed = Bed::new(1);
    let idle = bed.client();
    let mut client = bed.client();
    client.send(&query("SELECT pg_sleep(1)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    let mut wrong = client.key.clone();
    wrong[0] ^= 1;
    cancel(bed.addr, client.pid, &wrong);
    cancel(bed.addr, client.pid.wrapping_add(1), &client.key);
    cancel(bed.addr, client.pid, &[]);
    cancel(bed.addr, idle.pid, &idle.key);
    assert_eq!(word(&client.until_ready()), "TDCZI");
}

#[test]
fn cancels_that_race_with_the_end_of_their_statement_never_hit_another_client() {
    let bed = Bed::new(1);
    let over = Arc::new(AtomicBool::new(false));
    let other = {
        let (mut client, over) = (bed.client(), over.clone());
        std::thread::spawn(move || {
            let mut statements = 0;
            while !over.load(SeqCst) {
                assert_eq!(client.word(&query("SELECT pg_sleep(0.001)")), "TDCZI");
                statements += 1;
            }
            statements
        })
    };
    let mut client = bed.client();
    let mut hits = 0;
    for round in 0..200 {
        client.send(&query("SELECT pg_sleep(0.002)"));
        let (addr, pid, key) = (bed.addr, client.pid, client.key.clone());
        // Sooner and later: while it waits for the server, while it runs, and after.
        let delay = Duration::from_micros(round * 100);
        let cancelling = std::thread::spawn(move || {
            std::thread::sleep(delay);
            cancel(addr, pid, &key);
        });
        let replies = word(&client.until_ready());
        match &*replies {
            "TDCZI" => {}
            "TE[57014]ZI" | "E[57014]ZI" => hits += 1,
            _ => panic!("round {round}: {replies}"),
        }
        cancelling.join().unwrap();
    }
    over.store(true, SeqCst);
    let statements = other.join().unwrap();
    assert!(
        hits < 200 && statements > 0,
        "{hits} hits, {statements} statements"
    );
    assert_eq!(bed.servers(), 1);
}

#[test]
fn a_cancel_ends_the_wait_for_a_server_and_nothing_else() {
    let bed = Bed::new(1);
    let (mut holder, mut waiter) = (bed.client(), bed.client());
    holder.ok("BEGIN");
    waiter.send(&query("SELECT 1"));
    // The one worker has seen it when it has let two more clients in.
    drop((bed.client(), bed.client()));
    cancel(bed.addr, waiter.pid, &waiter.key);
    assert_eq!(word(&waiter.until_ready()), "E[57014]ZI");
    holder.ok("COMMIT");
    assert_eq!(waiter.value("SELECT 2"), "2");
}

#[test]
fn a_cancel_that_hits_the_settings_before_a_statement_fails_that_and_keeps_the_session() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let mut client = bed.client();
    client.ok("SET default_text_search_config = 'german'");
    assert_eq!(client.value("SELECT 1"), "1");
    bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()");
    wait_until("no server", || bed.servers() == 0);
    // A new server does not know the setting's value, and waits for the lock to look it up.
    let mut locker = Client::connect(bed.server_addr(), &bed.database, "postgres");
    locker.ok("BEGIN");
    locker.ok("LOCK TABLE pg_catalog.pg_ts_config IN ACCESS EXCLUSIVE MODE");
    let insert = "INSERT INTO t VALUES (1)";
    let in_batch = [run(insert), sync()].concat();
    for (message, expected) in [
        (query(insert), &["E[57014]ZI"][..]),
        (in_batch.clone(), &["E[57014]ZI"]),
        ([query(insert), in_batch].concat(), &["E[57014]ZI"; 2]),
        // It waits for the settings.
        (query("ROLLBACK"), &["E[57014]ZI"]),
        // Its Sync comes later.
        ([parse("", insert), flush()].concat(), &["E[57014]"]),
    ] {
        client.send(&message);
        wait_until("it is being dressed", || {
            bed.count("wait_event_type = 'Lock'") == 1
        });
        cancel(bed.addr, client.pid, &client.key);
        for expected in expected {
            let replies = match expected.ends_with("ZI") {
                true => client.until_ready(),
                false => vec![client.next()],
            };
            assert_eq!(word(&replies), *expected, "{}", message.escape_ascii());
        }
    }
    assert_eq!(client.word(&sync()), "ZI");
    locker.ok("ROLLBACK");
    assert_eq!(
        client.value("SHOW default_text_search_config"),
        "pg_catalog.german"
    );
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
}
