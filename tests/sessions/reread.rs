//! Prepared statements under other settings than those of their Parse, on servers that have not seen them.

use crate::{
    bed::Bed,
    prepared::{execute_named, occupy, prepare, value_of},
    raw::{Client, Frame, bind, close, describe, execute, frame, parse, query, run, sync, word},
};

/// Prepares `s` direct and through a pool of two, where another session then takes the server, and runs the steps: all is
/// answered alike, on another server.
#[track_caller]
fn moves(sql: &str, steps: &[Vec<u8>]) {
    let bed = Bed::new(2);
    bed.sql(
        "SET ROLE app; CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 1 AS a; \
         CREATE TABLE b.t AS SELECT 'x' AS b",
    );
    let (mut direct, mut proxied) = (bed.direct(), bed.client());
    for client in [&mut direct, &mut proxied] {
        client.ok("SET search_path = a");
        prepare(client, "s", sql);
    }
    let pid = proxied.value("SELECT pg_backend_pid()");
    let mut other = bed.client();
    other.ok("SET search_path = a");
    other.ok("BEGIN");
    assert_eq!(other.value("SELECT pg_backend_pid()"), pid);
    // One after the other: each may lock what it likes.
    let wanted: Vec<_> = steps.iter().map(|step| answer(&mut direct, step)).collect();
    for (step, wanted) in steps.iter().zip(wanted) {
        let got = answer(&mut proxied, step);
        assert_eq!(got, wanted, "{}", step.escape_ascii());
    }
    assert_ne!(proxied.value("SELECT pg_backend_pid()"), pid);
}

fn answer(client: &mut Client, step: &[u8]) -> Vec<Frame> {
    client.send(step);
    client.until_ready()
}

const DATE: &str = "SELECT '01/02/2024'::date";

#[test]
fn literals_keep_the_meaning_of_their_parse_wherever_they_are_executed() {
    moves(
        DATE,
        &[
            query("SET DateStyle = 'ISO, DMY'"),
            execute_named("s"),
            [run(DATE), sync()].concat(),
        ],
    );
}

#[test]
fn settings_of_the_open_transaction_do_not_change_what_was_parsed_before() {
    moves(
        DATE,
        &[
            query("BEGIN"),
            query("SAVEPOINT pgsluice"),
            query("SET LOCAL DateStyle = 'ISO, DMY'"),
            execute_named("s"),
            query("SHOW DateStyle"),
            [run(DATE), sync()].concat(),
            query("ROLLBACK TO pgsluice"),
            query("SHOW DateStyle"),
            query("COMMIT"),
            execute_named("s"),
        ],
    );
}

#[test]
fn in_the_middle_of_a_batch_settings_are_those_of_the_parse_for_its_parse_alone() {
    let shows = run("SHOW DateStyle");
    let middle = [&shows[..], &bind("", "s"), &execute("", 0), &shows, &sync()].concat();
    moves(
        DATE,
        &[
            query("SET DateStyle = 'SQL, DMY'"),
            middle,
            query("SHOW DateStyle"),
        ],
    );
}

#[test]
fn rows_that_have_come_to_have_other_types_are_refused_without_ever_having_been_described() {
    let under_b = query("SET search_path = b");
    moves("SELECT * FROM t", &[under_b.clone(), execute_named("s")]);
    let middle = [run("SELECT 1"), bind("", "s"), execute("", 0), sync()].concat();
    moves("SELECT * FROM t", &[under_b, middle]);
}

#[test]
fn strings_are_read_as_they_were_and_nobody_is_warned_of_them_again() {
    moves(
        r"SELECT 'a\b'",
        &[
            query("SET standard_conforming_strings = off"),
            execute_named("s"),
        ],
    );
}

#[test]
fn sql_finds_a_statement_whose_tables_are_not_in_the_search_path_of_now() {
    moves(
        "SELECT * FROM t",
        &[query("SET search_path = public"), query("EXECUTE s")],
    );
}

#[test]
fn a_table_that_is_gone_fails_the_statement_and_not_what_stood_before_it() {
    moves(
        "SELECT * FROM t",
        &[
            query("SET DateStyle = 'ISO, DMY'"),
            query("BEGIN"),
            query("ALTER TABLE t RENAME TO u"),
            query("SAVEPOINT p"),
            execute_named("s"),
            query("ROLLBACK TO p"),
            query("SELECT * FROM u"),
            query("ROLLBACK"),
            execute_named("s"),
        ],
    );
}

#[test]
fn a_role_that_is_gone_does_not_keep_a_statement_from_being_read() {
    let bed = Bed::new(2);
    bed.sql("CREATE ROLE reread_gone; GRANT reread_gone TO app");
    let mut client = bed.client();
    client.ok("SET ROLE reread_gone");
    prepare(&mut client, "s", DATE);
    client.ok("RESET ROLE");
    bed.sql("DROP ROLE reread_gone");
    for taken in 0..2 {
        let others = occupy(&bed, taken);
        assert_eq!(value_of(&mut client, "s"), "2024-01-02");
        assert_eq!(client.value("SELECT current_user"), "app");
        drop(others);
    }
}

#[test]
fn a_statement_parsed_under_local_settings_is_nobody_elses() {
    let bed = Bed::new(1);
    let text = "SELECT '01/02/2024'::date::text";
    let mut local = bed.client();
    local.ok("BEGIN");
    local.ok("SET LOCAL DateStyle = 'SQL, DMY'");
    assert_eq!(local.word(&[parse("s", text), sync()].concat()), "1ZT");
    local.ok("ROLLBACK");
    drop(local);
    let mut other = bed.client();
    prepare(&mut other, "s", text);
    assert_eq!(value_of(&mut other, "s"), "2024-01-02");
}

#[test]
fn a_statement_read_again_under_other_settings_is_nobody_elses() {
    let bed = Bed::new(2);
    let text = "SELECT '01/02/2024'::date::text";
    let mut client = bed.client();
    prepare(&mut client, "s", text);
    client.ok("SET DateStyle = 'ISO, DMY'");
    let there = occupy(&bed, 1);
    // Wherever it is read now.
    value_of(&mut client, "s");
    drop((there, client));
    let mut others = occupy(&bed, 2);
    for other in &mut others {
        assert_eq!(other.word(&[parse("s", text), sync()].concat()), "1ZT");
        assert_eq!(value_of(other, "s"), "2024-01-02");
    }
}

#[test]
fn a_statement_parsed_after_a_set_in_its_transaction_keeps_no_server() {
    let bed = Bed::new(2);
    let mut client = bed.client();
    for set in [
        "SET LOCAL app.tenant = '7'",
        "SET LOCAL search_path = public",
    ] {
        client.ok("BEGIN");
        client.ok(set);
        assert_eq!(
            client.word(&[parse("s", "SELECT 1"), sync()].concat()),
            "1ZT"
        );
        client.ok("COMMIT");
        let mut others = occupy(&bed, 2);
        others.iter_mut().for_each(|other| other.ok("COMMIT"));
        assert_eq!(client.word(&[close(b'S', "s"), sync()].concat()), "3ZI");
    }
    client.ok("BEGIN");
    client.ok("SET LOCAL search_path = public");
    assert_eq!(
        client.word(&[parse("s", "SELECT 1"), sync()].concat()),
        "1ZT"
    );
    client.ok("COMMIT");
    for taken in 0..2 {
        let others = occupy(&bed, taken);
        assert_eq!(value_of(&mut client, "s"), "1");
        drop(others);
    }
}

#[test]
fn rows_of_other_types_under_another_search_path_are_refused() {
    let bed = Bed::new(2);
    bed.sql("SET ROLE app; CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 1; CREATE TABLE b.t AS SELECT 'x'");
    let mut client = bed.client();
    client.ok("SET search_path = a");
    client.send(&[parse("s", "SELECT * FROM t"), describe(b'S', "s"), sync()].concat());
    assert_eq!(word(&client.until_ready()), "1tTZI");
    client.ok("SET search_path = b");
    for taken in 0..2 {
        let others = occupy(&bed, taken);
        client.send(&execute_named("s"));
        let frames = client.until_ready();
        assert_eq!(frames[0].field(b'C'), "0A000", "{frames:?}");
        drop(others);
    }
    client.ok("SET search_path = a");
    for taken in 0..2 {
        let others = occupy(&bed, taken);
        assert_eq!(value_of(&mut client, "s"), "1");
        drop(others);
    }
}

/// Where a COPY may be open a Parse goes to the server by the client's own name: nobody else may find it there.
#[test]
fn what_one_session_named_on_a_server_the_next_does_not_find_there() {
    let bed = Bed::new(1);
    for name in ["s", "t"] {
        let (mut one, mut next) = (bed.client(), bed.client());
        prepare(&mut one, "s", DATE);
        next.ok("SET DateStyle = 'SQL, DMY'");
        one.send(&[run("SELECT 1"), parse(name, DATE), sync()].concat());
        one.until_ready();
        one.send(&[frame(b'X', &[])].concat());
        one.until_end();
        let named = [bind("", name), execute("", 0), sync()].concat();
        assert_eq!(next.word(&named), "E[26000]ZI", "{name}");
    }
}
