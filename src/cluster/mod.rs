//! Makes a real replicated PostgreSQL cluster on this machine: a primary and streaming replicas, on the loopback.
//!
//! For the demo, the tests and the benches. Blocking code on purpose: nothing here is on the way of a query. A
//! [`Cluster`] owns its servers: they end with it, and they end too if this process is killed (see [`keeper`]). A
//! temporary cluster leaves nothing behind; one in a directory of its own is kept, and a later start goes on from
//! whatever an earlier one left, half finished or not (see [`build`]).

mod account;
mod ask;
mod binaries;
mod build;
mod builder;
mod error;
mod keeper;
mod leftover;
mod node;
mod place;
mod ports;
mod process;
mod promote;
mod record;
mod replica;
mod settings;
mod sql;
mod wait;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::{
    account::Account,
    binaries::Binaries,
    builder::Builder,
    error::{Error, LogTail, Result},
    node::{Node, NodeState, Shutdown},
    place::Place,
    ports::{PortLease, Ports, is_free},
    process::Holder,
    settings::{Durability, REPLICATION_ROLE, Replication, SUPERUSER, Settings},
    sql::{Login, Rows, identifier, literal},
    wait::{PATIENCE, Stop, poll},
};
use self::{
    node::Shared,
    place::Home,
    record::{NodeRecord, Record, Stage},
};

/// Told of each step, in words.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A running cluster. Dropping it ends its servers, and removes its directory if that is temporary.
pub struct Cluster {
    /// Before `home`: servers end before their directory goes.
    nodes: Mutex<Vec<Arc<Node>>>,
    /// The name of the node that is to be the primary.
    primary: Mutex<String>,
    record: Mutex<Record>,
    shared: Arc<Shared>,
    ports: Ports,
    progress: Progress,
    home: Home,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn dir(&self) -> &Path {
        self.home.dir()
    }

    pub fn binaries(&self) -> &Binaries {
        &self.shared.binaries
    }

    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// All nodes as of now, in the order of their making.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.nodes).clone()
    }

    /// # Errors
    /// [`Error::UnknownNode`] tells which there are.
    pub fn node(&self, name: &str) -> Result<Arc<Node>> {
        let nodes = self.nodes();
        let found = nodes.iter().find(|node| node.name() == name).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
            Error::UnknownNode {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// The node that was made or promoted as the primary last; it may be down.
    pub fn primary(&self) -> Arc<Node> {
        let name = lock(&self.primary).clone();
        let nodes = self.nodes();
        let found = nodes.iter().find(|node| node.name() == name).cloned();
        // A primary is named only after it is in the list, and nodes are never taken out.
        found.unwrap_or_else(|| unreachable!("the primary {name} is among the nodes"))
    }

    /// All nodes but the primary.
    pub fn replicas(&self) -> Vec<Arc<Node>> {
        let primary = lock(&self.primary).clone();
        let nodes = self.nodes().into_iter();
        nodes.filter(|node| node.name() != primary).collect()
    }

    /// Starts a stopped node. A former primary comes back as a replica of the present one.
    pub fn start_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let is_primary = *lock(&self.primary) == name;
        match !is_primary && !node.is_replica_on_disk() && node.state() == NodeState::Stopped {
            true => self.rejoin(name),
            false => {
                self.say(format!("{name}: starting on port {}", node.port()));
                node.start()
            }
        }
    }

    /// Waits until every running replica has replayed what the primary has written so far.
    pub fn wait_caught_up(&self) -> Result<()> {
        let lsn = self.primary().lsn()?;
        let replicas = self.replicas().into_iter();
        let mut running = replicas.filter(|node| node.state() == NodeState::Running);
        running.try_for_each(|node| node.wait_replayed(&lsn))
    }

    /// Stops every node in order, the primary first, so that replicas get its last WAL. What cannot be stopped in time
    /// is killed.
    pub fn stop(&self, how: Shutdown) {
        let mut nodes = self.nodes();
        let primary = lock(&self.primary).clone();
        nodes.sort_by_key(|node| node.name() != primary);
        for node in &nodes {
            node.begin_stop(how);
        }
        for node in &nodes {
            if node.wait_stopped().is_err() {
                // Its own error is logged when the node is dropped.
                let _ = node.kill();
            }
        }
    }

    fn say(&self, text: impl AsRef<str>) {
        (self.progress)(text.as_ref());
    }

    /// Notes how far a node has come.
    fn note(&self, node: &Node, stage: Stage) -> Result<()> {
        let mut record = lock(&self.record);
        let entry = NodeRecord {
            name: node.name().to_owned(),
            port: node.port(),
            stage,
        };
        match record.nodes.iter_mut().find(|n| n.name == entry.name) {
            Some(known) => *known = entry,
            None => record.nodes.push(entry),
        }
        record.write(self.home.dir())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(match self.home.is_kept() {
            true => Shutdown::Fast,
            false => Shutdown::Immediate,
        });
    }
}
