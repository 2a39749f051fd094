//! Messages whose frame is right and whose contents are not: PostgreSQL answers with an error and goes on, and so must we.

use std::{net::SocketAddr, sync::Mutex};

use pgsluice::config::AuthMethod;

use super::{
    fair::for_seeds,
    mutate::{bind, execute, parse, sync},
    nodes,
    rig::Rig,
    speak::{Conversation, Said, frame, query},
};

/// Bodies that are not what their types say, by type.
fn malformed() -> Vec<(u8, Vec<&'static [u8]>)> {
    vec![
        (
            b'Q',
            vec![
                b"",
                b"SELECT 1",
                b"SELECT 1\0SELECT 2\0",
                b"SELECT 1\0\0",
                b"\0COMMIT\0",
                b"SELECT '\xff'\0",
            ],
        ),
        (
            b'P',
            vec![
                b"",
                b"\0",
                b"\0SELECT 1",
                b"\0SELECT 1\0",
                b"\0SELECT 1\0\0",
                b"\0SELECT 1\0\0\0x",
                b"\0SELECT 1\0\0\x01\0\0\0",
                b"\0SELECT 1\0\xff\xff",
                b"s\0SELECT 1\0",
                b"s\0SELECT 1\0\0\0\0",
                b"s\0SELECT '\xff'\0\0\0",
                b"\xff\0SELECT 1\0\0\0",
                b"\0DEALLOCATE ALL\0\0\0x",
            ],
        ),
        (
            b'B',
            vec![
                b"",
                b"\0",
                b"p",
                b"\0s",
                b"\0\0",
                b"\0\0\0",
                b"\0\0\0\0\0\x01",
                b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
                b"\0\0\0\0\0\x01\0\0\0\x09x\0\0",
                b"\0\0\0\x02\0\0\0\0\0\0\0\0",
                b"\0\0\0\0\0\0\0\x02\0\x01\0\x01",
                b"\0\0\0\0\0\0\0\x01\0\x09",
                b"\0\0\0\0\0\0\0\0x",
                b"\0known\0\0\0\0\x03\0\0",
                b"\0known\0\0\0\0\0\0\0x",
                b"\0nobody\0",
                b"\0nobody\0\0\0\0\0\0\0",
                b"\xff\0\0\0\0\0\0\0\0",
                b"\0\xff\0\0\0\0\0\0\0",
            ],
        ),
        (
            b'D',
            vec![
                b"",
                b"S",
                b"Sknown",
                b"S\0x",
                b"X\0",
                b"\0\0",
                b"P",
                b"Pnobody\0",
                b"Sknown\0x",
                b"Snobody\0",
            ],
        ),
        (
            b'C',
            vec![
                b"",
                b"S",
                b"Sknown",
                b"S\0x",
                b"X\0",
                b"\0\0",
                b"P",
                b"Pnobody\0",
                b"Sknown\0x",
            ],
        ),
        (
            b'E',
            vec![
                b"",
                b"\0",
                b"\0\0\0\0",
                b"\0\0\0\0\0x",
                b"nobody\0\0\0\0\0",
                b"\0\xff\xff\xff\xff",
            ],
        ),
        (
            b'F',
            vec![
                b"",
                b"\0",
                b"\0\0\0\xb1",
                b"\0\0\0\xb1\0\0\0\x02\0\0\0\x011",
                b"\0\0\0\x01\0\0\0\0\0\0",
                b"\0\0\0\xb1\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0x",
            ],
        ),
        (b'S', vec![b"x", b"\0\0\0\0"]),
        (b'H', vec![b"x"]),
        (b'd', vec![b"", b"x"]),
        (b'c', vec![b"x"]),
        (b'f', vec![b"", b"x"]),
    ]
}

/// Where in a session a message may come: what is sent before it, and behind it.
fn places() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let batch = || [parse("", "SELECT 5"), bind(""), execute()].concat();
    vec![
        ("alone", vec![], vec![]),
        ("behind a query", query("SELECT 1"), query("SELECT 2")),
        ("in a transaction", query("BEGIN"), query("SELECT 2")),
        (
            "in a failed one",
            [query("BEGIN"), query("SELEKT")].concat(),
            query("COMMIT"),
        ),
        ("before a batch", vec![], [batch(), sync()].concat()),
        ("behind a batch", [batch(), sync()].concat(), vec![]),
        (
            "in a batch",
            batch(),
            [execute(), sync(), batch(), sync()].concat(),
        ),
        (
            "skipped",
            [parse("", "SELEKT")].concat(),
            [sync(), batch(), sync()].concat(),
        ),
        (
            "behind a copy",
            [query("COPY t FROM STDIN"), frame(b'd', b"7\tx\n")].concat(),
            frame(b'c', b""),
        ),
    ]
}

/// Everything that is said after the login, but what may come at any time.
fn answers(addr: SocketAddr, bytes: &[u8]) -> Vec<Said> {
    let mut session = Conversation::log_in(addr, "app");
    session.send(&[parse("known", "SELECT 6"), sync()].concat());
    session.until(|s| s.tag == b'Z');
    session.send(bytes);
    let marker = [sync(), query("ROLLBACK"), query("SELECT 'marker'")].concat();
    session.send(&marker);
    let mut said = session.until(|s| s.tag == b'D' && s.body.ends_with(b"marker"));
    if said.last().is_some_and(|s| s.tag == b'D') {
        said.extend(session.until(|s| s.tag == b'Z'));
    }
    said.retain(|s| !matches!(s.tag, b'S' | b'N' | b'A'));
    said
}

/// Each message at each place, and what that is called.
fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    for (tag, bodies) in malformed() {
        for body in bodies {
            for (place, before, after) in places() {
                // There the server minds a message of ours, which stands before this one, and a Flush not at all.
                if tag == b'B' && place == "behind a copy" || tag == b'H' && !before.is_empty() {
                    continue;
                }
                let name = format!("{} {} {place}", char::from(tag), body.escape_ascii());
                cases.push((name, [before, frame(tag, body), after].concat()));
            }
        }
    }
    cases
}

fn gist(said: &[Said]) -> String {
    said.iter().map(|s| s.gist() + " ").collect()
}

/// Class: a session ends, or hangs, or answers are lost, where PostgreSQL says what is wrong with a message (PgCat).
#[test]
fn messages_with_wrong_contents_get_postgresqls_own_answers() {
    for bin in nodes::installations() {
        let rig = Rig::on(&bin, AuthMethod::Trust);
        let cases = cases();
        let failures = Mutex::new(Vec::new());
        for_seeds(cases.len() as u64, |case| {
            let (name, bytes) = &cases[case as usize];
            let direct = answers(rig.direct(), bytes);
            let proxied = answers(rig.proxy.addr, bytes);
            if direct != proxied {
                let [direct, proxied] = [direct, proxied].map(|said| gist(&said));
                let failure = format!("{name}:\n  {direct}\n  {proxied}");
                failures.lock().unwrap().push(failure);
            }
        });
        let failures = failures.into_inner().unwrap();
        assert!(
            failures.is_empty(),
            "{} differ:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

/// What was sent before is answered all the same.
#[test]
fn bytes_that_are_no_message_end_the_session_behind_all_answers() {
    for bin in nodes::installations() {
        let rig = Rig::on(&bin, AuthMethod::Trust);
        let batch = [parse("", "SELECT 5"), bind(""), execute()].concat();
        for before in [
            vec![],
            query("SELECT 1"),
            [
                query("BEGIN"),
                query("SELECT pg_sleep(0.05)"),
                query("SELEKT"),
            ]
            .concat(),
            batch.clone(),
            [query("SELECT 3"), batch.clone()].concat(),
            [batch, sync()].concat(),
        ] {
            let bytes = [&before[..], b"y\0\0\0\x04"].concat();
            let [direct, proxied] = [rig.direct(), rig.proxy.addr].map(|addr| {
                let mut session = Conversation::log_in(addr, "app");
                session.send(&bytes);
                session.until(|_| false)
            });
            let last = proxied.last().unwrap();
            assert!(last.is_fatal() && last.sqlstate() == "08P01", "{proxied:?}");
            assert_eq!(gist(&direct), gist(&proxied), "{}", before.escape_ascii());
        }
    }
}
