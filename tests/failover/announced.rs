//! A switchover that is announced: transactions that are open end, new ones wait, and nobody gets an error.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

use pgsluice::{
    admin::{Drained, Paused},
    topology::{Health, Reason},
};

use crate::{
    nodes::installations,
    proxied::{Cluster, READS, READS_SESSION, WHERE, WRITES, WRITES_SESSION, wait_until},
};

/// Servers still at work on the node that was paused.
fn busy(paused: Paused) -> usize {
    match paused {
        Paused::Done { busy, .. } => busy,
        Paused::NoPrimary => panic!("there is no primary"),
    }
}

#[test]
fn an_announced_switchover_costs_explicit_transactions_no_error() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    let session = cluster.proxied.session(WRITES);
                    let (stop, done) = (&stop, &done);
                    scope.spawn(move || {
                        let mut written = 0;
                        while !stop.load(Relaxed) {
                            session.sql("begin");
                            for half in 0..2 {
                                let id = writer * 1_000_000 + written * 2 + half;
                                session.sql(&format!("insert into t values ({id})"));
                            }
                            session.sql("commit");
                            written += 1;
                            done.fetch_add(1, Relaxed);
                        }
                        written * 2
                    })
                })
                .collect();
            wait_until("they write", || done.load(Relaxed) > 20);
            wait_until("nothing runs", || busy(cluster.proxied.pause()) == 0);
            let before = cluster.pg1.sql("select count(*) from t");
            cluster.wait_replayed();
            assert_eq!(cluster.pg1.sql("select count(*) from t"), before);
            cluster.pg1.ctl(&["stop", "-m", "fast"]);
            cluster.pg2.promote();
            let so_far = done.load(Relaxed);
            wait_until("they write on", || done.load(Relaxed) > so_far + 20);
            stop.store(true, Relaxed);
            let written: u32 = writers.into_iter().map(|w| w.join().unwrap()).sum();
            let there = cluster.pg2.sql("select count(*) from t");
            assert_eq!(there, written.to_string());
        });
    }
}

#[test]
fn a_pause_waits_for_what_is_open_and_ends_when_it_is_resumed() {
    let grace = Duration::from_millis(200);
    let cluster = Cluster::start_with(&installations()[0], |config| {
        config.failover.grace = grace;
    });
    let open = |listener| cluster.proxied.session(listener);
    let (in_transaction, fresh, keeps) = (open(WRITES), open(WRITES), open(WRITES_SESSION));
    fresh.sql("select 1");
    keeps.sql("insert into t values (1)");
    in_transaction.sql("begin");
    in_transaction.sql("insert into t values (2)");
    let Paused::Done {
        busy: left,
        grace: told,
        ..
    } = cluster.proxied.pause()
    else {
        panic!("there is a primary");
    };
    assert_eq!((left, told), (1, grace));
    let waiting = [
        fresh.start("insert into t values (3)"),
        keeps.start("insert into t values (4)"),
    ];
    in_transaction.sql("insert into t values (5)");
    in_transaction.sql("commit");
    wait_until("nothing runs", || busy(cluster.proxied.pause()) == 0);
    let ids = "select string_agg(id::text, ' ' order by id) from t";
    assert_eq!(cluster.pg1.sql(ids), "1 2 5");
    assert!(waiting.iter().all(|answer| answer.poll().is_none()));
    cluster.proxied.resume();
    for answer in waiting {
        answer.wait().unwrap();
    }
    assert_eq!(cluster.pg1.sql(ids), "1 2 3 4 5");

    // A restart of what was paused is enough: it is another by then.
    wait_until("nothing runs", || busy(cluster.proxied.pause()) == 0);
    let waiting = fresh.start("insert into t values (6)");
    cluster.pg1.ctl(&["stop", "-m", "fast"]);
    cluster.proxied.wait_health("pg1", Health::Down);
    assert_eq!(cluster.proxied.pause(), Paused::NoPrimary);
    assert!(waiting.poll().is_none());
    cluster.pg1.start();
    waiting.wait().unwrap();
    assert_eq!(fresh.sql(WHERE), format!("{} primary", cluster.pg1.port));
}

#[test]
fn a_drained_replica_ends_what_is_open_there_and_gets_nothing_new_until_it_is_undrained() {
    let cluster = Cluster::start(&installations()[0]);
    let proxied = &cluster.proxied;
    let on_pg3 = format!("{} replica", cluster.pg3.port);
    // Of listeners whose sessions keep their servers, one is idle there, and one in a transaction.
    let (mut held, mut elsewhere) = (Vec::new(), Vec::new());
    wait_until("two are on pg3", || {
        let session = proxied.session(READS_SESSION);
        // The others stay, or pg2 would always have less to do.
        match session.sql(WHERE) == on_pg3 {
            true => held.push(session),
            false => elsewhere.push(session),
        }
        held.len() == 2
    });
    held[1].sql("begin");
    let busy = |drained| match drained {
        Drained::Done { busy, .. } => busy,
        other => panic!("{other:?}"),
    };
    wait_until("only the transaction is left", || {
        busy(proxied.drain("pg3", true)) == 1
    });
    let view = proxied.wait_health("pg3", Health::Draining);
    assert_eq!(view.node("pg3").unwrap().reason, Reason::Drained);
    let told = held[0].wait_end().unwrap();
    assert!(told.is("FATAL", "57P01"), "{told:?}");
    held[1].sql("commit");
    wait_until("nothing is left", || busy(proxied.drain("pg3", true)) == 0);
    let on_pg2 = format!("{} replica", cluster.pg2.port);
    let reader = proxied.session(READS);
    for _ in 0..20 {
        assert_eq!(reader.sql(WHERE), on_pg2);
    }
    // It is about reads: who is promoted is primary.
    assert_eq!(proxied.drain("pg1", true), Drained::IsPrimary);
    assert_eq!(proxied.drain("pg9", true), Drained::UnknownNode);
    proxied.drain("pg3", false);
    proxied.wait_health("pg3", Health::Up);
    wait_until("it is read from", || reader.sql(WHERE) == on_pg3);
}
