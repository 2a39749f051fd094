//! What connections cost that never log in.

use std::time::Duration;

use pgsluice::config::AuthMethod;

use super::{
    rig::{self, Running, resident_kib},
    speak::{Conversation, Said, startup},
};

const CONNECTIONS: usize = 2000;
/// Far below every announced length.
const MAX_EACH_KIB: usize = 3;

/// Memory of this process after `CONNECTIONS` have sent `bytes`, and a login after them has been answered.
fn resident_with(proxy: &Running, bytes: &[u8]) -> (usize, Vec<Conversation>) {
    let mut open: Vec<_> = (0..CONNECTIONS)
        .map(|_| Conversation::open(proxy.addr))
        .collect();
    open.iter_mut().for_each(|c| c.send(bytes));
    // One worker serves them in order: its answer to the last means that it has read the others.
    let mut last = Conversation::open(proxy.addr);
    last.send(&startup("app"));
    last.until(|said| said.tag == b'R');
    (resident_kib(), open)
}

/// Class: memory by an unchecked length (PgCat: 2.1 GB for clients that never logged in).
#[test]
fn announced_lengths_take_no_memory_before_a_login() {
    let pg = rig::postgres();
    let proxy = Running::start(rig::config(&pg, pg.port, AuthMethod::ScramSha256));
    // The allocator and the kernel's own share are the same in all rounds.
    let (_, quiet) = resident_with(&proxy, b"");
    drop(quiet);
    let (idle, quiet) = resident_with(&proxy, b"\0");
    drop(quiet);
    let message = [&startup("app")[..], b"p\0\0\xff\xff"].concat();
    for (what, bytes) in [
        ("a startup packet", &b"\0\0\x27\x10"[..]),
        ("a SCRAM message", &message),
        ("a startup packet beyond the limit", b"\x7f\xff\xff\xff"),
    ] {
        let (resident, open) = resident_with(&proxy, bytes);
        let each = resident.saturating_sub(idle) / CONNECTIONS;
        assert!(each < MAX_EACH_KIB, "{what}: {each} KiB each");
        drop(open);
    }
}

/// Class: slow clients that hold connections for ever (slow loris).
#[test]
fn logins_that_dribble_end_at_the_login_timeout() {
    let pg = rig::postgres();
    let mut config = rig::config(&pg, pg.port, AuthMethod::ScramSha256);
    config.limits.login_timeout = Duration::from_millis(500);
    let proxy = Running::start(config);
    for bytes in [
        startup("app"),
        b"\0\0\x27\x10".to_vec(),
        b"\x16\x03\x01".to_vec(),
    ] {
        let mut session = Conversation::open(proxy.addr);
        let mut said = Vec::new();
        // One byte at a time, each sooner than any pause that could be called a silence.
        for byte in bytes.iter().chain([&b'p'; 1000]) {
            session.send(&[*byte]);
            let (more, now) = session.listen(Duration::from_millis(20));
            said.extend(more);
            if now == super::speak::Now::Ended {
                break;
            }
        }
        said.extend(session.until(|_| false));
        let last = said.last().map(Said::gist);
        assert!(
            matches!(last.as_deref(), Some("E57014" | "E08P01" | "E54000")),
            "{last:?}"
        );
    }
}
