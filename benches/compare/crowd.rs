//! Many clients at once: a load that costs little itself, so that what is measured is the proxy.
//!
//! pgbench looks over all its sockets for every reply; with thousands of them that takes more than any proxy does.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    task::LocalSet,
};

use crate::{
    measure::{Sample, cpu_us},
    peers::{DATABASE, Peer, USER},
};

/// Connections that log in at the same time.
const LOGINS: usize = 50;
/// Of `pgbench -i -s 10`.
const ACCOUNTS: u64 = 1_000_000;

/// What the clients of one run share.
struct Run {
    counts: Cell<bool>,
    ends: Cell<bool>,
    transactions: Cell<u64>,
    latency: Cell<Duration>,
}

/// `clients` sessions that each run one point query after the other.
pub fn crowd(peer: &Peer, clients: usize, seconds: u32) -> Sample {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, measure(peer, clients, seconds))
}

async fn measure(peer: &Peer, clients: usize, seconds: u32) -> Sample {
    let run = Rc::new(Run {
        counts: Cell::new(false),
        ends: Cell::new(false),
        transactions: Cell::new(0),
        latency: Cell::default(),
    });
    let mut sockets = Vec::with_capacity(clients);
    while sockets.len() < clients {
        let some = LOGINS.min(clients - sockets.len());
        let logins: Vec<_> = (0..some)
            .map(|_| tokio::task::spawn_local(login(peer.port)))
            .collect();
        for login in logins {
            sockets.push(login.await.expect("a login ends"));
        }
    }
    let sessions: Vec<_> = (1..)
        .zip(sockets)
        .map(|(seed, socket)| tokio::task::spawn_local(session(socket, seed, run.clone())))
        .collect();
    // All have had their turn, and every server is open.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, since) = (peer.pid.map(cpu_us), Instant::now());
    run.counts.set(true);
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    run.counts.set(false);
    let (elapsed, after) = (since.elapsed(), peer.pid.map(cpu_us));
    run.ends.set(true);
    for session in sessions {
        session.await.expect("a session ends");
    }
    let transactions = run.transactions.get() as f64;
    let cpu = after.zip(before).map(|(after, before)| after - before);
    Sample {
        tps: transactions / elapsed.as_secs_f64(),
        latency_ms: run.latency.get().as_secs_f64() * 1000.0 / transactions,
        cpu_us: cpu.map_or(f64::NAN, |us| us / transactions),
    }
}

async fn login(port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("a connection");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let body = format!("user\0{USER}\0database\0{DATABASE}\0\0");
    let mut startup = (body.len() as u32 + 8).to_be_bytes().to_vec();
    startup.extend_from_slice(&196_608_u32.to_be_bytes());
    startup.extend_from_slice(body.as_bytes());
    socket
        .write_all(&startup)
        .await
        .expect("a startup message is taken");
    until_ready(&mut socket).await;
    socket
}

async fn session(mut socket: TcpStream, seed: u64, run: Rc<Run>) {
    let mut random = seed;
    let mut message = Vec::new();
    while !run.ends.get() {
        // A linear congruential generator (Knuth's MMIX) picks the account.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let account = (random >> 33) % ACCOUNTS + 1;
        let sql = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account};\0");
        message.clear();
        message.push(b'Q');
        message.extend_from_slice(&(sql.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(sql.as_bytes());
        let asked = Instant::now();
        socket.write_all(&message).await.expect("a query is taken");
        until_ready(&mut socket).await;
        if run.counts.get() {
            run.transactions.set(run.transactions.get() + 1);
            run.latency.set(run.latency.get() + asked.elapsed());
        }
    }
}

/// Reads up to a ReadyForQuery that ends what has come; with one query under way nothing follows it.
async fn until_ready(socket: &mut TcpStream) {
    let mut bytes = [0; 1024];
    let mut filled = 0;
    loop {
        let read = socket.read(&mut bytes[filled..]).await.expect("an answer");
        assert!(
            read > 0,
            "the connection ended: {}",
            String::from_utf8_lossy(&bytes[..filled])
        );
        filled += read;
        if bytes[..filled].ends_with(b"Z\0\0\0\x05I") {
            return;
        }
        assert!(filled < bytes.len(), "{}", String::from_utf8_lossy(&bytes));
    }
}
