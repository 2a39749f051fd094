//! Both roles against the RFC's example, against each other, and against broken peers.

use proptest::prelude::*;

use super::*;

const END_POINT: &[u8] = &[7; 32];
const ONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

fn verifier() -> Verifier {
    Verifier::derive("pencil", b"0123456789abcdef", 8)
}

/// What the two sides believe about the connection, and what the man in the middle did to the offer.
struct Wires {
    client_sees: Option<&'static [u8]>,
    server_sees: Option<&'static [u8]>,
    offered: &'static [&'static [u8]],
}

fn run(
    wires: &Wires,
    verifier: &Verifier,
    keys: impl Fn(&client::Challenge) -> Keys,
) -> Result<Keys, Failure> {
    let start = client::Start::new(wires.offered, wires.client_sees, nonce(ONCE))?;
    let mechanism = start.mechanism();
    let (first, client) = start.first();
    let server = server::Start::new(verifier, wires.server_sees, mechanism.as_bytes())?;
    let (server_first, server) = server.client_first(&first, "server-nonce")?;
    let challenge = client.server_first(&server_first)?;
    let keys = keys(&challenge);
    let (client_final, client) = challenge.answer(&keys);
    let proven = server.client_final(&client_final)?;
    client.server_final(&proven.server_final)?;
    Ok(proven.keys.clone())
}

fn by_password(password: &str) -> impl Fn(&client::Challenge) -> Keys {
    move |challenge| Keys::derive(password, &challenge.salt, challenge.iterations)
}

const BOTH: &[&[u8]] = &[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"];
const WITHOUT_PLUS: &[&[u8]] = &[b"SCRAM-SHA-256"];

#[test]
fn the_example_of_rfc_7677_comes_out_byte_for_byte() {
    let nonce = "rOprNGfwEbeRWgbNEkqO";
    let salt = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        "W22ZaJ0SNY7soEsUEjb6gQ==",
    );
    let verifier = Verifier::derive("pencil", &salt.unwrap(), 4096);
    let start = server::Start::new(&verifier, None, PLAIN.as_bytes()).unwrap();
    let (first, next) = start
        .client_first(
            format!("n,,n=user,r={nonce}").as_bytes(),
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
    assert_eq!(
        first,
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let proven = next
        .client_final(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        proven.server_final,
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

#[test]
fn the_client_key_that_a_login_yields_logs_in_again_without_the_password() {
    let plain = Wires {
        client_sees: None,
        server_sees: None,
        offered: WITHOUT_PLUS,
    };
    let keys = run(&plain, &verifier(), by_password("pencil")).unwrap();
    assert_eq!(
        keys.client_key(),
        Keys::derive("pencil", b"0123456789abcdef", 8).client_key()
    );
    run(&plain, &verifier(), |_| keys.clone()).unwrap();
    let other_salt = Verifier::derive("pencil", b"fedcba9876543210", 8);
    let error = run(&plain, &other_salt, |_| keys.clone()).unwrap_err();
    assert_eq!(error, Failure::WrongProof);
}

#[test]
fn channel_binding_follows_rfc_5802() {
    let other: &[u8] = &[8; 32];
    let table = [
        (Some(END_POINT), Some(END_POINT), BOTH, true),
        // A certificate in between.
        (Some(other), Some(END_POINT), BOTH, false),
        // The offer of PLUS was taken out in between: 'y' gives it away.
        (Some(END_POINT), Some(END_POINT), WITHOUT_PLUS, false),
        // The server has none: 'y' is the truth.
        (Some(END_POINT), None, WITHOUT_PLUS, true),
        // The client cannot: 'n', with either offer.
        (None, Some(END_POINT), BOTH, true),
        (None, Some(END_POINT), WITHOUT_PLUS, true),
        // PLUS was put in between.
        (Some(END_POINT), None, BOTH, false),
    ];
    for (client_sees, server_sees, offered, succeeds) in table {
        let wires = Wires {
            client_sees,
            server_sees,
            offered,
        };
        let outcome = run(&wires, &verifier(), by_password("pencil"));
        assert_eq!(outcome.is_ok(), succeeds, "{client_sees:?} {server_sees:?}");
    }
}

#[test]
fn a_wrong_password_a_mock_and_a_wrong_server_all_fail() {
    let wires = Wires {
        client_sees: None,
        server_sees: None,
        offered: WITHOUT_PLUS,
    };
    let error = run(&wires, &verifier(), by_password("Pencil")).unwrap_err();
    assert_eq!(error, Failure::WrongProof);
    let mock = Verifier::mock(b"0123456789abcdef", 8, [5; 32]);
    let error = run(&wires, &mock, by_password("pencil")).unwrap_err();
    assert_eq!(error, Failure::WrongProof);
    let right = Keys::derive("pencil", b"0123456789abcdef", 8);
    let error = run(&wires, &verifier(), |_| {
        Keys::new(*right.client_key(), [0; 32])
    })
    .unwrap_err();
    assert!(matches!(error, Failure::Server(_)));
}

fn server_first(message: &str) -> Result<client::Challenge, Failure> {
    let start = client::Start::new(WITHOUT_PLUS, None, "abc".into()).unwrap();
    start.first().1.server_first(message.as_bytes())
}

#[test]
fn a_hostile_server_cannot_make_us_compute_or_remember_without_bound() {
    let long = "x".repeat(2000);
    let long_salt = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [0; 2000]);
    assert!(server_first("r=abcdef,s=AAAA,i=4096").is_ok());
    for message in [
        "r=abcdef,s=AAAA,i=4294967295".to_owned(),
        "r=abcdef,s=AAAA,i=1000001".into(),
        "r=abcdef,s=AAAA,i=0".into(),
        "r=abcdef,s=AAAA,i=-1".into(),
        "r=abcdef,s=AAAA,i=99999999999999999999".into(),
        format!("r=abc{long},s=AAAA,i=4096"),
        format!("r=abcdef,s={long_salt},i=4096"),
        "r=abcdef,s=,i=4096".into(),
        "r=abcdef,s=!,i=4096".into(),
        // No nonce of the server's own, or not ours at all.
        "r=abc,s=AAAA,i=4096".into(),
        "r=xbcdef,s=AAAA,i=4096".into(),
        "m=x,r=abcdef,s=AAAA,i=4096".into(),
        "r=abcdef,s=AAAA,i=4096,m=x".into(),
        "e=other-error".into(),
        "".into(),
    ] {
        assert!(server_first(&message).is_err(), "{message}");
    }
}

#[test]
fn an_error_instead_of_the_servers_signature_is_a_failure() {
    for message in [
        &b"e=invalid-proof"[..],
        b"v=",
        b"v=AAAA",
        b"",
        b"v",
        b"\xff",
    ] {
        let challenge = server_first("r=abcdef,s=AAAA,i=1").unwrap();
        let (_, next) = challenge.answer(&Keys::new([1; 32], [2; 32]));
        assert!(next.server_final(message).is_err());
    }
}

#[test]
fn broken_client_first_messages_are_refused() {
    let verifier = verifier();
    for (mechanism, message) in [
        (PLAIN, ""),
        (PLAIN, "n"),
        (PLAIN, "n,"),
        (PLAIN, "n,,"),
        (PLAIN, "n,,n="),
        (PLAIN, "n,,n=,r="),
        (PLAIN, "n,a=other,n=,r=abc"),
        (PLAIN, "n,,m=x,n=,r=abc"),
        (PLAIN, "n,,n=,r=a\u{e4}c"),
        (PLAIN, "n,,n=,r=abc,m=x"),
        (PLAIN, "x,,n=,r=abc"),
        (PLAIN, "p=tls-server-end-point,,n=,r=abc"),
        (PLAIN, "y,,n=,r=abc"),
        (PLUS, "n,,n=,r=abc"),
        (PLUS, "y,,n=,r=abc"),
        (PLUS, "p=tls-unique,,n=,r=abc"),
        (PLUS, "p=,,n=,r=abc"),
    ] {
        let start = server::Start::new(&verifier, Some(END_POINT), mechanism.as_bytes()).unwrap();
        assert!(
            start.client_first(message.as_bytes(), "n").is_err(),
            "{mechanism} {message}"
        );
    }
    assert!(server::Start::new(&verifier, None, PLUS.as_bytes()).is_err());
    assert!(server::Start::new(&verifier, None, b"OAUTHBEARER").is_err());
}

fn client_final(message: &[u8]) -> Result<Keys, Failure> {
    let verifier = verifier();
    let start = server::Start::new(&verifier, None, PLAIN.as_bytes()).unwrap();
    let (_, next) = start.client_first(b"n,,n=,r=abc", "def").unwrap();
    next.client_final(message).map(|proven| proven.keys.clone())
}

#[test]
fn broken_client_final_messages_are_refused() {
    let proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [0; 32]);
    for (message, expected_proof_error) in [
        (format!("c=biws,r=abcdef,p={proof}"), true),
        (format!("c=biws,r=abcdef,x=1,p={proof}"), true),
        (format!("c=biws,r=abcdefg,p={proof}"), false),
        (format!("c=eSws,r=abcdef,p={proof}"), false),
        (format!("c=!,r=abcdef,p={proof}"), false),
        (format!("r=abcdef,c=biws,p={proof}"), false),
        ("c=biws,r=abcdef,p=AAAA".into(), false),
        ("c=biws,r=abcdef".into(), false),
        ("".into(), false),
    ] {
        let error = client_final(message.as_bytes()).unwrap_err();
        assert_eq!(
            error == Failure::WrongProof,
            expected_proof_error,
            "{message}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_either_role_panic_or_let_anyone_in(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let verifier = verifier();
        for (mechanism, end_point) in [(PLAIN, None), (PLUS, Some(END_POINT))] {
            let start = server::Start::new(&verifier, end_point, mechanism.as_bytes()).unwrap();
            let _ = start.client_first(&bytes, "n");
        }
        prop_assert!(client_final(&bytes).is_err());
        let start = client::Start::new(WITHOUT_PLUS, None, "abc".into()).unwrap();
        let _ = start.first().1.server_first(&bytes);
        prop_assert!(Verifier::parse(&String::from_utf8_lossy(&bytes)).is_none());
    }

    #[test]
    fn a_changed_message_never_logs_in(at in 0usize..80, to in any::<u8>()) {
        let start = client::Start::new(WITHOUT_PLUS, None, "abc".into()).unwrap();
        let (first, client) = start.first();
        let verifier = verifier();
        let server = server::Start::new(&verifier, None, PLAIN.as_bytes()).unwrap();
        let (server_first, server) = server.client_first(&first, "def").unwrap();
        let challenge = client.server_first(&server_first).unwrap();
        let keys = by_password("pencil")(&challenge);
        let (mut last, _) = challenge.answer(&keys);
        let at = at % last.len();
        prop_assume!(last[at] != to);
        last[at] = to;
        prop_assert!(server.client_final(&last).is_err());
    }
}
