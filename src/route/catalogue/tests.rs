//! Tables of bodies and what is proven of them.

use super::*;
use crate::route::{
    Context,
    effects::{Effects, Names, effects_among},
};

fn function(oid: u32, name: &str, language: &str, body: &str) -> Function {
    Function {
        oid,
        schema: "app".into(),
        name: name.into(),
        language: language.into(),
        body: Body::Text(body.into()),
        ..Function::default()
    }
}

/// What every database of these tests has.
fn base() -> Facts {
    let functions = vec![
        function(1, "good", "sql", "SELECT 1"),
        function(
            2,
            "bad",
            "sql",
            "SELECT set_config('app.tenant', $1, false)",
        ),
        function(3, "draws", "sql", "SELECT nextval('s')"),
        function(4, "in_c", "c", "in_c"),
        function(5, "in_perl", "plperl", "return 1;"),
        function(6, "Good", "sql", "SELECT 1"),
        // One overload is enough.
        function(7, "mixed", "sql", "SELECT 1"),
        function(8, "mixed", "plpgsql", "BEGIN EXECUTE $1; END"),
        function(
            9,
            "stamp",
            "plpgsql",
            "BEGIN NEW.at := now(); RETURN NEW; END",
        ),
        function(
            10,
            "leak",
            "plpgsql",
            "BEGIN PERFORM bad(NEW.t); RETURN NEW; END",
        ),
        function(11, "lower", "sql", "SELECT pg_catalog.lower($1::text)"),
        function(12, "upper", "sql", "SELECT bad($1::text)"),
    ];
    Facts {
        functions,
        reached: vec![
            Reached {
                by: By::Writing("audited".into()),
                function: Some(10),
            },
            Reached {
                by: By::Writing("stamped".into()),
                function: Some(9),
            },
            Reached {
                by: By::Naming("sees".into()),
                function: Some(2),
            },
        ],
        relations: vec![
            ("over_sees".into(), "sees".into()),
            ("parent".into(), "audited".into()),
        ],
        ..Facts::default()
    }
}

fn judged(language: &str, body: &str) -> Known {
    let mut facts = base();
    facts.functions.push(function(99, "f", language, body));
    let catalogue = judge(&facts, &Rules::default(), 18);
    catalogue.function(b"f").unwrap()
}

#[test]
fn bodies_in_sql_that_leave_nothing_behind() {
    for body in [
        "",
        "SELECT 1",
        "SELECT good(); SELECT good()",
        "SELECT app.good()",
        "SELECT \"Good\"()",
        "INSERT INTO t VALUES (good()) RETURNING id",
        "UPDATE t SET a = lower(b) WHERE c = good()",
        "SELECT set_config('app.x', '1', true)",
        "SET LOCAL work_mem = '1MB'",
        "SELECT 'set_config(''a'', ''b'', false)'",
        "SELECT $$ bad() $$",
        "SELECT 1 /* bad() */ -- bad()",
        "SELECT pg_advisory_xact_lock(1)",
        "LOCK TABLE t IN EXCLUSIVE MODE",
        "NOTIFY x",
        "INSERT INTO stamped VALUES (1)",
        "SELECT * FROM audited",
        "SELECT f()",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "CALL good()",
    ] {
        assert_eq!(judged("sql", body).pin, None, "{body}");
    }
}

#[test]
fn bodies_in_sql_that_may_leave_something_behind() {
    for body in [
        "SELECT bad('1')",
        "SELECT app.bad('1')",
        "SELECT \"bad\"('1')",
        "SELECT BAD /* x */ ('1')",
        "SELECT other.bad('1')",
        "SELECT no_such_function()",
        "SELECT in_c()",
        "SELECT in_perl()",
        "SELECT mixed()",
        "SELECT upper('x')",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT \"set_config\"('a.b', 'c', false)",
        "SELECT pg_catalog.set_config('a.b', 'c', $1)",
        "SELECT set_config($1, 'c', true)",
        "SET search_path = x",
        "SET ROLE x",
        "RESET ALL",
        "CREATE TEMP TABLE x (a int)",
        "SELECT 1 INTO TEMP x",
        "LISTEN x",
        "PREPARE x AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LOAD 'x'",
        "SELECT pg_advisory_lock(1)",
        "SELECT currval('s')",
        "SELECT setseed(0.5)",
        "SELECT dblink_connect('x')",
        "SELECT query_to_xml('select bad()', true, true, '')",
        "SELECT U&\"b\\0061d\"('1')",
        "SELECT ('1'::text).bad",
        "SELECT (5::bigint).pg_advisory_lock",
        "SELECT * FROM sees",
        "SELECT * FROM app.\"over_sees\"",
        "INSERT INTO audited VALUES (1)",
        "DELETE FROM parent",
        "DO $$BEGIN PERFORM bad('1'); END$$",
        "CALL bad('1')",
        "SELECT 'unterminated",
        "SELECT 'a\\' || bad('1') || '\\'",
    ] {
        assert!(judged("sql", body).pin.is_some(), "{body}");
    }
}

#[test]
fn bodies_in_plpgsql_that_leave_nothing_behind() {
    for body in [
        "BEGIN END",
        "BEGIN NULL; END;",
        "#variable_conflict use_column\nBEGIN RETURN 1; END",
        "<<top>> DECLARE x int := good(); y numeric(10,2) = 1; z CONSTANT text NOT NULL DEFAULT 'a'; \
         r t%ROWTYPE; c t.a%TYPE; BEGIN x := good() + 1; RETURN x; END top",
        "DECLARE c CURSOR FOR SELECT good(); d NO SCROLL CURSOR (a int, b varchar(3)) IS SELECT a; e refcursor; \
         BEGIN OPEN c; FETCH NEXT FROM c INTO x; MOVE RELATIVE 3 IN c; OPEN d(1); CLOSE d; \
         OPEN e NO SCROLL FOR SELECT * FROM t; CLOSE e; FOR r IN c LOOP NULL; END LOOP; END",
        "BEGIN IF good() = 1 THEN RETURN 1; ELSIF (good()) = 2 THEN RETURN 2; ELSE RETURN 3; END IF; END",
        "BEGIN CASE good() WHEN 1, 2 THEN RETURN 1; ELSE NULL; END CASE; CASE WHEN good() = 1 THEN NULL; END CASE; END",
        "BEGIN <<l>> LOOP EXIT l WHEN good() = 1; CONTINUE; END LOOP l; WHILE good() < 1 LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN REVERSE good()..1 BY 2 LOOP NULL; END LOOP; FOREACH x SLICE 1 IN ARRAY a LOOP NULL; END LOOP; END",
        "BEGIN FOR r IN SELECT * FROM t LOOP RETURN NEXT r; END LOOP; RETURN; END",
        "BEGIN RETURN QUERY SELECT good(); RETURN QUERY WITH x AS (SELECT 1) TABLE x; RETURN; END",
        "BEGIN BEGIN PERFORM good(); EXCEPTION WHEN unique_violation OR SQLSTATE '22012' THEN \
         GET STACKED DIAGNOSTICS m = MESSAGE_TEXT; RAISE; WHEN OTHERS THEN RAISE NOTICE 'x % %', good(), 2 \
         USING HINT = 'h', ERRCODE = '12345'; END; END",
        "BEGIN INSERT INTO t (a) VALUES (1) RETURNING id INTO STRICT x; GET DIAGNOSTICS n = ROW_COUNT; RETURN x; END",
        "BEGIN SELECT a, good() INTO x, r.y FROM t WHERE b = good(); SELECT INTO x good(); RETURN x; END",
        "BEGIN ASSERT good() = 1, 'no'; RAISE EXCEPTION 'x'; END",
        "BEGIN CALL good(); COMMIT; ROLLBACK AND CHAIN; END",
        "BEGIN SET LOCAL app.x = '1'; PERFORM set_config('app.x', x, true); END",
        "BEGIN a[good()] := 1; r.x = 2; NEW.y := good(); \"Q\" := 3; RETURN NEW; END",
        "BEGIN RAISE NOTICE 'EXECUTE bad()'; x := $q$ PERFORM bad(); $q$; -- EXECUTE\n /* EXECUTE */ END",
        "BEGIN x := f(x - 1); RETURN x; END",
        "BEGIN DO $x$BEGIN PERFORM good(); END$x$; END",
        "BEGIN CREATE TEMP TABLE x ON COMMIT DROP AS SELECT 1; DROP TABLE x; END",
        "BEGIN IF EXISTS (SELECT 1 FROM t) AND NOT EXISTS(SELECT 1 FROM t) THEN NULL; END IF; END",
        "BEGIN PERFORM 1 FROM t, LATERAL (SELECT good()) AS x(a) WHERE EXISTS (SELECT 1) ORDER BY (a); END",
    ] {
        assert_eq!(judged("plpgsql", body).pin, None, "{body}");
    }
}

#[test]
fn bodies_in_plpgsql_that_may_leave_something_behind() {
    for body in [
        "BEGIN EXECUTE 'SET a.b = 1'; END",
        "BEGIN EXECUTE format('SET %I = 1', x); END",
        "BEGIN execute/**/x INTO y USING z; END",
        "BEGIN RETURN QUERY EXECUTE x; END",
        "BEGIN RETURN QUERY\n-- c\nEXECUTE x USING y; END",
        "BEGIN FOR r IN EXECUTE x LOOP NULL; END LOOP; END",
        "BEGIN OPEN c FOR EXECUTE x; END",
        "DECLARE x int := bad('1'); BEGIN END",
        "DECLARE x int = bad('1'); BEGIN END",
        "DECLARE x int DEFAULT bad('1'); BEGIN END",
        "DECLARE c CURSOR FOR SELECT bad('1'); BEGIN OPEN c; END",
        "DECLARE c CURSOR (a int) IS SELECT bad('1'); BEGIN END",
        "BEGIN PERFORM bad('1'); END",
        "BEGIN PERFORM\"bad\"('1'); END",
        "BEGIN PERFORM set_config('app.tenant', $1, false); END",
        "BEGIN PERFORM set_config($1, $2, $3); END",
        "BEGIN PERFORM \"set_config\"('a.b', 'c', false); END",
        "BEGIN x := bad('1'); END",
        "BEGIN x[bad('1')] := 1; END",
        "BEGIN x.y = bad('1'); END",
        "BEGIN IF bad('1') THEN NULL; END IF; END",
        "BEGIN IF true THEN NULL; ELSIF bad('1') THEN NULL; ELSE NULL; END IF; END",
        "BEGIN IF true THEN NULL; ELSE PERFORM bad('1'); END IF; END",
        "BEGIN CASE bad('1') WHEN 1 THEN NULL; END CASE; END",
        "BEGIN CASE 1 WHEN bad('1') THEN NULL; END CASE; END",
        "BEGIN WHILE bad('1') LOOP NULL; END LOOP; END",
        "BEGIN LOOP EXIT WHEN bad('1'); END LOOP; END",
        "BEGIN LOOP CONTINUE l WHEN bad('1'); END LOOP; END",
        "BEGIN FOR i IN bad('1')..2 LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN REVERSE bad('1')..2 LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN 1..bad('1') LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN 1..2 BY bad('1') LOOP NULL; END LOOP; END",
        "BEGIN FOR r IN SELECT bad('1') LOOP NULL; END LOOP; END",
        "BEGIN FOR r IN (SELECT bad('1')) LOOP NULL; END LOOP; END",
        "BEGIN FOREACH x IN ARRAY bad('1') LOOP NULL; END LOOP; END",
        "BEGIN RETURN bad('1'); END",
        "BEGIN RETURN NEXT bad('1'); END",
        "BEGIN RETURN QUERY SELECT bad('1'); END",
        "BEGIN RAISE NOTICE '%', bad('1'); END",
        "BEGIN RAISE NOTICE 'x' USING HINT = bad('1'); END",
        "BEGIN RAISE USING MESSAGE = bad('1'); END",
        "BEGIN ASSERT false, bad('1'); END",
        "BEGIN FETCH RELATIVE bad('1') FROM c INTO x; END",
        "BEGIN OPEN c(bad('1')); END",
        "BEGIN OPEN c FOR SELECT bad('1'); END",
        "BEGIN BEGIN NULL; EXCEPTION WHEN OTHERS THEN PERFORM bad('1'); END; END",
        "BEGIN SELECT INTO x bad('1'); END",
        "BEGIN SELECT INTO STRICT x, r.y bad('1'); END",
        "BEGIN SELECT bad('1') INTO x; END",
        "BEGIN SELECT 1 INTO x WHERE bad('1'); END",
        "BEGIN SELECT bad INTO x ('1'); END",
        "BEGIN SELECT app INTO x .bad('1'); END",
        "BEGIN SELECT DISTINCT ON (1 INTO x) bad('1'); END",
        "BEGIN INSERT INTO t VALUES (1) RETURNING bad('1') INTO x; END",
        "BEGIN CALL bad('1'); END",
        "BEGIN CALL app.bad('1', x); COMMIT; END",
        "BEGIN SET search_path = x; END",
        "BEGIN SET ROLE x; END",
        "BEGIN RESET ROLE; END",
        "BEGIN CREATE TEMP TABLE x (a int); END",
        "BEGIN LISTEN x; END",
        "BEGIN DO $x$BEGIN PERFORM bad('1'); END$x$; END",
        "BEGIN DO LANGUAGE plperl $x$1$x$; END",
        "BEGIN DO E'BEGIN END'; END",
        "BEGIN INSERT INTO audited VALUES (1); END",
        "BEGIN PERFORM pg_advisory_lock(1); END",
        "BEGIN x := mixed(1); END",
        "BEGIN x := in_perl(1); END",
        "BEGIN x := 'a\\'; PERFORM bad('1'); -- ';\n END",
        "BEGIN /* /* */ PERFORM bad('1'); */ PERFORM bad('1'); END",
        "BEGIN x := 'a' -- b\n '; PERFORM good(); '; PERFORM bad('1'); END",
        "BEGIN if(bad('1')) THEN NULL; END IF; END",
        "BEGIN PERFORM good(); PERFORM bad('1') END",
        "BEGIN x := 1",
        "BEGIN PERFORM (good(); bad('1')); END",
        "SELECT bad('1')",
    ] {
        assert!(judged("plpgsql", body).pin.is_some(), "{body}");
    }
}

#[test]
fn standard_bodies_are_read_as_deparsed() {
    let of = |body: &str| {
        let mut facts = base();
        let mut function = function(99, "f", "sql", "");
        function.body = Body::Standard(body.into());
        facts.functions.push(function);
        let catalogue = judge(&facts, &Rules::default(), 18);
        catalogue.function(b"f").unwrap().pin.is_none()
    };
    assert!(of(
        "BEGIN ATOMIC\n SELECT app.good() AS good;\n SELECT 1;\nEND"
    ));
    assert!(of("RETURN (app.good() + 1)"));
    assert!(!of(
        "BEGIN ATOMIC\n SELECT app.good() AS good;\n SELECT app.bad('1');\nEND"
    ));
    assert!(!of("RETURN app.bad('1')"));
    assert!(!of("something else"));
}

#[test]
fn cycles_are_harmless_unless_something_in_them_is_not() {
    let mut facts = base();
    facts.functions.extend([
        function(20, "ping", "sql", "SELECT pong()"),
        function(21, "pong", "sql", "SELECT ping(), good()"),
        function(22, "tick", "sql", "SELECT tock()"),
        function(
            23,
            "tock",
            "plpgsql",
            "BEGIN PERFORM tick(); PERFORM bad('1'); END",
        ),
    ]);
    let catalogue = judge(&facts, &Rules::default(), 18);
    let pin = |name: &str| catalogue.function(name.as_bytes()).unwrap().pin;
    assert_eq!((pin("ping"), pin("pong")), (None, None));
    assert_eq!(pin("tick"), Some(PinReason::Set));
    assert_eq!(pin("tock"), Some(PinReason::Set));
}

#[test]
fn what_is_advanced_or_defined_below_is_told_above() {
    let draws = judged("sql", "SELECT draws()");
    assert_eq!((draws.pin, draws.advances_sequence), (None, true));
    assert!(judged("sql", "INSERT INTO t VALUES (1)").advances_sequence);
    assert!(!judged("sql", "UPDATE t SET a = 1").advances_sequence);
    let defines = judged(
        "plpgsql",
        "BEGIN CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'; END",
    );
    assert!(defines.changes_catalogue);
    assert!(!judged("sql", "SELECT good()").changes_catalogue);
}

#[test]
fn aggregates_and_defaults_of_arguments_are_followed() {
    let mut facts = base();
    for (oid, name, part) in [
        (30, "sums", Some(1)),
        (31, "leaks", Some(2)),
        (32, "sets", None),
        (33, "gone", Some(4711)),
    ] {
        let mut aggregate = function(oid, name, "internal", "aggregate_dummy");
        aggregate.body = Body::Aggregate;
        facts.functions.push(aggregate);
        facts.parts.push((oid, part));
    }
    let catalogue = judge(&facts, &Rules::default(), 18);
    let free = |name: &str| catalogue.function(name.as_bytes()).unwrap().pin.is_none();
    assert!(free("sums"));
    assert!(!free("leaks") && !free("sets") && !free("gone"));
}

#[test]
fn settings_of_a_function_end_with_it_but_for_a_seed() {
    let of = |setting: &str, body: &str| {
        let mut facts = base();
        let mut function = function(99, "f", "plpgsql", body);
        function.settings = vec![setting.into()];
        facts.functions.push(function);
        let catalogue = judge(&facts, &Rules::default(), 18);
        catalogue.function(b"f").unwrap().pin
    };
    assert_eq!(
        of("search_path=app, pg_temp", "BEGIN PERFORM good(); END"),
        None
    );
    assert_eq!(of("app.tenant=1", "BEGIN END"), None);
    assert_eq!(of("Seed=0.5", "BEGIN END"), Some(PinReason::Setseed));
    let creates = "BEGIN CREATE TABLE x (a int CHECK (a > 0)); END";
    assert_eq!(of("search_path=app", creates), None);
    assert_eq!(
        of("search_path=pg_temp", creates),
        Some(PinReason::TempTable)
    );
}

#[test]
fn extensions_and_rules_make_functions_harmless() {
    let mut facts = base();
    let mut digest = function(40, "digest", "c", "pg_digest");
    digest.extension = Some("pgcrypto".into());
    facts.functions.push(digest);
    let pins = |rules: &[&str], name: &str| {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let catalogue = judge(&facts, &Rules::new(&rules), 18);
        catalogue.function(name.as_bytes()).unwrap().pin.is_some()
    };
    assert!(!pins(&[], "digest"));
    assert!(pins(&[], "in_c"));
    assert!(!pins(&["in_c"], "in_c"));
    assert!(!pins(&["app.in_c"], "in_c"));
    assert!(pins(&["other.in_c", "IN_C"], "in_c"));
    assert!(
        !pins(&["bad"], "leak"),
        "what only calls it is harmless, too"
    );
    assert!(!pins(&["app.mixed"], "mixed"));
}

fn read(catalogue: &Catalogue, current: bool, text: &str) -> Effects {
    let names = Names::Read { catalogue, current };
    effects_among(text.as_bytes(), &Context::default(), names)
}

#[test]
fn statements_are_judged_by_what_the_catalogue_proves() {
    let catalogue = judge(&base(), &Rules::default(), 18);
    for (text, free) in [
        ("SELECT good()", true),
        ("SELECT App.GOOD()", true),
        ("SELECT \"Good\"()", true),
        ("SELECT \"GOOD\"()", false),
        ("SELECT bad('1')", false),
        ("SELECT unknown()", false),
        ("SELECT lower('X')", true),
        ("SELECT upper('x')", false),
        ("SELECT pg_catalog.upper('x')", false),
        ("CALL good()", true),
        ("CALL good(bad('1'))", false),
        ("CALL bad('1')", false),
        ("DO $$BEGIN PERFORM good(); END$$", true),
        ("DO LANGUAGE plpgsql $a$BEGIN PERFORM good(); END$a$", true),
        ("DO 'BEGIN NULL; END' LANGUAGE 'plpgsql'", true),
        ("DO 'BEGIN PERFORM ''1''; END'", false),
        ("DO $$BEGIN PERFORM bad('1'); END$$", false),
        ("DO $$BEGIN EXECUTE 'x'; END$$", false),
        ("DO LANGUAGE plperl $$1$$", false),
        ("DO $$BEGIN NULL; END$$ LANGUAGE plpython3u", false),
        ("SELECT * FROM audited", true),
        ("SELECT * FROM stamped", true),
        ("INSERT INTO stamped VALUES (1)", true),
        ("INSERT INTO audited VALUES (1)", false),
        ("UPDATE app.\"audited\" SET a = 1", false),
        ("COPY Audited FROM STDIN", false),
        ("DELETE FROM parent", false),
        ("TRUNCATE parent CASCADE", false),
        ("SELECT * FROM parent", true),
        ("SELECT * FROM sees", false),
        ("SELECT * FROM over_sees", false),
        ("SELECT sees FROM t", false),
        ("SELECT 'sees' FROM t", true),
        ("DO $$BEGIN INSERT INTO audited VALUES (1); END$$", false),
        ("CREATE TABLE x (a int)", true),
        ("SELECT 1; SELECT good()", true),
    ] {
        assert_eq!(read(&catalogue, true, text).pin.is_none(), free, "{text}");
    }
}

#[test]
fn a_catalogue_that_may_be_old_counts_only_against_a_name() {
    let catalogue = judge(&base(), &Rules::default(), 18);
    for (text, free) in [
        ("SELECT good()", false),
        ("SELECT 1", true),
        ("SELECT lower('X')", true),
        ("CALL good()", false),
        ("INSERT INTO audited VALUES (1)", false),
        ("INSERT INTO t VALUES (1)", true),
        ("SELECT * FROM sees", false),
    ] {
        assert_eq!(read(&catalogue, false, text).pin.is_none(), free, "{text}");
    }
}

#[test]
fn what_relies_on_the_catalogue_and_what_changes_it_is_told() {
    let catalogue = judge(&base(), &Rules::default(), 18);
    for (text, relies, changes) in [
        ("SELECT 1", false, false),
        ("SELECT good()", true, false),
        ("DO $$BEGIN PERFORM good(); END$$", true, false),
        ("INSERT INTO t VALUES (1)", false, false),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS ''",
            false,
            true,
        ),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS ''",
            false,
            true,
        ),
        (
            "DO $$BEGIN CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW CALL f(); END$$",
            false,
            true,
        ),
        ("ALTER TABLE t ADD a int DEFAULT good()", true, true),
        ("CREATE TEMP TABLE x (a int) ON COMMIT DROP", false, false),
        ("CREATE TABLE x (a int DEFAULT f())", false, true),
        ("CREATE TABLE x (LIKE t INCLUDING ALL)", false, true),
        ("CREATE ROLE x", false, false),
        ("DROP TABLE x", false, false),
        ("GRANT SELECT ON x TO y", false, false),
        ("NO STATEMENT", false, true),
    ] {
        let read = read(&catalogue, true, text);
        assert_eq!(read.relies_on_catalogue, relies, "{text}");
        assert_eq!(read.changes_catalogue, changes, "{text}");
    }
}

#[test]
fn what_every_statement_may_reach_pins_every_statement() {
    let mut facts = base();
    facts.reached.push(Reached {
        by: By::Anything,
        function: Some(2),
    });
    let catalogue = judge(&facts, &Rules::default(), 18);
    assert!(read(&catalogue, true, "SELECT 1").pin.is_some());
    assert!(read(&catalogue, true, "BEGIN").pin.is_none());
    // C code is taken on trust there, other languages are not.
    for (function, free) in [(4, true), (5, false), (1, true)] {
        let mut facts = base();
        facts.reached.push(Reached {
            by: By::Anything,
            function: Some(function),
        });
        let catalogue = judge(&facts, &Rules::default(), 18);
        let pin = read(&catalogue, true, "SELECT 1").pin;
        assert_eq!(pin.is_none(), free, "{function}");
    }
    let mut facts = base();
    facts.reached.push(Reached {
        by: By::Defining,
        function: Some(5),
    });
    let catalogue = judge(&facts, &Rules::default(), 18);
    assert!(
        read(
            &catalogue,
            true,
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS ''"
        )
        .pin
        .is_some()
    );
    assert!(read(&catalogue, true, "SELECT 1").pin.is_none());
}

#[test]
fn functions_are_found_in_attribute_notation_and_long_and_foreign_names_are_not_lost() {
    let mut facts = base();
    let mut row = function(50, "tenant", "sql", "SELECT bad('1')");
    row.takes_argument = true;
    facts.functions.push(row);
    let long = "a".repeat(63);
    for name in ["größe", &long, "with\"quote"] {
        facts.reached.push(Reached {
            by: By::Naming(name.into()),
            function: None,
        });
    }
    let catalogue = judge(&facts, &Rules::default(), 18);
    for (text, free) in [
        ("SELECT t.tenant FROM t", false),
        ("SELECT ('1'::text).\"tenant\"", false),
        ("SELECT tenant FROM t", true),
        ("SELECT t.tenants FROM t", true),
        ("SELECT * FROM größe", false),
        // Another encoding's spelling.
        ("SELECT * FROM öl", false),
        (&format!("SELECT * FROM {long}"), false),
        (&format!("SELECT * FROM {long}tail"), false),
        ("SELECT * FROM \"with\"\"quote\"", false),
    ] {
        assert_eq!(read(&catalogue, true, text).pin.is_none(), free, "{text}");
    }
}
