//! Waiting for the next primary: in the order in which sessions came, not more of them than may, and with a reason at the end.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use pgsluice::{config::Config, topology::Health};
use tokio::{sync::oneshot, task::LocalSet};
use tokio_postgres::{Error, NoTls};

use crate::{
    nodes::{PATIENCE, Server, installations, runtime},
    proxied::{Cluster, Proxied, READS, Session, WHERE, WRITES, wait_until},
};

/// Sessions that each insert their number once, when told.
struct Crowd {
    go: oneshot::Sender<()>,
    answers: mpsc::Receiver<Vec<Result<(), Error>>>,
}

impl Crowd {
    /// Returns when all have logged in.
    fn gather(address: SocketAddr, count: usize) -> Crowd {
        let (ready, gathered) = mpsc::channel();
        let (go, told) = oneshot::channel();
        let (answer, answers) = mpsc::channel();
        thread::spawn(move || {
            let sessions = LocalSet::new();
            runtime().block_on(sessions.run_until(async {
                let mut clients = Vec::new();
                let (host, port) = (address.ip(), address.port());
                let text = format!("host={host} port={port} user=app dbname=postgres");
                for _ in 0..count {
                    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
                    tokio::task::spawn_local(connection);
                    clients.push(client);
                }
                ready.send(()).unwrap();
                let _ = told.await;
                let insert = |(id, client): (usize, tokio_postgres::Client)| async move {
                    let sql = format!("insert into came values ({id})");
                    client.simple_query(&sql).await.map(drop)
                };
                let all = clients.into_iter().enumerate().map(insert);
                let all: Vec<_> = all.map(tokio::task::spawn_local).collect();
                let mut told = Vec::new();
                for one in all {
                    told.push(one.await.unwrap());
                }
                answer.send(told).unwrap();
            }));
        });
        gathered.recv_timeout(PATIENCE).expect("all log in");
        Crowd { go, answers }
    }

    /// Each begins behind the one before.
    fn go(self) -> mpsc::Receiver<Vec<Result<(), Error>>> {
        self.go.send(()).unwrap();
        self.answers
    }
}

fn held(proxied: &Proxied) -> u64 {
    proxied.metric("pgsluice_held_sessions")
}

/// A cluster whose primary has gone, with a table that shows in which order sessions wrote to it. `in_time` runs before.
fn without_primary<T>(
    change: impl FnOnce(&mut Config),
    in_time: impl FnOnce(&Cluster) -> T,
) -> (Cluster, T) {
    let cluster = Cluster::start_with(&installations()[0], change);
    cluster
        .pg1
        .sql("create table came (id int, turn serial); grant all on came, came_turn_seq to app");
    let prepared = in_time(&cluster);
    cluster.wait_replayed();
    cluster.pg1.ctl(&["stop", "-m", "fast"]);
    cluster.proxied.wait_health("pg1", Health::Down);
    (cluster, prepared)
}

fn assert_all_wrote(answers: &mpsc::Receiver<Vec<Result<(), Error>>>) {
    let answers = answers.recv_timeout(PATIENCE).expect("all are answered");
    if let Some(error) = answers.into_iter().find_map(Result::err) {
        panic!("{error:?}");
    }
}

#[test]
fn a_crowd_that_waits_is_served_by_the_next_primary_in_order_and_by_no_more_servers_than_the_pool_has()
 {
    const CROWD: usize = 600;
    const SERVERS: u64 = 8;
    let (cluster, crowd) = without_primary(
        |config| {
            config.pool.size = SERVERS as usize;
        },
        |cluster| Crowd::gather(cluster.proxied.addresses[WRITES], CROWD),
    );
    let reader = cluster.proxied.session(READS);
    let dials = || {
        let failed = cluster
            .proxied
            .metric("pgsluice_server_dial_failures_total");
        (
            cluster.proxied.metric("pgsluice_server_dials_total"),
            failed,
        )
    };
    let answers = crowd.go();
    wait_until("all wait", || held(&cluster.proxied) == CROWD as u64);
    assert!(reader.sql(WHERE).ends_with(" replica"));
    let before = dials();
    cluster.pg2.promote();
    assert_all_wrote(&answers);
    wait_until("nobody waits", || held(&cluster.proxied) == 0);
    wait_until("they are counted", || dials().0 >= before.0 + SERVERS / 2);
    let after = dials();
    // A few are the reader's.
    let (dialled, failed) = (after.0 - before.0, after.1 - before.1);
    assert!(dialled < 2 * SERVERS, "{dialled}");
    assert_eq!(failed, 0);
    // Each worker keeps the order, whichever of them is ahead: at least half of what it is with one, where nobody's would be 0.
    let ordered = cluster.pg2.sql("select corr(turn, id) > 0.4 from came");
    assert_eq!(ordered, "t");
    assert_eq!(
        cluster.pg2.sql("select count(distinct id) from came"),
        CROWD.to_string()
    );
}

#[test]
fn on_one_server_those_who_waited_write_in_the_order_in_which_they_came() {
    const CROWD: usize = 100;
    let (cluster, crowd) = without_primary(
        |config| {
            config.workers = 1;
            config.pool.size = 1;
        },
        |cluster| Crowd::gather(cluster.proxied.addresses[WRITES], CROWD),
    );
    let answers = crowd.go();
    wait_until("all wait", || held(&cluster.proxied) == CROWD as u64);
    // Snapshots wake them all, and nobody loses the turn by that.
    cluster.pg3.ctl(&["stop", "-m", "fast"]);
    cluster.proxied.wait_health("pg3", Health::Down);
    cluster.pg2.promote();
    assert_all_wrote(&answers);
    let order = cluster
        .pg2
        .sql("select count(*) from came where turn - 1 <> id");
    assert_eq!(order, "0");
}

#[test]
fn whoever_finds_no_place_to_wait_in_is_told_at_once_and_the_others_with_a_reason_at_the_end() {
    let hold = Duration::from_secs(2);
    let (cluster, sessions) = without_primary(
        |config| {
            config.failover.hold = hold;
            config.failover.max_held = 2;
        },
        |cluster| [(); 3].map(|()| cluster.proxied.session(WRITES)),
    );
    let [first, second, third] = &sessions;
    let waiting = [first, second].map(|session| session.start("insert into came values (1)"));
    wait_until("two wait", || held(&cluster.proxied) == 2);
    let told = third.try_sql("insert into came values (2)").unwrap_err();
    assert!(told.is("ERROR", "57P03"), "{told:?}");
    assert!(
        told.text.ends_with("failover.max_held is 2"),
        "{}",
        told.text
    );
    assert!(waiting.iter().all(|answer| answer.poll().is_none()));
    for answer in waiting {
        let told = answer.wait().unwrap_err();
        assert!(told.is("ERROR", "57P03"), "{told:?}");
        let reason = "no primary could be reached for 2s: the last one refuses connections";
        assert_eq!(told.text, reason);
    }
    wait_until("nobody waits", || held(&cluster.proxied) == 0);
    cluster.pg2.promote();
    cluster.proxied.wait_primary("pg2");
    for session in &sessions {
        session.sql("insert into came values (3)");
    }
}

/// Takes every slot of a node, past the proxy.
fn take_slots(server: &Server) -> Vec<Session> {
    let direct = SocketAddr::from(([127, 0, 0, 1], server.port));
    std::iter::from_fn(|| Session::try_open(direct).ok()).collect()
}

#[test]
fn a_crowd_stays_in_line_while_the_next_primary_has_no_slot_free() {
    const CROWD: usize = 50;
    let (cluster, crowd) = without_primary(
        |config| {
            config.workers = 1;
            config.pool.size = 1;
            config.pool.checkout_timeout = PATIENCE;
        },
        |cluster| Crowd::gather(cluster.proxied.addresses[WRITES], CROWD),
    );
    let taken = take_slots(&cluster.pg2);
    let answers = crowd.go();
    wait_until("all wait", || held(&cluster.proxied) == CROWD as u64);
    let failures = || {
        cluster
            .proxied
            .metric("pgsluice_server_dial_failures_total")
    };
    let before = failures();
    cluster.pg2.promote();
    wait_until("it refuses again and again", || failures() >= before + 3);
    assert!(answers.try_recv().is_err());
    drop(taken);
    assert_all_wrote(&answers);
    let order = cluster
        .pg2
        .sql("select count(*) from came where turn - 1 <> id");
    assert_eq!(order, "0");
}
