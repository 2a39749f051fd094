//! A server is set to its session's settings before it works for it, and works for nobody where that fails.

use crate::{
    bed::{Bed, wait_until},
    forwarder::{Spoil, behind_forwarder},
    raw::{Client, cancel, query, run, sync, word},
};

const INSERT: &str = "INSERT INTO t (tenant) VALUES (current_setting('app.tenant', true))";
/// What fails, and as what it is told: as if a limit of time had hit it.
const FAILURES: [[Spoil; 2]; 3] = [
    [
        (b"BEGIN ISOLATION", b"BEGUN ISOLATION"),
        (b"C42601\0", b"C57014\0"),
    ],
    [
        (b"set_config(E'app.tenant'", b"set_fonfig(E'app.tenant'"),
        (b"C42883\0", b"C57014\0"),
    ],
    [
        (b",false);COMMIT\0", b",false);COMMAT\0"),
        (b"C42601\0", b"C57014\0"),
    ],
];

#[test]
fn wherever_the_settings_fail_nothing_that_was_sent_behind_them_is_executed() {
    let (forwarder, bed) = behind_forwarder(1);
    bed.sql("SET ROLE app; CREATE TABLE t (tenant text)");
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("SET app.tenant = 'mine'");
    let batch = [run(INSERT), sync()].concat();
    for failure in &FAILURES {
        for (messages, expected) in [
            // The client has cancelled nothing: it runs elsewhere.
            (query(INSERT), &["CZI"][..]),
            ([query(INSERT), query(INSERT)].concat(), &["E[57014]ZI"; 2]),
            (batch.repeat(2), &["12CZI"; 2]),
            // What comes behind a Sync waits, and finds another server.
            (
                [query(INSERT), batch.repeat(2)].concat(),
                &["E[57014]ZI", "E[57014]ZI", "12CZI"],
            ),
        ] {
            // The server was another's before.
            other.ok("SET app.tenant = 'strange'");
            forwarder.spoil(failure);
            client.send(&messages);
            for expected in expected {
                assert_eq!(word(&client.until_ready()), *expected);
            }
            assert_eq!(forwarder.unspoiled(), 0);
            assert_eq!(client.value("SHOW app.tenant"), "mine");
        }
    }
    assert_eq!(bed.sql("SELECT DISTINCT tenant FROM t"), "mine");
}

#[test]
fn another_sessions_limit_of_time_fails_nothing_and_runs_nothing_under_its_settings() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE t (tenant text, pid int DEFAULT pg_backend_pid())");
    let (mut client, mut hurried) = (bed.client(), bed.client());
    // So much that the server cannot read it in time.
    for name in 0..60 {
        client.ok(&format!("SET app.n{name} = '{}'", "\\".repeat(4000)));
    }
    client.ok("SET app.tenant = 'mine'");
    for _ in 0..10 {
        hurried.ok("SET app.tenant = 'strange'");
        hurried.ok("SET statement_timeout = 1");
        client.ok(INSERT);
        while hurried.word(&query("RESET statement_timeout")) != "CZI" {}
    }
    assert_eq!(
        bed.sql("SELECT DISTINCT tenant, count(*) FROM t GROUP BY 1"),
        "mine|10"
    );
    let servers = bed.sql("SELECT count(DISTINCT pid) FROM t");
    assert_ne!(servers, "1", "no server was hit, and closed");
}

#[test]
fn a_question_that_was_hit_is_asked_again_and_the_server_gets_free() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    client.ok("CREATE TEMP TABLE tt (i int)");
    client.ok("LISTEN ear");
    let mut locker = Client::connect(bed.server_addr(), &bed.database, "postgres");
    locker.ok("BEGIN");
    locker.ok("LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE");
    client.ok("UNLISTEN ear");
    let waits = || bed.count("wait_event_type = 'Lock'") == 1;
    let is_idle = || bed.count("state = 'active'") == 0;
    wait_until("the question waits", waits);
    // Until it is given up for now.
    while !is_idle() {
        cancel(bed.addr, client.pid, &client.key);
        wait_until("it is asked again, or not", || waits() || is_idle());
    }
    locker.ok("ROLLBACK");
    client.ok("SET work_mem = '7MB'");
    client.ok("DROP TABLE tt");
    assert_eq!(bed.client().value("SHOW work_mem"), "4MB");
    assert_eq!(client.value("SHOW work_mem"), "7MB");
}
