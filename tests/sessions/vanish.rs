//! Clients that leave at any moment: no server is lost, doubled, or given on with anything of theirs.

use std::net::Shutdown;

use crate::{
    bed::{Bed, wait_until},
    raw::{bind, execute, flush, frame, parse, query, run, sync, word},
};

#[test]
fn a_client_cut_off_after_any_byte_leaves_a_clean_pool() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let stream = [
        query("SELECT 1"),
        query("BEGIN"),
        query("INSERT INTO t VALUES (1)"),
        parse("", "SELECT 2"),
        bind("", ""),
        flush(),
        execute("", 0),
        sync(),
        query("ROLLBACK"),
        query("COPY t FROM STDIN"),
        frame(b'd', b"1\n"),
        frame(b'f', b"no\0"),
        query("SET work_mem = '1MB'"),
        query("SELECT 3"),
    ]
    .concat();
    for cut in 0..=stream.len() {
        let mut client = bed.client();
        client.send(&stream[..cut]);
        client.cut();
        let mut next = bed.client();
        assert_eq!(next.value("SHOW work_mem"), "4MB", "cut at {cut}");
        assert_eq!(next.word(&query("SELECT 'x'")), "TDCZI", "cut at {cut}");
        next.cut();
    }
    wait_until("one idle server", || {
        bed.servers() == 1 && bed.count("state = 'idle'") == 1
    });
    assert_eq!(bed.sql("SELECT count(*) FROM t"), "0");
}

#[test]
fn a_client_that_waits_for_a_server_and_leaves_is_forgotten() {
    let bed = Bed::new(1);
    let mut holder = bed.client();
    holder.ok("BEGIN");
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let mut client = bed.client();
            client.send(&query("SELECT pg_sleep(3600)"));
            client
        })
        .collect();
    let mut last = bed.client();
    last.send(&query("SELECT 'last'"));
    drop(waiters);
    holder.ok("COMMIT");
    assert_eq!(word(&last.until_ready()), "TDCZI");
    assert_eq!(holder.value("SELECT 1"), "1");
    // PostgreSQL itself may not have noticed that the first of them has gone.
    assert_eq!(bed.count("query NOT LIKE '%3600%'"), 1);
}

#[test]
fn a_statement_is_executed_though_its_client_leaves_at_once() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    for n in 1..=10 {
        let mut client = bed.client();
        client.ok("SELECT 1");
        let terminate = frame(b'X', b"");
        client.send(&[run("INSERT INTO t VALUES (1)"), sync(), terminate].concat());
        drop(client);
        wait_until("inserted", || {
            bed.sql("SELECT count(*) FROM t") == n.to_string()
        });
    }
}

/// Class: a client that ends its side of the connection behind its last message, and listens, gets no answer.
#[test]
fn a_client_that_only_listens_any_more_gets_all_its_answers() {
    let bed = Bed::new(1);
    let batch = || [run("SELECT 2"), sync()].concat();
    for sent in [
        query("SELECT pg_sleep(0.05)"),
        [query("SELECT 1"), batch(), query("SELEKT"), batch()].concat(),
        query("SELECT repeat('x', 1000) FROM generate_series(1, 1000)"),
        [query("BEGIN"), query("SELECT 1")].concat(),
        [query("SELECT 1"), b"Q\0\0".to_vec()].concat(),
        [query("SET work_mem = '1MB'"), query("SHOW work_mem")].concat(),
    ] {
        let [direct, proxied] = [bed.direct(), bed.client()].map(|mut client| {
            client.send(&sent);
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.until_end()
        });
        assert_eq!(word(&direct), word(&proxied), "{}", sent.escape_ascii());
    }
}

/// Where it waits for a server, whether it listens or has left.
#[test]
fn what_a_client_sent_before_it_left_is_run_when_there_is_a_server() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let mut holder = bed.client();
    holder.ok("BEGIN");
    let mut listener = bed.client();
    listener.send(&query("INSERT INTO t VALUES (1)"));
    listener.stream.shutdown(Shutdown::Write).unwrap();
    let mut leaver = bed.client();
    leaver.send(&[query("INSERT INTO t VALUES (2)"), frame(b'X', b"")].concat());
    drop(leaver);
    let mut vanisher = bed.client();
    vanisher.send(&query("INSERT INTO t VALUES (3)"));
    drop(vanisher);
    // The one worker has seen them when it has let two more clients in.
    drop((bed.client(), bed.client()));
    holder.ok("COMMIT");
    assert_eq!(listener.farewell(), "CZI");
    wait_until("all run", || {
        bed.sql("SELECT string_agg(i::text, '' ORDER BY i) FROM t") == "123"
    });
    wait_until("one client", || bed.clients() == 1);
}

/// Nobody sends the rest.
#[test]
fn a_client_that_ends_in_the_middle_of_a_copy_or_a_message_is_not_waited_for() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let long = [b"Q\0\x10\0\0".to_vec(), b"SELECT 1; ".repeat(8_000)].concat();
    for sent in [
        query("COPY t FROM STDIN"),
        [query("COPY t FROM STDIN"), frame(b'd', b"1\n")].concat(),
        [
            query("COPY t FROM STDIN"),
            b"d\0\0\x10\0".to_vec(),
            vec![b'1'; 2_000],
        ]
        .concat(),
        [run("COPY t FROM STDIN"), sync()].concat(),
        [query("BEGIN"), long].concat(),
    ] {
        let mut client = bed.client();
        client.send(&sent);
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.until_end();
        assert_eq!(bed.client().value("SELECT count(*) FROM t"), "0");
    }
}
