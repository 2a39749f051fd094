//! A primary that was replaced while it could not be heard, and comes back believing that it still is one: what it
//! acknowledges would be lost. `PGSLUICE_TEST_STALE_ROUNDS` says how often the test does it (5 by default).

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
};

use pgsluice::{proxy::Proxy, topology::Health};

use crate::{
    nodes::{Server, installations, runtime},
    proxied::{Cluster, Proxied, Session, WRITES, WRITES_SESSION, config, wait_until},
};

/// Those of each kind of listener.
const WRITERS: usize = 4;

/// Writers, and what they were told once another primary is in force.
struct Load<'a> {
    cluster: &'a Cluster,
    next: AtomicI64,
    replaced: AtomicBool,
    stop: AtomicBool,
    acknowledged: AtomicI64,
}

impl Load<'_> {
    /// Inserts until told to stop, on a session that is opened again when it ends. Returns what was acknowledged after
    /// the old primary was replaced.
    fn write(&self, listener: usize) -> Vec<i64> {
        let mut acknowledged = Vec::new();
        let mut session = self.cluster.proxied.session(listener);
        while !self.stop.load(Relaxed) {
            let id = self.next.fetch_add(1, Relaxed);
            match session.try_sql(&format!("insert into t values ({id})")) {
                Ok(_) => {
                    if self.replaced.load(Relaxed) {
                        acknowledged.push(id);
                    }
                    self.acknowledged.fetch_add(1, Relaxed);
                }
                Err(_) if session.is_open() => {}
                Err(_) => {
                    let address = self.cluster.proxied.addresses[listener];
                    session = Session::try_open(address).unwrap_or(session);
                }
            }
        }
        acknowledged
    }

    /// Waits until `count` more inserts were acknowledged.
    fn wait_for_more(&self, count: i64) {
        let enough = self.acknowledged.load(Relaxed) + count;
        wait_until("writes go on", || self.acknowledged.load(Relaxed) >= enough);
    }
}

fn ids(server: &Server) -> BTreeSet<i64> {
    let text = server.sql("select string_agg(id::text, ' ') from t");
    let ids = text.split_whitespace();
    ids.map(|id| id.parse().unwrap()).collect()
}

fn rounds() -> usize {
    let set = std::env::var("PGSLUICE_TEST_STALE_ROUNDS").ok();
    set.map_or(5, |rounds| rounds.parse().unwrap())
}

#[test]
fn a_replaced_primary_that_thaws_acknowledges_no_write() {
    let bin = &installations()[0];
    for round in 0..rounds() {
        let cluster = Cluster::start_with(bin, |config| config.pool.size = 3);
        let acknowledged = replace(&cluster, round % 2 == 0);
        let kept = ids(&cluster.pg2);
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|id| !kept.contains(id))
            .collect();
        assert!(
            lost.is_empty(),
            "round {round}: only the old primary has {lost:?}"
        );
        assert!(acknowledged.len() >= 200);
    }
}

/// Freezes the primary under load, promotes another (`late`: not before the old one counts as down), thaws it, and lets
/// the load go on. Returns what was acknowledged since the proxy knew.
fn replace(cluster: &Cluster, late: bool) -> Vec<i64> {
    let load = &Load {
        cluster,
        next: AtomicI64::new(1),
        replaced: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        acknowledged: AtomicI64::new(0),
    };
    thread::scope(|scope| {
        let listeners = [WRITES, WRITES_SESSION].repeat(WRITERS).into_iter();
        let writers: Vec<ScopedJoinHandle<_>> = listeners
            .map(|listener| scope.spawn(move || load.write(listener)))
            .collect();
        load.wait_for_more(50);
        cluster.pg1.freeze();
        if late {
            cluster.proxied.wait_health("pg1", Health::Down);
        }
        cluster.pg2.promote();
        cluster.proxied.wait_primary("pg2");
        load.replaced.store(true, Relaxed);
        cluster.pg1.thaw();
        cluster.proxied.wait_health("pg1", Health::Fenced);
        load.wait_for_more(200);
        load.stop.store(true, Relaxed);
        let acknowledged = writers.into_iter().map(|it| it.join().unwrap());
        acknowledged.flatten().collect()
    })
}

#[test]
fn a_state_file_of_another_cluster_is_an_error_at_the_start() {
    let (ours, other) = (
        Server::primary(&installations()[0]),
        Server::primary(&installations()[0]),
    );
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let start = |server| {
        let mut config = config(&[server]);
        config.failover.state_file = Some(state.clone());
        config
    };
    let proxied = Proxied::start(start(&ours));
    proxied.wait_primary("pg1");
    wait_until("it is written", || state.exists());
    drop(proxied);
    let error = runtime().block_on(Proxy::start(start(&other))).err();
    let text = error.expect("it started").to_string();
    assert!(text.contains("remembers another cluster"), "{text}");
    assert!(text.contains("remove that file"), "{text}");
}
