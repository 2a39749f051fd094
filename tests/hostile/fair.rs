//! Whole messages in a wrong order, direct and through the proxy: the answers must be the same.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use pgsluice::config::AuthMethod;

use super::{
    mutate::{Random, whole},
    rig::{Bystander, Rig, panics},
    speak::{Conversation, Said, frame, query},
};

const CASES: u64 = 1500;
const THREADS: usize = 8;

/// Runs `case` for every seed, several at a time.
pub fn for_seeds(cases: u64, case: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= cases {
                        break;
                    }
                    case(seed);
                }
            });
        }
    });
}

/// Whatever came before: after this a PostgreSQL shows the marker, or has ended the connection.
fn tail() -> Vec<u8> {
    let marker = query("SELECT 'marker'");
    [
        frame(b'f', b"\0"),
        frame(b'S', b""),
        query("ROLLBACK"),
        marker,
    ]
    .concat()
}

/// What is said to `bytes`, up to the marker's ReadyForQuery or the end.
fn answers(addr: SocketAddr, bytes: &[u8]) -> Vec<Said> {
    let mut session = Conversation::log_in(addr, "app");
    session.send(bytes);
    let mut said = session.until(|s| s.tag == b'D' && s.body.ends_with(b"marker"));
    if said.last().is_some_and(|s| s.tag == b'D') {
        said.extend(session.until(|s| s.tag == b'Z'));
    }
    said.retain(|s| !matches!(s.tag, b'S' | b'N' | b'A'));
    said
}

fn gist(said: &[Said]) -> String {
    said.iter().map(|s| s.gist() + " ").collect()
}

/// Class: replies mixed up, lost or waited for in vain, when messages come in an order that no driver sends
/// (Supavisor #1061, #1172; pgpool #174-176; PgCat's hanging sessions).
#[test]
fn messages_in_any_order_get_postgresqls_own_answers() {
    let rig = Rig::start(AuthMethod::Trust);
    let before = panics();
    let bystander = Bystander::start(rig.proxy.addr);
    let failures = std::sync::Mutex::new(Vec::new());
    for_seeds(CASES, |seed| {
        let frames = whole(&mut Random(seed));
        let bytes = [frames.concat(), tail()].concat();
        let direct = answers(rig.direct(), &bytes);
        let proxied = answers(rig.proxy.addr, &bytes);
        if gist(&direct) != gist(&proxied) {
            let sent: String = frames.iter().map(|f| char::from(f[0])).collect();
            let (direct, proxied) = (gist(&direct), gist(&proxied));
            failures.lock().unwrap().push(format!(
                "seed {seed}: {sent}\n  direct  {direct}\n  proxied {proxied}"
            ));
        }
    });
    bystander.end_unharmed();
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(panics(), before);
}
