//! One measurement: pgbench's figures, and the proxy's CPU time meanwhile.

use std::process::Command;

use crate::peers::{DATABASE, Peer, USER};

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub tps: f64,
    pub latency_ms: f64,
    /// The proxy's user and system time per transaction; NaN without a proxy.
    pub cpu_us: f64,
}

pub fn pgbench(peer: &Peer, mode: &str, clients: u32, seconds: u32) -> Sample {
    let before = peer.pid.map(cpu_us);
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let run = Command::new(&peer.pgbench)
        .args(["-h", "127.0.0.1", "-p", &peer.port.to_string(), "-U", USER])
        .args([
            "-n", "-S", "-M", mode, "-c", &clients, "-j", "1", "-T", &seconds, DATABASE,
        ])
        .output()
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "pgbench through {}: {text}{}",
        peer.name,
        String::from_utf8_lossy(&run.stderr)
    );
    let transactions = figure(&text, "number of transactions actually processed: ");
    let cpu = peer
        .pid
        .zip(before)
        .map(|(pid, before)| cpu_us(pid) - before);
    Sample {
        tps: figure(&text, "tps = "),
        latency_ms: figure(&text, "latency average = "),
        cpu_us: cpu.map_or(f64::NAN, |us| us / transactions),
    }
}

fn figure(text: &str, label: &str) -> f64 {
    let rest = text.split(label).nth(1).unwrap_or_default();
    let digits = rest.split([' ', '\n', '/']).next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no {label:?} in {text}"))
}

/// User and system time of all threads of a process so far (proc(5), fields 14 and 15, in ticks of 10 ms).
pub fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the proxy runs");
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks * 10_000.0
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
