//! Startup parameters and what ParameterStatus tells.

use std::net::SocketAddr;

use pgsluice::config::PrimaryReads;

use crate::{
    bed::{Bed, USER, wait_until},
    nodes::Server,
    raw::{Client, Frame, query},
};

fn connect(bed: &Bed, extra: &[(&str, &str)]) -> Client {
    let login = [("user", USER), ("database", &bed.database)];
    Client::connect_with(bed.addr, &[&login[..], extra].concat())
}

#[test]
fn startup_parameters_reach_the_server_and_reset_goes_back_to_them() {
    let bed = Bed::new(2);
    let mut client = connect(
        &bed,
        &[("options", "-c work_mem=1MB"), ("statement_timeout", "77s")],
    );
    assert_eq!(client.value("SHOW work_mem"), "1MB");
    assert_eq!(client.value("SHOW statement_timeout"), "77s");
    client.ok("SET work_mem = '2MB'");
    client.ok("RESET work_mem");
    assert_eq!(client.value("SHOW work_mem"), "1MB");
    client.ok("DISCARD ALL");
    assert_eq!(client.value("SHOW statement_timeout"), "77s");
}

#[test]
fn sessions_of_different_startup_parameters_never_share_a_server() {
    let bed = Bed::new(3);
    for round in 0..10 {
        for work_mem in ["1MB", "2MB", "3MB"] {
            let mut client = connect(&bed, &[("options", &format!("-c work_mem={work_mem}"))]);
            assert_eq!(client.value("SHOW work_mem"), work_mem, "round {round}");
        }
    }
    assert!(bed.servers() <= 3);
}

#[test]
fn what_is_told_at_login_equals_what_the_server_tells() {
    let bed = Bed::new(2);
    let told = |client: &Client| {
        let mut told = client.told.clone();
        told.sort();
        told
    };
    let direct = told(&bed.direct());
    for _ in 0..2 {
        assert_eq!(told(&bed.client()), direct);
        let session = Client::connect(bed.session, &bed.database, USER);
        assert_eq!(told(&session), direct);
    }
    let extra = [
        ("application_name", "me"),
        ("client_encoding", "LATIN1"),
        ("DateStyle", "German"),
    ];
    let client = connect(&bed, &extra);
    for (name, value) in [
        ("application_name", "me"),
        ("client_encoding", "LATIN1"),
        ("DateStyle", "German, DMY"),
    ] {
        assert!(
            client.told.contains(&(name.into(), value.into())),
            "{name}: {:?}",
            client.told
        );
    }
    let replica = Client::connect(bed.replica, &bed.database, USER);
    let on = |name: &str| replica.told.contains(&(name.into(), "on".into()));
    assert!(on("in_hot_standby") && on(READ_ONLY));
    let named = |name| replica.told.iter().filter(|(n, _)| n == name).count();
    assert_eq!((named("in_hot_standby"), named(READ_ONLY)), (1, 1));
}

const READ_ONLY: &str = "default_transaction_read_only";

/// A primary, a standby that has the database, and a replica listener that reads from both.
fn both(standby: &Server) -> Bed {
    let bed = Bed::with(2, |c| {
        c.nodes.push(standby.node("pg2"));
        c.listeners[2].primary = PrimaryReads::Also;
    });
    let database = &bed.database;
    let sql = format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'");
    wait_until("the replica has the database", || standby.sql(&sql) == "1");
    wait_until("a replica", || {
        Client::connect(bed.replica, database, USER).value("SELECT pg_is_in_recovery()") == "t"
    });
    bed
}

/// What ParameterStatus told beside the answer, and the answer.
fn told_by(client: &mut Client, sql: &str) -> (Vec<(String, String)>, String) {
    client.send(&query(sql));
    let frames = client.until_ready();
    let told = frames.iter().filter(|f| f.tag == b'S').map(Frame::pair);
    let row = frames.iter().find(|f| f.tag == b'D').map(Frame::value);
    (told.collect(), row.unwrap_or_default())
}

#[test]
fn a_replica_listener_tells_the_same_whichever_node_serves() {
    let standby = crate::bed::shared().replica();
    let bed = both(&standby);
    let mut client = Client::connect(bed.replica, &bed.database, USER);
    let mut answers = std::collections::BTreeSet::new();
    wait_until("both have served", || {
        let (told, answer) = told_by(&mut client, "SELECT pg_is_in_recovery()");
        assert_eq!(told, [], "by {answer}");
        answers.insert(answer);
        answers.len() == 2
    });
    // A setting of its own changes nothing of what can be written here.
    client.ok("BEGIN");
    for value in ["on", "off"] {
        let set = format!("SET LOCAL {READ_ONLY} = {value}");
        client.send(&query(&set));
        let frames = client.until_ready();
        assert!(frames.iter().all(|f| f.tag != b'S'), "{frames:?}");
        if frames.iter().any(|f| f.tag == b'E') {
            break;
        }
        assert_eq!(client.value(&format!("SHOW {READ_ONLY}")), value);
    }
    client.ok("ROLLBACK");
}

#[test]
fn the_primary_s_listener_tells_truly_whether_a_session_is_read_only() {
    let bed = Bed::new(2);
    let is = |value: &str| (READ_ONLY.to_owned(), value.to_owned());
    let alter = |set: &str| {
        bed.sql(&format!(
            "ALTER ROLE {USER} IN DATABASE {} {set}",
            bed.database
        ))
    };
    alter(&format!("SET {READ_ONLY} = on"));
    let mut client = bed.client();
    assert!(client.told.contains(&is("on")), "{:?}", client.told);
    let set = format!("SET {READ_ONLY} = off");
    assert_eq!(told_by(&mut client, &set).0, [is("off")]);
    let reset = format!("RESET {READ_ONLY}");
    assert_eq!(told_by(&mut client, &reset).0, [is("on")]);
    let asked = connect(&bed, &[("options", &format!("-c {READ_ONLY}=off"))]);
    assert!(asked.told.contains(&is("off")), "{:?}", asked.told);
}

#[test]
fn target_session_attrs_of_libpq_finds_its_port() {
    let standby = crate::bed::shared().replica();
    let bed = both(&standby);
    let port = |addr: SocketAddr| addr.port().to_string();
    let (writes, reads) = (port(bed.addr), port(bed.replica));
    for (attrs, found) in [
        ("read-write", &writes),
        ("primary", &writes),
        ("standby", &reads),
        ("read-only", &reads),
        ("prefer-standby", &reads),
    ] {
        for ends in [[bed.addr, bed.replica], [bed.replica, bed.addr]] {
            assert_eq!(found_by(&bed, &ends, attrs, ""), *found, "{attrs}");
        }
    }
    // A role that only reads, on the primary's port.
    let read_only = format!("options='-c {READ_ONLY}=on'");
    for (attrs, found) in [
        ("read-only", &*writes),
        ("primary", &writes),
        ("read-write", ""),
    ] {
        assert_eq!(
            found_by(&bed, &[bed.addr], attrs, &read_only),
            found,
            "{attrs}"
        );
    }
    for attrs in ["read-write", "primary"] {
        assert_eq!(found_by(&bed, &[bed.replica], attrs, ""), "", "{attrs}");
    }
}

/// The port that psql takes for `attrs`; empty if none will do.
fn found_by(bed: &Bed, ends: &[SocketAddr], attrs: &str, more: &str) -> String {
    let list =
        |part: &dyn Fn(&SocketAddr) -> String| ends.iter().map(part).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (
        list(&|e| e.ip().to_string()),
        list(&|e| e.port().to_string()),
    );
    let url = format!(
        "host={hosts} port={ports} user={USER} dbname={} target_session_attrs={attrs} {more}",
        bed.database
    );
    let mut psql = bed
        .server
        .command("psql", &[&url, "-XAtqc", "\\echo :PORT"]);
    let output = psql.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_replica_listener_on_the_primary_stays_read_only() {
    let bed = Bed::new(2);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let mut client = Client::connect(bed.replica, &bed.database, USER);
    assert_eq!(client.value("SELECT 1"), "1");
    // Longer than what is looked at: it could do anything.
    let long = format!("SELECT 1 /* {} */", "x".repeat(2_000_000));
    // Only the server knows.
    let write = "WITH w AS (INSERT INTO t VALUES (1) RETURNING i) SELECT i FROM w";
    for sql in [
        "INSERT INTO t VALUES (1)",
        write,
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE; INSERT INTO t VALUES (1); COMMIT",
        &long,
    ] {
        let error = client.error(sql);
        assert_eq!(error.field(b'C'), "25006", "{}", &sql[..20]);
        client.ok("ROLLBACK");
        let mut next = Client::connect(bed.replica, &bed.database, USER);
        assert_eq!(next.error(write).field(b'C'), "25006");
    }
    assert_eq!(bed.sql("SELECT count(*) FROM t"), "0");
}
