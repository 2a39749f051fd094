//! Replicas: slots and base backups.

use std::sync::Arc;

use super::{
    Cluster,
    error::{Error, Result},
    node::Node,
    record::Stage,
    settings::{Durability, Upstream},
    sql::literal,
};

/// Connections of replication that a new replica needs: pg_basebackup takes two.
const SENDERS_PER_BACKUP: u32 = 2;

/// What [`Cluster::ensure_slot`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Made,
    Found,
}

impl Cluster {
    /// Makes one more replica of the running primary.
    pub fn add_replica(&self) -> Result<Arc<Node>> {
        let (name, index) = self.next_name();
        let lease = self.lease_new(&name, index)?;
        let node = self.add_node(&name, lease);
        self.make_replica(&node)?;
        Ok(node)
    }

    fn next_name(&self) -> (String, usize) {
        let nodes = self.nodes();
        let numbers = nodes
            .iter()
            .filter_map(|node| node.name().strip_prefix("pg")?.parse().ok());
        let last: usize = numbers.max().unwrap_or(0);
        (format!("pg{}", last + 1), last)
    }

    pub(super) fn bring_up_replica(&self, node: &Node) -> Result<()> {
        if !self.is_made(node) {
            self.say(format!(
                "{}: its copy was never finished, it is made again",
                node.name()
            ));
            return self.make_replica(node);
        }
        if !node.is_replica_on_disk() {
            return self.rejoin(node.name());
        }
        let primary = self.primary();
        self.note(node, Stage::Made)?;
        self.ensure_slot(&primary, node.name())?;
        node.follow(primary.port())?;
        self.say(format!("{}: starting on port {}", node.name(), node.port()));
        match node.start() {
            // Damaged, or its settings are lower now than when its WAL was written.
            Err(error @ Error::Start { .. }) => {
                self.say(format!(
                    "{error}
{}: is copied anew",
                    node.name()
                ));
                self.make_replica(node)
            }
            started => started.and_then(|()| self.wait_streaming(node)),
        }
    }

    pub(super) fn make_replica(&self, node: &Node) -> Result<()> {
        let primary = self.primary();
        self.note(node, Stage::Making)?;
        node.clear_data()?;
        self.check_room(&primary)?;
        if self.ensure_slot(&primary, node.name())? == Slot::Found {
            self.say(format!(
                "{}: its replication slot on {} exists already, and is used",
                node.name(),
                primary.name()
            ));
        }
        self.say(format!("{}: copying {}", node.name(), primary.name()));
        self.base_backup(&primary, node)?;
        node.follow(primary.port())?;
        self.say(format!("{}: starting on port {}", node.name(), node.port()));
        node.start()?;
        self.wait_streaming(node)?;
        self.note(node, Stage::Made)
    }

    fn base_backup(&self, primary: &Node, node: &Node) -> Result<()> {
        self.shared.account.make_dir(node.data())?;
        let upstream = Upstream {
            name: node.name(),
            port: primary.port(),
        };
        node.tool("pg_basebackup", |command| {
            command.args(["-R", "-X", "stream", "-c", "fast", "-S", node.name()]);
            command
                .arg("-D")
                .arg(node.data())
                .arg("-d")
                .arg(upstream.conninfo());
            if self.shared.settings.durability == Durability::None {
                command.arg("--no-sync");
            }
        })
    }

    /// Whether the primary can take another replica.
    fn check_room(&self, primary: &Node) -> Result<()> {
        let limits: [(&'static str, &str, u32); 2] = [
            ("max_wal_senders", "pg_stat_replication", SENDERS_PER_BACKUP),
            ("max_replication_slots", "pg_replication_slots", 1),
        ];
        for (setting, view, need) in limits {
            let have = number(
                primary,
                &format!("SELECT pg_catalog.current_setting('{setting}')"),
            )?;
            let used = number(
                primary,
                &format!("SELECT pg_catalog.count(*) FROM pg_catalog.{view}"),
            )?;
            if used + need > have {
                return Err(Error::NotEnough {
                    node: primary.name().to_owned(),
                    setting,
                    have,
                    used,
                    need,
                });
            }
        }
        Ok(())
    }

    /// A slot for `name` on `primary` that keeps WAL from now on. One that exists is used; if it lost WAL it is made
    /// anew. Whoever still holds it is sent away: `name` itself does not run, so that is a remnant of an earlier run.
    pub(super) fn ensure_slot(&self, primary: &Node, name: &str) -> Result<Slot> {
        let slot = literal(name);
        let from = format!("FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}");
        let status = primary.value(&format!("SELECT coalesce(wal_status, 'lost') {from}"))?;
        if status.is_some() {
            let end = format!("SELECT pg_catalog.pg_terminate_backend(active_pid) {from}");
            let active = format!("SELECT 1 {from} AND active");
            primary.sql(&end)?;
            primary.wait_until("its replication slot is free", || {
                Ok(primary.value(&active)?.is_none())
            })?;
        }
        match status.as_deref() {
            None => {}
            Some("lost") => {
                self.say(format!("{name}: the slot has lost WAL, and is made anew"));
                primary.sql(&format!(
                    "SELECT pg_catalog.pg_drop_replication_slot({slot})"
                ))?;
            }
            Some(_) => return Ok(Slot::Found),
        }
        let make = format!("SELECT pg_catalog.pg_create_physical_replication_slot({slot}, true)");
        primary.sql(&make)?;
        Ok(Slot::Made)
    }

    pub(super) fn wait_streaming(&self, node: &Node) -> Result<()> {
        let primary = self.primary();
        let name = literal(node.name());
        let ask = format!(
            "SELECT 1 FROM pg_catalog.pg_stat_replication WHERE application_name = {name} AND state = 'streaming'"
        );
        node.wait_until("it streams from the primary", || {
            Ok(primary.value(&ask)?.is_some())
        })
    }
}

fn number(node: &Node, sql: &str) -> Result<u32> {
    let value = node.value(sql)?;
    Ok(value.and_then(|text| text.parse().ok()).unwrap_or(0))
}
