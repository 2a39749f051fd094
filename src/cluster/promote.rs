//! A new primary: one replica is promoted, the others follow it, the old primary comes back as a replica.

use std::{fs, path::Path};

use super::{
    Cluster,
    error::{Error, Result, io_at},
    lock,
    node::{Node, NodeState, Shutdown},
    settings::{Durability, SUPERUSER},
};

impl Cluster {
    /// Makes `name` the primary, and the other running replicas its replicas; one that had received more WAL than
    /// `name` loses the rest. The former primary stays as it is: dead, or alive and to be fenced.
    /// [`Cluster::rejoin`] makes it a replica.
    pub fn promote(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        if node.state() != NodeState::Running {
            return Err(Error::WrongState {
                node: name.to_owned(),
                is: node.state().as_str(),
                hint: "start it before it can be promoted",
            });
        }
        let former = self.primary();
        self.say(format!("{name}: promoting"));
        node.promote()?;
        *lock(&self.primary) = name.to_owned();
        let fork = fork(&node)?;
        for other in self.nodes() {
            let known = other.name() == name || other.name() == former.name();
            if !known && other.state() == NodeState::Running {
                self.turn_to(&node, &other, &fork)?;
            }
        }
        Ok(())
    }

    fn turn_to(&self, primary: &Node, other: &Node, fork: &str) -> Result<()> {
        let name = other.name();
        let ahead = format!(
            "SELECT greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) > '{fork}'"
        );
        if other.value(&ahead)?.as_deref() == Some("t") {
            self.say(format!("{name}: has received more than {}", primary.name()));
            return self.rejoin(name);
        }
        self.say(format!("{name}: follows {} now", primary.name()));
        self.ensure_slot(primary, name)?;
        other.follow(primary.port())
    }

    /// Makes a node whose WAL has left the primary's a replica of it: by pg_rewind, or if that fails by a new copy.
    pub fn rejoin(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let primary = self.primary();
        if node.name() == primary.name() {
            return Err(Error::WrongState {
                node: name.to_owned(),
                is: "the primary",
                hint: "promote another node first",
            });
        }
        node.stop(Shutdown::Fast)?;
        self.ensure_slot(&primary, name)?;
        self.say(format!("{name}: is rewound to follow {}", primary.name()));
        if let Err(error) = self.rewind(&primary, &node) {
            self.shared.stop.check()?;
            self.say(format!("{name}: cannot be rewound, is copied anew"));
            tracing::debug!(node = name, %error, "pg_rewind failed");
            return self.make_replica(&node);
        }
        node.follow(primary.port())?;
        node.start()?;
        self.wait_streaming(&node)
    }

    fn rewind(&self, primary: &Node, node: &Node) -> Result<()> {
        // pg_rewind reads the timeline from the control file, which a promotion alone does not bring up to date.
        primary.sql("CHECKPOINT")?;
        let source = format!(
            "host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres",
            primary.port()
        );
        node.tool("pg_rewind", |command| {
            command.arg("-R").arg("--source-server").arg(source);
            command.arg("--target-pgdata").arg(node.data());
            if self.shared.settings.durability == Durability::None {
                command.arg("--no-sync");
            }
        })?;
        // Slots of its time as a primary would hold WAL back for ever.
        clear(&node.data().join("pg_replslot"))
    }
}

/// Where `primary` left its former timeline: the last line of the newest history file (timeline, LSN, reason).
fn fork(primary: &Node) -> Result<String> {
    let name = format!("pg_wal/{:08X}.history", primary.timeline_on_disk());
    let path = primary.data().join(name);
    let text = fs::read_to_string(&path).map_err(io_at("cannot read", &path))?;
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    let lsn = last.and_then(|line| line.split_whitespace().nth(1));
    lsn.map(str::to_owned).ok_or_else(|| Error::BadRecord {
        path,
        why: "no switch point in it".to_owned(),
    })
}

fn clear(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(io_at("cannot read", dir))?;
    for entry in entries.flatten() {
        let path = entry.path();
        fs::remove_dir_all(&path).map_err(io_at("cannot remove", &path))?;
    }
    Ok(())
}
