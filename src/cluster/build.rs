//! How a cluster comes to be: from nothing, or from what an earlier run left.
//!
//! Every step looks at what is there before it does something, so that one that was interrupted is simply done again: a
//! directory of a node that is not noted as made is made anew, a slot that exists is used, a server that still runs is
//! ended, a port that is taken is replaced by another, a second primary becomes a replica.

use std::{path::Path, process::Command, sync::Arc};

use super::{
    Cluster,
    error::{Error, LogTail, Result, io_at},
    leftover, lock,
    node::{Node, Shared},
    ports::{PortLease, Ports},
    process::Holder,
    record::{Record, Stage},
    settings::{Durability, REPLICATION_ROLE, SUPERUSER},
    sql::{identifier, literal},
};

impl Cluster {
    pub(super) fn bring_up(
        &self,
        record: &Record,
        replicas: usize,
        template: Option<&Path>,
    ) -> Result<()> {
        for known in &record.nodes {
            let lease = self.lease_again(&known.name, known.port)?;
            self.add_node(&known.name, lease);
        }
        let made = |node: &Arc<Node>| self.is_made(node);
        match self.nodes().iter().any(made) {
            false => self.make_primary(template)?,
            true => self.start_primary()?,
        }
        for node in self.replicas() {
            self.bring_up_replica(&node)?;
        }
        while self.nodes().len() <= replicas {
            self.add_replica()?;
        }
        Ok(())
    }

    pub(super) fn add_node(&self, name: &str, lease: PortLease) -> Arc<Node> {
        let node = Node::new(self.home.dir(), name, lease, self.shared.clone());
        let node = Arc::new(node);
        lock(&self.nodes).push(node.clone());
        node
    }

    pub(super) fn is_made(&self, node: &Node) -> bool {
        let record = lock(&self.record);
        let mut known = record.nodes.iter();
        known.any(|n| n.name == node.name() && n.stage == Stage::Made)
    }

    /// Clears what an earlier run left, and takes its port again, or another one.
    fn lease_again(&self, name: &str, port: u16) -> Result<PortLease> {
        match leftover::clear(&self.home.dir().join(name), &self.shared.stop)? {
            leftover::Found::Nothing => {}
            leftover::Found::StaleFile => self.say(format!(
                "{name}: was not shut down in order last time (stale postmaster.pid removed)"
            )),
            leftover::Found::Server => self.say(format!(
                "{name}: a server of an earlier run still ran, and was ended"
            )),
        }
        if let Some(lease) = PortLease::exactly(port) {
            return Ok(lease);
        }
        let lease = self.lease(port)?;
        let holder = Holder::of_port(port);
        let instead = lease.port();
        self.say(format!(
            "{name}: its port {port} is taken by {holder}, port {instead} is used instead"
        ));
        Ok(lease)
    }

    fn lease(&self, wish: u16) -> Result<PortLease> {
        match self.ports {
            Ports::Free => PortLease::any(),
            Ports::From(_) => PortLease::near(wish),
        }
    }

    /// For the `index`th node of the cluster.
    pub(super) fn lease_new(&self, name: &str, index: usize) -> Result<PortLease> {
        let wish = match self.ports {
            Ports::Free => 0,
            Ports::From(base) => base.saturating_add(index as u16),
        };
        let lease = self.lease(wish)?;
        if wish != 0 && lease.port() != wish {
            let (port, holder) = (lease.port(), Holder::of_port(wish));
            self.say(format!(
                "{name}: port {wish} is taken by {holder}, port {port} is used instead"
            ));
        }
        Ok(lease)
    }

    // ---- The primary

    fn make_primary(&self, template: Option<&Path>) -> Result<()> {
        let node = match self.nodes().first() {
            Some(unfinished) => unfinished.clone(),
            None => self.add_node("pg1", self.lease_new("pg1", 0)?),
        };
        *lock(&self.primary) = node.name().to_owned();
        self.note(&node, Stage::Making)?;
        node.clear_data()?;
        match template {
            None => {
                self.say(format!("{}: making a new database directory", node.name()));
                initdb(&node, &self.shared)?;
            }
            Some(template) => copy(template, &node)?,
        }
        self.say(format!(
            "{}: starting the primary on port {}",
            node.name(),
            node.port()
        ));
        node.start()?;
        self.make_roles(&node)?;
        self.note(&node, Stage::Made)
    }

    /// Of the nodes whose directories say that they are primaries, the one on the newest timeline is it.
    fn start_primary(&self) -> Result<()> {
        let nodes = self.nodes();
        let candidates = nodes
            .iter()
            .filter(|node| self.is_made(node) && !node.is_replica_on_disk());
        let newest = candidates.max_by_key(|node| node.timeline_on_disk());
        let Some(node) = newest else {
            return Err(Error::NoPrimary {
                dir: self.home.dir().to_owned(),
            });
        };
        *lock(&self.primary) = node.name().to_owned();
        self.note(node, Stage::Made)?;
        self.say(format!(
            "{}: starting the primary on port {}",
            node.name(),
            node.port()
        ));
        node.start()?;
        self.make_roles(node)
    }

    fn make_roles(&self, primary: &Node) -> Result<()> {
        let role = literal(REPLICATION_ROLE);
        let exists = format!("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {role}");
        if primary.value(&exists)?.is_some() {
            return Ok(());
        }
        let role = identifier(REPLICATION_ROLE);
        // With synchronous replication and no replica yet, a commit would wait for ever.
        let make = format!("SET synchronous_commit = local; CREATE ROLE {role} LOGIN REPLICATION");
        primary.sql(&make).map(drop)
    }
}

fn initdb(node: &Node, shared: &Shared) -> Result<()> {
    shared.account.make_dir(node.data())?;
    node.tool("initdb", |command| {
        command.arg("-D").arg(node.data());
        command.args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale"]);
        if shared.settings.durability == Durability::None {
            command.arg("--no-sync");
        }
    })
}

/// A copy with owners and modes; as root, since it writes into a directory of ours.
fn copy(template: &Path, node: &Node) -> Result<()> {
    let mut command = Command::new("cp");
    command
        .args(["-a", "--reflink=auto"])
        .arg(template)
        .arg(node.data());
    let output = command.output().map_err(io_at("cannot copy", template))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Tool {
            tool: "cp",
            node: node.name().to_owned(),
            status: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            log: LogTail::default(),
        }),
    }
}
