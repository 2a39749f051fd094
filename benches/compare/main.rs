//! Side by side: pgbench's select-only against PostgreSQL directly, through PgBouncer, HAProxy and pgsluice, in turn.
//!
//! `cargo bench --bench compare -- [--seconds 5] [--rounds 5] [--clients 1,16,64] [--modes simple,extended,prepared]`
//!
//! `--crowd 64,5000` measures how throughput holds as clients outnumber the pool, with a load generator of its own.
//!
//! Machines drift, so the peers run one after the other in every round, and what counts are the medians of ratios
//! within a round. CPU per transaction is the proxy's own, from /proc. Peers that are not installed are left out
//! (Debian: pgbouncer, haproxy).

mod crowd;
mod measure;
mod peers;

use clap::Parser;
use measure::{Sample, median};
use peers::{Bench, Peer};

#[derive(Parser)]
struct Args {
    /// Seconds of one measurement
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// How often each peer is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    clients: Vec<u32>,
    #[arg(long, value_delimiter = ',', default_value = "simple")]
    modes: Vec<String>,
    /// Clients at once with a lean load of our own, instead of pgbench
    #[arg(long, value_delimiter = ',')]
    crowd: Vec<usize>,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let bench = Bench::start();
    let peers = bench.peers();
    if !args.crowd.is_empty() {
        return crowds(&args, &peers);
    }
    println!(
        "PostgreSQL {}, pgbench -S, {} rounds of {} s, medians; CPU in µs of the proxy per transaction",
        bench.version(),
        args.rounds,
        args.seconds
    );
    for mode in &args.modes {
        let peers: Vec<_> = peers.iter().filter(|p| p.runs(mode)).cloned().collect();
        for clients in &args.clients {
            case(&args, &peers, mode, *clients);
        }
    }
}

fn case(args: &Args, peers: &[Peer], mode: &str, clients: u32) {
    let mut samples: Vec<Vec<Sample>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (peer, samples) in peers.iter().zip(&mut samples) {
            samples.push(measure::pgbench(peer, mode, clients, args.seconds));
        }
    }
    println!("\n-M {mode}, {clients} clients");
    println!(
        "{:<11}{:>10}{:>10}{:>12}{:>10}",
        "", "tps", "ms", "CPU µs/tx", ""
    );
    for (peer, own) in peers.iter().zip(&samples) {
        let of = |field: fn(&Sample) -> f64| median(own.iter().map(field));
        let cpu = peer.pid.map(|_| format!("{:.2}", of(|s| s.cpu_us)));
        println!(
            "{:<11}{:>10.0}{:>10.3}{:>12}",
            peer.name,
            of(|s| s.tps),
            of(|s| s.latency_ms),
            cpu.unwrap_or_default()
        );
    }
    ratios(peers, &samples);
}

/// Each proxy with few and with many clients.
fn crowds(args: &Args, peers: &[Peer]) {
    println!(
        "point queries, {} rounds of {} s, medians; × is to the first number of clients",
        args.rounds, args.seconds
    );
    println!(
        "{:<11}{:>9}{:>10}{:>10}{:>12}{:>8}",
        "", "clients", "tps", "ms", "CPU µs/tx", "×"
    );
    // Directly and through HAProxy every client would need a server of its own.
    for peer in peers.iter().filter(|p| p.pools) {
        let mut samples: Vec<Vec<Sample>> = args.crowd.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds {
            for (clients, samples) in args.crowd.iter().zip(&mut samples) {
                samples.push(crowd::crowd(peer, *clients, args.seconds));
            }
        }
        for (clients, own) in args.crowd.iter().zip(&samples) {
            let of = |field: fn(&Sample) -> f64| median(own.iter().map(field));
            let held = own
                .iter()
                .zip(&samples[0])
                .map(|(many, few)| many.tps / few.tps);
            println!(
                "{:<11}{:>9}{:>10.0}{:>10.3}{:>12.2}{:>8.2}",
                peer.name,
                clients,
                of(|s| s.tps),
                of(|s| s.latency_ms),
                of(|s| s.cpu_us),
                median(held)
            );
        }
    }
}

/// pgsluice against each other peer, round by round.
fn ratios(peers: &[Peer], samples: &[Vec<Sample>]) {
    let Some(ours) = peers.iter().position(|p| p.name == peers::OURS) else {
        return;
    };
    for (peer, theirs) in peers.iter().zip(samples) {
        if peer.name == peers::OURS {
            continue;
        }
        let ratio = |field: fn(&Sample) -> f64| {
            let rounds = samples[ours].iter().zip(theirs);
            median(rounds.map(|(own, other)| field(own) / field(other)))
        };
        let cpu = peer
            .pid
            .map(|_| format!(", CPU × {:.2}", ratio(|s| s.cpu_us)));
        println!(
            "  pgsluice / {:<10} tps × {:.2}, latency × {:.2}{}",
            peer.name,
            ratio(|s| s.tps),
            ratio(|s| s.latency_ms),
            cpu.unwrap_or_default()
        );
    }
}
