//! The operator's word on statements, and what would have gone where.

use pgsluice::{
    config::{Rule, RulePlace, Ruled},
    route::{Context, fingerprint},
};

use crate::{
    ON_PRIMARY, ON_REPLICA, cluster, nodes::system_bin, proxied::WRITES, ran, session, wait_fresh,
    wait_until,
};

#[test]
fn a_rule_for_a_fingerprint_counts_for_all_statements_that_differ_in_literals() {
    let rule = |sql: &str, place| {
        let shape = fingerprint::lasting(sql.as_bytes(), &Context::default()).unwrap();
        let number = u128::from_str_radix(&shape.to_string(), 16).unwrap();
        Rule {
            of: Ruled::Statement(number),
            place,
        }
    };
    let rules = vec![
        rule("select v from kv where k = 1", RulePlace::Primary),
        rule("select pg_relation_size('x')", RulePlace::Replica),
        rule("update kv set v = 1", RulePlace::Replica),
    ];
    let cluster = cluster(&system_bin(), |config| config.rules = rules);
    // Not the statement by which others know that replicas serve: it is ruled.
    let reader = cluster.proxied.session(crate::SPLIT);
    wait_until("the catalogue is read", || {
        wait_fresh(&cluster);
        reader.sql("select count(*) from kv /* known. */");
        ran(&cluster, "/* known. */").1
    });
    for (sql, marker, expected) in [
        ("select v from kv where k = 77", "/* ruled. */", ON_PRIMARY),
        (
            "select  v from kv where k = 77",
            "/* not ruled. */",
            ON_REPLICA,
        ),
        (
            "select pg_relation_size('kv_pkey')",
            "/* ruled, too. */",
            ON_REPLICA,
        ),
        ("update kv set v = 5", "/* written. */", ON_PRIMARY),
    ] {
        // A replica's server may have to be dialled first.
        wait_until(sql, || {
            wait_fresh(&cluster);
            reader.sql(&format!("{sql} {marker}"));
            expected == ON_PRIMARY || ran(&cluster, marker).1
        });
        assert_eq!(ran(&cluster, marker).1, expected.1, "{sql}");
    }
}

#[test]
fn a_shadow_listener_counts_what_would_have_gone_where_and_keeps_all_on_the_primary() {
    let cluster = cluster(&system_bin(), |config| {
        config.listeners[WRITES].shadow = true
    });
    let count = |reason: &str| {
        let name = format!("pgsluice_shadow_routed_total{{reason=\"{reason}\"}}");
        cluster.proxied.labelled_metric(&name)
    };
    // Then the catalogue is read.
    drop(session(&cluster));
    let shadowed = cluster.proxied.session(WRITES);
    for _ in 0..3 {
        wait_fresh(&cluster);
        shadowed.sql("select v from kv where k = 1 /* shadowed. */");
        // It would not have moved what the next one must see.
        shadowed.sql("select v from kv where k = 2 /* shadowed. */");
    }
    shadowed.sql("update kv set v = 1");
    shadowed.sql("begin; commit");
    assert_eq!(ran(&cluster, "/* shadowed. */"), ON_PRIMARY);
    wait_until("it is counted", || {
        count("read") >= 6 && count("write") >= 1 && count("transaction") >= 1
    });
}
