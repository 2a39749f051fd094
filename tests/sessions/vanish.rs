//! Clients that leave at any moment: no server is lost, doubled, or given on with anything of theirs.

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
    assert_eq!(bed.servers(), 1);
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
