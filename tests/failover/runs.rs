//! Switchovers and crashes under load, a few of them; `scripts/failover` has as many as one likes, and prints the table.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use pgsluice::{
    admin::Paused,
    cluster::{Cluster, Node, Replication, Shutdown},
    config,
};

use crate::{
    common::Pg,
    history::{Key, Promise, Value, violations},
    load::{Load, REGISTERS, Report, Targets, Writing, acknowledged},
    proxied::{Proxied, READS, WRITES, config_of, wait_until},
};

/// The variable that says how many events each run has.
pub const RUNS: &str = "PGSLUICE_FAILOVER_RUNS";
/// Writers, and readers.
pub const SESSIONS: usize = 16;
/// Writes before and after each event.
const WRITES_BETWEEN: usize = 200;

/// How many events each run has.
pub fn rounds() -> usize {
    let given = std::env::var(RUNS).ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// A primary and two replicas, with the proxy before them.
pub struct Scene {
    pub proxied: Proxied,
    pub cluster: Cluster,
}

impl Scene {
    pub fn start(replication: Replication) -> Scene {
        let builder = Pg::any().builder().replicas(2).replication(replication);
        let cluster = builder.start().unwrap_or_else(|e| panic!("{e}"));
        let setup = [
            "create role prober login in role pg_monitor",
            "create role app login",
        ];
        for sql in setup.into_iter().chain(REGISTERS.split("; ")) {
            cluster.primary().sql(sql).unwrap();
        }
        let nodes = cluster.nodes();
        let config = config_of(nodes.iter().map(|node| configured(node)).collect());
        let scene = Scene {
            proxied: Proxied::start(config),
            cluster,
        };
        scene.wait_whole();
        scene
    }

    fn targets(&self) -> Targets {
        Targets {
            writes: self.proxied.addresses[WRITES],
            reads: self.proxied.addresses[WRITES],
            replicas: Some(self.proxied.addresses[READS]),
        }
    }

    fn wait_whole(&self) {
        let primary = self.cluster.primary().name().to_owned();
        self.proxied.wait("all up", |t| {
            crate::nodes::is_primary(t, &primary) && t.nodes.iter().all(|node| node.is_up())
        });
    }

    fn pause(&self) {
        wait_until("nothing runs on the primary", || {
            matches!(self.proxied.pause(), Paused::Done { busy: 0, .. })
        });
    }

    /// The running replica that has received most.
    fn successor(&self) -> String {
        let replicas = self.cluster.replicas();
        let first = replicas.iter().max_by_key(|node| received(node));
        first.unwrap().name().to_owned()
    }

    /// The former primary comes back as a replica.
    fn rejoin(&self, former: &Node) {
        self.cluster.rejoin(former.name()).unwrap();
        self.wait_whole();
    }
}

fn configured(node: &Node) -> config::Node {
    config::Node {
        max_servers: 60,
        ..config::Node::at(node.name(), "127.0.0.1", node.port())
    }
}

/// Bytes of WAL.
fn received(node: &Node) -> u64 {
    let sql = "select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'";
    node.value(sql).unwrap().unwrap().parse().unwrap()
}

/// Every register, as `node` has it.
fn registers(node: &Node) -> BTreeMap<Key, Value> {
    let sql = "select string_agg(key || ':' || value, ',') from register";
    let all = node.value(sql).unwrap().unwrap();
    let pairs = all.split(',').map(|pair| pair.split_once(':').unwrap());
    pairs
        .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
        .collect()
}

/// One line of the table.
pub fn print(what: &str, events: usize, report: &Report, without_primary: Duration, lost: usize) {
    println!(
        "| {what:<44} | {events:>6} | {:>7} | {:>6} | {:>20} | {:>6.2} s | {:>10.2} s | {lost:>4} |",
        report.writes,
        report.error_count(),
        format!("{:?}", report.errors),
        report.longest_pause.as_secs_f64(),
        without_primary.as_secs_f64(),
    );
}

/// Planned switchovers: the primary is shut down fast, another is promoted, the old one comes back. The longest time that
/// the cluster itself had no primary.
pub fn switch_over(scene: &Scene, load: &Load, announced: bool) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..rounds() {
        load.wait_writes(WRITES_BETWEEN);
        let former = scene.cluster.primary();
        if announced {
            scene.pause();
        }
        let began = Instant::now();
        former.stop(Shutdown::Fast).unwrap();
        scene.cluster.promote(&scene.successor()).unwrap();
        longest = longest.max(began.elapsed());
        load.wait_writes(WRITES_BETWEEN);
        scene.rejoin(&former);
    }
    longest
}

#[test]
fn unannounced_switchovers_cost_autocommit_writers_and_readers_no_error() {
    let scene = Scene::start(Replication::Asynchronous);
    let load = Load::start(scene.targets(), SESSIONS, Writing::Autocommit);
    let without_primary = switch_over(&scene, &load, false);
    let report = load.stop();
    print(
        "switchover, autocommit",
        rounds(),
        &report,
        without_primary,
        0,
    );
    assert_eq!(report.errors, BTreeMap::new());
    assert!(report.reads > 0);
    report.assert_sound();
}

#[test]
fn announced_switchovers_cost_explicit_transactions_no_error() {
    let scene = Scene::start(Replication::Asynchronous);
    let load = Load::start(scene.targets(), SESSIONS, Writing::Transactions);
    let without_primary = switch_over(&scene, &load, true);
    let report = load.stop();
    print(
        "announced switchover, transactions",
        rounds(),
        &report,
        without_primary,
        0,
    );
    assert_eq!(report.errors, BTreeMap::new());
    report.assert_sound();
}

/// Crashes, half as many: the primary is killed, the replica that has received most is promoted. How many acknowledged writes it had
/// not received.
fn crash(replication: Replication, what: &str) -> usize {
    let scene = Scene::start(replication);
    let mut lost = 0;
    for _ in 0..rounds().div_ceil(2) {
        let load = Load::start(scene.targets(), SESSIONS, Writing::Autocommit);
        load.wait_writes(WRITES_BETWEEN);
        let former = scene.cluster.primary();
        let began = Instant::now();
        former.kill().unwrap();
        let next = scene.cluster.node(&scene.successor()).unwrap();
        let lsn = next
            .value("select pg_last_wal_receive_lsn()")
            .unwrap()
            .unwrap();
        next.wait_replayed(&lsn).unwrap();
        let (known, there) = (acknowledged(&load.events()), registers(&next));
        let missing = known
            .iter()
            .filter(|(key, value)| there[key] < **value)
            .count();
        scene.cluster.promote(next.name()).unwrap();
        let without_primary = began.elapsed();
        load.wait_writes(WRITES_BETWEEN);
        let report = load.stop();
        print(what, 1, &report, without_primary, missing);
        // Only who had a statement on the way is told, once: it may have been done, or it cannot have been.
        let errors = &report.errors;
        // Without a code: the driver had asked for no more than to forget a statement, and tells nobody what came back.
        let is_honest = |code: &String| ["08006", "08007", "none"].contains(&code.as_str());
        assert!(errors.keys().all(is_honest), "{errors:?}");
        assert!(report.error_count() <= 2 * SESSIONS, "{errors:?}");
        if missing == 0 {
            report.assert_sound();
        }
        lost += missing;
        scene.rejoin(&former);
        scene
            .cluster
            .primary()
            .sql("update register set value = 0")
            .unwrap();
    }
    lost
}

#[test]
fn crashes_cost_what_was_in_flight_and_nothing_that_a_synchronous_replica_had() {
    assert_eq!(crash(Replication::Synchronous, "crash, synchronous"), 0);
}

#[test]
fn crashes_lose_no_more_than_asynchronous_replication_did() {
    crash(Replication::Asynchronous, "crash, asynchronous");
}

#[test]
fn reads_of_a_replica_that_stands_still_are_found_in_the_history() {
    let scene = Scene::start(Replication::Asynchronous);
    let replica = scene.cluster.replicas()[0].clone();
    replica.pause_replay().unwrap();
    let stale = SocketAddr::from(([127, 0, 0, 1], replica.port()));
    let targets = Targets {
        reads: stale,
        replicas: None,
        ..scene.targets()
    };
    let load = Load::start(targets, 2, Writing::Autocommit);
    load.wait_writes(WRITES_BETWEEN);
    let report = load.stop();
    replica.resume_replay().unwrap();
    assert!(!violations(&report.events, Promise::RealTime).is_empty());
}
