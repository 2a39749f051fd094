//! `pgsluice check`: is the configuration good, and is the cluster as the proxy needs it?
//!
//! Order: the file ([`super::load`]), the members that Patroni names, one round of questions to every node at once ([`ask`]), the auth lookup on the
//! primary ([`lookup`]), the listen addresses; then the pure [`verdict`] says what is wrong and what the proxy would
//! do. Nothing is changed anywhere, and every wait is bounded.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use crate::{
    config::{Config, Loaded},
    net, topology,
};

mod ask;
mod lookup;
mod verdict;

use ask::Login;
use verdict::{Finding, Node};

/// For one node, from name lookup to the last answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "pgsluice.toml")]
    config: PathBuf,
}

/// 0: nothing stands against a start; 1: a node is unfit or cannot be reached; 64: the configuration is bad.
pub fn run(args: CheckArgs) -> ExitCode {
    let Loaded { config, .. } = match super::load(&args.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    println!("{}: good", args.config.display());
    match look(&config) {
        Ok(findings) => conclude(&findings),
        Err(error) => {
            eprintln!("pgsluice: {error}");
            ExitCode::from(super::FAILURE)
        }
    }
}

/// Asks the cluster, prints what it is and what the proxy would do, and gives what there is to say against it.
fn look(config: &Config) -> Result<Vec<Finding>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let login = Login::new(config).map_err(|error| error.to_string())?;
    let named = runtime.block_on(topology::named_nodes(config));
    let (nodes, unnamed) = match named {
        Ok(nodes) => (nodes, None),
        Err(why) => (config.nodes.clone(), Some(Finding::error(why))),
    };
    let config = &Config {
        nodes,
        ..config.clone()
    };
    let nodes = runtime.block_on(ask_all(config, &login));
    print_nodes(&nodes);
    let mut findings = verdict::cluster(&nodes, config);
    if let Some(primary) = verdict::primary(&nodes) {
        findings.extend(runtime.block_on(lookup::check(config, &login, primary.config)));
    }
    // A name lookup that is stuck must not keep the process.
    runtime.shutdown_background();
    print_plan(&nodes, config);
    findings.extend(bindable(config));
    findings.extend(unnamed);
    Ok(findings)
}

/// All nodes at once; each within [`PATIENCE`].
async fn ask_all<'a>(config: &'a Config, login: &Login) -> Vec<Node<'a>> {
    let tasks: Vec<_> = config
        .nodes
        .iter()
        .map(|node| {
            let dial = login.to(node);
            let answer = tokio::spawn(tokio::time::timeout(PATIENCE, ask::facts(dial)));
            (node, answer)
        })
        .collect();
    let mut nodes = Vec::with_capacity(tasks.len());
    for (config, task) in tasks {
        let facts = match task.await {
            Ok(Ok(facts)) => facts,
            Ok(Err(_)) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Err(error) => Err(error.to_string()),
        };
        nodes.push(Node { config, facts });
    }
    nodes
}

/// Addresses that cannot be bound. One that is in use may be this very proxy, running already.
fn bindable(config: &Config) -> Vec<Finding> {
    let listeners = config.listeners.iter().map(|one| one.listen);
    let all = listeners.chain(config.http.listen);
    all.filter_map(|addr| {
        let error = try_bind(addr).err()?;
        Some(match error.kind() {
            io::ErrorKind::AddrInUse => Finding::warning(format!(
                "{addr} is in use; that is fine only if a pgsluice already runs there"
            )),
            _ => Finding::error(error.to_string()),
        })
    })
    .collect()
}

fn try_bind(addr: SocketAddr) -> io::Result<()> {
    net::bind(addr).map(drop)
}

fn print_nodes(nodes: &[Node]) {
    println!("\nnodes");
    for node in nodes {
        let one = node.config;
        let said = match &node.facts {
            Ok(facts) => verdict::describe(facts, nodes),
            Err(_) => "no answer".to_owned(),
        };
        println!("  {:<12} {}:{}  {said}", one.name, one.host, one.port);
    }
}

fn print_plan(nodes: &[Node], config: &Config) {
    println!("\nthe proxy would send");
    for listener in &config.listeners {
        println!(
            "  {:<22} {}",
            listener.listen,
            verdict::plan(listener, nodes)
        );
    }
}

fn conclude(findings: &[Finding]) -> ExitCode {
    println!();
    for finding in findings {
        println!("{finding}");
    }
    match findings.iter().filter(|one| one.is_error()).count() {
        0 => {
            println!("ready to run");
            ExitCode::SUCCESS
        }
        count => {
            let what = if count == 1 { "error" } else { "errors" };
            println!("not ready: {count} {what}");
            ExitCode::from(super::FAILURE)
        }
    }
}
