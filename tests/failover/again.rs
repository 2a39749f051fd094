//! What the primary rolled back when it was shut down runs once more on the next one; everything else is told.

use std::{
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgsluice::topology::Health;
use tokio::sync::oneshot;
use tokio_postgres::{CancelToken, Error, NoTls};

use crate::{
    nodes::{PATIENCE, Server, installations, runtime},
    proxied::{Cluster, Session, WHERE, WRITES, WRITES_SESSION, config, wait_until},
};

const IDS: &str = "select string_agg(id::text, ' ' order by id) from t";

/// Holds a table on a node, past the proxy, so that whoever writes to it is in the middle of that when the node stops.
struct Blocked {
    _holder: Session,
    backend: Pid,
}

impl Blocked {
    fn table(server: &Server) -> Blocked {
        let session = Session::open(SocketAddr::from(([127, 0, 0, 1], server.port)));
        session.sql("begin");
        session.sql("lock table t in access exclusive mode");
        let pid = session.sql("select pg_backend_pid()").parse().unwrap();
        Blocked {
            _holder: session,
            backend: Pid::from_raw(pid),
        }
    }

    /// Tells the node to stop, which ends every backend but the holder's: none of the others gets the table before its end.
    /// `ended` is called when they are told; then the node goes.
    fn stop_around(&self, server: &Server, ended: impl FnOnce()) {
        kill(self.backend, Signal::SIGSTOP).unwrap();
        thread::scope(|scope| {
            let stopping = scope.spawn(|| server.ctl(&["stop", "-m", "fast"]));
            let outcome = panic::catch_unwind(AssertUnwindSafe(ended));
            kill(self.backend, Signal::SIGCONT).unwrap();
            stopping.join().unwrap();
            outcome.unwrap_or_else(|panic| panic::resume_unwind(panic));
        });
    }
}

/// Waits until `count` sessions wait for a lock.
fn wait_blocked(server: &Server, count: usize) {
    let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    wait_until("all wait for the table", || {
        server.sql(sql) == count.to_string()
    });
}

/// An insert by a statement that was prepared before, on a thread of its own.
struct Prepared {
    go: oneshot::Sender<()>,
    cancel: CancelToken,
    answer: JoinHandle<Result<u64, Error>>,
}

impl Prepared {
    fn insert(address: SocketAddr, id: i64) -> Prepared {
        let (ready, prepared) = mpsc::channel();
        let (go, told) = oneshot::channel();
        let answer = thread::spawn(move || {
            runtime().block_on(async {
                let text = format!(
                    "host={} port={} user=app dbname=postgres",
                    address.ip(),
                    address.port()
                );
                let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
                tokio::spawn(connection);
                let insert = client.prepare("insert into t select $1::bigint").await?;
                ready.send(client.cancel_token()).unwrap();
                told.await.unwrap();
                client.execute(&insert, &[&id]).await
            })
        });
        let cancel = prepared.recv_timeout(PATIENCE).unwrap();
        Prepared { go, cancel, answer }
    }
}

#[test]
fn a_statement_that_a_fast_shutdown_rolled_back_runs_once_on_the_next_primary() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let open = || cluster.proxied.session(WRITES);
        let (simple, settled, begins) = (open(), open(), open());
        settled.sql("set work_mem = '77kB'");
        settled.sql("set timezone = 'Asia/Tokyo'");
        begins.sql("select 1");
        let prepared = Prepared::insert(cluster.proxied.addresses[WRITES], 2);
        let held = Blocked::table(&cluster.pg1);
        prepared.go.send(()).unwrap();
        let first = simple.start("insert into t values (1)");
        let third = settled.start(
            "insert into t select regexp_replace(current_setting('work_mem') || '0', '[^0-9]', '', 'g')::int",
        );
        wait_blocked(&cluster.pg1, 3);
        held.stop_around(&cluster.pg1, || {
            wait_until("all wait for the next", || replays(&cluster) == 3);
        });
        cluster.proxied.wait_health("pg1", Health::Down);
        let fourth = begins.start("insert into t values (4)");
        assert!(first.poll().is_none() && third.poll().is_none());
        cluster.pg2.promote();
        for pending in [first, third, fourth] {
            pending.wait().unwrap();
        }
        assert_eq!(prepared.answer.join().unwrap().unwrap(), 1);
        assert_eq!(cluster.pg2.sql(IDS), "1 2 4 770");
        assert_eq!(settled.sql("show timezone"), "Asia/Tokyo");
        assert_eq!(simple.sql(WHERE), format!("{} primary", cluster.pg2.port));
        wait_until("they are counted", || {
            cluster.proxied.metric("pgsluice_replays_total") == 3
        });
    }
}

#[test]
fn what_cannot_be_run_again_is_told_what_is_known_of_it() {
    let cluster = Cluster::start(&installations()[0]);
    for sql in [
        "create procedure p() language sql as 'insert into t values (50)'",
        "alter table t owner to app",
        "grant pg_execute_server_program to app",
        "grant create on schema public to app",
    ] {
        cluster.pg1.sql(sql);
    }
    let open = |listener| cluster.proxied.session(listener);
    let (idle, busy, pinned) = (open(WRITES), open(WRITES), open(WRITES));
    for session in [&idle, &busy] {
        session.sql("begin");
        session.sql("select 1");
    }
    pinned.sql("create temp table mine (a int)");
    let prepared = Prepared::insert(cluster.proxied.addresses[WRITES], 56);
    let held = Blocked::table(&cluster.pg1);
    an_ended_backend_takes_its_statement_with_it(&cluster);

    let told = [
        // Whether it committed, nobody can know.
        (open(WRITES), "call p()", "FATAL", "08007"),
        (
            open(WRITES),
            "do $$begin insert into t values (51); end$$",
            "FATAL",
            "08007",
        ),
        (
            open(WRITES),
            "insert into t values (52); select 1",
            "FATAL",
            "08007",
        ),
        (
            open(WRITES),
            "create index concurrently i on t (id)",
            "FATAL",
            "08007",
        ),
        // Rolled back: the server's own words.
        (
            open(WRITES),
            "copy t from program 'echo 53'",
            "FATAL",
            "57P01",
        ),
        (
            open(WRITES_SESSION),
            "insert into t values (54)",
            "FATAL",
            "57P01",
        ),
        (pinned, "insert into t values (55)", "FATAL", "57P01"),
        (busy, "insert into t values (57)", "ERROR", "40001"),
    ];
    // Before the index: what was prepared is looked at again after DDL.
    prepared.go.send(()).unwrap();
    wait_blocked(&cluster.pg1, 1);
    let answers: Vec<_> = told.iter().map(|(s, sql, ..)| s.start(sql)).collect();
    wait_blocked(&cluster.pg1, answers.len() + 1);
    held.stop_around(&cluster.pg1, || {
        for (answer, (_, sql, severity, sqlstate)) in answers.into_iter().zip(&told) {
            let told = answer.wait().expect_err(sql);
            assert!(told.is(severity, sqlstate), "{sql}: {told:?}");
        }
        wait_until("it waits", || replays(&cluster) == 1);
    });
    // What waits for the next primary can be cancelled.
    runtime()
        .block_on(prepared.cancel.cancel_query(NoTls))
        .unwrap();
    let cancelled = prepared.answer.join().unwrap().unwrap_err();
    assert_eq!(cancelled.code().unwrap().code(), "57014");

    cluster.pg2.promote();
    cluster.proxied.wait_primary("pg2");
    idle.assert_rolled_back();
    let busy = &told.last().unwrap().0;
    let refused = busy.try_sql("insert into t values (58)").unwrap_err();
    assert!(refused.is("ERROR", "25P02"), "{refused:?}");
    busy.sql("rollback");
    busy.sql("insert into t values (1)");
    assert_eq!(cluster.pg2.sql(IDS), "1");
    where_nothing_is_to_be_repeated_the_server_s_words_are_passed_on(&cluster);
}

fn replays(cluster: &Cluster) -> u64 {
    cluster.proxied.metric("pgsluice_replays_total")
}

fn an_ended_backend_takes_its_statement_with_it(cluster: &Cluster) {
    let victim = cluster.proxied.session(WRITES);
    let inserting = victim.start("insert into t values (60)");
    wait_blocked(&cluster.pg1, 1);
    cluster.pg1.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'",
    );
    let told = inserting.wait().unwrap_err();
    assert!(told.is("FATAL", "57P01"), "{told:?}");
}

/// `pg2` is the primary.
fn where_nothing_is_to_be_repeated_the_server_s_words_are_passed_on(cluster: &Cluster) {
    let servers = [&cluster.pg1, &cluster.pg2, &cluster.pg3];
    let mut config = config(&servers);
    config.failover.replay_aborted = false;
    cluster.proxied.reload(config);
    let session = cluster.proxied.session(WRITES);
    let held = Blocked::table(&cluster.pg2);
    let inserting = session.start("insert into t values (61)");
    wait_blocked(&cluster.pg2, 1);
    held.stop_around(&cluster.pg2, || {
        let told = inserting.wait().unwrap_err();
        assert!(told.is("FATAL", "57P01"), "{told:?}");
    });
    assert_eq!(replays(cluster), 1);
}

#[test]
fn a_commit_that_waited_for_a_replica_when_the_primary_stopped_is_unknown_and_not_repeated() {
    let cluster = Cluster::start(&installations()[0]);
    let session = cluster.proxied.session(WRITES);
    session.sql("select 1");
    cluster
        .pg1
        .sql("alter system set synchronous_standby_names = 'nobody'");
    cluster.pg1.sql("select pg_reload_conf()");
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    wait_until("it is synchronous", || {
        cluster.pg1.sql("show synchronous_standby_names") == "nobody"
    });
    let inserting = session.start("insert into t values (1)");
    wait_until("it waits for a replica", || cluster.pg1.sql(waits) == "1");
    cluster.pg1.ctl(&["stop", "-m", "fast"]);
    let told = inserting.wait().unwrap_err();
    assert!(told.is("FATAL", "08007"), "{told:?}");
    cluster.pg2.promote();
    cluster.proxied.wait_primary("pg2");
    assert_eq!(cluster.pg2.sql(IDS), "1");
    assert_eq!(replays(&cluster), 0);
}
