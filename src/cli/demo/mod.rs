//! `pgsluice demo`: a primary and streaming replicas made here and now, with the proxy in front.
//!
//! One process owns everything: servers, proxy, and a control socket through which `demo promote` and its kind ask for
//! changes. When it ends, the servers end, and a temporary directory is gone.
//!
//! Durability: with `--dir` the servers run with fsync, since somebody wants to keep what is in there; without, the
//! data goes with the demo anyway, and they run without.

mod ask;
mod config;
mod control;
mod message;
mod proxy;
mod roles;
mod runtime;
mod up;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};

use crate::cluster::Shutdown;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    up: UpArgs,
}

/// What cluster to make.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Streaming replicas; each costs the primary network and CPU
    #[arg(long, default_value_t = 2, value_name = "N")]
    replicas: usize,
    /// max_connections of every server
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..))]
    max_connections: Option<u32>,
    /// shared_buffers of every server, such as 256MB
    #[arg(long, value_name = "SIZE")]
    shared_buffers: Option<String>,
    /// Each commit waits until a replica has it on disk. With no replica there, writes wait until one is back
    #[arg(long)]
    synchronous: bool,
    /// Another setting of postgresql.conf, on every server
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Keep the servers here, and start them again from here (with fsync on); otherwise nothing is left behind
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// PostgreSQL's bin directory [default: the newest in /usr/lib/postgresql, else by PATH]
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    /// Check that writes, reads and replication work, say so step by step, and end
    #[arg(long)]
    verify: bool,
    /// Added to the proxy's ports 5000, 5001, 6432 and 7000
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(..58_000))]
    port_offset: u16,
    /// The servers listen on this port and the next ones, as far as they are free
    #[arg(long, default_value_t = 15_432, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..65_000))]
    node_port: u16,
}

/// What to do with a demo that runs.
#[derive(Debug, Subcommand)]
enum Action {
    /// Add a replica; the proxy takes it in by a reload, no session ends
    AddReplica(Where),
    /// Make a replica the primary; a primary that still runs is stopped first, and becomes a replica
    Promote(Node),
    /// Stop a server
    Stop {
        #[command(flatten)]
        node: Node,
        /// How
        #[arg(long, value_enum, default_value_t = How::Fast)]
        how: How,
    },
    /// Start a stopped server; a former primary comes back as a replica
    Start(Node),
    /// Show the servers
    Status(Where),
}

#[derive(Debug, Args)]
struct Where {
    /// The directory of the demo, if several run
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Node {
    /// Its name: pg1, pg2, …
    #[arg(value_name = "NODE")]
    name: String,
    #[command(flatten)]
    place: Where,
}

/// Ways to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
enum How {
    /// When its sessions have ended
    Smart,
    /// In order, ending sessions
    Fast,
    /// As a crash of PostgreSQL
    Immediate,
    /// kill -9, as a crash of the machine
    Kill,
}

impl How {
    /// None: not by asking.
    fn shutdown(self) -> Option<Shutdown> {
        match self {
            How::Smart => Some(Shutdown::Smart),
            How::Fast => Some(Shutdown::Fast),
            How::Immediate => Some(Shutdown::Immediate),
            How::Kill => None,
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the demo until it is ended, or asks a running one for something.
pub fn run(args: DemoArgs) -> ExitCode {
    use message::Request;
    match args.action {
        None => up::run(&args.up),
        Some(Action::AddReplica(place)) => ask::run(place.dir, &Request::AddReplica),
        Some(Action::Promote(node)) => ask::run(node.place.dir, &Request::Promote(node.name)),
        Some(Action::Stop { node, how }) => {
            ask::run(node.place.dir, &Request::Stop(node.name, how))
        }
        Some(Action::Start(node)) => ask::run(node.place.dir, &Request::Start(node.name)),
        Some(Action::Status(place)) => ask::run(place.dir, &Request::Status),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn actions_and_options_are_told_apart() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.demo);
        let up = parse("demo --replicas 3 --set a.b=c=d --dir /x").unwrap();
        assert_eq!(up.up.replicas, 3);
        assert_eq!(up.up.set, [("a.b".to_owned(), "c=d".to_owned())]);
        let stop = parse("demo stop pg2 --how kill --dir /x").unwrap();
        assert!(matches!(
            stop.action,
            Some(Action::Stop { how: How::Kill, .. })
        ));
        assert!(parse("demo --set nonsense").is_err());
        assert!(parse("demo --replicas 3 promote pg2").is_err());
        assert!(parse("demo promote").is_err());
    }
}
