//! What texts leave behind in a session: the table that `route::effects` is held to.
//!
//! "Free" must be true for every version and every schema; a pin that is not needed is allowed, but not on what
//! applications send every day, so those statements are in the table of free ones.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use pgsluice::route::{
    Context, Encoding,
    effects::{Access, Count, Effects, Kind, PinReason, TxControl, effects},
};

#[path = "effects/free.rs"]
mod free;
#[path = "effects/pinned.rs"]
mod pinned;

/// Counts what this thread allocates.
struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: hands everything to the system's allocator; the counter is plain data that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn read(text: &str) -> Effects {
    effects(text.as_bytes(), &Context::default())
}

/// Why the session cannot just go on elsewhere: a pin, or settings that must be carried.
fn kept_by(effects: Effects) -> Option<PinReason> {
    let changed = (!effects.changes.is_none()).then_some(PinReason::Set);
    effects.pin.or(changed)
}

fn kept(text: &str) -> Option<PinReason> {
    kept_by(read(text))
}

#[test]
fn plain_statements_leave_nothing_behind() {
    for text in free::FREE {
        assert_eq!(kept(text), None, "{text}");
    }
}

#[test]
fn what_stays_behind_or_is_not_recognised_pins_with_its_reason() {
    for (reason, text) in pinned::PINNED {
        assert_eq!(kept(text), Some(*reason), "{text}");
    }
}

/// A pin is found wherever it stands among several statements, and free ones stay free together.
#[test]
fn several_statements_are_read_as_each_alone() {
    for (reason, text) in pinned::PINNED {
        // What has no end swallows the rest.
        if !pinned::UNTERMINATED.contains(text) {
            let followed = format!("{text}\n; SELECT 1");
            assert_eq!(kept(&followed), Some(*reason), "{followed}");
        }
        let later = format!("SELECT 1; ;; {text}");
        assert_eq!(kept(&later), Some(*reason), "{later}");
    }
    for text in free::FREE {
        let thrice = format!("{text}\n;{text}\n;{text}");
        assert_eq!(kept(&thrice), None, "{thrice}");
        let followed = format!("{text}\n;SET x = 1");
        assert_eq!(kept(&followed), Some(PinReason::Set), "{followed}");
    }
}

/// Case, comments and line ends change nothing.
#[test]
fn spelling_changes_nothing() {
    for text in free::FREE {
        let spaced = format!("/* a /* b */ c */ -- d\n\t{text} -- e");
        assert_eq!(kept(&spaced), None, "{spaced}");
        if !text.contains(['\'', '"', '$']) {
            assert_eq!(kept(&text.to_ascii_uppercase()), None, "{text}");
        }
    }
    for (reason, text) in pinned::PINNED {
        if !text.contains(['"', '\'']) {
            let upper = text.to_ascii_uppercase();
            assert_eq!(kept(&upper), Some(*reason), "{upper}");
        }
    }
}

/// Cut anywhere, a text is read without harm; what has become an error may pin or not.
#[test]
fn cut_texts_are_read_without_a_panic() {
    let pinned = pinned::PINNED.iter().map(|(_, text)| text);
    for text in free::FREE.iter().chain(pinned) {
        for end in 0..=text.len() {
            effects(&text.as_bytes()[..end], &Context::default());
            effects(&text.as_bytes()[end..], &Context::default());
        }
    }
}

#[test]
fn transaction_control_is_told() {
    use TxControl as T;
    let begin = |access, serializable| T::Begin {
        access,
        serializable,
    };
    let (default, read_only, read_write) = (Access::Default, Access::ReadOnly, Access::ReadWrite);
    for (text, control) in [
        ("BEGIN", begin(default, false)),
        ("begin work", begin(default, false)),
        ("START TRANSACTION READ ONLY", begin(read_only, false)),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE",
            begin(read_write, true),
        ),
        (
            "BEGIN TRANSACTION READ ONLY ISOLATION LEVEL SERIALIZABLE",
            begin(read_only, true),
        ),
        ("COMMIT", T::Commit),
        ("END TRANSACTION", T::Commit),
        ("COMMIT WORK AND NO CHAIN", T::Commit),
        ("COMMIT AND CHAIN", T::CommitAndChain),
        ("END TRANSACTION AND CHAIN", T::CommitAndChain),
        ("COMMIT PREPARED 'x'", T::CommitPrepared),
        ("ROLLBACK", T::Rollback),
        ("ABORT", T::Rollback),
        ("ROLLBACK AND CHAIN", T::RollbackAndChain),
        ("ABORT WORK AND CHAIN", T::RollbackAndChain),
        ("ROLLBACK TO a", T::RollbackTo),
        ("ROLLBACK TRANSACTION TO SAVEPOINT a", T::RollbackTo),
        ("ROLLBACK PREPARED 'x'", T::RollbackPrepared),
        ("SAVEPOINT a", T::Savepoint),
        ("RELEASE a", T::Release),
        ("PREPARE TRANSACTION 'x'", T::PrepareTransaction),
        ("PREPARE transaction AS SELECT 1", T::None),
        ("SELECT 1", T::None),
        ("SELECT 1 AS commit", T::None),
        ("BEGIN; SELECT 1; COMMIT; SELECT 2", T::Commit),
        ("COMMIT; BEGIN", begin(default, false)),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; SELECT 2; END; SELECT 1",
            T::None,
        ),
    ] {
        assert_eq!(read(text).control, control, "{text}");
    }
}

#[test]
fn kinds_are_told_and_the_strongest_counts() {
    let write = |insert| Kind::Write { insert };
    for (text, kind) in [
        ("", Kind::Empty),
        ("/* nothing */ ; -- at all", Kind::Empty),
        ("SELECT 1", Kind::Read),
        ("(SELECT 1)", Kind::Read),
        ("SHOW ALL", Kind::Read),
        ("EXPLAIN SELECT 1", Kind::Read),
        ("EXPLAIN ANALYZE DELETE FROM t", write(false)),
        ("SELECT * FROM t FOR UPDATE", write(false)),
        ("SELECT * FROM t FOR NO KEY UPDATE", write(false)),
        ("SELECT * FROM t FOR KEY SHARE", write(false)),
        ("INSERT INTO t VALUES (1)", write(true)),
        (
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            write(true),
        ),
        (
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            write(false),
        ),
        ("UPDATE t SET a = 1", write(false)),
        (
            "MERGE INTO t USING s ON a = b WHEN MATCHED THEN DELETE",
            write(true),
        ),
        ("TRUNCATE t", write(false)),
        ("COPY t FROM STDIN", Kind::CopyFrom),
        ("COPY t TO STDOUT", Kind::CopyTo),
        ("COPY (SELECT a FROM t) TO STDOUT", Kind::CopyTo),
        ("SELECT 1 INTO x", Kind::Ddl),
        ("CREATE TABLE t (a int)", Kind::Ddl),
        ("BEGIN", Kind::Utility),
        ("SET x = 1", Kind::Utility),
        ("DO $$ $$", Kind::Do),
        ("CALL p()", Kind::Call),
        ("EXECUTE p", Kind::Execute),
        ("VACUUM t", Kind::OutsideTransaction),
        ("CREATE DATABASE x", Kind::OutsideTransaction),
        ("DROP DATABASE x", Kind::OutsideTransaction),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)",
            Kind::OutsideTransaction,
        ),
        ("CREATE INDEX i ON t (a)", Kind::Ddl),
        ("DROP INDEX CONCURRENTLY i", Kind::OutsideTransaction),
        ("REINDEX TABLE t", Kind::Ddl),
        ("REINDEX (VERBOSE) DATABASE d", Kind::OutsideTransaction),
        ("REINDEX TABLE CONCURRENTLY t", Kind::OutsideTransaction),
        ("CLUSTER", Kind::OutsideTransaction),
        ("CLUSTER t USING i", Kind::Ddl),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", Kind::Ddl),
        (
            "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
            Kind::OutsideTransaction,
        ),
        ("ALTER SYSTEM SET x = 1", Kind::OutsideTransaction),
        ("COMMIT PREPARED 'x'", Kind::OutsideTransaction),
        ("FROBNICATE", Kind::Unknown),
        ("SELECT 1; INSERT INTO t VALUES (1); SELECT 2", write(true)),
        ("CREATE TABLE t(); SELECT 1", Kind::Ddl),
    ] {
        assert_eq!(read(text).kind, kind, "{text}");
    }
}

#[test]
fn statements_are_counted() {
    for (text, count) in [
        ("", Count::Zero),
        (" ; ; -- x", Count::Zero),
        ("SELECT 1", Count::One),
        (";SELECT ';' || $$;$$ || \";\" ;;", Count::One),
        ("SELECT 1;SELECT 2", Count::Many),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)",
            Count::One,
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
            Count::One,
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 1",
            Count::Many,
        ),
    ] {
        assert_eq!(read(text).statements, count, "{text}");
    }
}

#[test]
fn sequences_called_by_name_are_told() {
    assert!(read("SELECT nextval('s')").advances_sequence);
    assert!(read("INSERT INTO t VALUES (pg_catalog.setval('s', 1))").advances_sequence);
    assert!(!read("SELECT 'nextval(1)', nextval FROM t").advances_sequence);
}

#[test]
fn leave_to_write_is_seen_however_it_is_asked_for() {
    for text in [
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "SET TRANSACTION READ WRITE",
        "set session characteristics as transaction isolation level serializable read write",
        "SET default_transaction_read_only = off",
        "SET LOCAL \"TRANSACTION_READ_ONLY\" TO 0",
        "RESET default_transaction_read_only",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT pg_catalog . \"set_config\" ('Transaction_Read_Only', $1, true)",
        "SELECT set_config($1, $2, true)",
        "SELECT set_config('transaction' || '_read_only', 'off', true)",
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'transaction_read_only'",
        "SELECT 1; BEGIN READ WRITE; COMMIT",
    ] {
        assert!(read(text).read_write_request, "{text}");
    }
    for text in [
        "BEGIN READ ONLY",
        "BEGIN",
        "SET default_transaction_read_only = on",
        "SELECT set_config('app.tenant', 'x', true)",
        "SELECT 'SET TRANSACTION READ WRITE'",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        assert!(!read(text).read_write_request, "{text}");
    }
}

#[test]
fn settings_that_may_be_left_changed_are_named_and_pin_nothing() {
    for (text, names) in [
        ("SET search_path TO a, b", "search_path"),
        ("SET SESSION \"Work_Mem\" = 1", "\"Work_Mem\""),
        ("SET app.tenant = '42'; SET x = 1", "app.tenant x"),
        ("SET TIME ZONE 'UTC'", "timezone"),
        ("SET ROLE x", "role"),
        ("RESET SESSION AUTHORIZATION", "session_authorization"),
        ("SET NAMES 'utf8'", "client_encoding"),
        ("SET client_encoding TO LATIN1", "client_encoding"),
        (
            "SET standard_conforming_strings = on",
            "standard_conforming_strings",
        ),
        ("SELECT set_config('app.tenant', $1, false)", "app.tenant"),
        (
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "search_path",
        ),
        ("SELECT set_config('x.y', 'z', $1)", "x.y"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "default_transaction_isolation default_transaction_read_only default_transaction_deferrable",
        ),
        ("SET transaction_isolation = 'serializable'", ""),
        ("RESET ALL", "*"),
    ] {
        let read = read(text);
        assert_eq!(read.pin, None, "{text}");
        let mut found: Vec<_> = read.changes.names(text.as_bytes()).collect();
        if read.changes.resets_all() {
            found.push(b"*");
        }
        assert_eq!(found.join(&b' '), names.as_bytes(), "{text}");
    }
    let many = "SET a.a = 1; SET a.b = 1; SET a.c = 1; SET a.d = 1; SET a.e = 1";
    assert_eq!(read(many).pin, Some(PinReason::Set));
}

#[test]
fn what_may_end_a_pin_is_seen_wherever_it_stands() {
    for text in [
        "UNLISTEN *",
        "CLOSE ALL",
        "DROP TABLE t",
        "DEALLOCATE p",
        "DISCARD TEMP",
        "SELECT pg_advisory_unlock_all()",
        "SELECT 1; SELECT pg_catalog.pg_advisory_unlock(1, 2)",
    ] {
        assert!(read(text).ends_state, "{text}");
    }
    assert!(!read("SELECT 1; LISTEN x; BEGIN; COMMIT").ends_state);
}

#[test]
fn backslashes_are_escapes_only_without_standard_conforming_strings() {
    let off = Context {
        standard_conforming_strings: false,
        ..Context::default()
    };
    for (text, on_pin, off_pin) in [
        (r"SELECT '\'; SET x = 1; --'", Some(PinReason::Set), None),
        (r"SELECT E'\'; SET x = 1; --'", None, None),
        (
            r"SELECT '\\'; SET x = 1",
            Some(PinReason::Set),
            Some(PinReason::Set),
        ),
        (r"SELECT '\'); f('", Some(PinReason::OpaqueStatement), None),
        (r"SELECT N'\'; SET x = 1; --'", Some(PinReason::Set), None),
    ] {
        assert_eq!(kept(text), on_pin, "{text}");
        assert_eq!(kept_by(effects(text.as_bytes(), &off)), off_pin, "{text}");
    }
}

#[test]
fn in_an_unsafe_encoding_only_ascii_can_be_read() {
    let context = Context {
        encoding: Encoding::Unsafe,
        ..Context::default()
    };
    // In SJIS 0x83 0x5c is one character.
    let text = b"SELECT '\x83\x5c'";
    assert_eq!(
        effects(text, &context).pin,
        Some(PinReason::OpaqueStatement)
    );
    assert_eq!(effects(b"SELECT 'x'", &context).pin, None);
}

#[test]
fn names_that_came_later_are_trusted_only_where_they_are_built_in() {
    for (text, since) in [
        ("SELECT any_value(a) FROM t", 16),
        (
            "SELECT * FROM JSON_TABLE(a, '$[*]' COLUMNS (x int PATH '$')) AS j",
            17,
        ),
        ("SELECT JSON_VALUE(a, '$')", 17),
        ("SELECT uuidv7()", 18),
    ] {
        let at = |server_major| {
            let context = Context {
                server_major,
                ..Context::default()
            };
            effects(text.as_bytes(), &context).pin
        };
        assert_eq!(at(since), None, "{text}");
        assert_eq!(at(since - 1), Some(PinReason::OpaqueFunction), "{text}");
    }
}

#[test]
fn nothing_is_allocated() {
    let pinned = pinned::PINNED.iter().map(|(_, text)| text);
    for text in free::FREE.iter().chain(pinned) {
        let before = ALLOCATIONS.get();
        read(text);
        assert_eq!(ALLOCATIONS.get(), before, "{text}");
    }
}

/// Deep, long and hostile texts take time that grows as their length does.
#[test]
fn time_is_linear_in_the_length() {
    let units = [
        "(",
        "f(",
        "a.",
        "set_config('a',",
        "+-",
        "$a",
        "/*",
        "'a'\n",
        "a,",
        "),f(a,",
        "SELECT 1;",
        "EXPLAIN ",
        "CREATE TEMP ",
        "WITH a(b) AS (",
        "$$",
        "U&\"",
        "e'",
        "b''",
        "--\n",
        "1_",
        "SET x=",
        "REINDEX ",
        "ON CONFLICT (a,",
        "$a$$b",
        "'a'--\n",
        "1.",
        "..",
        "\\",
        "CREATE SCHEMA ",
        "SET x;",
        "<+",
        "a::b(",
    ];
    for unit in units {
        for prefix in ["", "SELECT ", "INSERT INTO t SELECT 1 JOIN "] {
            let text = format!("{prefix}{}", unit.repeat(200_000 / unit.len()));
            let start = std::time::Instant::now();
            read(&text);
            // A quadratic reading takes minutes.
            assert!(
                start.elapsed().as_secs() < 5,
                "{prefix}{unit}: {:?}",
                start.elapsed()
            );
        }
    }
}
