//! The proxy as a client: every kind of credentials, every TLS mode.

use std::sync::Arc;

use pgsluice::{
    config::{Secret, TlsMode, TlsSide},
    credentials::Credentials,
    error::{Error, Kind},
    net::{Target, tls::Connector},
    server::{
        cancel::cancel,
        dial::{Dialed, ServerLogin, dial},
    },
    wire::{
        frontend, md5,
        report::Report,
        scram::{Keys, Verifier},
    },
};
use tokio::{io::AsyncWriteExt, time::Instant};

use super::{
    cluster::cluster,
    front::{PATIENCE, side},
};

fn login(user: &str, credentials: Credentials) -> ServerLogin {
    ServerLogin {
        user: user.into(),
        database: "postgres".into(),
        parameters: vec![("application_name".into(), "it's me".into())],
        credentials,
        replication: None,
    }
}

fn password(password: &str) -> Credentials {
    Credentials::password(Secret::new(password))
}

async fn try_dial(target: &Target, tls: &TlsSide, login: &ServerLogin) -> Result<Dialed, Error> {
    let connector = Connector::new(tls).unwrap();
    dial(target, &connector, login, Instant::now() + PATIENCE).await
}

#[tokio::test]
async fn every_kind_of_credentials_logs_in_where_it_fits() {
    let cluster = cluster();
    if !cluster.has_tls {
        return;
    }
    let plain = side(&cluster, TlsMode::Disable, None, false);
    let verified = side(&cluster, TlsMode::VerifyFull, None, true);
    let with_certificate = side(&cluster, TlsMode::VerifyCa, Some("certified"), true);
    let md5 = Credentials::Md5(Secret::new(md5::hash("md5user", "secret")));
    for (user, credentials, tls, succeeds) in [
        ("app", password("secret"), &plain, true),
        ("app", password("secret"), &verified, true),
        ("app", password("wrong"), &verified, false),
        ("app", Credentials::None, &plain, false),
        ("md5user", password("secret"), &plain, true),
        ("md5user", md5.clone(), &plain, true),
        ("app", md5, &plain, false),
        ("clear", password("secret"), &verified, true),
        ("clear", password("wrong"), &verified, false),
        ("trusted", Credentials::None, &plain, true),
        ("certified", Credentials::None, &with_certificate, true),
        ("certified", Credentials::None, &verified, false),
        ("trusted", Credentials::None, &with_certificate, true),
    ] {
        let dialed = try_dial(&cluster.target(), tls, &login(user, credentials)).await;
        assert_eq!(dialed.is_ok(), succeeds, "{user}: {dialed:?}");
    }
}

#[tokio::test]
async fn a_login_brings_the_servers_parameters_pid_and_key() {
    let cluster = cluster();
    let tls = side(&cluster, TlsMode::Disable, None, false);
    let dialed = try_dial(&cluster.target(), &tls, &login("app", password("secret")))
        .await
        .unwrap();
    let parameter = |name: &str| {
        dialed
            .parameters
            .iter()
            .find(|(n, _)| **n == *name)
            .map(|(_, v)| &**v)
    };
    assert_eq!(parameter("application_name"), Some("it's me"));
    assert_eq!(parameter("in_hot_standby"), Some("off"));
    assert!(dialed.pid > 0);
    let version = parameter("server_version").unwrap();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    // Protocol 3.2 is asked for, and spoken since 18.
    let expected = if major >= 18 { 32 } else { 4 };
    assert_eq!(dialed.key.as_bytes().len(), expected);
    assert!(dialed.unread.is_empty());
}

#[tokio::test]
async fn the_tls_modes_do_what_libpqs_do() {
    let cluster = cluster();
    if !cluster.has_tls {
        return;
    }
    let localhost = Target {
        host: "localhost".into(),
        ..cluster.target()
    };
    let elsewhere = Target {
        // The same server, but not in its certificate.
        host: "127.0.0.2".into(),
        ..cluster.target()
    };
    let version6 = Target {
        host: "[::1]".into(),
        ..cluster.target()
    };
    let address = Some(std::net::Ipv4Addr::new(127, 0, 0, 2).into());
    let pinned = Target {
        address,
        ..localhost.clone()
    };
    let nowhere = Target {
        host: "no.such.host.invalid".into(),
        address,
        ..cluster.target()
    };
    let numeric = cluster.target();
    let untrusted = TlsSide {
        ca: Some(cluster.file("ed25519.crt")),
        ..side(&cluster, TlsMode::VerifyCa, None, false)
    };
    let mode = |mode, ca| side(&cluster, mode, None, ca);
    for (user, target, tls, expected) in [
        ("app", &numeric, mode(TlsMode::Disable, false), Some(false)),
        ("tlsonly", &numeric, mode(TlsMode::Disable, false), None),
        ("app", &numeric, mode(TlsMode::Allow, false), Some(false)),
        ("tlsonly", &numeric, mode(TlsMode::Allow, false), Some(true)),
        ("app", &numeric, mode(TlsMode::Prefer, false), Some(true)),
        (
            "plainonly",
            &numeric,
            mode(TlsMode::Prefer, false),
            Some(false),
        ),
        ("app", &numeric, mode(TlsMode::Require, false), Some(true)),
        ("plainonly", &numeric, mode(TlsMode::Require, false), None),
        ("app", &numeric, mode(TlsMode::VerifyCa, true), Some(true)),
        ("app", &numeric, untrusted, None),
        (
            "app",
            &localhost,
            mode(TlsMode::VerifyFull, true),
            Some(true),
        ),
        ("app", &numeric, mode(TlsMode::VerifyFull, true), Some(true)),
        ("app", &elsewhere, mode(TlsMode::VerifyCa, true), Some(true)),
        ("app", &elsewhere, mode(TlsMode::VerifyFull, true), None),
        ("app", &pinned, mode(TlsMode::VerifyFull, true), Some(true)),
        ("app", &nowhere, mode(TlsMode::Disable, false), Some(false)),
        ("app", &nowhere, mode(TlsMode::VerifyFull, true), None),
        ("app", &version6, mode(TlsMode::Disable, false), Some(false)),
    ] {
        let what = format!("{user} {} {:?}", target.host, tls.mode);
        let dialed = try_dial(target, &tls, &login(user, password("secret"))).await;
        let encrypted = dialed.as_ref().ok().map(|d| d.stream.is_tls());
        assert_eq!(encrypted, expected, "{what}: {dialed:?}");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_servers_own_words_and_the_kind_fits() {
    let cluster = cluster();
    let tls = side(&cluster, TlsMode::Disable, None, false);
    let mut unknown = login("app", password("secret"));
    unknown.database = "no such".into();
    let mut bad_setting = login("app", password("secret"));
    bad_setting.parameters = vec![("work_mem".into(), "much".into())];
    for (login, kind, sqlstate) in [
        (login("app", password("wrong")), Kind::BadPassword, "28P01"),
        (unknown, Kind::UnknownDatabase, "3D000"),
        (bad_setting, Kind::NotAllowed, "22023"),
        (
            login("nologin", password("secret")),
            Kind::NotAllowed,
            "28000",
        ),
    ] {
        let error = try_dial(&cluster.target(), &tls, &login).await.unwrap_err();
        assert_eq!(error.kind, kind);
        let frame = error.response.unwrap();
        assert_eq!(Report::parse(&frame[5..]).unwrap().sqlstate_str(), sqlstate);
    }
}

#[tokio::test]
async fn keys_log_in_only_where_the_verifier_is_the_same() {
    let cluster = cluster();
    let tls = side(&cluster, TlsMode::Prefer, None, false);
    let (ours, other) = (
        Keys::derive("pw", b"salt of ours", 4096),
        Keys::derive("pw", b"other", 4096),
    );
    let verifier = Verifier::derive("pw", b"salt of ours", 4096).to_text();
    cluster.sql(&format!(
        "DROP ROLE IF EXISTS keyed; CREATE ROLE keyed LOGIN PASSWORD '{}'",
        *verifier
    ));
    let dialed = try_dial(
        &cluster.target(),
        &tls,
        &login("keyed", Credentials::Scram(Arc::new(ours))),
    )
    .await;
    assert!(dialed.is_ok(), "{dialed:?}");
    let error = try_dial(
        &cluster.target(),
        &tls,
        &login("keyed", Credentials::Scram(Arc::new(other))),
    )
    .await;
    assert_eq!(error.unwrap_err().kind, Kind::BadPassword);
}

#[tokio::test]
async fn a_cancel_has_arrived_when_cancel_returns() {
    let cluster = cluster();
    let login = login("app", password("secret"));
    for mode in [TlsMode::Disable, TlsMode::Prefer] {
        let connector = Connector::new(&side(&cluster, mode, None, false)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut server = dial(&cluster.target(), &connector, &login, deadline)
            .await
            .unwrap();
        let mut out = Vec::new();
        frontend::query(&mut out, "SELECT pg_sleep(60)");
        server.stream.write_all(&out).await.unwrap();
        server.stream.flush().await.unwrap();
        let mut inbox = pgsluice::net::Inbox::default();
        let answered = async {
            loop {
                let message = inbox.next(&mut server.stream, 65_535).await.unwrap();
                if message.tag == b'E' {
                    return Report::parse(message.body)
                        .unwrap()
                        .sqlstate_str()
                        .to_owned();
                }
            }
        };
        // The request may overtake the query; then the next one hits it.
        let cancelling = async {
            loop {
                cancel(
                    &cluster.target(),
                    &connector,
                    server.pid,
                    &server.key,
                    deadline,
                )
                .await
                .unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let sqlstate = tokio::select! {
            sqlstate = answered => sqlstate,
            () = cancelling => unreachable!(),
            () = tokio::time::sleep(PATIENCE) => panic!("never cancelled"),
        };
        assert_eq!(sqlstate, "57014");
    }
}

#[tokio::test]
async fn no_server_and_a_silent_server_are_errors_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let cluster = cluster();
    for (host, port) in [
        ("127.0.0.1", 1),
        ("127.0.0.1", port),
        ("[::1]", 1),
        ("no.such.host.invalid", 1),
    ] {
        let target = Target {
            name: "gone".into(),
            host: host.into(),
            address: None,
            port,
        };
        for mode in [TlsMode::Disable, TlsMode::Prefer] {
            let connector = Connector::new(&side(&cluster, mode, None, false)).unwrap();
            let deadline = Instant::now() + std::time::Duration::from_millis(300);
            let error = dial(
                &target,
                &connector,
                &login("app", Credentials::None),
                deadline,
            )
            .await;
            assert_eq!(error.unwrap_err().kind, Kind::ServerGone, "{host}");
            assert!(Instant::now() < deadline + PATIENCE / 4);
        }
    }
}
