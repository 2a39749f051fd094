//! What PostgreSQL is told: `pgsluice.conf`, `pg_hba.conf`, and where a replica finds its primary.
//!
//! All of it is written anew before each start, so that options given today hold for a directory made yesterday.
//! `postgresql.conf` stays as initdb made it, but for one line that includes `pgsluice.conf`.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use super::error::{Result, io_at};

/// The role that replicas log in as.
pub const REPLICATION_ROLE: &str = "replicator";
/// The superuser, as whom everything here is set up; trusted from this machine.
pub const SUPERUSER: &str = "postgres";

/// Connections of replication beyond two per replica: backups, pg_receivewal, logical subscribers, replicas to come.
const SPARE_SENDERS: usize = 10;

/// Whether a crash of the machine may lose data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fsync = on`.
    Safe,
    /// `fsync = off`: for clusters that are thrown away.
    None,
}

/// Whether a commit waits for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    Asynchronous,
    /// Each commit waits until one replica has it on disk; with no replica there, it waits for ever.
    Synchronous,
}

/// Of all nodes of a cluster alike: replicas must not have less of some than their primary.
#[derive(Debug, Clone)]
pub struct Settings {
    pub durability: Durability,
    pub replication: Replication,
    pub max_connections: Option<u32>,
    /// As PostgreSQL writes sizes: `128MB`.
    pub shared_buffers: Option<String>,
    /// Name and value (not quoted); later ones win, over ours too.
    pub extra: Vec<(String, String)>,
    /// Lines of pg_hba.conf before ours, which trust everybody on this machine.
    pub hba: Vec<String>,
    /// Nodes that connections of replication are provided for; a running cluster can grow a little beyond.
    pub(super) nodes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            durability: Durability::None,
            replication: Replication::Asynchronous,
            max_connections: None,
            shared_buffers: None,
            extra: Vec::new(),
            hba: Vec::new(),
            nodes: 1,
        }
    }
}

impl Settings {
    /// `pgsluice.conf` of one node.
    pub(super) fn conf(&self, name: &str, port: u16) -> String {
        let senders = (self.nodes * 2 + SPARE_SENDERS).to_string();
        let port = port.to_string();
        let mut all: Vec<(&str, &str)> = vec![
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("cluster_name", name),
            ("wal_level", "replica"),
            ("max_wal_senders", &senders),
            ("max_replication_slots", &senders),
            ("hot_standby", "on"),
            // For pg_rewind.
            ("wal_log_hints", "on"),
            // A replica looks again for its primary sooner than after 5 s.
            ("wal_retrieve_retry_interval", "200ms"),
            // In the data directory, so that nothing is left behind in /dev/shm after kill -9.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        all.extend(match self.durability {
            Durability::Safe => [("fsync", "on")],
            Durability::None => [("fsync", "off")],
        });
        let synchronous = self.replication == Replication::Synchronous;
        all.extend(synchronous.then_some(("synchronous_standby_names", "ANY 1 (*)")));
        let connections = self.max_connections.map(|n| n.to_string());
        all.extend(connections.as_deref().map(|n| ("max_connections", n)));
        let buffers = self.shared_buffers.as_deref();
        all.extend(buffers.map(|size| ("shared_buffers", size)));
        all.extend(self.extra.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        render(&all)
    }

    pub(super) fn hba_conf(&self) -> String {
        let mut text = String::from(
            "# Written by pgsluice before each start: changes are lost. This cluster listens on the loopback only.\n",
        );
        let setup = format!("host all {SUPERUSER} 127.0.0.1/32 trust");
        let replicas = format!("host replication {REPLICATION_ROLE} 127.0.0.1/32 trust");
        let rest = [
            "host all all 127.0.0.1/32 trust",
            "host replication all 127.0.0.1/32 trust",
        ];
        let given = self.hba.iter().map(String::as_str);
        let lines = [setup.as_str(), replicas.as_str()].into_iter();
        for line in lines.chain(given).chain(rest) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn render(settings: &[(&str, &str)]) -> String {
    let mut text = String::from("# Written by pgsluice before each start: changes are lost.\n");
    for (name, value) in settings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    text
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Makes `postgresql.conf` include ours; once is enough, twice does no harm.
pub(super) fn include(data: &Path) -> Result<()> {
    const LINE: &str = "include_if_exists = 'pgsluice.conf'";
    let path = data.join("postgresql.conf");
    let text = read(&path)?;
    match text.lines().any(|line| line == LINE) {
        true => Ok(()),
        false => write(&path, &format!("{text}\n{LINE}\n")),
    }
}

/// Where a replica gets its WAL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream<'a> {
    /// The replica's own name: its slot, and its name in pg_stat_replication.
    pub name: &'a str,
    /// The primary's port.
    pub port: u16,
}

impl Upstream<'_> {
    pub(super) fn conninfo(&self) -> String {
        let (name, port) = (self.name, self.port);
        format!("host=127.0.0.1 port={port} user={REPLICATION_ROLE} application_name={name}")
    }

    /// Into `postgresql.auto.conf`, where pg_basebackup -R puts it too; what ALTER SYSTEM put there stays.
    pub(super) fn write(&self, data: &Path) -> Result<()> {
        let path = auto_conf(data);
        let old = read(&path)?;
        let others = old.lines().filter(|line| !is_upstream(line));
        let mut text: String = others.flat_map(|line| [line, "\n"]).collect();
        let ours = [
            ("primary_conninfo", self.conninfo()),
            ("primary_slot_name", self.name.to_owned()),
        ];
        for (name, value) in ours {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} = {}", quoted(&value));
        }
        match text == old {
            true => Ok(()),
            false => write(&path, &text),
        }
    }
}

fn auto_conf(data: &Path) -> PathBuf {
    data.join("postgresql.auto.conf")
}

fn is_upstream(line: &str) -> bool {
    let name = line.split('=').next().unwrap_or_default().trim();
    name == "primary_conninfo" || name == "primary_slot_name"
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(io_at("cannot read", path))
}

/// Keeps the owner of a file that exists.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(io_at("cannot write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_setting_comes_after_ours_and_is_quoted() {
        let settings = Settings {
            extra: vec![("wal_level".into(), "it's".into())],
            nodes: 3,
            ..Settings::default()
        };
        let conf = settings.conf("pg1", 1);
        let ours = conf.find("wal_level = 'replica'").unwrap();
        assert!(conf.find("wal_level = 'it''s'").unwrap() > ours);
        assert!(conf.contains("max_wal_senders = '16'"), "{conf}");
    }

    #[test]
    fn a_new_upstream_replaces_the_old_one_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = auto_conf(dir.path());
        fs::write(&path, "work_mem = '1MB'\nprimary_conninfo = 'old'\n").unwrap();
        let upstream = Upstream {
            name: "pg2",
            port: 7,
        };
        upstream.write(dir.path()).unwrap();
        upstream.write(dir.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "work_mem = '1MB'\nprimary_conninfo = 'host=127.0.0.1 port=7 user=replicator application_name=pg2'\nprimary_slot_name = 'pg2'\n"
        );
    }
}
