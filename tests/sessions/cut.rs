//! Connections that end after any byte: what is left is a pool whose servers are all clean, all known, and all in use.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::{
    bed::{self, Bed, USER, wait_until},
    cutter::{Behaviour, Direction, Forwarder},
    raw::{Client, bind, describe, execute, flush, frame, parse, query, run, startup, sync},
};

/// Servers of the pool.
const POOL: usize = 2;

/// A server's connection is cut at every so many bytes: a prime, so that all parts of messages are met.
const STEP: usize = 41;

/// Whatever a session can leave on a server, as one row; a clean server answers [`CLEAN`].
const LEFT: &str = "SELECT current_setting('work_mem'), coalesce(nullif(current_setting('my.x', true), ''), '-'), \
     current_user, current_setting('search_path'), current_setting('DateStyle'), \
     (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors WHERE name <> ''), \
     (SELECT count(*) FROM pg_listening_channels()), \
     (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
const CLEAN: &str = "4MB|-|app|\"$user\", public|ISO, MDY|0|0|0|0|0";

fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "a transaction with settings",
            [
                query("BEGIN"),
                query("SET LOCAL work_mem = '1MB'"),
                query("SET my.x = 'left'"),
                query("INSERT INTO t VALUES (1)"),
                query("SAVEPOINT s"),
                query("SELECT 1/0"),
                query("ROLLBACK TO s"),
                query("ROLLBACK"),
            ]
            .concat(),
        ),
        (
            "settings without a transaction",
            [
                query("SET work_mem = '2MB'"),
                query("SET DateStyle = 'German'"),
                query("SET search_path = nowhere"),
                query("SELECT 1"),
                query("RESET ALL"),
            ]
            .concat(),
        ),
        (
            "batches with an error and a flush",
            [
                parse("a", "SELECT $1::int"),
                describe(b'S', "a"),
                sync(),
                run("SELECT 1"),
                flush(),
                run("SELECT 1/0"),
                bind("", "a"),
                sync(),
                parse("p", "SELECT generate_series(1, 9)"),
                bind("c", "p"),
                execute("c", 2),
                flush(),
                execute("c", 0),
                sync(),
            ]
            .concat(),
        ),
        (
            "copies",
            [
                query("COPY t FROM STDIN"),
                frame(b'd', b"1\n"),
                frame(b'd', b"2\n"),
                frame(b'f', b"no\0"),
                query("COPY (SELECT generate_series(1, 30)) TO STDOUT"),
            ]
            .concat(),
        ),
        (
            "what pins",
            [
                query("CREATE TEMP TABLE own (i int)"),
                query("LISTEN ear"),
                query("SELECT pg_advisory_lock(5)"),
                query("DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
                query("PREPARE p AS SELECT 1"),
                query("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "another role, then a block that nobody can see into",
            [
                query("SET ROLE cut_other"),
                query("DO $$ BEGIN PERFORM set_config('my.x', 'hidden', false); END $$"),
                query("SELECT current_user"),
                frame(b'X', b""),
            ]
            .concat(),
        ),
    ]
}

struct Cut {
    bed: Bed,
}

impl Cut {
    fn new() -> Cut {
        Cut::of(Bed::new(POOL))
    }

    fn of(bed: Bed) -> Cut {
        bed.sql("SET ROLE app; CREATE TABLE t (i int)");
        // Roles are the whole cluster's, and the shared server serves every test.
        bed.sql(
            "DO $$ BEGIN CREATE ROLE cut_other; GRANT cut_other TO app; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        );
        Cut { bed }
    }

    /// As many sessions as the pool has servers, and one that waits, each find a clean one.
    #[track_caller]
    fn check(&self, what: &str) {
        let mut holders: Vec<_> = (0..POOL).map(|_| self.bed.client()).collect();
        for holder in &mut holders {
            holder.ok("BEGIN");
            assert_eq!(row(holder, LEFT), CLEAN, "{what}");
        }
        let mut waiter = self.bed.client();
        waiter.send(&query("SELECT 'served'"));
        for holder in &mut holders {
            holder.ok("COMMIT");
        }
        assert_eq!(crate::raw::word(&waiter.until_ready()), "TDCZI", "{what}");
        assert_eq!(self.bed.sql("SELECT count(*) FROM t"), "0", "{what}");
        // A client that had to wait may have been served since, and have ended a server with what it left there.
        wait_until("no server too many, none in a transaction", || {
            let (all, idle) = (self.bed.servers(), self.bed.count("state = 'idle'"));
            all <= POOL && idle == all
        });
    }
}

/// A row's columns.
fn row(client: &mut Client, sql: &str) -> String {
    client.send(&query(sql));
    let frames = client.until_ready();
    let found = frames.iter().find(|f| f.tag == b'D');
    let body = &found.unwrap_or_else(|| panic!("{sql}: {frames:?}")).body;
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk() {
        let (value, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        columns.push(String::from_utf8_lossy(value).into_owned());
        rest = tail;
    }
    columns.join("|")
}

/// The client's connection ends after so many bytes of `said`; whatever came until then is not waited for.
fn leave_after(bed: &Bed, said: &[u8]) {
    let mut client = bed.client();
    client.send(said);
    client.cut();
}

#[test]
fn a_client_that_ends_after_any_byte_leaves_every_server_clean() {
    let cut = Cut::new();
    for (name, bytes) in conversations() {
        for at in 0..=bytes.len() {
            leave_after(&cut.bed, &bytes[..at]);
            // The whole check after every few bytes: several remnants at once are harder, not easier.
            if at % 5 == 0 {
                cut.check(&format!("{name}, cut after {at} bytes"));
            }
        }
        cut.check(name);
    }
}

#[test]
fn a_login_that_ends_after_any_byte_leaves_nothing() {
    let cut = Cut::new();
    let packet = startup(&[("user", USER), ("database", &cut.bed.database)]);
    for at in 0..=packet.len() {
        let mut stream = std::net::TcpStream::connect(cut.bed.addr).unwrap();
        stream.write_all(&packet[..at]).unwrap();
    }
    cut.check("logins");
}

/// Reads until nothing more comes: what was to be cut is cut by then, or never will be.
fn listen(client: &mut Client) {
    const QUIET: Duration = Duration::from_millis(30);
    client.stream.set_read_timeout(Some(QUIET)).unwrap();
    while matches!(client.stream.read(&mut [0; 4096]), Ok(1..)) {}
}

/// Bytes that servers are sent (then: that they send) before their connections end. Probes go the same way, and are not
/// cut: a primary whose probes end is no primary until one gets through.
#[test]
fn a_server_that_ends_after_any_byte_is_replaced_by_a_clean_one() {
    let server = bed::shared();
    let forwarder = Forwarder::to_as(server.port, USER);
    let mut node = server.node("pg1");
    node.port = forwarder.port();
    let cut = Cut::of(Bed::start(server, bed::config(vec![node], POOL)));
    for (name, bytes) in conversations() {
        for (direction, limit) in [
            (Direction::ToServer, bytes.len()),
            (Direction::ToClient, 2 * bytes.len()),
        ] {
            for at in (0..limit).step_by(STEP) {
                let mut client = cut.bed.client();
                client.ok("SELECT 1");
                forwarder.set(direction, Behaviour::CutAfter(at));
                client.send(&bytes);
                listen(&mut client);
                forwarder.cut();
                forwarder.set(direction, Behaviour::Pass);
                client.cut();
                cut.check(&format!("{name}, {direction:?} cut after {at} bytes"));
            }
        }
    }
}
