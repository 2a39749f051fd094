//! A session in transaction mode, on servers that strangers use between its transactions, against the same session on a
//! server of its own: every message of every reply must be the same.
//!
//! Scripts come from a seed. `PGSLUICE_DIFFERENTIAL_SEED=n` runs one seed alone and looks for the shortest script that
//! fails; `PGSLUICE_DIFFERENTIAL_SEEDS=n` runs the seeds below it, from `PGSLUICE_DIFFERENTIAL_FIRST` on.
//!
//! What is not compared, and why:
//! - BackendKeyData, and the pid in NotificationResponse: there are two sessions.
//! - The order of ParameterStatus at login: PostgreSQL promises none.
//! - What comes after "unnamed prepared statement does not exist": where a batch fails before one of its Parse messages for
//!   the unnamed statement, the earlier one stays in force, and the proxy has forgotten its text.
//! - What comes after a Bind in a failed transaction of a statement that this server does not know: it is refused for the
//!   transaction (25P02), where a server of one's own may find another fault with it first.
//! - What comes after pg_prepared_statements has shown a statement of the proxy's.
//! - pg_settings.source (not generated): what was set again on another server counts as set in the session.
//! - `application_name` between its RESET and the end of the same message or batch, and its reset_val (not generated): it is the
//!   pool's, until the proxy puts the session's own in its place.
//! - Statements that a function prepares by EXECUTE of a text (not generated): the proxy does not know their names.
//! - A custom setting that was never set: PostgreSQL never forgets one that any session of a server has set, and gives an
//!   empty string instead of NULL or an error. Those of `my` have a value in the database, `app.tenant` is read by `nullif`.
//! - Names in `pg_temp` before a session has made anything there (not generated): a server keeps that schema once it has it,
//!   and the error is another one.
//! - Object identifiers from 16384 on: the tables are made anew for each run. Which object is meant is compared.
//!
//! `pool.sequences` is "pin" here: with "learn" the first currval on another server is a documented error.

#[allow(dead_code)] // of the session tests, which use all of it
#[path = "../sessions/bed.rs"]
mod bed;
mod compare;
mod generate;
mod message;
mod neighbours;
#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../common/random.rs"]
mod random;
#[allow(dead_code)] // of the session tests, which use all of it
#[path = "../sessions/raw.rs"]
mod raw;
mod session;
mod shrink;
mod world;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use compare::compare;
use generate::Script;
use shrink::shrink;
use world::{Port, World};

/// Seeds of a usual run.
const SEEDS: u64 = 150;
/// The same on the port that splits.
const SPLIT_SEEDS: u64 = 50;
/// After so many differences no more are looked for.
const ENOUGH: usize = 20;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn a_pooled_session_sees_what_a_direct_one_sees() {
    all(Port::Primary, SEEDS);
}

#[test]
fn a_session_whose_reads_go_to_replicas_sees_what_a_direct_one_sees() {
    all(Port::Split, SPLIT_SEEDS);
}

fn all(port: Port, usual: u64) {
    let failure = match from_environment("PGSLUICE_DIFFERENTIAL_SEED") {
        Some(seed) => one(port, seed),
        None => {
            let seeds = from_environment("PGSLUICE_DIFFERENTIAL_SEEDS");
            many(port, seeds.unwrap_or(usual))
        }
    };
    // By now the servers are gone: a panic beside them would show their logs.
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}

/// The seeds below `end`, two at a time; what failed.
fn many(port: Port, end: u64) -> Option<String> {
    let next = AtomicU64::new(from_environment("PGSLUICE_DIFFERENTIAL_FIRST").unwrap_or(0));
    let (failed, on_replicas) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for workers in [1, 2] {
            let (next, failed, on_replicas) = (&next, &failed, &on_replicas);
            scope.spawn(move || {
                let mut world = World::new(workers, port);
                let seeds = std::iter::repeat_with(|| next.fetch_add(1, Relaxed));
                for seed in seeds.take_while(|seed| *seed < end) {
                    if failed.lock().unwrap().len() >= ENOUGH {
                        break;
                    }
                    let _named = Named(seed);
                    let script = Script::new(seed, &world.bed.database);
                    if let Some(difference) = compare(&mut world, &script, seed) {
                        eprintln!("seed {seed}: {}", difference.show(&script));
                        failed.lock().unwrap().push(seed);
                    }
                }
                on_replicas.fetch_add(world.replicas_transactions(), Relaxed);
            });
        }
    });
    let on_replicas = on_replicas.into_inner();
    eprintln!("{port:?}: {on_replicas} transactions on replicas");
    assert_eq!(on_replicas > 0, port == Port::Split);
    let failed = failed.into_inner().unwrap();
    let count = failed.len();
    (count > 0).then(|| format!("{count} of {end} seeds differ: {failed:?}"))
}

/// Tells the seed where a run ends in a panic.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- this was seed {}", self.0);
        }
    }
}

/// Alone, and made as short as may be.
fn one(port: Port, seed: u64) -> Option<String> {
    let mut world = World::new(1, port);
    let script = Script::new(seed, &world.bed.database);
    let difference = compare(&mut world, &script, seed)?;
    let (script, difference) = shrink(&mut world, script, seed, difference);
    Some(format!(
        "seed {seed}, made short: {}",
        difference.show(&script)
    ))
}
