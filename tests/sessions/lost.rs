//! A server that dies: what its session is told, and that it goes on where it can.

use std::sync::Arc;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    bed::{Bed, USER, config, primary, wait_until},
    forwarder::behind_forwarder,
    raw::{Client, bind, execute, flush, frame, parse, query, run, sync, word},
};

#[test]
fn an_idle_session_does_not_notice_that_its_last_server_died() {
    let (forwarder, bed) = behind_forwarder(2);
    let mut client = bed.client();
    client.ok("SELECT 1");
    forwarder.cut();
    assert_eq!(client.value("SELECT 2"), "2");
    bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()");
    wait_until("no server", || bed.count("query = 'SELECT 2'") == 0);
    assert_eq!(client.value("SELECT 3"), "3");
}

#[test]
fn an_open_transaction_fails_and_the_session_goes_on() {
    let (forwarder, bed) = behind_forwarder(2);
    bed.sql("SET ROLE app; CREATE TABLE t (i int)");
    let insert = "INSERT INTO t VALUES (1)";
    for round in 0..4 {
        let mut client = bed.client();
        client.ok("BEGIN");
        client.ok(insert);
        forwarder.cut();
        let extended = [run(insert), sync()].concat();
        match round {
            0 => assert_eq!(client.word(&query(insert)), "E[40001]ZE"),
            1 => assert_eq!(client.word(&extended), "E[40001]ZE"),
            2 => assert_eq!(
                client.word(&[query(insert), query("SELECT 1")].concat()),
                "E[40001]ZE"
            ),
            _ => {
                let two = [&extended[..], &extended[..]].concat();
                assert_eq!(client.word(&two), "E[40001]ZE");
            }
        }
        if round >= 2 {
            assert_eq!(word(&client.until_ready()), "E[25P02]ZE");
        }
        assert_eq!(client.word(&query(insert)), "E[25P02]ZE");
        assert_eq!(client.word(&extended), "E[25P02]ZE");
        match round % 2 {
            0 => assert_eq!(client.word(&query("ROLLBACK")), "CZI"),
            _ => assert_eq!(client.word(&[run("COMMIT"), sync()].concat()), "12CZI"),
        }
        assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn a_commit_after_the_loss_is_told_of_it_and_ends_the_transaction() {
    let (forwarder, bed) = behind_forwarder(2);
    let mut client = bed.client();
    client.ok("BEGIN");
    forwarder.cut();
    client.send(&query("COMMIT"));
    let error = client.next();
    // Whether it was on its way when the server was lost is a race.
    match &*error.field(b'C') {
        "08007" => assert_eq!(client.farewell(), ""),
        "40001" => {
            assert_eq!(word(&client.until_ready()), "ZI");
            assert_eq!(client.value("SELECT 1"), "1");
        }
        _ => panic!("{error:?}"),
    }
}

#[test]
fn a_loss_while_a_transactions_statement_runs_fails_the_transaction() {
    let (forwarder, bed) = behind_forwarder(2);
    for extended in [false, true] {
        let mut client = bed.client();
        client.ok("BEGIN");
        let sql = "SELECT pg_sleep(3600)";
        client.send(&match extended {
            false => query(sql),
            true => [run(sql), sync()].concat(),
        });
        wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
        forwarder.cut();
        assert_eq!(
            word(&client.until_ready()).trim_start_matches("12"),
            "E[40001]ZE"
        );
        assert_eq!(client.word(&query("ROLLBACK")), "CZI");
        assert_eq!(client.value("SELECT 1"), "1");
        bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()");
    }
}

#[test]
fn half_a_message_for_a_lost_server_reaches_no_other() {
    let (forwarder, bed) = behind_forwarder(1);
    let mut client = bed.client();
    client.ok("BEGIN");
    // A Bind larger than the buffer, of which half is sent.
    let parameter = vec![b'x'; 200_000];
    let mut body = b"\0\0\0\0\0\x01".to_vec();
    body.extend((parameter.len() as u32).to_be_bytes());
    body.extend(&parameter);
    body.extend([0, 0]);
    let large = frame(b'B', &body);
    client.send(
        &[
            &parse("", "SELECT length($1)")[..],
            &flush(),
            &large[..100_000],
        ]
        .concat(),
    );
    assert_eq!(client.next().tag, b'1');
    forwarder.cut();
    client.send(&[&large[100_000..], &execute("", 0), &sync()].concat());
    assert_eq!(word(&client.until_ready()), "E[40001]ZE");
    assert_eq!(client.word(&query("ROLLBACK")), "CZI");
    assert_eq!(client.value("SELECT 5"), "5");
}

#[test]
fn what_may_have_been_committed_ends_the_session_with_an_unknown_outcome() {
    let (forwarder, bed) = behind_forwarder(2);
    bed.sql(
        "SET ROLE app; CREATE TABLE t (i int);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3600); RETURN NULL; END$$;
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    for commit in [false, true] {
        let mut client = bed.client();
        if commit {
            client.ok("BEGIN");
            client.ok("INSERT INTO t VALUES (1)");
            client.send(&query("COMMIT"));
        } else {
            client.send(&[run("INSERT INTO t VALUES (1)"), sync()].concat());
        }
        wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
        forwarder.cut();
        let farewell = client.farewell();
        assert!(farewell.ends_with("E[FATAL 08007]"), "{farewell}");
        bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()");
    }
}

#[test]
fn a_session_whose_state_was_lost_ends() {
    let (forwarder, bed) = behind_forwarder(2);
    let mut client = bed.client();
    client.ok("LISTEN ear");
    forwarder.cut();
    assert_eq!(client.farewell(), "E[FATAL 57P01]");
    let mut client = bed.client();
    client.ok("CREATE TEMP TABLE tt (i int)");
    forwarder.cut();
    assert_eq!(client.farewell(), "E[FATAL 08006]");
    let mut client = Client::connect(bed.session, &bed.database, USER);
    client.ok("SELECT 1");
    forwarder.cut();
    assert_eq!(client.farewell(), "E[FATAL 08006]");
}

#[test]
fn settings_outlive_the_server_on_which_they_were_made() {
    let (forwarder, bed) = behind_forwarder(2);
    let mut client = bed.client();
    client.ok("SET my.tenant = '1'");
    // It has been asked for them, and has gone back.
    wait_until("the server is at rest", || {
        bed.count("state = 'idle' AND query LIKE 'SELECT pg_catalog.current_setting%'") == 1
    });
    bed.client().ok("SELECT 1");
    forwarder.cut();
    assert_eq!(client.value("SHOW my.tenant"), "1");
    client.ok("BEGIN");
    client.ok("SET my.tenant = '2'");
    forwarder.cut();
    assert_eq!(client.error("SELECT 1").field(b'C'), "40001");
    client.ok("ROLLBACK");
    assert_eq!(client.value("SHOW my.tenant"), "1");
}

#[test]
fn a_sync_alone_is_answered_though_its_server_died() {
    let (forwarder, bed) = behind_forwarder(2);
    for _ in 0..20 {
        let mut client = bed.client();
        forwarder.split(1);
        client.send(&sync());
        forwarder.cut();
        let first = client.try_next();
        assert!(
            matches!(first.as_ref().map(|f| f.tag), Some(b'Z' | b'E')),
            "{first:?}"
        );
        forwarder.split(64 * 1024);
    }
}

#[test]
fn the_servers_own_farewell_is_passed_on() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    client.ok("BEGIN");
    bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() AND state = 'idle in transaction'");
    assert_eq!(client.farewell(), "E[FATAL 57P01]");
    let mut client = bed.client();
    client.send(
        &[
            parse("", "SELECT pg_sleep(3600)"),
            bind("", ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    bed.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() AND state = 'active'");
    assert_eq!(client.farewell(), "12E[FATAL 57P01]");
}

#[test]
fn sessions_survive_a_crash_restart_as_far_as_they_can() {
    let server = Arc::new(primary());
    let bed = Bed::start(server.clone(), config(vec![server.node("pg1")], 5));
    let mut idle = bed.client();
    let mut open = bed.client();
    let mut running = bed.client();
    open.ok("BEGIN");
    running.send(&query("SELECT pg_sleep(3600)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    let pid = idle.value("SELECT pg_backend_pid()");
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    let farewell = running.farewell();
    assert!(farewell.ends_with("E[FATAL 08007]"), "{farewell}");
    // The postmaster ends the other backends a moment later.
    let mut replies = open.word(&query("SELECT 1"));
    while replies == "TDCZT" {
        replies = open.word(&query("SELECT 1"));
    }
    assert!(replies.ends_with("E[40001]ZE"), "{replies}");
    assert_eq!(open.word(&query("ROLLBACK")), "CZI");
    assert_eq!(open.value("SELECT 3"), "3");
    assert_eq!(idle.value("SELECT 4"), "4");
}
