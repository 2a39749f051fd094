//! What drivers and frameworks say by habit, as their sources and documentation have it: none of it keeps a server, and
//! all of it stays in force.

use crate::{
    bed::Bed,
    raw::{Client, bind, close, describe, execute, flush, parse, query, sync},
};

/// What one says at its start, what it asks now and then, and what it says before its connection is used by another
/// part of the application.
struct Habit {
    name: &'static str,
    start: &'static [&'static str],
    /// A setting, and what it is after `between`.
    holds: (&'static str, &'static str),
    between: &'static [&'static str],
}

const HABITS: &[Habit] = &[
    Habit {
        name: "Rails",
        start: &[
            "SET client_min_messages TO 'warning'",
            "SET standard_conforming_strings = on",
            "SET intervalstyle = iso_8601",
            "SET SESSION timezone TO 'UTC'",
            "SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ('int2', 'int4')",
        ],
        holds: ("intervalstyle", "iso_8601"),
        between: &["SHOW max_identifier_length", "SELECT 1"],
    },
    Habit {
        name: "Django",
        start: &[
            "SELECT set_config('TimeZone', 'Europe/Berlin', false)",
            "SET default_transaction_isolation TO 'repeatable read'",
        ],
        holds: ("timezone", "Europe/Berlin"),
        between: &["SELECT 1"],
    },
    Habit {
        name: "JDBC",
        start: &[
            "SET extra_float_digits = 3",
            "SET application_name = 'PostgreSQL JDBC Driver'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        ],
        holds: ("default_transaction_read_only", "on"),
        between: &["SHOW TRANSACTION ISOLATION LEVEL"],
    },
    Habit {
        name: "Npgsql",
        start: &["SET statement_timeout = 30000", "SELECT version()"],
        holds: ("statement_timeout", "0"),
        between: &["DISCARD ALL"],
    },
    Habit {
        name: "asyncpg",
        start: &["SET jit = off"],
        holds: ("jit", "on"),
        between: &["SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"],
    },
    Habit {
        name: "Hasura and PostgREST",
        start: &["SET search_path = 'pg_catalog'"],
        holds: ("search_path", "pg_catalog"),
        between: &[
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
            "SELECT set_config('search_path', 'public', true), set_config('request.jwt.claims', '{}', true)",
            "COMMIT",
        ],
    },
];

#[test]
fn what_frameworks_say_by_habit_stays_in_force_and_keeps_no_server() {
    let bed = Bed::new(1);
    let mut stranger = bed.client();
    for habit in HABITS {
        let mut client = bed.client();
        for sql in habit.start {
            client.ok(sql);
            stranger.ok("SELECT 1");
        }
        for round in 0..2 {
            for sql in habit.between {
                client.ok(sql);
            }
            // There is one server: it has been given back.
            stranger.ok("SELECT 1");
            let (name, value) = habit.holds;
            assert_eq!(
                client.value(&format!("SHOW {name}")),
                value,
                "{}, {round}",
                habit.name
            );
        }
        assert_eq!(
            stranger.value("SHOW timezone"),
            bed.sql("SHOW timezone"),
            "{}",
            habit.name
        );
    }
}

/// JDBC names a statement at its fifth use, describes the portal and closes what it evicts; Npgsql describes at once.
#[test]
fn statements_named_described_and_closed_by_drivers_keep_no_server() {
    let bed = Bed::new(1);
    let mut clients: Vec<Client> = (0..3).map(|_| bed.client()).collect();
    for round in 0..4 {
        for (who, client) in clients.iter_mut().enumerate() {
            let sql = format!("SELECT {who} + {round}");
            let first = [
                parse("S_1", &sql),
                bind("", "S_1"),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ];
            assert_eq!(client.word(&first.concat()), "12TDCZI");
        }
        for client in &mut clients {
            let again = [bind("", "S_1"), execute("", 0), close(b'S', "S_1"), sync()];
            assert_eq!(client.word(&again.concat()), "2DC3ZI");
            assert_eq!(
                client.word(&[describe(b'S', "S_1"), sync()].concat()),
                "E[26000]ZI"
            );
        }
    }
    let npgsql = [
        parse("_p1", "SELECT 1"),
        describe(b'S', "_p1"),
        flush(),
        sync(),
    ]
    .concat();
    for client in &mut clients {
        assert_eq!(client.word(&npgsql), "1tTZI");
        client.send(&query("DISCARD ALL"));
        client.until_ready();
        assert_eq!(client.word(&npgsql), "1tTZI");
    }
}
