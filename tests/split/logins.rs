//! What is different for the reads of some logins, and who wins.

use pgsluice::config::{Consistency, Login, RulePlace};

use crate::{
    ON_PRIMARY, ON_REPLICA, cluster, nodes::system_bin, proxied, ran, session, wait_fresh,
    wait_until,
};

fn of(user: Option<&str>, database: Option<&str>) -> Login {
    Login {
        user: user.map(str::to_owned),
        database: database.map(str::to_owned),
        ..Login::default()
    }
}

#[test]
fn a_login_s_reads_go_where_the_file_says_unless_a_hint_or_the_session_says_otherwise() {
    let cluster = cluster(&system_bin(), |_| {});
    let reader = session(&cluster);
    let reload = |logins: Vec<Login>| {
        let mut config = proxied::config(&[&cluster.pg1, &cluster.pg2, &cluster.pg3]);
        config.logins = logins;
        cluster.proxied.reload(config);
    };
    let place = |place, login| Login {
        place: Some(place),
        ..login
    };
    let runs = |hint: &str, marker: &str, expected: (bool, bool)| {
        let marker = format!("/* {marker}. */");
        let text = format!("{hint}select v from kv where k = 1 {marker}");
        // A reload reaches the workers a moment later, and a replica's server may have to be dialled first.
        wait_until(&marker, || {
            wait_fresh(&cluster);
            let place = reader.sql(&format!("explain route {text}"));
            if place != if expected.1 { "replica" } else { "primary" } {
                return false;
            }
            // The question may have run on the primary.
            wait_fresh(&cluster);
            reader.sql(&text);
            expected == ON_PRIMARY || ran(&cluster, &marker).1
        });
        assert_eq!(ran(&cluster, &marker).1, expected.1, "{marker}");
    };
    runs("", "nobody is named", ON_REPLICA);

    let primary = place(RulePlace::Primary, of(None, Some("postgres")));
    reload(vec![primary.clone()]);
    runs("", "the database", ON_PRIMARY);
    runs("/* pgsluice: replica */ ", "a hint wins", ON_REPLICA);
    reader.sql("set pgsluice.route = 'any'");
    runs("", "the session wins", ON_REPLICA);
    reader.sql("reset pgsluice.route");
    runs("", "the session is done", ON_PRIMARY);

    let replica = place(RulePlace::Replica, of(Some("app"), None));
    reload(vec![replica, primary]);
    runs("", "the user wins", ON_REPLICA);
}

#[test]
fn a_login_that_needs_not_see_its_writes_reads_from_a_replica_that_lacks_them() {
    let lax = Login {
        consistency: Some(Consistency::Eventual),
        ..of(Some("app"), Some("postgres"))
    };
    let strict = Login {
        consistency: Some(Consistency::Database),
        ..of(Some("somebody"), None)
    };
    let cluster = cluster(&system_bin(), |config| config.logins = vec![strict, lax]);
    let session = session(&cluster);
    for node in [&cluster.pg2, &cluster.pg3] {
        node.sql("SELECT pg_wal_replay_pause()");
    }
    session.sql("update kv set v = 7 where k = 1");
    assert_eq!(session.sql("select v from kv where k = 1 /* lax */"), "0");
    assert_eq!(ran(&cluster, "/* lax */"), ON_REPLICA);
    for node in [&cluster.pg2, &cluster.pg3] {
        node.sql("SELECT pg_wal_replay_resume()");
    }
}
