//! Clients and servers that break the protocol: an error to the right side, in bounded time, and no panic.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pgsluice::{
    config::{AuthMethod, Secret, TlsMode},
    credentials::Credentials,
    error::Kind,
    net::{Target, tls::Connector},
    server::dial::{ServerLogin, dial},
    wire::{frontend, report::Report},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::{
    cluster::cluster,
    front::{Front, PATIENCE, Setup, side},
};

async fn front() -> (Arc<super::cluster::Cluster>, Front) {
    let cluster = cluster();
    let setup = Setup::new(&cluster, AuthMethod::ScramSha256).user("app", "secret");
    let front = Front::start(&cluster, &setup).await;
    (cluster, front)
}

/// Sends bytes, says no more, and reads everything that comes.
async fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let _ = socket.shutdown().await;
    let mut all = Vec::new();
    let read = socket.read_to_end(&mut all);
    let _ = timeout(PATIENCE, read)
        .await
        .expect("the front never ends the connection");
    all
}

/// The SQLSTATE of the ErrorResponse that ends an answer.
fn sqlstate(answer: &[u8]) -> Option<String> {
    let at = answer
        .windows(7)
        .rposition(|w| w[0] == b'E' && &w[5..] == b"SF")?;
    let report = Report::parse(&answer[at + 5..]).ok()?;
    assert_eq!(report.severity, b"FATAL");
    Some(report.sqlstate_str().to_owned())
}

fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::startup(&mut out, minor, parameters.iter().copied());
    out
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 + 4).to_be_bytes();
    [&[tag], &len[..], body].concat()
}

const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

#[tokio::test]
async fn malformed_starts_get_one_clear_fatal() {
    let (_cluster, front) = front().await;
    let good = startup(0, &[("user", "app")]);
    let with = |bytes: Vec<u8>| [good.clone(), bytes].concat();
    let mut unterminated = good.clone();
    let last = unterminated.len() - 1;
    unterminated[last] = b'x';
    for (what, bytes, expected) in [
        (
            "huge length",
            b"\x7f\xff\xff\xff\0\x03\0\0".to_vec(),
            "08P01",
        ),
        (
            "negative length",
            b"\xff\xff\xff\xff\0\x03\0\0".to_vec(),
            "08P01",
        ),
        ("short length", b"\0\0\0\x05\0".to_vec(), "08P01"),
        ("protocol 2", b"\0\0\0\x08\0\x02\0\0".to_vec(), "0A000"),
        ("protocol 4", b"\0\0\0\x08\0\x04\0\0".to_vec(), "0A000"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        ("unterminated", unterminated, "08P01"),
        ("no user", startup(0, &[("database", "postgres")]), "28000"),
        ("bytes after SSLRequest", [SSL, &good].concat(), "08P01"),
        ("bytes after GSSENCRequest", [GSS, &good].concat(), "08P01"),
        ("wrong type", with(frame(b'Q', b"x\0")), "08P01"),
        (
            "negative length of a message",
            with(b"p\xff\xff\xff\xff".to_vec()),
            "08P01",
        ),
        ("message too long", with(b"p\0\x01\0\x04".to_vec()), "54000"),
        ("no mechanism", with(frame(b'p', b"")), "08P01"),
        (
            "unknown mechanism",
            with(frame(b'p', b"X\0\0\0\0\0")),
            "08P01",
        ),
        (
            "length beyond the message",
            with(frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x09n")),
            "08P01",
        ),
        (
            "length below -1",
            with(frame(b'p', b"SCRAM-SHA-256\0\x80\0\0\0n")),
            "08P01",
        ),
        (
            "no SCRAM",
            with(frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x01n")),
            "08P01",
        ),
        (
            "PLUS without TLS",
            with(frame(b'p', b"SCRAM-SHA-256-PLUS\0\xff\xff\xff\xff")),
            "08P01",
        ),
    ] {
        let answer = answer(front.port, &bytes).await;
        assert_eq!(
            sqlstate(&answer).as_deref(),
            Some(expected),
            "{what}: {answer:?}"
        );
    }
    assert_eq!(
        front
            .psql("user=app password=secret", "SELECT 1")
            .await
            .as_deref(),
        Ok("1")
    );
}

#[tokio::test]
async fn direct_tls_is_taken_with_alpn_only() {
    let (cluster, front) = front().await;
    let roots = pem(&cluster.file("ca.crt"));
    for (alpn, expected) in [(Some("postgresql"), None), (None, Some("08P01"))] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().unwrap();
        let mut tls = connector.connect(name, tcp).await.unwrap();
        tls.write_all(&startup(0, &[("user", "app")]))
            .await
            .unwrap();
        let _ = tls.shutdown().await;
        let mut all = Vec::new();
        let _ = timeout(PATIENCE, tls.read_to_end(&mut all)).await.unwrap();
        assert_eq!(sqlstate(&all).as_deref(), expected, "{alpn:?}");
        let offer = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0";
        let offered = all.windows(offer.len()).any(|w| w == offer);
        assert_eq!(offered, alpn.is_some());
    }
}

fn pem(path: &std::path::Path) -> rustls::RootCertStore {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(path).unwrap())
        .unwrap();
    roots
}

#[tokio::test]
async fn encryption_is_asked_for_once_and_gss_is_refused_politely() {
    let (_cluster, front) = front().await;
    let mut socket = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
    socket.write_all(GSS).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'N');
    socket.write_all(GSS).await.unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(sqlstate(&rest).as_deref(), Some("0A000"));
}

#[tokio::test]
async fn protocol_3_9999_with_unknown_options_is_negotiated_before_authentication() {
    let (_cluster, front) = front().await;
    let packet = startup(
        9999,
        &[("user", "app"), ("_pq_.test_protocol_negotiation", "on")],
    );
    let answer = answer(front.port, &packet).await;
    let expected = frame(
        b'v',
        b"\0\x03\0\x02\0\0\0\x01_pq_.test_protocol_negotiation\0",
    );
    assert!(answer.starts_with(&expected), "{answer:?}");
    assert_eq!(answer.get(expected.len()), Some(&b'R'));
}

#[tokio::test]
async fn a_login_split_at_every_byte_comes_as_far_as_one_in_a_piece() {
    let (_cluster, front) = front().await;
    let start = startup(0, &[("user", "app")]);
    let first = frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x0en,,n=,r=abcdef");
    let whole = [start, first].concat();
    for split in 1..whole.len() {
        let mut socket = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(&whole[..split]).await.unwrap();
        tokio::task::yield_now().await;
        socket.write_all(&whole[split..]).await.unwrap();
        // Both answers, up to where ours extends the nonce.
        let mut answer = vec![0; 24 + 9 + 8];
        timeout(PATIENCE, socket.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            answer.starts_with(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R"),
            "{split}: {answer:?}"
        );
        assert!(
            answer.ends_with(b"\0\0\0\x0br=abcdef"),
            "{split}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_told_and_dropped_after_the_login_timeout() {
    let cluster = cluster();
    let mut setup = Setup::new(&cluster, AuthMethod::ScramSha256);
    setup.login_timeout = Duration::from_millis(200);
    let front = Front::start(&cluster, &setup).await;
    for bytes in [&b""[..], b"\0\0", &startup(0, &[("user", "app")])] {
        let mut socket = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(sqlstate(&all).as_deref(), Some("57014"), "{bytes:?}");
    }
}

#[tokio::test]
async fn mutated_logins_end_and_harm_no_one() {
    let (_cluster, front) = front().await;
    let good = [
        startup(
            2,
            &[("user", "app"), ("options", "-c a.b=c"), ("_pq_.x", "1")],
        ),
        frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x0en,,n=,r=abcdef"),
        frame(b'p', b"c=biws,r=abcdef,p=AAAA"),
    ]
    .concat();
    let port = front.port;
    let runtime = tokio::runtime::Handle::current();
    let mutations = proptest::collection::vec((0..good.len(), any::<u8>()), 1..6);
    let run = move || {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 1000,
            failure_persistence: None,
            ..Default::default()
        });
        let outcome = runner.run(&(mutations, 0..good.len()), |(changes, cut)| {
            let mut bytes = good.clone();
            for (at, to) in changes {
                bytes[at] = to;
            }
            bytes.truncate(cut.max(4));
            let said = runtime.block_on(answer(port, &bytes));
            // Nobody gets in: no AuthenticationOk.
            prop_assert!(!said.windows(9).any(|w| w == b"R\0\0\0\x08\0\0\0\0"));
            Ok(())
        });
        outcome.unwrap();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(
        front
            .psql("user=app password=secret", "SELECT 1")
            .await
            .as_deref(),
        Ok("1")
    );
}

/// A peer that sends fixed bytes to whoever dials. Not a stand-in for PostgreSQL: only for what it never does.
async fn liar(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            // Reads what comes, so that the end is no reset.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    });
    addr
}

#[tokio::test]
async fn hostile_servers_end_the_dial_with_an_error() {
    let cluster = cluster();
    let connector = Connector::new(&side(&cluster, TlsMode::Disable, None, false)).unwrap();
    let ok = || frame(b'R', &[0; 4]);
    let sasl = || frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let login = ServerLogin {
        user: "app".into(),
        database: "postgres".into(),
        parameters: vec![],
        credentials: Credentials::password(Secret::new("secret")),
        replication: None,
    };
    for (what, bytes) in [
        ("nothing", vec![]),
        ("ReadyForQuery at once", frame(b'Z', b"I")),
        ("key before the login", frame(b'K', b"\0\0\0\x01abcd")),
        (
            "OK in the middle of SCRAM",
            [
                sasl(),
                ok(),
                frame(b'K', b"\0\0\0\x01abcd"),
                frame(b'Z', b"I"),
            ]
            .concat(),
        ),
        (
            "final before its time",
            [sasl(), frame(b'R', b"\0\0\0\x0cv=AAAA")].concat(),
        ),
        ("SCRAM twice", [sasl(), sasl()].concat()),
        ("no mechanisms", frame(b'R', b"\0\0\0\x0a\0")),
        (
            "endless mechanisms",
            frame(
                b'R',
                &[b"\0\0\0\x0a".to_vec(), b"a\0".repeat(1000)].concat(),
            ),
        ),
        ("huge message", b"R\x7f\xff\xff\xff".to_vec()),
        ("negative length", b"R\xff\xff\xff\xff".to_vec()),
        ("error without fields", frame(b'E', b"\0")),
        ("error without end", frame(b'E', b"C28P01")),
        ("no key", [ok(), frame(b'Z', b"I")].concat()),
        (
            "key of no length",
            [ok(), frame(b'K', b"\0\0\0\x01"), frame(b'Z', b"I")].concat(),
        ),
        (
            "not idle",
            [ok(), frame(b'K', b"\0\0\0\x01abcd"), frame(b'Z', b"T")].concat(),
        ),
        (
            "endless parameters",
            [ok(), frame(b'S', b"a\0b\0").repeat(2000)].concat(),
        ),
        ("newer protocol", frame(b'v', b"\0\x03\0\x09\0\0\0\0")),
        ("unknown request", frame(b'R', b"\0\0\0\x63")),
        ("a row", [ok(), frame(b'D', b"\0\0")].concat()),
    ] {
        let addr = liar(bytes).await;
        let target = Target {
            name: "liar".into(),
            host: addr.ip().to_string(),
            address: None,
            port: addr.port(),
        };
        let error = dial(&target, &connector, &login, Instant::now() + PATIENCE)
            .await
            .unwrap_err();
        let expected = [Kind::ServerGone, Kind::NotAllowed];
        assert!(expected.contains(&error.kind), "{what}: {error}");
    }
}
