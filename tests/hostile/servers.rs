//! A man in the middle between the proxy and its PostgreSQL, who changes what the server says.
//!
//! Only connections of the role `app` are touched, and only while an attack is armed: probes and the bystander's
//! connections pass as they are.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use pgsluice::config::AuthMethod;

use super::{
    mutate::{Random, flip},
    nodes::{PATIENCE, Server},
    rig::{self, Bystander, Running, panics, resident_kib},
    speak::{Conversation, Now, Said, frame, query},
};

/// What becomes of the server's message that an attack waits for.
#[derive(Clone)]
enum Deed {
    /// These bytes in its place; the rest goes on as it was.
    Instead(Vec<u8>),
    /// These bytes in its place, and the end.
    InsteadAndEnd(Vec<u8>),
    /// Nothing more, and no end.
    Silence,
    /// These bytes for ever, as long as they are taken.
    Endless(Vec<u8>),
    /// Some of its bits are changed, by this seed; what follows is as it was.
    Flip(u64),
    /// What this makes of its body.
    Rewrite(fn(&str) -> String),
}

/// At the server's first message of type `tag` whose body begins so.
#[derive(Clone)]
struct Attack {
    tag: u8,
    begins: &'static [u8],
    deed: Deed,
}

#[derive(Default)]
struct Plot {
    attack: Mutex<Option<Attack>>,
    stopped: AtomicBool,
    /// Attacked connections that the proxy has closed.
    closed: AtomicUsize,
}

struct Middle {
    plot: Arc<Plot>,
    addr: SocketAddr,
}

impl Middle {
    fn start(server: SocketAddr) -> Middle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let plot = Arc::<Plot>::default();
        let plotted = plot.clone();
        std::thread::spawn(move || {
            for proxy in listener.incoming() {
                if plotted.stopped.load(SeqCst) {
                    return;
                }
                let (proxy, plot) = (proxy.unwrap(), plotted.clone());
                std::thread::spawn(move || stand_between(proxy, server, &plot));
            }
        });
        Middle { plot, addr }
    }

    fn arm(&self, attack: Attack) {
        *self.plot.attack.lock().unwrap() = Some(attack);
    }

    fn was_used(&self) -> bool {
        self.plot.attack.lock().unwrap().is_none()
    }

    fn disarm(&self) {
        *self.plot.attack.lock().unwrap() = None;
    }

    /// Waits until the proxy has closed so many attacked connections.
    fn wait_closed(&self, count: usize, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.plot.closed.load(SeqCst) < count {
            assert!(Instant::now() < deadline, "{what}: the server was kept");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.plot.stopped.store(true, SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

/// One connection: the proxy's bytes pass, the server's go through [`tell`].
fn stand_between(proxy: TcpStream, server: SocketAddr, plot: &Arc<Plot>) {
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    proxy.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let mut first = [0; 4096];
    let Ok(n) = (&proxy).read(&mut first) else {
        return;
    };
    let is_victim = first[..n].windows(9).any(|w| w == b"user\0app\0");
    let _ = (&server).write_all(&first[..n]);
    let (from_proxy, to_server) = (proxy.try_clone().unwrap(), server.try_clone().unwrap());
    let upward = std::thread::spawn(move || {
        let _ = std::io::copy(&mut &from_proxy, &mut &to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    if is_victim {
        let attacked = tell(&server, &proxy, plot);
        let _ = upward.join();
        plot.closed.fetch_add(usize::from(attacked), SeqCst);
    } else {
        let _ = std::io::copy(&mut &server, &mut &proxy);
        let _ = proxy.shutdown(Shutdown::Write);
        let _ = upward.join();
    }
}

/// Passes the server's messages on until the attack; whether there was one.
fn tell(server: &TcpStream, proxy: &TcpStream, plot: &Plot) -> bool {
    let mut attacked = false;
    while let Some(message) = read_frame(server) {
        let attack = take_attack(plot, &message);
        attacked |= attack.is_some();
        let bytes = match attack.map(|a| a.deed) {
            None => message,
            Some(Deed::Instead(bytes)) => bytes,
            Some(Deed::InsteadAndEnd(bytes)) => {
                let _ = (&mut &*proxy).write_all(&bytes);
                break;
            }
            Some(Deed::Silence) => return true,
            Some(Deed::Endless(bytes)) => {
                while (&mut &*proxy).write_all(&bytes).is_ok() {}
                break;
            }
            Some(Deed::Flip(seed)) => {
                let mut bytes = message;
                flip(&mut Random(seed), &mut bytes);
                bytes
            }
            Some(Deed::Rewrite(rewrite)) => {
                let text = String::from_utf8(message[9..].to_vec()).unwrap();
                frame(
                    message[0],
                    &[&message[5..9], rewrite(&text).as_bytes()].concat(),
                )
            }
        };
        if (&mut &*proxy).write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = proxy.shutdown(Shutdown::Write);
    attacked
}

fn take_attack(plot: &Plot, message: &[u8]) -> Option<Attack> {
    let mut armed = plot.attack.lock().unwrap();
    let fits = |a: &Attack| a.tag == message[0] && message[5..].starts_with(a.begins);
    if armed.as_ref().is_some_and(fits) {
        armed.take()
    } else {
        None
    }
}

fn read_frame(mut from: &TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).ok()?;
    let len = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
    message.resize(len + 1, 0);
    from.read_exact(&mut message[5..]).ok()?;
    Some(message)
}

struct Stage {
    proxy: Running,
    middle: Middle,
    _pg: Server,
}

fn stage() -> Stage {
    let pg = rig::postgres();
    pg.sql("ALTER SYSTEM SET password_encryption = 'scram-sha-256'");
    let rules = "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(pg.data().join("pg_hba.conf"), rules).unwrap();
    pg.ctl(&["reload"]);
    let middle = Middle::start(([127, 0, 0, 1], pg.port).into());
    let mut config = rig::config(&pg, middle.addr.port(), AuthMethod::Trust);
    config.pool.login_backoff = Duration::from_millis(10);
    config.pool.checkout_timeout = Duration::from_secs(2);
    Stage {
        proxy: Running::start(config),
        middle,
        _pg: pg,
    }
}

/// A session of the victim's works, with right answers.
#[track_caller]
fn works(addr: SocketAddr, what: &str) {
    let mut session = Conversation::log_in(addr, "app");
    assert_eq!(session.ask("SELECT 'after'"), ["after"], "{what}");
}

fn messages() -> Vec<(&'static str, Deed)> {
    let z = |status: &[u8]| frame(b'Z', status);
    vec![
        ("length 3", Deed::Instead(b"T\0\0\0\x03".to_vec())),
        (
            "length 2^32-1",
            Deed::Instead(b"T\xff\xff\xff\xff".to_vec()),
        ),
        ("length 2^31", Deed::Instead(b"D\x80\0\0\0".to_vec())),
        ("unknown type", Deed::Instead(frame(b'y', b""))),
        ("bad status", Deed::Instead(z(b"X"))),
        ("no status", Deed::Instead(z(b""))),
        ("two statuses", Deed::Instead(z(b"II"))),
        ("AuthenticationOk", Deed::Instead(frame(b'R', &[0; 4]))),
        ("BackendKeyData", Deed::Instead(frame(b'K', &[0; 8]))),
        ("ParseComplete unasked", Deed::Instead(frame(b'1', b""))),
        ("CopyBothResponse", Deed::Instead(frame(b'W', b"\0\0\0"))),
        (
            "answers twice",
            Deed::Instead([frame(b'C', b"SELECT 1\0"), z(b"I"), z(b"I")].concat()),
        ),
        (
            "an end in a message",
            Deed::InsteadAndEnd(b"T\0\0\0\x50abc".to_vec()),
        ),
        ("an end", Deed::InsteadAndEnd(vec![])),
        (
            "an error without SQLSTATE",
            Deed::InsteadAndEnd(frame(b'E', b"Moops\0\0")),
        ),
        (
            "a fatal without SQLSTATE",
            Deed::InsteadAndEnd(frame(b'E', b"SFATAL\0VFATAL\0Moops\0\0")),
        ),
        (
            "an error without fields",
            Deed::InsteadAndEnd(frame(b'E', b"\0")),
        ),
        (
            "an error without end",
            Deed::InsteadAndEnd(frame(b'E', b"SERROR")),
        ),
        (
            "parameters without end",
            Deed::Instead(
                (0..1000)
                    .flat_map(|i| frame(b'S', format!("p{i}\0v\0").as_bytes()))
                    .collect(),
            ),
        ),
        (
            "a long parameter",
            Deed::Instead(frame(b'S', &[b'x'; 29_000])),
        ),
    ]
}

/// Class: trusting the backend (PgBouncer CVE-2026-6665, -6666).
#[test]
fn a_server_that_breaks_the_protocol_is_closed_and_its_client_told() {
    let stage = stage();
    let before = panics();
    let bystander = Bystander::start(stage.proxy.addr);
    for (done, (what, deed)) in messages().into_iter().enumerate() {
        let mut session = Conversation::log_in(stage.proxy.addr, "app");
        stage.middle.arm(Attack {
            tag: b'T',
            begins: b"",
            deed,
        });
        session.send(&query("SELECT 'victim'"));
        // A statement that got an answer lets the session go on; the next one must not wait for ever.
        let said = session.until(|s| s.tag == b'Z' || s.tag == b'E');
        assert!(stage.middle.was_used(), "{what}");
        let is_right = said
            .iter()
            .all(|s| s.tag != b'D' || s.body.ends_with(b"victim"));
        assert!(is_right, "{what}: {said:?}");
        session.finish();
        session.until(|_| false);
        stage.middle.wait_closed(done + 1, what);
        works(stage.proxy.addr, what);
    }
    bystander.end_unharmed();
    assert_eq!(panics(), before);
    assert_eq!(stage.proxy.internal_errors(), 0);
}

/// Class: a server given back while part of what it said lies in another session's buffer.
#[test]
fn a_server_whose_last_message_was_read_in_part_goes_to_nobody_else() {
    let stage = stage();
    works(stage.proxy.addr, "before");
    let mut session = Conversation::log_in(stage.proxy.addr, "app");
    let notice = frame(b'N', b"SNOTICE\0C00000\0Mhalf of it\0\0");
    stage.middle.arm(Attack {
        tag: b'Z',
        begins: b"I",
        deed: Deed::Instead([&frame(b'Z', b"I"), &notice[..3]].concat()),
    });
    assert_eq!(session.ask("SELECT 'victim'"), ["victim"]);
    assert!(stage.middle.was_used());
    drop(session);
    stage.middle.wait_closed(1, "half a message");
    works(stage.proxy.addr, "after half a message");
}

#[test]
fn a_server_that_falls_silent_holds_one_client_only_and_ends_with_it() {
    let stage = stage();
    let bystander = Bystander::start(stage.proxy.addr);
    let mut session = Conversation::log_in(stage.proxy.addr, "app");
    stage.middle.arm(Attack {
        tag: b'T',
        begins: b"",
        deed: Deed::Silence,
    });
    session.send(&query("SELECT 'victim'"));
    let (said, now) = session.listen(Duration::from_millis(200));
    assert_eq!((said.len(), now), (0, Now::Waits));
    works(stage.proxy.addr, "beside the silent one");
    drop(session);
    stage.middle.wait_closed(1, "silence");
    bystander.end_unharmed();
}

/// Class: memory grows for ever. The answers in place of a lost server wait for the client like any others.
#[test]
fn a_client_that_reads_nothing_after_its_server_was_lost_is_read_no_further() {
    const MAX_TAKEN: usize = 48 * 1024 * 1024;
    let stage = stage();
    let mut session = Conversation::log_in(stage.proxy.addr, "app");
    session.ask("BEGIN");
    stage.middle.arm(Attack {
        tag: b'T',
        begins: b"",
        deed: Deed::InsteadAndEnd(vec![]),
    });
    session.send(&query("SELECT 'victim'"));
    let said = session.until(|s| s.tag == b'Z');
    assert_eq!(said.iter().map(Said::gist).collect::<String>(), "E40001Z");
    let resident = resident_kib();
    let mut taken = 0;
    let patience = Some(Duration::from_secs(2));
    session.socket.set_write_timeout(patience).unwrap();
    let queries = query("x").repeat(10_000);
    while let Ok(n) = session.socket.write(&queries) {
        taken += n;
        assert!(taken < MAX_TAKEN, "the proxy takes whatever comes");
    }
    let growth = resident_kib().saturating_sub(resident);
    assert!(growth < 24 * 1024, "{growth} KiB more");
    works(stage.proxy.addr, "beside it");
}

/// Class: memory grows for ever (PgDog #1247, Odyssey #421).
#[test]
fn endless_rows_notices_and_parameters_cost_a_buffer_and_not_memory() {
    let stage = stage();
    let bystander = Bystander::start(stage.proxy.addr);
    let row = frame(b'D', &[&b"\0\x01\0\0\x20\0"[..], &[b'x'; 8192]].concat());
    let notice = frame(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0");
    let resident = resident_kib();
    for (done, bytes) in [row, notice, frame(b'S', b"application_name\0x\0")]
        .into_iter()
        .enumerate()
    {
        let mut session = Conversation::log_in(stage.proxy.addr, "app");
        stage.middle.arm(Attack {
            tag: b'T',
            begins: b"",
            deed: Deed::Endless(bytes),
        });
        session.send(&query("SELECT 'victim'"));
        // The client reads a while, then no more: what nobody takes must not pile up.
        for _ in 0..200 {
            let mut sink = [0; 64 * 1024];
            assert!(session.socket.read(&mut sink).unwrap() > 0);
        }
        for _ in 0..50 {
            works(stage.proxy.addr, "beside an endless result");
        }
        drop(session);
        stage.middle.wait_closed(done + 1, "endless");
    }
    let growth = resident_kib().saturating_sub(resident);
    assert!(growth < 48 * 1024, "{growth} KiB more");
    bystander.end_unharmed();
}

fn longer(first: &str) -> String {
    first.replacen("r=", &format!("r={}", "x".repeat(60_000)), 1)
}

fn extended(first: &str) -> String {
    let (nonce, rest) = first.split_once(',').unwrap();
    format!("{nonce}{},{rest}", "x".repeat(60_000))
}

fn more_iterations(first: &str) -> String {
    format!("{}i=4294967295", &first[..first.rfind("i=").unwrap()])
}

fn no_salt(first: &str) -> String {
    let (nonce, rest) = first.split_once(",s=").unwrap();
    format!("{nonce},s=,{}", rest.split_once(',').unwrap().1)
}

fn forged(_last: &str) -> String {
    "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into()
}

const SASL: &[u8] = b"\0\0\0\x0a";
const SERVER_FIRST: &[u8] = b"\0\0\0\x0b";
const SERVER_FINAL: &[u8] = b"\0\0\0\x0c";

fn logins() -> Vec<(&'static str, &'static [u8], Deed)> {
    vec![
        (
            "a nonce that is not ours",
            SERVER_FIRST,
            Deed::Rewrite(longer),
        ),
        ("an endless nonce", SERVER_FIRST, Deed::Rewrite(extended)),
        (
            "4294967295 iterations",
            SERVER_FIRST,
            Deed::Rewrite(more_iterations),
        ),
        ("no salt", SERVER_FIRST, Deed::Rewrite(no_salt)),
        ("a forged signature", SERVER_FINAL, Deed::Rewrite(forged)),
        (
            "AuthenticationOk in the middle",
            SERVER_FIRST,
            Deed::Instead(frame(b'R', &[0; 4])),
        ),
        (
            "OK without proof",
            SASL,
            Deed::Instead(frame(b'R', &[0; 4])),
        ),
        (
            "an unknown request",
            SASL,
            Deed::Instead(frame(b'R', b"\0\0\0\x63")),
        ),
        ("length 3", SASL, Deed::Instead(b"R\0\0\0\x03".to_vec())),
        (
            "length 2^32-1",
            SASL,
            Deed::Instead(b"R\xff\xff\xff\xff".to_vec()),
        ),
        ("an end", SASL, Deed::InsteadAndEnd(vec![])),
        (
            "an error without SQLSTATE",
            SASL,
            Deed::InsteadAndEnd(frame(b'E', b"Moops\0\0")),
        ),
        (
            "notices without end",
            SASL,
            Deed::Instead(frame(b'N', b"Mx\0\0").repeat(2000)),
        ),
    ]
}

/// The same during logins: the dial fails, and nothing that the server made up gets in.
#[test]
fn a_server_that_cheats_at_its_login_is_not_used() {
    let before = panics();
    let stage = stage();
    let bystander = Bystander::start(stage.proxy.addr);
    for (what, begins, deed) in logins() {
        // All of the pool's servers are closed first, so that the next session dials: a fresh pool per set of settings.
        let mut start = Vec::new();
        let options = format!("-c my.attack={}", what.replace(' ', "_"));
        let settings = [
            ("user", "app"),
            ("database", "postgres"),
            ("options", &*options),
        ];
        pgsluice::wire::frontend::startup(&mut start, 0, settings);
        stage.middle.arm(Attack {
            tag: b'R',
            begins,
            deed,
        });
        let mut session = Conversation::open(stage.proxy.addr);
        session.send(&start);
        let said = session.until(|s| matches!(s.tag, b'Z' | b'E'));
        assert!(stage.middle.was_used(), "{what}");
        // A later dial, without an attack, may have succeeded: then all is well.
        if said.last().map(|s| s.tag) == Some(b'Z') {
            assert_eq!(session.ask("SELECT 'still'"), ["still"], "{what}");
        }
        works(stage.proxy.addr, what);
    }
    bystander.end_unharmed();
    assert_eq!(panics(), before);
    assert_eq!(stage.proxy.internal_errors(), 0);
}

/// Random damage, from some message of an answer on.
#[test]
fn servers_with_flipped_bits_never_hang_or_harm_others() {
    let stage = stage();
    let before = panics();
    let bystander = Bystander::start(stage.proxy.addr);
    for seed in 0..300 {
        let mut session = Conversation::log_in(stage.proxy.addr, "app");
        let tag = *Random(seed).choose(b"TDCZ");
        stage.middle.arm(Attack {
            tag,
            begins: b"",
            deed: Deed::Flip(seed),
        });
        session.send(&query("SELECT 'victim' FROM generate_series(1, 3)"));
        session.reset_after(Duration::from_millis(100));
        stage.middle.disarm();
        works(stage.proxy.addr, &format!("seed {seed}"));
    }
    bystander.end_unharmed();
    assert_eq!(panics(), before);
    assert_eq!(stage.proxy.internal_errors(), 0);
}

impl Conversation {
    /// Listens a while, and hangs up so that it shows at once.
    fn reset_after(self, quiet: Duration) -> Vec<Said> {
        let mut session = self;
        let (said, _) = session.listen(quiet);
        let linger = socket2::SockRef::from(&session.socket).set_linger(Some(Duration::ZERO));
        linger.unwrap();
        said
    }
}
