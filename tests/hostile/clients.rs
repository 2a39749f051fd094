//! Broken messages from clients, before and after the login.

use std::time::Duration;

use pgsluice::config::AuthMethod;

use super::{
    fair::for_seeds,
    mutate::{Random, broken, conversations},
    nodes::PATIENCE,
    rig::{Bystander, Rig, panics, resident_kib},
    speak::{Conversation, Now, Said, frame, startup},
};

/// Nothing has come for so long: the proxy waits for us, as PostgreSQL would for the rest of a message.
const QUIET: Duration = Duration::from_millis(60);
/// Growth that is more than the allocator's habits.
const MAX_GROWTH_KIB: usize = 96 * 1024;

/// SQLSTATE classes with which a conversation may end: the protocol, too large, no access, unsupported.
fn is_clear(said: &Said) -> bool {
    let code = said.sqlstate();
    let own = ["08P01", "54000", "0A000", "57014"].contains(&&*code) || code.starts_with("28");
    // PostgreSQL's own words on a broken startup packet's settings, database and encodings.
    own || ["22", "3D", "42", "55"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// Sends, listens, hangs up; the proxy has to end the connection then, if it has not before.
#[track_caller]
fn try_out(mut session: Conversation, seed: u64, bytes: &[u8]) {
    session.send(bytes);
    let (mut said, now) = session.listen(QUIET);
    if now == Now::Waits {
        session.finish();
        said.extend(session.until(|_| false));
    }
    if now == Now::Ended
        && let Some(last) = said.last().filter(|s| s.tag == b'E')
    {
        assert!(
            is_clear(last) || !last.is_fatal(),
            "seed {seed}: {}",
            last.gist()
        );
    }
    assert!(
        said.iter().filter(|s| s.is_fatal()).count() <= 1 || said.iter().any(|s| s.tag == b'Z'),
        "seed {seed}: more than one error"
    );
}

fn run(method: AuthMethod, cases: u64, case: impl Fn(&Rig, u64) + Sync) {
    let rig = Rig::start(method);
    let before = panics();
    let bystander = (method == AuthMethod::Trust).then(|| Bystander::start(rig.proxy.addr));
    for_seeds(200, |seed| case(&rig, seed));
    let resident = resident_kib();
    for_seeds(cases, |seed| case(&rig, seed));
    let growth = resident_kib().saturating_sub(resident);
    assert!(growth < MAX_GROWTH_KIB, "{growth} KiB more");
    if let Some(bystander) = bystander {
        bystander.end_unharmed();
    }
    assert_eq!(panics(), before);
    assert_eq!(rig.proxy.internal_errors(), 0);
}

/// Class: length arithmetic, unchecked lengths, code that panics on short input (PgBouncer CVE-2026-6664, PgCat).
#[test]
fn broken_messages_after_a_login_end_their_session_alone() {
    let all = conversations();
    run(AuthMethod::Trust, 2000, |rig, seed| {
        let mut random = Random(seed);
        let frames = random.choose(&all).clone();
        let session = Conversation::log_in(rig.proxy.addr, "app");
        try_out(session, seed, &broken(&mut random, &frames));
    });
}

/// Everything that may come first, each as its parts.
fn beginnings() -> Vec<Vec<Vec<u8>>> {
    let ssl = b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec();
    let gss = b"\0\0\0\x08\x04\xd2\x16\x30".to_vec();
    let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x01".to_vec();
    // A ClientHello's beginning.
    let hello = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03".to_vec();
    let first = frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x0en,,n=,r=abcdef");
    let last = frame(b'p', b"c=biws,r=abcdef,p=AAAA");
    vec![
        vec![startup("app"), first, last.clone()],
        vec![startup("nobody"), last],
        vec![gss.clone(), startup("app")],
        vec![ssl.clone(), startup("app")],
        vec![gss, ssl, hello.clone()],
        vec![hello, startup("app")],
        vec![cancel],
    ]
}

/// The same before a login, where nobody is known yet.
#[test]
fn broken_logins_end_with_one_clear_error_or_none() {
    let all = beginnings();
    run(AuthMethod::ScramSha256, 2500, |rig, seed| {
        let mut random = Random(seed ^ 0xbad);
        let parts = random.choose(&all).clone();
        let session = Conversation::open(rig.proxy.addr);
        try_out(session, seed, &broken(&mut random, &parts));
    });
}

/// Class: a fire-and-forget client loses what it sent (Supavisor #1061).
#[test]
fn what_is_sent_before_terminate_is_run_and_answered() {
    let rig = Rig::start(AuthMethod::Trust);
    let mut session = Conversation::log_in(rig.proxy.addr, "app");
    let insert = super::speak::query("INSERT INTO t VALUES (42, 'last words')");
    session.send(&[insert, frame(b'X', b"")].concat());
    let said = session.until(|_| false);
    assert_eq!(said.iter().map(Said::gist).collect::<String>(), "CZ");
    let count = rig.pg.sql("SELECT count(*) FROM t WHERE a = 42");
    assert_eq!(count, "1");
}

/// Class: a driver whose connection is ended before it has begun gets an error that nobody waits for (node-postgres).
#[test]
fn a_terminate_in_the_place_of_a_login_is_answered_by_the_end_alone() {
    let rig = Rig::start(AuthMethod::Trust);
    for addr in [rig.direct(), rig.proxy.addr] {
        let mut session = Conversation::open(addr);
        session.send(&frame(b'X', b""));
        assert_eq!(session.until(|_| false), []);
    }
}

/// Class: the last message lost to a reset, since unread bytes were thrown away with the connection.
#[test]
fn the_error_arrives_although_the_client_goes_on_sending() {
    let rig = Rig::start(AuthMethod::Trust);
    for seed in 0..50 {
        let mut session = Conversation::log_in(rig.proxy.addr, "app");
        session.send(&[b"y\0\0\0\x04".to_vec(), vec![seed; 40_000]].concat());
        let mut answer = Vec::new();
        session.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = std::io::Read::read_to_end(&mut session.socket, &mut answer);
        assert!(read.is_ok(), "{read:?}");
        assert!(answer.windows(6).any(|w| w == b"C08P01"), "{answer:?}");
    }
}
