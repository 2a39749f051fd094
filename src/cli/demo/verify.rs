//! `demo --verify`: looks at replication, then writes and reads through the proxy as an application would.

use std::time::Duration;

use super::{config::ProxyPorts, control::Audience};
use crate::cluster::{Cluster, Error, Login, PATIENCE, Result, Rows, SUPERUSER, Stop, poll};

/// A table that goes again.
const TABLE: &str = "pgsluice_verify";
/// Reads through the replica port: enough to meet every replica of a small cluster.
const READS: usize = 40;

/// What goes wrong is told; whether all went well is the answer.
pub(super) fn verify(cluster: &Cluster, ports: ProxyPorts, audience: &Audience) -> bool {
    let check = Check {
        cluster,
        ports,
        audience,
    };
    match check.all() {
        Ok(()) => {
            audience.say("verified: everything works");
            true
        }
        Err(why) => {
            audience.say(&format!("NOT verified: {why}"));
            false
        }
    }
}

/// Waits until the proxy serves reads and writes; says nothing if it does not, since its own log does.
pub(super) fn wait_served(ports: ProxyPorts) {
    for port in [ports.primary, ports.replica] {
        let _ = patiently(port, "SELECT 1");
    }
}

struct Check<'a> {
    cluster: &'a Cluster,
    ports: ProxyPorts,
    audience: &'a Audience,
}

type Verdict = std::result::Result<(), String>;

impl Check<'_> {
    fn all(&self) -> Verdict {
        self.show_replication().map_err(text)?;
        self.row_reaches_replicas().map_err(text)?;
        self.write_through_proxy()?;
        self.read_through_proxy()?;
        self.write_is_refused()?;
        let drop = format!("DROP TABLE IF EXISTS {TABLE}");
        self.cluster.primary().sql(&drop).map(|_| ()).map_err(text)
    }

    fn show_replication(&self) -> Result<()> {
        let primary = self.cluster.primary();
        self.show(
            "pg_stat_replication",
            &[
                "application_name",
                "state",
                "sync_state",
                "sent_lsn",
                "replay_lsn",
            ],
            primary.sql(
                "SELECT application_name, state, sync_state, sent_lsn, replay_lsn \
                 FROM pg_catalog.pg_stat_replication ORDER BY application_name",
            )?,
        );
        self.show(
            "pg_replication_slots",
            &[
                "slot_name",
                "slot_type",
                "active",
                "restart_lsn",
                "wal_status",
            ],
            primary.sql(
                "SELECT slot_name, slot_type, active, restart_lsn, wal_status \
                 FROM pg_catalog.pg_replication_slots ORDER BY slot_name",
            )?,
        );
        Ok(())
    }

    fn show(&self, title: &str, header: &[&str], rows: Rows) {
        self.audience
            .say(&format!("\n{title} on {}:", self.cluster.primary().name()));
        let line = |cells: Vec<&str>| {
            cells
                .iter()
                .map(|cell| format!(" {cell:17}"))
                .collect::<String>()
        };
        self.audience.say(&line(header.to_vec()));
        for row in &rows {
            let cells = row.iter().map(|cell| cell.as_deref().unwrap_or("-"));
            self.audience.say(&line(cells.collect()));
        }
    }

    fn row_reaches_replicas(&self) -> Result<()> {
        let primary = self.cluster.primary();
        primary.sql(&format!(
            "DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} AS SELECT 'from the primary' AS who"
        ))?;
        self.audience
            .say(&format!("\n{}: a table and a row are made", primary.name()));
        self.cluster.wait_caught_up()?;
        for replica in self.cluster.replicas() {
            let who = replica.value(&format!("SELECT who FROM {TABLE}"))?;
            self.audience.say(&format!(
                "{}: has the row '{}'",
                replica.name(),
                who.unwrap_or_default()
            ));
        }
        Ok(())
    }

    fn write_through_proxy(&self) -> Verdict {
        let port = self.ports.primary;
        patiently(
            port,
            &format!("INSERT INTO {TABLE} VALUES ('through the proxy')"),
        )?;
        self.audience.say(&format!("port {port}: a row is written"));
        self.cluster.wait_caught_up().map_err(text)
    }

    /// The row is read, and by which nodes.
    fn read_through_proxy(&self) -> Verdict {
        let port = self.ports.replica;
        let ask = format!("SELECT inet_server_port() FROM {TABLE} WHERE who = 'through the proxy'");
        patiently(port, &ask)?;
        let mut seen: Vec<(String, usize)> = Vec::new();
        for _ in 0..READS {
            let rows = patiently(port, &ask)?;
            let server = rows.into_iter().flatten().flatten().next();
            let server = server.ok_or(format!("port {port}: the row is not there"))?;
            match seen.iter_mut().find(|(known, _)| *known == server) {
                Some((_, times)) => *times += 1,
                None => seen.push((server, 1)),
            }
        }
        seen.sort();
        let names = seen
            .iter()
            .map(|(server, times)| format!("{} ({times} times)", self.name(server)));
        let names: Vec<String> = names.collect();
        self.audience.say(&format!(
            "port {port}: the row is read, by {}",
            names.join(", ")
        ));
        Ok(())
    }

    fn name(&self, server_port: &str) -> String {
        let nodes = self.cluster.nodes();
        let found = nodes
            .iter()
            .find(|node| node.port().to_string() == server_port);
        found.map_or(format!("port {server_port}"), |node| node.name().to_owned())
    }

    fn write_is_refused(&self) -> Verdict {
        let port = self.ports.replica;
        match once(port, &format!("INSERT INTO {TABLE} VALUES ('refused')")) {
            Err(Error::Sql {
                sqlstate: Some(state),
                message,
                ..
            }) if state == "25006" => {
                self.audience.say(&format!(
                    "port {port}: a write is refused: {message} ({state})"
                ));
                Ok(())
            }
            Err(other) => Err(format!("a write got another error than 25006: {other}")),
            Ok(_) => Err(format!("port {port} took a write")),
        }
    }
}

/// Again until it works: right after the start the proxy may not have seen every node yet.
fn patiently(port: u16, sql: &str) -> std::result::Result<Rows, String> {
    let mut last = None;
    let reached = poll(PATIENCE, &Stop::default(), || match once(port, sql) {
        Ok(rows) => Ok(Some(rows)),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    });
    let why = || last.map_or_else(String::new, |error| error.to_string());
    reached.map_err(text)?.ok_or_else(why)
}

fn once(port: u16, sql: &str) -> Result<Rows> {
    let login = Login {
        node: "the proxy",
        port,
        user: SUPERUSER,
        password: None,
        database: "postgres",
    };
    login.query(sql, Duration::from_secs(10))
}

fn text(error: Error) -> String {
    error.to_string()
}
