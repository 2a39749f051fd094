//! COPY in and out, and its ends.

use crate::{
    bed::Bed,
    raw::{Client, bind, describe, execute, frame, parse, query, run, sync, word},
};

fn data(text: &str) -> Vec<u8> {
    frame(b'd', text.as_bytes())
}

fn done() -> Vec<u8> {
    frame(b'c', b"")
}

fn fail() -> Vec<u8> {
    frame(b'f', b"given up\0")
}

/// As libpq sends it: the Sync is there before the server says that it wants data.
fn extended(sql: &str) -> Vec<u8> {
    [
        parse("", sql),
        bind("", ""),
        describe(b'P', ""),
        execute("", 0),
        sync(),
    ]
    .concat()
}

fn prepared(bed: &Bed) {
    bed.sql(
        "SET ROLE app; CREATE TABLE t (i int); CREATE TABLE u (i int);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
         CREATE TRIGGER no BEFORE INSERT ON u FOR EACH STATEMENT EXECUTE FUNCTION no();",
    );
}

/// Sends `begin`, waits for CopyInResponse, sends `rest`; all up to the last of `ready` ReadyForQuery.
fn copy(client: &mut Client, begin: &[u8], rest: &[u8], ready: usize) -> String {
    client.send(begin);
    let mut frames = Vec::new();
    while frames
        .last()
        .is_none_or(|f: &crate::raw::Frame| f.tag != b'G')
    {
        frames.push(client.next());
    }
    client.send(rest);
    for _ in 0..ready {
        frames.extend(client.until_ready());
    }
    word(&frames)
}

#[test]
fn copy_in_ends_as_it_does_without_a_proxy() {
    let bed = Bed::new(1);
    prepared(&bed);
    let sql = "COPY t FROM STDIN";
    let rows = [data("1\n"), data("2\n3"), data("\n")].concat();
    let bad = [data("1\n"), data("x\n"), data("3\n")].concat();
    let cases = [
        (query(sql), [&rows[..], &done()].concat(), 1),
        (query(sql), [&rows[..], &fail()].concat(), 1),
        (query(sql), [&bad[..], &done()].concat(), 1),
        (query(sql), [&bad[..], &fail()].concat(), 1),
        (
            query("COPY t FROM STDIN; SELECT 1"),
            [&rows[..], &done()].concat(),
            1,
        ),
        (
            query(sql),
            [&rows[..], &frame(b'H', b""), &sync(), &done()].concat(),
            1,
        ),
        (
            [run(sql)].concat(),
            [&rows[..], &done(), &sync()].concat(),
            1,
        ),
        (
            [run(sql)].concat(),
            [&bad[..], &done(), &sync()].concat(),
            1,
        ),
        (extended(sql), [&rows[..], &done(), &sync()].concat(), 1),
        (extended(sql), [&rows[..], &fail(), &sync()].concat(), 1),
        (extended(sql), [&bad[..], &done(), &sync()].concat(), 1),
        (query("COPY u FROM STDIN"), [&rows[..], &done()].concat(), 1),
        // The error comes before the server has read anything: the first Sync is answered too.
        (
            extended("COPY u FROM STDIN"),
            [&rows[..], &done(), &sync()].concat(),
            2,
        ),
        (
            run("COPY u FROM STDIN"),
            [&rows[..], &done(), &sync()].concat(),
            1,
        ),
    ];
    for (begin, rest, ready) in cases {
        // A Flush makes the server say that it wants data, where no Sync does.
        let begin = [&begin[..], &frame(b'H', b"")].concat();
        let direct = copy(&mut bed.direct(), &begin, &rest, ready);
        let mut client = bed.client();
        let what = rest.escape_ascii().to_string();
        assert_eq!(copy(&mut client, &begin, &rest, ready), direct, "{what}");
        assert_eq!(client.value("SELECT 7"), "7", "{what}");
        drop(client);
        assert_eq!(bed.client().value("SELECT 8"), "8", "{what}");
    }
}

#[test]
fn copy_data_sent_before_it_was_asked_for_is_taken() {
    let bed = Bed::new(1);
    prepared(&bed);
    let mut client = bed.client();
    let bytes = [
        query("COPY t FROM STDIN"),
        data("1\n"),
        done(),
        query("SELECT count(*) FROM t"),
    ];
    client.send(&bytes.concat());
    let frames = [client.until_ready(), client.until_ready()].concat();
    assert_eq!(word(&frames), "GCZITDCZI");
    let bytes = [run("COPY t FROM STDIN"), data("1\n"), done(), sync()].concat();
    assert_eq!(client.word(&bytes), "12GCZI");
}

#[test]
fn a_server_that_failed_a_copy_is_not_reused_in_the_middle_of_a_message() {
    let bed = Bed::new(1);
    prepared(&bed);
    let mut client = bed.client();
    client.send(&query("COPY t FROM STDIN"));
    assert_eq!(client.next().tag, b'G');
    // Half of a message that is larger than any buffer, behind a bad row.
    let large = data(&"1\n".repeat(100_000));
    client.send(&[data("x\n"), large[..50_000].to_vec()].concat());
    assert_eq!(word(&client.until_ready()), "E[22P02]ZI");
    let mut other = bed.client();
    other.send(&query("SELECT 'mine'"));
    client.send(&[&large[50_000..], &done(), &query("SELECT 'yours'")].concat());
    let (theirs, ours) = (other.until_ready(), client.until_ready());
    assert_eq!(theirs[1].value(), "mine");
    assert_eq!(ours[1].value(), "yours");
}

#[test]
fn a_client_may_send_on_long_after_the_server_failed_its_copy() {
    let bed = Bed::new(1);
    prepared(&bed);
    let mut client = bed.client();
    client.send(&query("COPY t FROM STDIN"));
    assert_eq!(client.next().tag, b'G');
    client.send(&data("x\n"));
    for _ in 0..1000 {
        client.send(&data(&"1\n".repeat(5_000)));
    }
    client.send(&done());
    assert_eq!(word(&client.until_ready()), "E[22P02]ZI");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn large_copies_pass_both_ways() {
    let bed = Bed::new(1);
    prepared(&bed);
    let mut client = bed.client();
    client.send(&query("COPY t FROM STDIN"));
    assert_eq!(client.next().tag, b'G');
    for _ in 0..100 {
        client.send(&data(&"1\n".repeat(10_000)));
    }
    client.send(&done());
    assert_eq!(word(&client.until_ready()), "CZI");
    client.send(&query("COPY t TO STDOUT"));
    let frames = client.until_ready();
    assert_eq!(frames.iter().filter(|f| f.tag == b'd').count(), 1_000_000);
}
