//! `application_name`: sessions of different names share a pool, and none can tell.

use crate::{
    bed::{Bed, USER, wait_until},
    raw::{Client, parse, query, sync},
};

fn named(bed: &Bed, name: &str) -> Client {
    let login = [
        ("user", USER),
        ("database", bed.database.as_str()),
        ("application_name", name),
    ];
    Client::connect_with(bed.addr, &login)
}

/// The same on a server of its own.
fn direct(bed: &Bed, name: &str) -> Client {
    let login = [
        ("user", USER),
        ("database", bed.database.as_str()),
        ("application_name", name),
    ];
    Client::connect_with(bed.server_addr(), &login)
}

const SHOW: &str = "SHOW application_name";

#[test]
fn applications_share_servers_and_each_is_seen_by_its_own_name() {
    let bed = Bed::new(1);
    let mut clients: Vec<_> = ["orders", "billing", "it's \"odd\" \\"]
        .map(|name| (name, named(&bed, name)))
        .into();
    for _ in 0..3 {
        for (name, client) in &mut clients {
            assert_eq!(client.value(SHOW), *name);
            let seen = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
            assert_eq!(client.value(seen), *name);
        }
    }
    assert_eq!(bed.servers(), 1);
}

#[test]
fn reset_goes_back_to_the_name_of_the_login_whatever_resets_it_and_wherever() {
    let bed = Bed::new(2);
    let (mut other, begin) = (named(&bed, "other"), query("BEGIN"));
    for reset in [
        "RESET application_name",
        "SET application_name TO DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
        "SET LOCAL application_name TO DEFAULT",
        "DO $$BEGIN EXECUTE 'RESET application_name'; END$$",
    ] {
        let steps = [
            &[
                query("SET application_name = 'mine'"),
                query(reset),
                query(SHOW),
            ][..],
            &[
                begin.clone(),
                query("SET application_name = 'b'"),
                query(reset),
                query(SHOW),
            ],
            &[
                query("ROLLBACK"),
                query(SHOW),
                begin.clone(),
                query(reset),
                query(SHOW),
            ],
            &[
                query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
                query("COMMIT"),
            ],
            &[query(SHOW), query("LISTEN x"), query(reset), query(SHOW)],
            &[
                query("SET application_name = ''"),
                query(SHOW),
                query("RESET ALL"),
                query(SHOW),
            ],
        ];
        let steps = steps.concat();
        let (mut direct, mut proxied) = (direct(&bed, "home"), named(&bed, "home"));
        for (at, step) in steps.iter().enumerate() {
            direct.send(step);
            proxied.send(step);
            let (wanted, got) = (direct.until_ready(), proxied.until_ready());
            assert_eq!(got, wanted, "{reset}: step {at}");
            assert_eq!(other.value(SHOW), "other");
        }
    }
}

#[test]
fn statements_are_shared_whatever_the_application() {
    let bed = Bed::new(1);
    for name in ["a", "b"] {
        let mut client = named(&bed, name);
        assert_eq!(
            client.word(&[parse("s", "SELECT 1"), sync()].concat()),
            "1ZI"
        );
    }
    let servers =
        bed.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('a', 'b')");
    assert_eq!(servers, "1");
}

#[test]
fn a_session_listener_logs_its_servers_in_under_the_applications_own_name() {
    let bed = Bed::new(2);
    for name in [Some("own"), None] {
        let mut login = vec![("user", USER), ("database", bed.database.as_str())];
        login.extend(name.map(|name| ("application_name", name)));
        let mut client = Client::connect_with(bed.session, &login);
        client.send(&query(
            "SET application_name = 'x'; RESET application_name; SHOW application_name",
        ));
        let frames = client.until_ready();
        let shown = frames.iter().find(|f| f.tag == b'D').unwrap().value();
        assert_eq!(shown, name.unwrap_or_default());
        drop(client);
        wait_until("it is free", || bed.count("state <> 'idle'") == 0);
    }
}
