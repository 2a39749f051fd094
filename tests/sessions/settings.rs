//! Settings follow a session from server to server, and no stranger gets them; pins end with what they were for.

use crate::{
    bed::{Bed, wait_until},
    raw::{Client, bind, execute, parse, query, run, sync},
};
use pgsluice::config::Opaque;

/// The pid of the server that serves the next statement.
fn pid(client: &mut Client) -> String {
    client.value("SELECT pg_backend_pid()")
}

/// Another session's transaction keeps the only other server busy.
fn elsewhere<T>(bed: &Bed, client: &mut Client, then: impl FnOnce(&mut Client) -> T) -> T {
    let here = pid(client);
    let mut other = bed.client();
    // Whoever is not served yet takes the server that was used last.
    let mut taken = Vec::new();
    loop {
        other.ok("BEGIN");
        if pid(&mut other) == here {
            break;
        }
        taken.push(std::mem::replace(&mut other, bed.client()));
    }
    drop(taken);
    assert_ne!(pid(client), here);
    let done = then(client);
    other.ok("ROLLBACK");
    done
}

#[test]
fn settings_are_in_force_on_whichever_server_serves() {
    let bed = Bed::new(2);
    for (set, show, expected) in [
        ("SET work_mem = '7MB'", "SHOW work_mem", "7MB"),
        (
            "SET \"DateStyle\" TO german",
            "SELECT date '2024-02-01'",
            "01.02.2024",
        ),
        (
            "SET app.tenant = 'a''b\\c'",
            "SELECT current_setting('app.tenant')",
            "a'b\\c",
        ),
        (
            "SELECT set_config('app.other', 'Zoë', false)",
            "SHOW app.other",
            "Zoë",
        ),
        (
            "SET search_path = pg_catalog, \"Odd \"\"path\"",
            "SHOW search_path",
            "pg_catalog, \"Odd \"\"path\"",
        ),
        (
            "SET TIME ZONE INTERVAL '+03:00' HOUR TO MINUTE",
            "SHOW timezone",
            "<+03>-03",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SHOW transaction_read_only",
            "on",
        ),
        ("RESET ALL", "SHOW work_mem", "4MB"),
        (
            "BEGIN; SET work_mem = '9MB'; COMMIT",
            "SHOW work_mem",
            "9MB",
        ),
        ("DISCARD ALL", "SHOW work_mem", "4MB"),
    ] {
        let mut client = bed.client();
        client.ok("SET work_mem = '6MB'");
        client.ok(set);
        assert_eq!(client.value(show), expected, "{set}");
        elsewhere(&bed, &mut client, |client| {
            assert_eq!(client.value(show), expected, "{set}");
        });
    }
    assert_eq!(bed.servers(), 2);
}

#[test]
fn a_rolled_back_set_is_undone_on_every_server() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    client.ok("SET work_mem = '6MB'");
    for (script, expected) in [
        (&["BEGIN", "SET work_mem = '7MB'", "ROLLBACK"][..], "6MB"),
        (
            &[
                "BEGIN",
                "SAVEPOINT s",
                "SET work_mem = '7MB'",
                "ROLLBACK TO s",
                "COMMIT",
            ],
            "6MB",
        ),
        (
            &[
                "BEGIN",
                "SET work_mem = '7MB'",
                "SAVEPOINT s",
                "SET work_mem = '8MB'",
                "ROLLBACK TO s",
                "COMMIT",
            ],
            "7MB",
        ),
        (&["BEGIN", "SET LOCAL work_mem = '9MB'", "COMMIT"], "7MB"),
        (&["BEGIN", "RESET work_mem", "COMMIT"], "4MB"),
    ] {
        for sql in script {
            client.ok(sql);
        }
        elsewhere(&bed, &mut client, |client| {
            assert_eq!(client.value("SHOW work_mem"), expected, "{script:?}");
        });
    }
    // A SET that fails with its transaction.
    client.send(&query("SET work_mem = '5MB'; SELECT 1/0"));
    client.until_ready();
    assert_eq!(client.value("SHOW work_mem"), "4MB");
}

#[test]
fn strangers_on_one_server_see_their_own_settings_alone() {
    let bed = Bed::new(1);
    bed.sql("CREATE ROLE other; GRANT other TO app");
    let mut clients: Vec<_> = (0..6).map(|_| bed.client()).collect();
    for (who, client) in clients.iter_mut().enumerate().skip(1) {
        client.ok(&format!("SET app.tenant = '{who}'"));
        client.ok(&format!("SET search_path = s{who}"));
        if who % 2 == 0 {
            client.ok("SET ROLE other");
        }
        client.ok(&format!(
            "SET DateStyle = {}",
            ["ISO, DMY", "SQL, MDY"][who % 2]
        ));
    }
    let seen = "SELECT current_setting('app.tenant', true), 1 \
                UNION ALL SELECT current_setting('search_path'), 2 \
                UNION ALL SELECT current_user, 3 UNION ALL SELECT current_setting('datestyle'), 4 ORDER BY 2";
    let all = format!("SELECT string_agg(coalesce(a, ''), '|') FROM ({seen}) x (a, b)");
    for _ in 0..3 {
        for (who, client) in clients.iter_mut().enumerate() {
            let expected = match who {
                0 => "|\"$user\", public|app|ISO, MDY".to_owned(),
                _ => format!(
                    "{who}|s{who}|{}|{}",
                    ["other", "app"][who % 2],
                    ["ISO, DMY", "SQL, MDY"][who % 2]
                ),
            };
            assert_eq!(client.value(&all), expected);
        }
    }
    assert_eq!(bed.servers(), 1);
}

#[test]
fn the_client_is_told_parameters_only_when_its_own_change() {
    let bed = Bed::new(1);
    let (mut german, mut plain) = (bed.client(), bed.client());
    let tags = |client: &mut Client, sql: &str| {
        client.send(&query(sql));
        let frames = client.until_ready();
        String::from_utf8(frames.iter().map(|f| f.tag).collect()).unwrap()
    };
    assert_eq!(tags(&mut german, "SET DateStyle = german"), "CSZ");
    for _ in 0..2 {
        assert_eq!(tags(&mut plain, "SELECT 1"), "TDCZ");
        assert_eq!(tags(&mut german, "SELECT 1"), "TDCZ");
    }
    assert_eq!(tags(&mut plain, "SET DateStyle = german"), "CSZ");
}

#[test]
fn a_session_without_a_server_waits_until_its_settings_are_in_force() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    client.ok("SET app.tenant = 'mine'");
    let mut holder = bed.client();
    holder.ok("BEGIN");
    client.send(&query("SHOW app.tenant"));
    wait_until("it waits", || {
        bed.count("state = 'idle in transaction'") == 1
    });
    holder.ok("SET app.tenant = 'other'");
    holder.ok("COMMIT");
    let frames = client.until_ready();
    assert_eq!(crate::raw::word(&frames), "TDCZI");
    assert_eq!(frames[1].value(), "mine");
}

#[test]
fn settings_made_in_the_extended_protocol_are_carried_each_time_they_are_executed() {
    let bed = Bed::new(1);
    let (mut client, mut other) = (bed.client(), bed.client());
    let parsed = [parse("", "SET work_mem = '7MB'"), sync()].concat();
    assert_eq!(client.word(&parsed), "1ZI");
    other.ok("SET work_mem = '6MB'");
    assert_eq!(client.value("SHOW work_mem"), "4MB");
    assert_eq!(client.word(&parsed), "1ZI");
    assert_eq!(other.value("SHOW work_mem"), "6MB");
    let executed = [bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(client.word(&executed), "2CZI");
    assert_eq!(other.value("SHOW work_mem"), "6MB");
    assert_eq!(client.value("SHOW work_mem"), "7MB");
}

#[test]
fn many_statements_sent_at_once_run_under_the_session_s_settings() {
    let bed = Bed::new(1);
    let (mut client, mut other) = (bed.client(), bed.client());
    other.ok("SET app.x = 'theirs'");
    client.send(
        &[
            query("SET app.x = '1'"),
            query("SHOW app.x"),
            query("SET app.x = '2'"),
            run("SHOW app.x"),
            sync(),
        ]
        .concat(),
    );
    let words: Vec<_> = (0..4)
        .map(|_| crate::raw::word(&client.until_ready()))
        .collect();
    assert_eq!(words, ["CZI", "TDCZI", "CZI", "12DCZI"]);
    assert_eq!(other.value("SHOW app.x"), "theirs");
    assert_eq!(client.value("SHOW app.x"), "2");
}

#[test]
fn pins_end_when_what_they_were_for_is_gone() {
    let bed = Bed::new(1);
    let mut other = bed.client();
    for (make, end) in [
        ("LISTEN ear", "UNLISTEN ear"),
        ("LISTEN ear", "UNLISTEN *"),
        ("CREATE TEMP TABLE tt (i int)", "DROP TABLE tt"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"),
        ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"),
        (
            "SELECT pg_advisory_lock(7), pg_advisory_lock(8)",
            "SELECT pg_advisory_unlock_all()",
        ),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p"),
        ("PREPARE p AS SELECT 1", "DISCARD ALL"),
        (
            "LISTEN ear; CREATE TEMP TABLE tt (i int)",
            "UNLISTEN *; DROP TABLE tt",
        ),
    ] {
        let mut client = bed.client();
        client.ok(make);
        client.ok("SET work_mem = '7MB'");
        let here = pid(&mut client);
        // Another one can be served only once the server is free.
        other.send(&query("SHOW work_mem"));
        assert_eq!(pid(&mut client), here);
        client.ok(end);
        assert_eq!(crate::raw::word(&other.until_ready()), "TDCZI", "{make}");
        let expected = if end == "DISCARD ALL" { "4MB" } else { "7MB" };
        assert_eq!(client.value("SHOW work_mem"), expected, "{end}");
    }
}

#[test]
fn a_session_whose_settings_no_server_takes_any_more_is_told_so() {
    let bed = Bed::new(1);
    bed.sql("CREATE ROLE passing; GRANT passing TO app");
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("SET ROLE passing");
    // Its server is set back for another session.
    other.ok("SELECT 1");
    bed.sql("REVOKE passing FROM app; DROP ROLE passing");
    client.send(&query("SELECT current_user"));
    assert_eq!(client.farewell(), "E[FATAL 08006]");
    other.ok("SELECT 1");
}

#[test]
fn what_a_session_could_not_set_harms_nobody_on_the_next_server() {
    let bed = Bed::new(1);
    let (mut client, mut other) = (bed.client(), bed.client());
    for left in [
        "SELECT set_config('fsync', 'off', false) WHERE false",
        "BEGIN; SELECT 1/0",
        "RESET session_replication_role",
        "ROLLBACK",
    ] {
        client.send(&query(left));
        client.until_ready();
    }
    for _ in 0..2 {
        other.ok("SET work_mem = '1MB'");
        client.ok("SELECT 1");
    }
}

#[test]
fn what_is_set_behind_a_reset_of_all_is_the_sessions_alone() {
    let bed = Bed::new(1);
    let (mut client, mut other) = (bed.client(), bed.client());
    for [begin, end] in [["BEGIN", "COMMIT"], ["SELECT 1", "SELECT 1"]] {
        for sql in [begin, "RESET ALL", "SET app.tenant = '3'", end] {
            client.ok(sql);
        }
        let tenant = "SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')";
        assert_eq!(other.value(tenant), "none");
        assert_eq!(client.value(tenant), "3");
        client.ok("RESET ALL");
        assert_eq!(client.value(tenant), "none");
    }
}

#[test]
fn the_end_of_a_session_authorization_ends_the_role() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    bed.sql("DO $$ BEGIN CREATE ROLE ended; GRANT ended TO app; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
    client.ok("SET ROLE ended");
    client.ok("RESET SESSION AUTHORIZATION");
    bed.client().ok("SET work_mem = '1MB'");
    assert_eq!(client.value("SELECT current_user"), "app");
}

#[test]
fn a_message_is_executed_under_its_sessions_settings_or_not_at_all() {
    let bed = Bed::new(1);
    bed.sql("CREATE ROLE undressed; GRANT undressed TO app; SET ROLE app; CREATE TABLE t (who text); GRANT ALL ON t TO PUBLIC");
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("SET ROLE undressed");
    other.ok("SELECT 1");
    bed.sql("REVOKE undressed FROM app; DROP OWNED BY undressed; DROP ROLE undressed");
    let insert = "INSERT INTO t VALUES (current_user)";
    client.send(
        &[
            query(insert),
            run(insert),
            sync(),
            query("COMMIT"),
            query(insert),
        ]
        .concat(),
    );
    assert_eq!(client.farewell(), "E[FATAL 08006]");
    other.ok("SELECT 1");
    assert_eq!(bed.sql("SELECT count(*) FROM t"), "0");
}

#[test]
fn what_is_left_while_the_server_is_being_asked_keeps_it() {
    let bed = Bed::new(1);
    let mut other = bed.client();
    for _ in 0..20 {
        let mut client = bed.client();
        client.ok("LISTEN ear");
        // The question comes between these, where the second one is late enough.
        client.send(&query("UNLISTEN ear"));
        client.until_ready();
        client.send(&[query("LISTEN ear"), query("SET app.x = 'mine'")].concat());
        client.until_ready();
        client.until_ready();
        other.send(&query("SELECT 1"));
        client.ok("NOTIFY ear");
        assert_eq!(
            client.value("SELECT count(*) FROM pg_listening_channels()"),
            "1"
        );
        client.ok("UNLISTEN *");
        other.until_ready();
    }
}

#[test]
fn a_session_knows_the_senders_of_notifications_by_the_pids_of_their_logins() {
    let bed = Bed::new(2);
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("LISTEN ear");
    client.send(&query("NOTIFY ear, 'mine'"));
    let frames = client.until_ready();
    let told = frames
        .iter()
        .find(|f| f.tag == b'A')
        .expect("a notification");
    assert_eq!(told.body[..4], client.pid.to_be_bytes());
    other.ok("NOTIFY ear, 'theirs'");
    let told = client.next();
    assert_eq!(told.tag, b'A');
    assert_eq!(told.body[..4], other.pid.to_be_bytes());
    // Who connects past the proxy has the server's own.
    let mut direct = bed.direct();
    direct.ok("NOTIFY ear, 'direct'");
    assert_eq!(client.next().body[..4], direct.pid.to_be_bytes());
    // The listener asks last, when the sender has gone.
    let pid = other.pid;
    other.ok("NOTIFY ear, 'last'");
    other.cut();
    assert_eq!(client.next().body[..4], pid.to_be_bytes());
}

#[test]
fn of_two_things_left_at_once_one_alone_keeps_the_server() {
    let bed = Bed::new(1);
    let mut other = bed.client();
    for (make, first, still, second) in [
        (
            "LISTEN ear; CREATE TEMP TABLE tt AS SELECT 1 AS i",
            "UNLISTEN ear",
            "SELECT i FROM tt",
            "DROP TABLE tt",
        ),
        (
            "CREATE TEMP TABLE tt AS SELECT pg_try_advisory_lock(3) AS got",
            "DROP TABLE tt",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
            "SELECT pg_advisory_unlock(3)",
        ),
    ] {
        let mut client = bed.client();
        client.ok(make);
        client.ok(first);
        assert_eq!(client.value(still), "1", "{make}");
        client.ok(second);
        other.ok("SELECT 1");
    }
}

#[test]
fn what_was_undone_with_its_transaction_pins_no_longer() {
    let bed = Bed::new(1);
    let mut other = bed.client();
    for make in [
        "LISTEN ear",
        "CREATE TEMP TABLE tt (i int)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ] {
        let mut client = bed.client();
        client.ok("BEGIN");
        client.ok(make);
        client.ok("ROLLBACK");
        other.ok("SELECT 1");
        client.ok("SELECT 1");
    }
    // Locks of a session outlive its transactions.
    let mut client = bed.client();
    client.ok("BEGIN; SELECT pg_advisory_lock(9); ROLLBACK");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(client.value(locks), "1");
    client.ok("SELECT pg_advisory_unlock(9)");
    other.ok("SELECT 1");
}

#[test]
fn a_try_lock_that_got_nothing_pins_nothing() {
    let bed = Bed::new(2);
    let (mut holder, mut client) = (bed.client(), bed.client());
    holder.ok("SELECT pg_advisory_lock(5)");
    assert_eq!(client.value("SELECT pg_try_advisory_lock(5)"), "f");
    // The only other server.
    bed.client().ok("SELECT 1");
}

#[test]
fn audited_opaque_work_leaves_its_settings_with_the_session_and_frees_the_server() {
    let bed = Bed::with(1, |config| config.pool.opaque = Opaque::Audit);
    bed.sql(
        "SET ROLE app; CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS \
             $$BEGIN EXECUTE 'SET work_mem = ''7MB'''; END$$",
    );
    let (mut client, mut other) = (bed.client(), bed.client());
    client.ok("SELECT f()");
    assert_eq!(other.value("SHOW work_mem"), "4MB");
    assert_eq!(client.value("SHOW work_mem"), "7MB");
    client.ok("DO $$BEGIN EXECUTE 'CREATE TEMP TABLE hidden (i int)'; END$$");
    client.ok("SELECT * FROM hidden");
    client.ok("DROP TABLE hidden");
    other.ok("SELECT 1");
}
