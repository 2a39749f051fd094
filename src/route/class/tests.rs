//! Tables of texts and their classes.

use super::*;

fn class(text: &str) -> Class {
    let context = Context {
        server_major: 18,
        ..Context::default()
    };
    let effects = effects_among(text.as_bytes(), &context, Names::BuiltIn);
    class_of(text.as_bytes(), &effects, &context, Names::BuiltIn)
}

#[test]
fn what_names_only_built_in_functions_runs_anywhere() {
    for text in [
        "",
        " ; ",
        "select 1",
        "SELECT 1 AS one, now(), $1::int",
        "select lower('A') || upper($1) is distinct from 'b'",
        "values (1, random()), (2, clock_timestamp())",
        "select 1; select 2",
        "(select 1) union all (select 2)",
        "explain select 1",
        "explain (analyze, costs off) select 1",
        "copy (select 1) to stdout",
        "select current_setting('app.tenant', true)",
        "select age('2020-01-01'::timestamp)",
        "select pg_catalog.lower('x')",
    ] {
        assert_eq!(class(text), Class::READ, "{text}");
    }
}

#[test]
fn what_is_no_proven_read_stays_on_the_primary_and_says_why() {
    for (text, reason, object) in [
        ("select f(1)", Reason::NoCatalogue, ""),
        ("select * from t", Reason::NoCatalogue, "t"),
        ("table t", Reason::NoCatalogue, "t"),
        ("select '(1,2)'::complex", Reason::NoCatalogue, "complex"),
        ("select txid_current()", Reason::Function, "txid_current"),
        (
            "select (1).pg_xact_status",
            Reason::Function,
            "pg_xact_status",
        ),
        ("select version()", Reason::Function, "version"),
        ("select system_user", Reason::Function, "system_user"),
        (
            "select current_setting('port')",
            Reason::Setting,
            "current_setting",
        ),
        (
            "select current_setting($1)",
            Reason::Setting,
            "current_setting",
        ),
        ("select age('3'::xid)", Reason::Function, "age"),
        (
            "select pg_advisory_xact_lock(1)",
            Reason::Function,
            "pg_advisory_xact_lock",
        ),
        (
            "select pg_advisory_lock(1)",
            Reason::Function,
            "pg_advisory_lock",
        ),
        (
            "select pg_advisory_unlock(1)",
            Reason::Function,
            "pg_advisory_unlock",
        ),
        ("select nextval('s')", Reason::Sequence, "nextval"),
        ("select currval('s')", Reason::Sequence, "currval"),
        ("select setseed(0.5)", Reason::Function, "setseed"),
        (
            "select set_config('a.b', 'c', false)",
            Reason::Setting,
            "set_config",
        ),
        ("select 1 for update", Reason::Locking, ""),
        ("select 1 into x", Reason::Into, ""),
        (
            "with w as (insert into t values (1)) select 1",
            Reason::Write,
            "",
        ),
        ("insert into t values (1)", Reason::Write, ""),
        ("select 1; delete from t", Reason::Write, ""),
        ("explain update t set a = 1", Reason::Write, ""),
        ("show timezone", Reason::Setting, "show"),
        ("select 1; show timezone", Reason::Setting, "show"),
        ("set a.b = 'c'", Reason::Setting, ""),
        ("fetch 1 from c", Reason::Utility, "fetch"),
        ("begin", Reason::Transaction, ""),
        ("begin; select 1", Reason::Transaction, ""),
        ("listen x", Reason::Utility, ""),
        ("execute p", Reason::Utility, ""),
        ("call p()", Reason::Utility, ""),
        ("do $$begin end$$", Reason::Utility, ""),
        ("create table t ()", Reason::Write, ""),
        ("copy t from stdin", Reason::Write, ""),
        ("copy (select 1) to '/tmp/x'", Reason::Utility, "copy"),
        ("copy (select 1) to program 'x'", Reason::Utility, "copy"),
        ("nonsense", Reason::Unknown, ""),
        ("select U&\"x\"", Reason::Unknown, ""),
    ] {
        let class = class(text);
        assert_eq!(class.place, Place::Primary, "{text}");
        let found = class.object.as_deref().unwrap_or_default();
        assert_eq!((class.reason, found), (reason, object), "{text}");
    }
}

#[test]
fn writes_have_the_names_that_postgresql_refuses_them_by() {
    for (text, name) in [
        ("insert into t values (1)", Some("INSERT")),
        ("/* x */ UPDATE t set a = 1", Some("UPDATE")),
        ("truncate t", Some("TRUNCATE TABLE")),
        ("create table t (a int)", Some("CREATE TABLE")),
        (
            "create table t (a int, b int generated always as (a) stored)",
            Some("CREATE TABLE"),
        ),
        (
            "create unlogged table t (a) as select 1",
            Some("CREATE TABLE AS"),
        ),
        ("create or replace view v as select 1", Some("CREATE VIEW")),
        ("drop materialized view v", Some("DROP MATERIALIZED VIEW")),
        ("explain insert into t values (1)", None),
        ("explain analyze delete from t", None),
        ("with w as (select 1) insert into t select 1", None),
        ("(insert into t values (1))", None),
        ("\"insert\" into t values (1)", None),
        ("prepare p as insert into t values (1)", None),
        ("copy t from stdin", None),
        ("create recursive view v (a) as select 1", None),
        ("create event trigger e on x execute function f()", None),
        ("drop", None),
        ("", None),
    ] {
        let found = command_of_write(text.as_bytes(), &Context::default());
        assert_eq!(found.as_deref(), name, "{text}");
    }
}

#[test]
fn a_hint_makes_up_for_a_missing_proof_but_not_for_a_write() {
    for (text, place, reason) in [
        (
            "/* pgsluice: primary */ select 1",
            Place::Primary,
            Reason::Hint,
        ),
        (
            "/* pgsluice: replica */ select 1",
            Place::Anywhere,
            Reason::Read,
        ),
        (
            "/* pgsluice: replica */ select * from t",
            Place::Anywhere,
            Reason::Hint,
        ),
        (
            "/* pgsluice: replica */ select pg_is_in_recovery()",
            Place::Anywhere,
            Reason::Hint,
        ),
        (
            "/* pgsluice: replica */ show work_mem",
            Place::Anywhere,
            Reason::Hint,
        ),
        (
            "/* pgsluice: replica */ insert into t values (1)",
            Place::Primary,
            Reason::Write,
        ),
        (
            "/* pgsluice: replica */ select 1; delete from t",
            Place::Primary,
            Reason::Write,
        ),
        (
            "/* pgsluice: replica */ select * from t for update",
            Place::Primary,
            Reason::Locking,
        ),
        (
            "/* pgsluice: replica */ select nextval('s')",
            Place::Primary,
            Reason::Sequence,
        ),
        (
            "/* pgsluice: replica */ select pg_advisory_lock(1)",
            Place::Primary,
            Reason::Function,
        ),
        (
            "/* pgsluice: replica */ begin",
            Place::Primary,
            Reason::Transaction,
        ),
        (
            "/* pgsluice: replica */ set a.b = 'c'",
            Place::Primary,
            Reason::Setting,
        ),
        (
            "/* pgsluice: replica */ fetch 1 from c",
            Place::Primary,
            Reason::Utility,
        ),
        (
            "/* pgsluice: replica */ copy (select 1) to '/tmp/x'",
            Place::Primary,
            Reason::Utility,
        ),
        (
            "/* pgsluice: replica */ select unknown_function()",
            Place::Primary,
            Reason::NoCatalogue,
        ),
    ] {
        let class = class(text);
        assert_eq!((class.place, class.reason), (place, reason), "{text}");
    }
}
