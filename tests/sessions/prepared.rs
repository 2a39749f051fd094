//! Named prepared statements, carried over servers that sessions share: what a client sees is what it sees direct.

use std::{net::SocketAddr, process::Command};

use crate::{
    bed::{Bed, USER, config, shared, wait_until},
    forwarder::Forwarder,
    raw::{Client, Frame, bind, close, describe, execute, frame, parse, query, sync, word},
};

/// Bind of a statement with text parameters.
fn bind_with(statement: &str, values: &[&[u8]]) -> Vec<u8> {
    let mut body = [&[0], statement.as_bytes(), &[0, 0, 0]].concat();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    body.extend_from_slice(&[0, 0]);
    frame(b'B', &body)
}

pub fn execute_named(name: &str) -> Vec<u8> {
    [bind("", name), execute("", 0), sync()].concat()
}

#[track_caller]
pub fn prepare(client: &mut Client, name: &str, sql: &str) {
    let prepared = client.word(&[parse(name, sql), sync()].concat());
    assert_eq!(prepared, "1ZI", "{sql}");
}

#[track_caller]
pub fn value_of(client: &mut Client, name: &str) -> String {
    client.send(&execute_named(name));
    let frames = client.until_ready();
    let row = frames.iter().find(|f| f.tag == b'D');
    row.unwrap_or_else(|| panic!("{name}: {frames:?}")).value()
}

/// Holds servers in transactions, so that the next checkout gets another one.
pub fn occupy(bed: &Bed, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| bed.client()).collect();
    clients.iter_mut().for_each(|client| client.ok("BEGIN"));
    clients
}

#[test]
fn sessions_with_equal_names_and_other_texts_share_one_server() {
    let bed = Bed::new(1);
    let mut clients: Vec<_> = (0..4).map(|_| bed.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        prepare(client, "s", &format!("SELECT {i}"));
        prepare(client, "same", "SELECT 'same'");
    }
    for _ in 0..3 {
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(value_of(client, "s"), i.to_string());
            assert_eq!(value_of(client, "same"), "same");
        }
    }
    assert_eq!(bed.servers(), 1);
}

#[test]
fn a_statement_follows_its_session_to_any_server() {
    let bed = Bed::new(3);
    let mut client = bed.client();
    prepare(&mut client, "s", "SELECT pg_backend_pid()");
    let mut seen = Vec::new();
    for taken in 0..3 {
        let others = occupy(&bed, taken);
        client.send(&[describe(b'S', "s"), execute_named("s")].concat());
        let frames = client.until_ready();
        assert_eq!(word(&frames), "tT2DCZI");
        seen.push(frames[3].value());
        drop(others);
        wait_until("servers are free", || bed.count("state <> 'idle'") == 0);
    }
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn long_binds_stream_through_under_another_name() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    prepare(&mut client, "length", "SELECT length($1::text)");
    for len in [0, 1, 100, 2_000, 2_048, 16_384, 100_000, 3_000_000] {
        let other = occupy(&bed, len % 2);
        client.send(
            &[
                bind_with("length", &[&vec![b'x'; len]]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        let frames = client.until_ready();
        assert_eq!(frames[1].value(), len.to_string());
        drop(other);
    }
}

/// What a server says, without what differs from run to run.
fn told(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|f| f.tag != b'S').collect()
}

/// Runs the same steps on the server and through the proxy, where a neighbour has statements of the same names and texts
/// on every server, and another takes the server between two steps if it can.
#[track_caller]
fn same_as_direct(bed: &Bed, steps: &[Vec<u8>]) {
    let (mut direct, mut proxied) = (bed.direct(), bed.client());
    let mut neighbour = bed.client();
    for name in ["a", "b", "neighbour"] {
        prepare(&mut neighbour, name, "SELECT 'stranger'");
    }
    prepare(&mut neighbour, "one", "SELECT 1");
    for (i, step) in steps.iter().enumerate() {
        direct.send(step);
        proxied.send(step);
        let syncs = step_ends(step);
        for _ in 0..syncs {
            let (wanted, got) = (told(direct.until_ready()), told(proxied.until_ready()));
            assert_eq!(got, wanted, "step {i}: {}", step.escape_ascii());
        }
    }
}

/// How many ReadyForQuery come.
fn step_ends(step: &[u8]) -> usize {
    let (mut rest, mut ends) = (step, 0);
    while let [tag, a, b, c, d, ..] = rest {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        ends += usize::from(matches!(tag, b'S' | b'Q'));
        rest = &rest[len..];
    }
    ends
}

macro_rules! steps {
    ($($($message:expr),+);+ $(;)?) => {
        &[$([$(Vec::from($message)),+].concat()),+]
    };
}

#[test]
fn names_in_use_are_refused_as_postgresql_refuses_them() {
    let bed = Bed::new(2);
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT 1"), sync();
            parse("a", "SELECT 2"), sync();
            parse("a", "SELEC 2"), sync();
            parse("a", "SELECT missing"), sync();
            execute_named("a");
            parse("a", "SELECT 2"), parse("b", "SELECT 3"), sync();
            execute_named("b");
            parse("b", "SELECT 3"), bind("", "b"), execute("", 0), sync();
            close(b'S', "a"), parse("a", "SELECT 4"), bind("", "a"), execute("", 0), sync();
            execute_named("a");
            execute_named("neighbour");
            describe(b'S', "neighbour"), sync();
            close(b'S', "neighbour"), sync();
        ],
    );
}

#[test]
fn a_parse_that_failed_or_was_skipped_leaves_its_name_free() {
    let bed = Bed::new(2);
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT missing"), sync();
            execute_named("a");
            parse("a", "SELECT 1"), sync();
            execute_named("a");
            execute("missing", 0), parse("b", "SELECT 2"), sync();
            describe(b'S', "b"), sync();
            parse("b", "SELECT 2"), sync();
            execute_named("b");
            // A Close that was skipped.
            execute("missing", 0), close(b'S', "a"), sync();
            execute_named("a");
            execute("missing", 0), close(b'S', "a"), parse("a", "SELECT 3"), sync();
            execute_named("a");
            close(b'S', "a"), parse("a", "SELECT missing"), sync();
            execute_named("a");
            // Two in a batch, the second of which fails.
            parse("c", "SELECT 5"), parse("d", "SELECT missing"), sync();
            execute_named("c");
            execute_named("d");
        ],
    );
}

#[test]
fn pipelined_batches_see_what_the_ones_before_them_did() {
    let bed = Bed::new(2);
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT missing"), sync(), parse("a", "SELECT 1"), sync(),
                execute_named("a"), execute_named("b");
            execute("missing", 0), parse("b", "SELECT 2"), sync(), execute_named("b"),
                parse("b", "SELECT 2"), sync(), execute_named("b");
            close(b'S', "a"), sync(), execute_named("a"), parse("a", "SELECT 3"), sync(),
                close(b'S', "a"), parse("a", "SELECT 4"), sync(), execute_named("a");
            query("BEGIN; SELECT 1/0"), parse("one", "SELECT 1"), sync(), query("ROLLBACK"),
                parse("one", "SELECT 1"), sync(), execute_named("one");
        ],
    );
}

#[test]
fn failed_transactions_refuse_what_they_refuse_and_nothing_else() {
    let bed = Bed::new(2);
    same_as_direct(
        &bed,
        steps![
            parse("rollback", "ROLLBACK"), sync();
            parse("a", "SELECT 1"), sync();
            query("BEGIN");
            query("SELECT 1/0");
            parse("one", "SELECT 1"), sync();
            parse("a", "SELECT 1"), sync();
            execute_named("a");
            close(b'S', "a"), sync();
            execute_named("one");
            execute_named("rollback");
            execute_named("a");
            parse("one", "SELECT 1"), sync();
            execute_named("one");
            parse("a", "SELECT 2"), bind("", "a"), execute("", 0), sync();
        ],
    );
}

#[test]
fn portals_outlive_the_statements_name() {
    let bed = Bed::new(2);
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT generate_series(1, 3)"), bind("p", "a"), close(b'S', "a"),
                execute("p", 1), execute("p", 0), describe(b'P', "p"), close(b'P', "p"), sync();
            query("BEGIN");
            parse("a", "SELECT generate_series(1, 3)"), bind("p", "a"), execute("p", 1), sync();
            execute("p", 1), sync();
            query("COMMIT");
            execute("p", 1), sync();
        ],
    );
}

#[test]
fn names_are_what_postgresql_takes_them_for() {
    let bed = Bed::new(2);
    let long = "n".repeat(70);
    let equal = format!("{}other", &long[..63]);
    same_as_direct(
        &bed,
        steps![
            parse(&long, "SELECT 1"), sync();
            execute_named(&equal);
            parse(&equal, "SELECT 2"), sync();
            close(b'S', &equal), sync();
            execute_named(&long);
            execute_named("pgsluice_1");
        ],
    );
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT 1"), sync();
            parse("ä", "SELECT 2"), sync();
            execute_named("ä");
            execute_named("a");
        ],
    );
}

#[test]
fn errors_name_the_statement_as_the_client_does() {
    let bed = Bed::new(1);
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT $1::int"), sync();
            execute_named("a");
            parse("b", "SELECT $1::int"), bind("", "b"), sync();
        ],
    );
}

#[test]
fn sql_sees_the_sessions_statements_by_their_names_and_no_others() {
    let bed = Bed::new(2);
    let list = "SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY name";
    let start = || {
        [
            parse("a", "SELECT 1"),
            parse("b", "SELECT $1::text || 'b'"),
            sync(),
        ]
        .concat()
    };
    same_as_direct(
        &bed,
        steps![start(); query(list); execute_named("a"); query(list)],
    );
    let by_age = "SELECT name FROM pg_prepared_statements ORDER BY prepare_time";
    let many: Vec<_> = (0..20)
        .map(|n| parse(&format!("n{}", n * 7 % 20), "SELECT 1"))
        .collect();
    same_as_direct(&bed, steps![many.concat(), sync(); query(by_age)]);
    same_as_direct(
        &bed,
        steps![
            start();
            query("EXECUTE a");
            query("EXECUTE b('x')");
            query("EXPLAIN EXECUTE a");
            query("DEALLOCATE a");
            execute_named("a");
            parse("a", "SELECT 2"), sync();
            execute_named("a");
            query("EXECUTE a");
            query("PREPARE a AS SELECT 3");
            query("PREPARE c AS SELECT 3");
            execute_named("c");
            parse("c", "SELECT 4"), sync();
        ],
    );
    same_as_direct(
        &bed,
        steps![query("EXECUTE a"); query("PREPARE b AS SELECT 1"); query(list)],
    );
    same_as_direct(
        &bed,
        steps![
            start();
            parse("", "EXECUTE a"), bind("", ""), execute("", 0), sync();
        ],
    );
    same_as_direct(
        &bed,
        steps![start(), query("BEGIN"), query("EXECUTE a"), query("COMMIT")],
    );
}

#[test]
fn deallocate_all_and_discard_all_drop_protocol_level_statements() {
    let bed = Bed::new(2);
    for all in ["DEALLOCATE ALL", "deallocate prepare all;", "DISCARD ALL"] {
        same_as_direct(
            &bed,
            steps![
                parse("a", "SELECT 1"), sync();
                execute_named("a");
                query(all);
                execute_named("a");
                parse("a", "SELECT 2"), sync();
                execute_named("a");
                query(all), parse("a", "SELECT 3"), sync(), execute_named("a");
                query(all), execute_named("a");
                // What is waited for comes only if it is asked for.
                query(all), close(b'P', "p"), bind("", "a"), execute("", 0), sync();
                parse("", all), bind("", ""), execute("", 0), sync();
                execute_named("a");
            ],
        );
    }
    same_as_direct(
        &bed,
        steps![
            parse("a", "SELECT 1"), sync();
            query("BEGIN");
            query("SELECT 1/0");
            query("DEALLOCATE ALL");
            query("ROLLBACK");
            execute_named("a");
        ],
    );
    // The neighbour's copy on that server went, too.
    let (mut client, mut other) = (bed.client(), bed.client());
    prepare(&mut other, "a", "SELECT 'other'");
    client.ok("DEALLOCATE ALL");
    drop(client);
    assert_eq!(value_of(&mut other, "a"), "other");
}

#[test]
fn more_statements_than_a_server_keeps_are_all_there() {
    let bed = Bed::new(1);
    let (mut many, mut few) = (bed.client(), bed.client());
    prepare(&mut few, "s", "SELECT 'few'");
    let names: Vec<_> = (0..600).map(|i| format!("s{i}")).collect();
    let all: Vec<u8> = names
        .iter()
        .flat_map(|name| parse(name, &format!("SELECT '{name}'")))
        .collect();
    assert!(many.word(&[all, sync()].concat()).ends_with("1ZI"));
    for round in 0..2 {
        for name in names.iter().skip(round).step_by(7) {
            assert_eq!(value_of(&mut many, name), *name);
        }
        assert_eq!(value_of(&mut few, "s"), "few");
    }
    // All in one batch, of which the first are evicted again while it runs.
    let batch: Vec<u8> = names
        .iter()
        .flat_map(|name| [bind("", name), execute("", 0)].concat())
        .collect();
    many.send(&[batch, sync()].concat());
    let frames = many.until_ready();
    let values = frames.iter().filter(|f| f.tag == b'D').map(Frame::value);
    assert_eq!(values.collect::<Vec<_>>(), names);
    assert_eq!(bed.servers(), 1);
}

#[test]
fn a_session_with_more_statements_than_are_kept_has_a_server_to_itself() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    for i in 0..1100 {
        client.send(&[parse(&format!("s{i}"), &format!("SELECT {i}")), sync()].concat());
    }
    for _ in 0..1100 {
        assert_eq!(word(&client.until_ready()), "1ZI");
    }
    let others = occupy(&bed, 1);
    for i in [0, 999, 1000, 1099] {
        assert_eq!(value_of(&mut client, &format!("s{i}")), i.to_string());
    }
    drop(others);
}

#[test]
fn a_lost_server_takes_no_statement_with_it() {
    let server = shared();
    let forwarder = Forwarder::start(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mut node = server.node("pg1");
    node.port = forwarder.addr.port();
    let bed = Bed::start(server, config(vec![node], 2));
    let mut client = bed.client();
    prepare(&mut client, "s", "SELECT 7");
    prepare(&mut client, "rollback", "ROLLBACK");
    forwarder.cut();
    assert_eq!(value_of(&mut client, "s"), "7");
    client.ok("BEGIN");
    assert_eq!(value_of(&mut client, "s"), "7");
    forwarder.cut();
    assert_eq!(client.word(&execute_named("s")), "E[40001]ZE");
    assert_eq!(client.word(&execute_named("s")), "E[25P02]ZE");
    // A statement that was prepared, and one that is prepared now, while there is no server.
    assert_eq!(client.word(&execute_named("rollback")), "2CZI");
    assert_eq!(value_of(&mut client, "s"), "7");
    client.ok("BEGIN");
    forwarder.cut();
    assert_eq!(client.word(&query("SELECT 1")), "E[40001]ZE");
    let late = [
        parse("late", "ROLLBACK"),
        bind("", "late"),
        execute("", 0),
        sync(),
    ]
    .concat();
    assert_eq!(client.word(&late), "12CZI");
    assert_eq!(client.word(&execute_named("late")), "2NCZI");
}

#[test]
fn a_new_statement_sees_the_schema_that_others_have_changed() {
    let bed = Bed::new(2);
    bed.sql("SET ROLE app; CREATE TABLE t (a int)");
    let (mut ddl, mut old, mut new) = (bed.client(), bed.client(), bed.client());
    let described = [describe(b'S', "s"), sync()].concat();
    let parameter_type = |client: &mut Client| {
        client.send(&described);
        let frames = client.until_ready();
        assert_eq!(word(&frames), "tTZI");
        u32::from_be_bytes(frames[0].body[2..6].try_into().unwrap())
    };
    let text = "SELECT a FROM t WHERE a = $1";
    for client in [&mut old, &mut new] {
        prepare(client, "s", text);
    }
    assert_eq!(parameter_type(&mut new), 23);
    for (begin, end) in [("SELECT 1", "SELECT 1"), ("BEGIN", "COMMIT")] {
        ddl.ok(begin);
        ddl.ok("ALTER TABLE t ALTER a TYPE text");
        ddl.ok(end);
        assert_eq!(new.word(&[close(b'S', "s"), sync()].concat()), "3ZI");
        prepare(&mut new, "s", text);
        assert_eq!(parameter_type(&mut new), 25);
        ddl.ok("ALTER TABLE t ALTER a TYPE int USING a::int");
        assert_eq!(new.word(&[close(b'S', "s"), sync()].concat()), "3ZI");
        prepare(&mut new, "s", text);
        assert_eq!(parameter_type(&mut new), 23);
    }
    assert_eq!(parameter_type(&mut old), 23);
}

#[test]
fn the_time_of_a_parse_is_nobody_elses() {
    let bed = Bed::new(1);
    let text = "SELECT extract(epoch FROM 'now'::timestamptz)";
    let (mut first, mut second) = (bed.client(), bed.client());
    prepare(&mut first, "s", text);
    let of_first = value_of(&mut first, "s");
    prepare(&mut second, "s", text);
    assert_ne!(value_of(&mut second, "s"), of_first);
    assert_eq!(value_of(&mut first, "s"), of_first);
    assert_eq!(
        first.word(&[close(b'S', "s"), parse("s", text), sync()].concat()),
        "31ZI"
    );
    assert_ne!(value_of(&mut first, "s"), of_first);
}

#[test]
fn what_a_statement_leaves_behind_counts_whenever_it_is_executed() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    prepare(&mut client, "set", "SET work_mem = '1MB'");
    let other = occupy(&bed, 1);
    assert_eq!(client.word(&execute_named("set")), "2CZI");
    drop(other);
    for _ in 0..3 {
        let other = occupy(&bed, 1);
        assert_eq!(client.value("SHOW work_mem"), "1MB");
        drop(other);
    }
    assert_eq!(bed.client().value("SHOW work_mem"), "4MB");
}

#[test]
fn a_statement_that_was_refused_once_is_not_refused_for_ever() {
    let bed = Bed::new(1);
    bed.sql("SET ROLE app; CREATE SEQUENCE q");
    let mut client = bed.client();
    prepare(&mut client, "current", "SELECT currval('q')");
    bed.client().value("SELECT nextval('q')");
    assert_eq!(client.word(&execute_named("current")), "2E[55000]ZI");
    assert_eq!(client.value("SELECT nextval('q')"), "2");
    assert_eq!(value_of(&mut client, "current"), "2");
}

#[test]
fn pgbench_with_prepared_statements_runs_eight_clients_on_two_servers() {
    let bed = Bed::new(2);
    let pgbench = |args: &[&str]| {
        let port = bed.addr.port().to_string();
        let mut command = Command::new(crate::nodes::system_bin().join("pgbench"));
        command.args(["-h", &bed.addr.ip().to_string(), "-p", &port, "-U", USER]);
        let output = command.args(args).arg(&bed.database).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
    };
    pgbench(&["-i", "-q"]);
    // A thread each: it waits for the answer to a Parse, and serves no other client meanwhile.
    pgbench(&[
        "-M", "prepared", "-S", "-c", "8", "-j", "8", "-t", "50", "-n",
    ]);
    pgbench(&[
        "-M", "prepared", "-N", "-c", "8", "-j", "8", "-t", "20", "-n",
    ]);
    assert_eq!(bed.servers(), 2);
}

/// As PHP's PDO does whenever it has done with a statement.
#[test]
fn deallocate_of_a_carried_statement_keeps_no_server() {
    let bed = Bed::new(1);
    same_as_direct(
        &bed,
        steps![
            parse("pdo_stmt_1", "SELECT 1"), sync();
            query("DEALLOCATE pdo_stmt_1");
            execute_named("pdo_stmt_1");
            query("DEALLOCATE pdo_stmt_1");
            parse("pdo_stmt_1", "SELECT 2"), sync();
            query("BEGIN");
            query("DEALLOCATE PREPARE \"pdo_stmt_1\"");
            query("ROLLBACK");
            execute_named("pdo_stmt_1");
            parse("pdo_stmt_2", "SELECT 2"), sync(), query("DEALLOCATE pdo_stmt_2"), execute_named("pdo_stmt_2");
            parse("pdo_stmt_3", "SELECT 3"), sync();
            query("BEGIN");
            query("SELECT 1/0");
            query("DEALLOCATE pdo_stmt_3");
            query("ROLLBACK");
            execute_named("pdo_stmt_3");
        ],
    );
    let (mut one, mut other) = (bed.client(), bed.client());
    for round in 0..3 {
        for client in [&mut one, &mut other] {
            prepare(client, "s", &format!("SELECT {round}"));
            assert_eq!(value_of(client, "s"), round.to_string());
        }
        for client in [&mut one, &mut other] {
            client.ok("DEALLOCATE s");
            assert_eq!(client.word(&execute_named("s")), "E[26000]ZI");
        }
    }
}

#[test]
fn rows_that_have_come_to_have_other_types_are_refused_wherever_the_session_is() {
    let bed = Bed::new(2);
    bed.sql(
        "SET ROLE app; CREATE TABLE t (a int); INSERT INTO t VALUES (7); CREATE TABLE other ()",
    );
    let mut ddl = bed.client();
    let error = |frames: &[Frame]| {
        let error = frames.iter().find(|f| f.tag == b'E').unwrap();
        [b'S', b'V', b'C', b'M', b'R'].map(|field| error.field(field))
    };
    for unrelated in ["ALTER TABLE other ADD b int", "ALTER TABLE t ADD b int"] {
        // On its own server, direct, and on another one through the proxy.
        let (mut direct, mut proxied) = (bed.direct(), bed.client());
        let start = [parse("s", "SELECT a FROM t"), describe(b'S', "s"), sync()].concat();
        for client in [&mut direct, &mut proxied] {
            assert_eq!(client.word(&start), "1tTZI");
            assert_eq!(value_of(client, "s"), "7");
        }
        ddl.ok(unrelated);
        let other = occupy(&bed, 1);
        for _ in 0..2 {
            assert_eq!(value_of(&mut proxied, "s"), "7");
            assert_eq!(value_of(&mut direct, "s"), "7");
        }
        drop(other);
        wait_until("servers are free", || bed.count("state <> 'idle'") == 0);
        ddl.ok("ALTER TABLE t ALTER a TYPE text");
        let other = occupy(&bed, 1);
        for _ in 0..2 {
            direct.send(&execute_named("s"));
            proxied.send(&execute_named("s"));
            let (wanted, got) = (direct.until_ready(), proxied.until_ready());
            assert_eq!(word(&got), word(&wanted));
            assert_eq!(error(&got), error(&wanted));
        }
        let again = [close(b'S', "s"), sync(), start].concat();
        proxied.send(&again);
        assert_eq!(word(&proxied.until_ready()), "3ZI");
        assert_eq!(word(&proxied.until_ready()), "1tTZI");
        assert_eq!(value_of(&mut proxied, "s"), "7");
        drop(other);
        ddl.ok("ALTER TABLE t ALTER a TYPE int USING a::int");
        drop((direct, proxied));
        wait_until("servers are free", || bed.count("state <> 'idle'") == 0);
    }
}
