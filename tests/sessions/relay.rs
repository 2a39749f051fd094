//! The same conversation direct and through the proxy gives the same replies; large ones cost no memory.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::{
    bed::Bed,
    raw::{Client, bind, close, describe, execute, flush, frame, parse, query, run, sync, word},
};

/// Conversations, each a list of writes, each with how many ReadyForQuery answer it.
pub fn conversations() -> Vec<Vec<(Vec<u8>, usize)>> {
    let q = |sql: &str| (query(sql), 1);
    let function = {
        // int4inc(41) by object id, text in, text out.
        let mut body = 623_u32.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 1, 0, 0, 0, 2, b'4', b'1', 0, 0]);
        frame(b'F', &body)
    };
    vec![
        vec![q("SELECT 1"), q(""), q("   ;  ;"), q("-- nothing")],
        vec![q("SELECT 1; SELECT 2, 'x'; SELECT generate_series(1, 3)")],
        vec![
            q("SELECT 1/0"),
            q("SELECT 1; SELECT 1/0; SELECT 3"),
            q("syntax error"),
        ],
        vec![
            q("DO $$BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END$$"),
            q("SELECT 1"),
        ],
        vec![
            q("BEGIN"),
            q("SELECT 1/0"),
            q("SELECT 1"),
            q("COMMIT"),
            q("SELECT 2"),
        ],
        vec![(run("SELECT 1"), 0), (sync(), 1)],
        vec![(
            [run("SELECT 1"), flush(), run("SELECT 2"), sync()].concat(),
            1,
        )],
        vec![(
            [
                run("SELECT 1"),
                sync(),
                run("SELECT 1/0"),
                sync(),
                run("SELECT 3"),
                sync(),
            ]
            .concat(),
            3,
        )],
        vec![(
            [
                run("SELECT 1"),
                run("SELECT 1/0"),
                run("SELECT 3"),
                query("SELECT 4"),
                sync(),
            ]
            .concat(),
            1,
        )],
        vec![(
            [run("SELECT 1"), query("SELECT 2"), run("SELECT 3"), sync()].concat(),
            2,
        )],
        vec![
            (
                [
                    parse("", "SELECT 1/0"),
                    bind("", ""),
                    execute("", 0),
                    query("SELECT 5"),
                    sync(),
                ]
                .concat(),
                1,
            ),
            q("SELECT 6"),
        ],
        vec![(
            [
                parse("a", "SELECT generate_series(1, 5)"),
                describe(b'S', "a"),
                bind("p", "a"),
                describe(b'P', "p"),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                close(b'P', "p"),
                close(b'S', "a"),
                sync(),
            ]
            .concat(),
            1,
        )],
        vec![(
            [
                parse("", ""),
                bind("", ""),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
            1,
        )],
        vec![
            ([bind("", "missing"), sync()].concat(), 1),
            ([describe(b'S', "missing"), sync()].concat(), 1),
            ([execute("missing", 0), sync()].concat(), 1),
        ],
        vec![(sync(), 1), ([flush(), sync(), sync()].concat(), 2)],
        vec![(function, 1), q("SELECT 1")],
        // COPY messages outside of COPY are read over.
        vec![(
            [
                frame(b'd', b"x"),
                frame(b'c', b""),
                frame(b'f', b"no\0"),
                query("SELECT 1"),
            ]
            .concat(),
            1,
        )],
        // Parameters, notices and notifications at any place.
        vec![
            q("LISTEN a; NOTIFY a, 'b'; SET application_name = 'c'; SELECT 1"),
            q("NOTIFY a"),
            q("UNLISTEN *"),
        ],
        vec![
            (run("SET application_name = 'd'"), 0),
            ([run("NOTIFY a"), sync()].concat(), 1),
        ],
        vec![
            q("COPY (SELECT generate_series(1, 9)) TO STDOUT"),
            ([run("COPY (SELECT 1) TO STDOUT"), sync()].concat(), 1),
        ],
        // A message that is malformed inside.
        vec![(frame(b'B', b"\0\0\0\x09"), 0), (sync(), 1), q("SELECT 1")],
    ]
}

/// Replies with process ids left out, which differ.
fn replies(client: &mut Client, conversation: &[(Vec<u8>, usize)]) -> Vec<String> {
    let mut out = Vec::new();
    for (bytes, ready) in conversation {
        client.send(bytes);
        for _ in 0..*ready {
            for mut frame in client.until_ready() {
                if frame.tag == b'A' {
                    frame.body.drain(..4);
                }
                out.push(format!("{frame:?}"));
            }
        }
    }
    out
}

#[test]
fn every_conversation_is_answered_as_by_the_server_itself() {
    let bed = Bed::new(2);
    for conversation in conversations() {
        let direct = replies(&mut bed.direct(), &conversation);
        let through = replies(&mut bed.client(), &conversation);
        assert_eq!(through, direct, "{conversation:?}");
        let mut client = Client::connect(bed.session, &bed.database, crate::bed::USER);
        assert_eq!(
            replies(&mut client, &conversation),
            direct,
            "session mode: {conversation:?}"
        );
    }
}

#[test]
fn a_million_rows_arrive_whole() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    client.send(&query("SELECT generate_series(1, 1000000)"));
    let frames = client.until_ready();
    let rows: Vec<_> = frames.iter().filter(|f| f.tag == b'D').collect();
    assert_eq!(rows.len(), 1_000_000);
    assert_eq!(rows[999_999].value(), "1000000");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_client_that_does_not_read_stops_the_server_and_costs_no_memory() {
    let bed = Bed::alone(2);
    let mut client = bed.client();
    let before = resident_bytes();
    // One row of 50 MB, then many small ones.
    client.send(&query(
        "SELECT repeat('x', 50000000); SELECT repeat('y', 1000) FROM generate_series(1, 50000)",
    ));
    crate::bed::wait_until("the server is stopped", || {
        bed.count("wait_event = 'ClientWrite'") == 1
    });
    assert!(resident_bytes() < before + 16 * 1024 * 1024);
    // Others go on.
    assert_eq!(bed.client().value("SELECT 7"), "7");
    let mut total = 0;
    let mut sink = vec![0; 1 << 20];
    let mut tail = Vec::new();
    while !tail.ends_with(b"Z\0\0\0\x05I") {
        let n = client.stream.read(&mut sink).unwrap();
        total += n;
        tail.extend_from_slice(&sink[n.saturating_sub(6)..n]);
        tail.drain(..tail.len().saturating_sub(6));
    }
    assert!(total > 100_000_000, "{total}");
    assert!(resident_bytes() < before + 24 * 1024 * 1024);
    assert_eq!(client.value("SELECT 8"), "8");
}

#[test]
fn a_server_that_does_not_read_stops_the_client_and_costs_no_memory() {
    let bed = Bed::alone(1);
    let mut client = bed.client();
    let before = resident_bytes();
    let mut writer = client.stream.try_clone().unwrap();
    writer
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    client.send(&query("SELECT pg_sleep(3600)"));
    let filler = frame(b'Q', &[&vec![b' '; 60_000][..], &[0]].concat());
    let mut written = 0;
    while writer.write_all(&filler).is_ok() {
        written += filler.len();
        assert!(written < 200_000_000, "the client is never stopped");
    }
    assert!(resident_bytes() < before + 16 * 1024 * 1024);
}

/// Writes while it reads, as a pipelining driver does.
fn pipeline(client: &mut Client, bytes: Vec<u8>, ready: usize) -> Vec<crate::raw::Frame> {
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut frames = Vec::new();
    for _ in 0..ready {
        frames.extend(client.until_ready());
    }
    writing.join().unwrap();
    frames
}

#[test]
fn thousands_of_pipelined_batches_are_answered_in_order() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    let batches: Vec<_> = (0..3000)
        .map(|i| [run(&format!("SELECT {i}")), sync()].concat())
        .collect();
    let frames = pipeline(&mut client, batches.concat(), 3000);
    let rows = frames.iter().filter(|f| f.tag == b'D').map(|f| f.value());
    assert!(rows.eq((0..3000).map(|i| i.to_string())));
    assert_eq!(client.value("SELECT 'free'"), "free");
}

#[test]
fn a_batch_of_more_messages_than_may_be_owed_does_not_hang() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    // Close of nothing is the message with the shortest reply.
    let mut bytes = close(b'P', "x").repeat(200_000);
    bytes.extend(sync());
    let frames = pipeline(&mut client, bytes, 1);
    assert_eq!(frames.len(), 200_001);
    let mut bytes = run("SELECT 1").repeat(40_000);
    bytes.extend(run("SELECT 1/0"));
    bytes.extend(run("SELECT 1").repeat(40_000));
    bytes.extend(sync());
    let frames = pipeline(&mut client, bytes, 1);
    assert_eq!(frames.len(), 4 * 40_000 + 3);
    assert!(
        word(&frames).ends_with("DC1E[22012]ZI"),
        "{}",
        &word(&frames)[..20]
    );
    assert_eq!(client.value("SELECT 'free'"), "free");
}

#[test]
fn flush_brings_the_replies_of_an_open_batch() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    client.send(&[run("SELECT 1"), flush()].concat());
    let tags: Vec<u8> = (0..4).map(|_| client.next().tag).collect();
    assert_eq!(tags, *b"12DC");
    // Another client in between gets another server: the batch is a transaction.
    assert_eq!(bed.client().value("SELECT 2"), "2");
    assert_eq!(client.word(&sync()), "ZI");
}
