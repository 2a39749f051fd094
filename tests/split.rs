//! One port for everything: where statements run, by the nodes' own logs, and what a session sees of its own writes.
//!
//! Every test has a cluster of its own: a primary and two streaming replicas. Nothing here depends on how fast the
//! machine is, only on what comes after what.

#[path = "split/batches.rs"]
mod batches;
#[path = "split/corpus.rs"]
mod corpus;
#[allow(dead_code)] // not all of it is needed here
#[path = "proof/lines.rs"]
mod lines;
#[path = "split/logins.rs"]
mod logins;
mod nodes;
#[path = "split/opening.rs"]
mod opening;
#[path = "failover/proxied.rs"]
mod proxied;
#[allow(dead_code)] // not all of it is needed here
#[path = "sessions/raw.rs"]
mod raw;
#[path = "split/refused.rs"]
mod refused;
#[path = "split/ruled.rs"]
mod ruled;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use nix::sys::signal::Signal;
use nodes::{Server, installations, system_bin};
use pgsluice::{
    config::{Consistency, Writes},
    topology::{Health, Moment},
};
use proxied::{Cluster, READS, SPLIT, Session, wait_until};
use tokio_postgres::NoTls;

/// A cluster whose nodes log every statement of the clients, and a table.
fn cluster(bin: &Path, change: impl FnOnce(&mut pgsluice::config::Config)) -> Cluster {
    let cluster = Cluster::start_with(bin, change);
    cluster.pg1.sql("GRANT CREATE ON SCHEMA public TO app");
    cluster.pg1.sql("ALTER ROLE app SET log_statement = 'all'");
    // Through the proxy, which then looks at the catalogue again.
    let maker = cluster.proxied.session(SPLIT);
    maker.sql("CREATE TABLE kv (k int PRIMARY KEY, v int)");
    maker.sql("INSERT INTO kv SELECT k, 0 FROM generate_series(1, 100) k");
    cluster.wait_replayed();
    cluster
}

/// How often `server` was sent a statement with `marker`.
fn times_ran(server: &Server, marker: &str) -> usize {
    let log = std::fs::read(server.dir.path().join("log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.contains(marker)).count()
}

/// Where statements with `marker` ran: `primary`, `replica`, both or neither.
fn ran(cluster: &Cluster, marker: &str) -> (bool, bool) {
    let on = |server| times_ran(server, marker) > 0;
    (on(&cluster.pg1), on(&cluster.pg2) || on(&cluster.pg3))
}

const ON_PRIMARY: (bool, bool) = (true, false);
const ON_REPLICA: (bool, bool) = (false, true);

/// A session that every replica has served.
fn session(cluster: &Cluster) -> Session {
    static SESSIONS: AtomicUsize = AtomicUsize::new(0);
    let session = cluster.proxied.session(SPLIT);
    let marker = format!("/* warm {}. */", SESSIONS.fetch_add(1, Relaxed));
    wait_until("every replica has served", || {
        wait_fresh(cluster);
        session.sql(&format!("select v from kv where k = 1 {marker}"));
        let mut replicas = [&cluster.pg2, &cluster.pg3].into_iter();
        replicas.all(|replica| times_ran(replica, &marker) > 0)
    });
    wait_fresh(cluster);
    session
}

/// Waits until the replicas have all that was done so far, and the proxy knows.
fn wait_fresh(cluster: &Cluster) {
    let now = Moment::now();
    wait_until("the replicas are fresh", || {
        let topology = cluster.proxied.topology.current();
        topology.replicas_up().count() == 2
            && topology.replicas_up().all(|r| r.freshness.as_of() >= now)
    });
}

#[test]
fn statements_run_where_they_belong_in_both_protocols() {
    for bin in installations() {
        let cluster = cluster(&bin, |_| {});
        let session = session(&cluster);
        let cases = [
            ("select v from kv where k = 1", ON_REPLICA),
            ("select count(*), max(v) from kv", ON_REPLICA),
            ("values (1), (2)", ON_REPLICA),
            (
                "with a as (select * from kv) select count(*) from a",
                ON_REPLICA,
            ),
            ("update kv set v = v where k = 1", ON_PRIMARY),
            ("select v from kv where k = 1 for update", ON_PRIMARY),
            (
                "with a as (update kv set v = v where k = 1 returning v) select * from a",
                ON_PRIMARY,
            ),
            ("select txid_current()", ON_PRIMARY),
            (
                "select pg_advisory_lock(1), pg_advisory_unlock(1)",
                ON_PRIMARY,
            ),
            ("select pg_is_in_recovery()", ON_PRIMARY),
            ("show work_mem", ON_PRIMARY),
            ("set work_mem = '5MB'", ON_PRIMARY),
            ("select 1; update kv set v = v where k = 1", ON_PRIMARY),
            ("create table made (a int)", ON_PRIMARY),
            ("drop table made", ON_PRIMARY),
        ];
        for (number, (sql, expected)) in cases.into_iter().enumerate() {
            wait_fresh(&cluster);
            let marker = format!("/* simple {number}. */");
            session.sql(&format!("{sql} {marker}"));
            assert_eq!(ran(&cluster, &marker), expected, "{sql}");
        }
        wait_fresh(&cluster);
        session.sql("begin");
        session.sql("select v from kv where k = 1 /* in transaction. */");
        session.sql("commit");
        assert_eq!(ran(&cluster, "/* in transaction. */"), ON_PRIMARY);
        extended(&cluster);
    }
}

/// Statements with and without names, prepared once and run many times.
fn extended(cluster: &Cluster) {
    let address = cluster.proxied.addresses[SPLIT];
    let text = format!(
        "host={} port={} user=app dbname=postgres",
        address.ip(),
        address.port()
    );
    cluster.proxied.waiting.block_on(async {
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
        tokio::spawn(connection);
        let read = client
            .prepare("select v from kv where k = $1 /* named read. */")
            .await
            .unwrap();
        let write = client
            .prepare("update kv set v = $2 where k = $1 /* named write. */")
            .await
            .unwrap();
        for value in 1..=50 {
            client.execute(&write, &[&7, &value]).await.unwrap();
            let row = client.query_one(&read, &[&7]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), value);
        }
        // The first may dial, and then stays on the primary.
        for _ in 0..4 {
            wait_fresh(cluster);
            client.query_one(&read, &[&7]).await.unwrap();
        }
    });
    assert_eq!(ran(cluster, "/* named read. */"), (true, true));
    assert_eq!(ran(cluster, "/* named write. */"), ON_PRIMARY);
}

/// How many of 200 reads of a session do not show its own last write, with replicas 100 ms behind.
fn stale_reads(consistency: Consistency) -> (usize, usize) {
    let cluster = cluster(&system_bin(), |config| {
        config.reads.consistency = consistency
    });
    for replica in [&cluster.pg2, &cluster.pg3] {
        replica.sql("ALTER SYSTEM SET recovery_min_apply_delay = '100ms'");
        replica.sql("SELECT pg_reload_conf()");
    }
    let session = session(&cluster);
    let mut stale = 0;
    for value in 1..=200 {
        if value % 10 == 0 {
            wait_fresh(&cluster);
        }
        session.sql(&format!("update kv set v = {value} where k = 3"));
        let seen = session.sql("select v from kv where k = 3 /* own. */");
        stale += usize::from(seen != value.to_string());
    }
    let on_replicas = times_ran(&cluster.pg2, "/* own. */") + times_ran(&cluster.pg3, "/* own. */");
    (stale, on_replicas)
}

#[test]
fn a_session_reads_its_own_writes_though_every_replica_lags() {
    for consistency in [
        Consistency::Session,
        Consistency::OwnWrites,
        Consistency::Database,
    ] {
        assert_eq!(stale_reads(consistency).0, 0, "{consistency:?}");
    }
    // Which could be seen here if it were otherwise.
    let (stale, on_replicas) = stale_reads(Consistency::Eventual);
    assert!(stale > 0 && on_replicas > 0, "{stale} {on_replicas}");
}

#[test]
fn a_proven_read_that_a_replica_cannot_answer_runs_on_the_primary() {
    let cluster = cluster(&system_bin(), |_| {});
    let session = session(&cluster);
    for node in [&cluster.pg2, &cluster.pg3] {
        node.sql("SELECT pg_wal_replay_pause()");
    }
    // Nobody has seen it made, and no replica has it.
    cluster.pg1.sql("ALTER TABLE kv ADD added int DEFAULT 5");
    let marker = "/* unreplayed. */";
    assert_eq!(
        session.sql(&format!("select added from kv where k = 1 {marker}")),
        "5"
    );
    assert_eq!(ran(&cluster, marker), (true, true));
    // An error that the primary gives too is the client's.
    let told = session.try_sql("select missing from kv").unwrap_err();
    assert!(told.is("ERROR", "42703"), "{told:?}");
    assert_eq!(session.sql("select 1/1"), "1");
}

/// Kills the whole server at once, and waits until the last of it has gone.
fn kill(server: &Server) {
    let pids = server.pids();
    for pid in &pids {
        let _ = nix::sys::signal::kill(*pid, Signal::SIGKILL);
    }
    let is_gone = |pid: &nix::unistd::Pid| nix::sys::signal::kill(*pid, None).is_err();
    wait_until("the server is gone", || pids.iter().all(is_gone));
}

#[test]
fn a_read_whose_replica_ends_runs_on_another_node() {
    let cluster = cluster(&system_bin(), |_| {});
    for (listener, how) in [
        (SPLIT, Signal::SIGINT),
        (READS, Signal::SIGINT),
        (SPLIT, Signal::SIGQUIT),
        (READS, Signal::SIGQUIT),
        (SPLIT, Signal::SIGKILL),
        (READS, Signal::SIGKILL),
    ] {
        let session = match listener {
            SPLIT => session(&cluster),
            _ => cluster.proxied.session(listener),
        };
        let marker = format!("/* ends {how} {listener}. */");
        let slow = "select count(*) from kv a, kv b, kv c, (select k from kv where k <= 20) d";
        let asked = session.start(&format!("{slow} {marker}"));
        let mut ending = None;
        wait_until("a replica runs it", || {
            ending = [&cluster.pg2, &cluster.pg3]
                .into_iter()
                .find(|r| times_ran(r, &marker) > 0);
            ending.is_some()
        });
        let ending = ending.unwrap();
        match how {
            Signal::SIGKILL => kill(ending),
            _ => ending.ctl(&[
                "stop",
                "-m",
                if how == Signal::SIGINT {
                    "fast"
                } else {
                    "immediate"
                },
            ]),
        }
        assert_eq!(asked.wait().as_deref(), Ok("20000000"), "{how} {listener}");
        assert!(session.is_open());
        ending.start();
        let name = if std::ptr::eq(ending, &cluster.pg2) {
            "pg2"
        } else {
            "pg3"
        };
        cluster.proxied.wait_health(name, Health::Up);
    }
}

#[test]
fn a_read_whose_replica_is_killed_waits_for_one_that_has_the_sessions_writes() {
    let cluster = cluster(&system_bin(), |_| {});
    let session = session(&cluster);
    cluster.pg3.sql("SELECT pg_wal_replay_pause()");
    session.sql("update kv set v = 77 where k = 1");
    let now = Moment::now();
    wait_until("one replica is fresh", || {
        let topology = cluster.proxied.topology.current();
        topology
            .node("pg2")
            .is_some_and(|node| node.freshness.as_of() >= now)
    });
    let slow =
        "select max(a.v) from kv a, kv b, kv c, (select k from kv where k <= 20) d /* slow. */";
    let asked = session.start(slow);
    wait_until("the fresh one runs it", || {
        times_ran(&cluster.pg2, "/* slow. */") > 0
    });
    kill(&cluster.pg2);
    cluster.proxied.wait_health("pg2", Health::Down);
    assert_eq!(asked.poll(), None);
    cluster.pg3.sql("SELECT pg_wal_replay_resume()");
    assert_eq!(asked.wait().as_deref(), Ok("77"));
    assert_eq!(times_ran(&cluster.pg1, "/* slow. */"), 0);
}

#[test]
fn what_one_session_wrote_another_sees_by_its_token() {
    let cluster = cluster(&system_bin(), |config| {
        config.reads.consistency = Consistency::Eventual;
    });
    for replica in [&cluster.pg2, &cluster.pg3] {
        replica.sql("ALTER SYSTEM SET recovery_min_apply_delay = '100ms'");
        replica.sql("SELECT pg_reload_conf()");
    }
    let (writer, reader) = (session(&cluster), session(&cluster));
    for value in 1..=20 {
        writer.sql(&format!("update kv set v = {value} where k = 5"));
        let token = writer.sql("show pgsluice.lsn");
        reader.sql(&format!("set pgsluice.min_lsn = '{token}'"));
        let seen = reader.sql("select v from kv where k = 5 /* by token. */");
        assert_eq!(seen, value.to_string());
        if value % 5 == 0 {
            wait_fresh(&cluster);
            assert_eq!(
                reader.sql("select v from kv where k = 5 /* by token. */"),
                seen
            );
        }
    }
    assert!(ran(&cluster, "/* by token. */").1, "never on a replica");
    let token = writer.sql("show pgsluice.lsn");
    let mut parts: Vec<&str> = token.split('/').collect();
    parts[1] = "00000063";
    for (token, sqlstate) in [("nonsense", "22023"), (&parts.join("/"), "40001")] {
        let told = reader
            .try_sql(&format!("set pgsluice.min_lsn = '{token}'"))
            .unwrap_err();
        assert!(told.is("ERROR", sqlstate), "{told:?}");
    }
}

#[test]
fn a_session_is_told_where_its_statements_run_and_may_keep_reads_on_the_primary() {
    let cluster = cluster(&system_bin(), |_| {});
    let session = session(&cluster);
    assert_eq!(session.sql("explain route select v from kv"), "replica");
    for unproven in ["update kv set v = 1", "select txid_current()", "nonsense"] {
        assert_eq!(
            session.sql(&format!("EXPLAIN ROUTE {unproven};")),
            "primary",
            "{unproven}"
        );
    }
    session.sql("set pgsluice.explain = on");
    session.sql("set pgsluice.route = 'primary'");
    wait_fresh(&cluster);
    assert_eq!(session.sql("explain route select v from kv"), "primary");
    session.sql("select v from kv where k = 1 /* kept. */");
    assert_eq!(ran(&cluster, "/* kept. */"), ON_PRIMARY);
    session.sql("reset pgsluice.route");
    wait_fresh(&cluster);
    session.sql("select v from kv where k = 1 /* let go. */");
    assert_eq!(ran(&cluster, "/* let go. */"), ON_REPLICA);
}

#[test]
fn a_replica_listener_may_send_writes_to_the_primary() {
    let cluster = cluster(&system_bin(), |config| {
        config.listeners[READS].writes = Writes::Primary;
    });
    let session = cluster.proxied.session(READS);
    wait_until("the catalogue is read", || {
        let told = session.sql("select count(*) from kv /* reads. */");
        told == "100" && ran(&cluster, "/* reads. */").1
    });
    session.sql("update kv set v = 9 where k = 9 /* writes. */");
    assert_eq!(ran(&cluster, "/* writes. */"), ON_PRIMARY);
    session.sql("begin");
    session.sql("update kv set v = 10 where k = 9 /* in transaction. */");
    assert_eq!(
        session.sql("select v from kv where k = 9 /* in transaction. */"),
        "10"
    );
    session.sql("commit");
    assert_eq!(ran(&cluster, "/* in transaction. */"), ON_PRIMARY);
    wait_fresh(&cluster);
    assert_eq!(
        session.sql("select v from kv where k = 9 /* after. */"),
        "10"
    );
    assert_eq!(ran(&cluster, "/* after. */"), ON_REPLICA);
}
