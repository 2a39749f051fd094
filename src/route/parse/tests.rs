use super::*;

fn facts(text: &str) -> Option<Facts> {
    by_parser(text.as_bytes(), &Context::default())
}

fn one(text: &str) -> Statement {
    let mut statements = facts(text)
        .unwrap_or_else(|| panic!("not read: {text}"))
        .statements;
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0)
}

fn names(names: &std::collections::BTreeSet<Name>) -> String {
    let spelt: Vec<_> = names
        .iter()
        .map(|name| match &name.schema {
            Some(schema) => format!("{schema}.{}", name.name),
            None => name.name.to_string(),
        })
        .collect();
    spelt.join(" ")
}

#[test]
fn relations_are_named_but_not_the_names_of_with_queries_in_their_scope() {
    for (text, expected) in [
        ("select * from a, B, \"C\" x, s.d", "C a b s.d"),
        ("with a as (select 1) select * from a, b", "b"),
        ("with a as (select * from a) select * from a", "a"),
        ("with recursive a as (select * from a) select * from a", ""),
        (
            "with a as (select * from b), b as (select 1) select * from b",
            "b",
        ),
        (
            "with recursive a as (select * from b), b as (select 1) select 1",
            "",
        ),
        (
            "select (with a as (select 1) select 1 from a), x from a",
            "a",
        ),
        ("with a as (select 1) select * from s.a", "s.a"),
        (
            "(with a as (select 1) select * from a) union select * from a",
            "a",
        ),
        ("with a as (select 1) insert into a select * from a", "a"),
        ("with a as (select 1) delete from b using a", "b"),
        (
            "select 1 from t where x in (select y from u where exists (table v))",
            "t u v",
        ),
        ("select * from only t", "t"),
        (
            "merge into t using s on t.a = s.a when matched then delete",
            "s t",
        ),
    ] {
        assert_eq!(names(&one(text).relations), expected, "{text}");
    }
}

#[test]
fn functions_are_named_whatever_their_syntax() {
    for (text, expected) in [
        ("select f(g(1)), s.h(x)", "f g s.h"),
        (
            "select count(*), sum(x) filter (where p(y)) over (order by q(z)) from t",
            "count p q sum",
        ),
        ("select * from f(1), lateral g(2) x", "f g"),
        ("select f(a => g(1)), h(2, variadic i(3))", "f g h i"),
        ("select coalesce(a, greatest(b, c)), nullif(a, b)", ""),
        (
            "select extract(year from a), trim(b), trim(leading 'x' from c)",
            "pg_catalog.btrim pg_catalog.extract pg_catalog.ltrim",
        ),
        (
            "select position('a' in b), substring(a from 1 for 2), overlay(a placing b from 1)",
            "pg_catalog.overlay pg_catalog.position pg_catalog.substring",
        ),
        (
            "select substring(a, 1), ceil(b), floor(c), current_schema()",
            "ceil current_schema floor substring",
        ),
        (
            "select current_timestamp, current_user, localtime(0), current_role, user",
            "pg_catalog.current_role pg_catalog.current_timestamp pg_catalog.current_user pg_catalog.localtime pg_catalog.user",
        ),
        (
            "select a at time zone 'x', a like b escape 'c', a similar to b",
            "pg_catalog.like_escape pg_catalog.similar_to_escape pg_catalog.timezone",
        ),
        (
            "select normalize(a, NFC), b is nfc normalized",
            "pg_catalog.is_normalized pg_catalog.normalize",
        ),
        ("select (a, b) overlaps (c, d)", "pg_catalog.overlaps"),
        ("select \"F\"(1), \"current_user\"()", "F current_user"),
    ] {
        assert_eq!(names(&one(text).functions), expected, "{text}");
    }
}

#[test]
fn operators_types_and_collations_are_named() {
    let read = one(
        "select a + 1, b ->> 'x', c operator(pg_catalog.@@) d, e <-> f, -1, - g, h in (1), i between 1 and 2 from t join u using (k)",
    );
    assert_eq!(names(&read.operators), "+ - ->> <-> <= = >= pg_catalog.@@");
    let read = one(
        "select a::int, cast(b as varchar(3)), c::s.my[], date '2020-01-01', interval '1 day', d::\"Q\", e::double precision",
    );
    assert_eq!(
        names(&read.types),
        "Q date pg_catalog.float8 pg_catalog.int4 pg_catalog.interval pg_catalog.varchar s.my"
    );
    let read = one("select a collate \"C\", (r).x, t.y from t tablesample system (1)");
    assert_eq!(names(&read.collations), "C");
    assert_eq!(names(&read.samples), "system");
    let attributes: Vec<_> = read.attributes.iter().map(|name| &**name).collect();
    assert_eq!(attributes, ["x", "y"]);
}

#[test]
fn what_writes_is_seen_at_any_depth() {
    assert!(one("select 1 from t for update").locks);
    assert!(one("select * from (select 1 from t for no key update skip locked) x").locks);
    assert!(one("select 1 from t for key share of t").locks);
    assert!(!one("select 1 from t").locks);
    assert!(one("select 1 into x from t").into);
    assert!(one("select 1 into temp table x from t").into);
    let read = one(
        "with a as (insert into t values (1) returning 1), b as (select 1 from (with c as (delete from u returning 1) select 1) x) select 1",
    );
    assert_eq!(read.kind, Kind::Plain(Verb::Select));
    assert_eq!(Vec::from_iter(read.writes), [Verb::Insert, Verb::Delete]);
    let read = one("with a as (select 1) update t set b = 1");
    assert_eq!(read.kind, Kind::Plain(Verb::Update));
    assert!(read.writes.is_empty());
}

#[test]
fn a_statement_is_known_by_its_first_words() {
    let copy = |to, of| Kind::CopyTo { to, of };
    for (text, expected) in [
        ("select 1", Kind::Plain(Verb::Select)),
        ("(values (1))", Kind::Plain(Verb::Values)),
        ("table t", Kind::Plain(Verb::Select)),
        (
            "explain select 1",
            Kind::Explain {
                analyze: false,
                of: Verb::Select,
            },
        ),
        (
            "explain analyze verbose delete from t",
            Kind::Explain {
                analyze: true,
                of: Verb::Delete,
            },
        ),
        (
            "explain (costs off, analyze) insert into t values (1)",
            Kind::Explain {
                analyze: true,
                of: Verb::Insert,
            },
        ),
        (
            "explain (select 1)",
            Kind::Explain {
                analyze: false,
                of: Verb::Select,
            },
        ),
        ("explain execute p", Kind::ExplainOther),
        (
            "declare c cursor with hold for select 1",
            Kind::Declare { hold: true },
        ),
        (
            "declare cursor scroll cursor for select 1",
            Kind::Declare { hold: false },
        ),
        ("copy t to stdout", copy(CopyTo::Stdout, None)),
        ("copy s.t (a, b) to '/x' csv", copy(CopyTo::File, None)),
        (
            "copy (select 1) to program 'x'",
            copy(CopyTo::Program, Some(Verb::Select)),
        ),
        (
            "copy (delete from t returning 1) to stdout",
            copy(CopyTo::Stdout, Some(Verb::Delete)),
        ),
        ("copy t from stdin", Kind::CopyFrom),
        ("show all", Kind::Show("all".into())),
        ("show Time Zone", Kind::Show("timezone".into())),
        ("show a.B", Kind::Show("a.b".into())),
        ("set local x = 1", Kind::Set),
        ("prepare transaction 'x'", Kind::Transaction),
        ("prepare p as select 1", Kind::Prepared),
        ("prepare transaction as select 1", Kind::Prepared),
        ("begin read only", Kind::Transaction),
        ("listen x", Kind::Notify),
        ("fetch all in c", Kind::Cursor),
        ("create table t (a int)", Kind::Other),
        ("vacuum", Kind::Other),
    ] {
        assert_eq!(one(text).kind, expected, "{text}");
    }
    let kinds = |text| facts(text).unwrap().statements.len();
    assert_eq!(kinds("begin; select 1;; commit;"), 3);
    assert_eq!(
        kinds("create rule r as on insert to t do (select 1; select 2)"),
        1
    );
    assert_eq!(kinds(""), 0);
}

#[test]
fn what_the_server_would_read_otherwise_is_not_read() {
    for text in [
        "select 1 from t qualify x",
        "select top 1 from t",
        "select * except (a) from t",
        "select a 'alias' from t",
        "select a div b",
        "select 1 from a semi join b on true",
        "insert ignore into t values (1)",
        "select U&\"a\\0062\"",
        "select f.g.h.i()",
        "select \u{e9} from \u{e9}",
        "select * from db.s.t",
        "select 'a",
        "select n'a'",
        "select 1 from t group by grouping sets (rollup (a))",
        "select (1",
        "select 1)",
        "create function f() returns int begin atomic select 1; end",
    ] {
        assert_eq!(facts(text), None, "{text}");
    }
    let off = Context {
        standard_conforming_strings: false,
        ..Context::default()
    };
    assert_eq!(read(b"select 1", &off), None);
}

#[test]
fn deep_and_long_texts_fit_on_a_workers_stack() {
    let many = |before: &str, middle: &str, after: &str, n: usize| {
        format!("{}{middle}{}", before.repeat(n), after.repeat(n))
    };
    let mut texts = Vec::new();
    for n in [10, 30, 38, 48, 100, 390, 1000, 5000] {
        texts.extend([
            many("select (", "1", ")", n),
            format!("select {}", many("(", "1", ")", n)),
            format!("select * from {}", many("(", "t", ")", n)),
            format!("select * from {}", many("(select * from ", "t", ") x", n)),
            format!("select 1{}", " or a".repeat(n)),
            format!("select 1{}", "+1".repeat(n)),
            format!("select a{}", "::int".repeat(n)),
            format!("select {} 1", "not ".repeat(n)),
            format!("select {} 1", "- ".repeat(n)),
            format!("select a{}", "[1]".repeat(n)),
            format!("select a{}", " is null".repeat(n)),
            format!("select 1{}", " union select 1".repeat(n)),
            format!("select {}", many("case when a then ", "1", " end", n)),
            format!("select * from a{}", " join a".repeat(n)),
            format!(
                "select * from a{}{}",
                " join a".repeat(n),
                " on true".repeat(n)
            ),
            format!("select {}", many("f(a, ", "1", ")", n)),
            format!("select {}", many("array[", "1", "]", n)),
            format!("{} select 1", many("with a as (", "select 1", ")", n)),
            format!(
                "select 1 where {}",
                many("exists (select 1 where ", "true", ")", n)
            ),
            format!("select a{}", ".b".repeat(n)),
            format!("select {}1", "1 between 1 and ".repeat(n)),
        ]);
    }
    let read =
        std::thread::spawn(move || texts.iter().filter(|text| facts(text).is_some()).count());
    assert!(read.join().unwrap() > 60);
}
