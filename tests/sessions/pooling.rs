//! Many sessions on few servers: what is shared, what is kept, what is cleared.

use crate::{
    bed::{Bed, USER, wait_until},
    raw::{Client, bind, describe, execute, frame, parse, query, run, sync},
};

#[test]
fn fifty_clients_share_two_servers_and_each_transaction_is_whole() {
    let bed = Bed::new(2);
    bed.sql("SET ROLE app; CREATE TABLE t (who int, step int)");
    let clients: Vec<_> = (0..50)
        .map(|who| {
            let mut client = bed.client();
            std::thread::spawn(move || {
                for round in 0..4 {
                    client.ok("BEGIN");
                    let pid = client.value("SELECT pg_backend_pid()");
                    client.ok(&format!("INSERT INTO t VALUES ({who}, {round})"));
                    assert_eq!(client.value("SELECT pg_backend_pid()"), pid);
                    client.ok(["COMMIT", "ROLLBACK"][round % 2]);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!(bed.sql("SELECT count(*) FROM t"), "100");
    assert_eq!(bed.servers(), 2);
    assert_eq!(bed.count("state = 'idle'"), 2);
}

#[test]
fn a_server_that_carries_state_is_kept_and_cleared_before_another_gets_it() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE TABLE seen (i int)");
    for (make, probe, clean) in [
        (
            "SET statement_timeout = '77s'",
            "SHOW statement_timeout",
            "0",
        ),
        (
            "SET my.tenant = '42'",
            "SELECT coalesce(current_setting('my.tenant', true), '')",
            "",
        ),
        (
            "SELECT set_config('my.other', '42', false)",
            "SELECT coalesce(current_setting('my.other', true), '')",
            "",
        ),
        (
            "CREATE TEMP TABLE seen AS SELECT 1 AS i",
            "SELECT count(*) FROM seen",
            "0",
        ),
        (
            "LISTEN ear",
            "SELECT count(*) FROM pg_listening_channels()",
            "0",
        ),
        (
            "PREPARE p AS SELECT 1",
            "SELECT count(*) FROM pg_prepared_statements",
            "0",
        ),
        (
            "SELECT pg_advisory_lock(7)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "0",
        ),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT count(*) FROM pg_cursors",
            "0",
        ),
    ] {
        let mut client = bed.client();
        client.ok(make);
        let pid = client.value("SELECT pg_backend_pid()");
        let mine = client.value(probe);
        assert_ne!(mine, clean, "{make}");
        for _ in 0..3 {
            assert_eq!(client.value(probe), mine, "{make}");
            assert_eq!(client.value("SELECT pg_backend_pid()"), pid, "{make}");
        }
        drop(client);
        assert_eq!(bed.client().value(probe), clean, "{make}");
    }
}

#[test]
fn named_statements_stay_with_their_session() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    assert_eq!(
        client.word(&[parse("s", "SELECT 5"), sync()].concat()),
        "1ZI"
    );
    let others: Vec<_> = (0..4).map(|_| bed.client()).collect();
    for mut other in others {
        assert_eq!(other.word(&[bind("", "s"), sync()].concat()), "E[26000]ZI");
    }
    assert_eq!(
        client.word(&[bind("", "s"), execute("", 0), sync()].concat()),
        "2DCZI"
    );
}

/// Holds servers in transactions, so that the next checkout gets another one.
fn occupy(bed: &Bed, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = bed.client();
            client.ok("BEGIN");
            client
        })
        .collect()
}

#[test]
fn an_unnamed_statement_is_bound_in_a_later_batch_on_another_server() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    // Both servers have a stranger's unnamed statement.
    for holder in &mut occupy(&bed, 2) {
        holder.word(&[run("SELECT 'stranger'"), sync()].concat());
        holder.ok("COMMIT");
    }
    wait_until("both are free", || bed.count("state = 'idle'") == 2);
    assert_eq!(
        client.word(&[parse("", "SELECT 'mine', pg_backend_pid()"), sync()].concat()),
        "1ZI"
    );
    for _ in 0..3 {
        let other = occupy(&bed, 1);
        client.send(&[describe(b'S', ""), bind("", ""), execute("", 0), sync()].concat());
        let frames = client.until_ready();
        assert_eq!(crate::raw::word(&frames), "tT2DCZI");
        assert_eq!(frames[3].value(), "mine");
        drop(other);
    }
}

#[test]
fn an_unnamed_statement_that_does_not_exist_is_never_a_strangers() {
    let bed = Bed::new(1);
    bed.client()
        .word(&[run("SELECT 'stranger'"), sync()].concat());
    let mut client = bed.client();
    let use_it = [bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(client.word(&use_it), "E[26000]ZI");
    assert_eq!(
        client.word(&[describe(b'S', ""), sync()].concat()),
        "E[26000]ZI"
    );
    // A simple Query ends the client's own.
    client.word(&[parse("", "SELECT 1"), sync()].concat());
    client.ok("SELECT 2");
    assert_eq!(client.word(&use_it), "E[26000]ZI");
    // So does a Parse that fails.
    client.word(&[parse("", "SELECT 1"), sync()].concat());
    assert_eq!(
        client.word(&[parse("", "SELECT missing"), sync()].concat()),
        "E[42703]ZI"
    );
    bed.client()
        .word(&[run("SELECT 'stranger'"), sync()].concat());
    assert_eq!(client.word(&use_it), "E[26000]ZI");
}

#[test]
fn a_parse_that_the_server_skipped_is_not_taken_for_the_sessions_statement() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    let skipped = [execute("missing", 0), parse("", "SELECT 'skipped'"), sync()].concat();
    assert_eq!(client.word(&skipped), "E[34000]ZI");
    bed.client()
        .word(&[run("SELECT 'stranger'"), sync()].concat());
    assert_eq!(
        client.word(&[bind("", ""), execute("", 0), sync()].concat()),
        "E[26000]ZI"
    );
}

#[test]
fn a_statement_that_could_not_be_told_to_the_server_is_told_later() {
    let bed = Bed::new(1);
    let mut client = bed.client();
    client.word(&[parse("", "ROLLBACK"), sync()].concat());
    bed.client()
        .word(&[run("SELECT 'stranger'"), sync()].concat());
    // A transaction on the server that has the stranger's, begun by a statement of another name.
    let begin = [parse("b", "BEGIN"), bind("", "b"), execute("", 0)].concat();
    let fails = [execute("missing", 0), bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(client.word(&[begin, fails].concat()), "12CE[34000]ZE");
    assert_eq!(
        client.word(&[bind("", ""), execute("", 0), sync()].concat()),
        "2CZI"
    );
}

#[test]
fn sessions_of_a_session_listener_have_a_server_each() {
    let bed = Bed::new(2);
    let mut clients: Vec<_> = (0..2)
        .map(|_| Client::connect(bed.session, &bed.database, USER))
        .collect();
    for client in &mut clients {
        assert_eq!(
            client.value("SELECT pg_backend_pid()"),
            client.pid.to_string()
        );
        client.ok("SET work_mem = '1MB'");
    }
    assert_ne!(clients[0].pid, clients[1].pid);
    drop(clients);
    let mut next = Client::connect(bed.session, &bed.database, USER);
    assert_eq!(next.value("SHOW work_mem"), "4MB");
    assert_eq!(next.word(&query("SELECT 1")), "TDCZI");
}

#[test]
fn a_session_gets_the_server_it_had_last_where_that_is_free() {
    let bed = Bed::new(2);
    let (mut a, mut b) = (bed.client(), bed.client());
    a.ok("BEGIN");
    b.ok("BEGIN");
    let pid = |client: &mut Client| client.value("SELECT pg_backend_pid()");
    let (of_a, of_b) = (pid(&mut a), pid(&mut b));
    assert_ne!(of_a, of_b);
    a.ok("COMMIT");
    b.ok("COMMIT");
    for _ in 0..10 {
        assert_eq!((pid(&mut a), pid(&mut b)), (of_a.clone(), of_b.clone()));
    }
    // Where it is not, any will do.
    b.ok("BEGIN");
    a.ok("BEGIN");
    b.ok("COMMIT");
    let mut third = bed.client();
    assert_eq!(pid(&mut third), of_b);
    a.ok("COMMIT");
}

/// libpq's lo_creat and its like are FunctionCalls.
#[test]
fn large_objects_by_function_call_pin_nothing() {
    let bed = Bed::new(1);
    let (mut client, mut other) = (bed.client(), bed.client());
    // lo_creat(-1), in binary.
    let mut body = 957_u32.to_be_bytes().to_vec();
    body.extend_from_slice(b"\0\x01\0\x01\0\x01\0\0\0\x04\xff\xff\xff\xff\0\x01");
    assert_eq!(client.word(&frame(b'F', &body)), "VZI");
    other.ok("SELECT 1");
    // And these functions are no others anywhere.
    let known: Vec<_> = (0..20_000)
        .filter(|oid| pgsluice::route::functions::is_large_object(*oid))
        .collect();
    let list = known
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let names = bed.sql(&format!(
        "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE oid IN ({list})"
    ));
    assert_eq!(
        names,
        "lo_close lo_creat lo_create lo_lseek lo_lseek64 lo_open lo_tell lo_tell64 lo_truncate lo_truncate64 \
         lo_unlink loread lowrite"
    );
    assert_eq!(known.len(), 13);
}
