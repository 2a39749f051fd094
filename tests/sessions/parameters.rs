//! Startup parameters and what ParameterStatus tells.

use crate::{
    bed::{Bed, USER, wait_until},
    raw::Client,
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
    assert!(
        replica
            .told
            .contains(&("in_hot_standby".into(), "on".into()))
    );
}

#[test]
fn target_session_attrs_of_libpq_finds_its_port() {
    let server = crate::bed::shared();
    let standby = server.replica();
    let bed = Bed::with(2, |c| c.nodes.push(standby.node("pg2")));
    wait_until("the replica has the database", || {
        let sql = format!(
            "SELECT count(*) FROM pg_database WHERE datname = '{}'",
            bed.database
        );
        standby.sql(&sql) == "1"
    });
    wait_until("a replica", || {
        Client::connect(bed.replica, &bed.database, USER).value("SELECT pg_is_in_recovery()") == "t"
    });
    let ends = [bed.addr, bed.replica];
    for (attrs, in_recovery) in [
        ("read-write", "f"),
        ("primary", "f"),
        ("standby", "t"),
        ("read-only", "t"),
        ("prefer-standby", "t"),
    ] {
        for [a, b] in [ends, [ends[1], ends[0]]] {
            let (hosts, ports) = (
                format!("{},{}", a.ip(), b.ip()),
                format!("{},{}", a.port(), b.port()),
            );
            let url = format!(
                "host={hosts} port={ports} user={USER} dbname={} target_session_attrs={attrs}",
                bed.database
            );
            let output = bed
                .server
                .run_ok("psql", &[&url, "-XAtqc", "SELECT pg_is_in_recovery()"]);
            assert_eq!(
                String::from_utf8(output.stdout).unwrap().trim(),
                in_recovery,
                "{attrs}"
            );
        }
    }
}

#[test]
fn a_replica_listener_on_the_primary_stays_read_only() {
    let bed = Bed::new(2);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let mut client = Client::connect(bed.replica, &bed.database, USER);
    assert_eq!(client.value("SELECT 1"), "1");
    // Longer than what is looked at: it could do anything.
    let long = format!("SELECT 1 /* {} */", "x".repeat(2_000_000));
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE; INSERT INTO t VALUES (1); COMMIT",
        &long,
    ] {
        let error = client.error(sql);
        assert_eq!(error.field(b'C'), "25006", "{}", &sql[..20]);
        client.ok("ROLLBACK");
        let mut next = Client::connect(bed.replica, &bed.database, USER);
        assert_eq!(next.error("INSERT INTO t VALUES (1)").field(b'C'), "25006");
    }
    assert_eq!(bed.sql("SELECT count(*) FROM t"), "0");
}
