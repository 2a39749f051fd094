//! The demo's `pgsluice.toml`: an ordinary configuration, to look at and to go on from.

use std::{
    fmt::Write,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::{UpArgs, roles::Passwords};
use crate::cluster::Cluster;

/// Of `max_connections`, what is not for the proxy's pools: superusers, probes, people.
const KEPT_FREE: u32 = 15;

/// Where the proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProxyPorts {
    pub primary: u16,
    pub replica: u16,
    pub split: u16,
    pub http: u16,
}

impl ProxyPorts {
    pub(super) fn new(offset: u16) -> ProxyPorts {
        ProxyPorts {
            primary: 5000 + offset,
            replica: 5001 + offset,
            split: 6432 + offset,
            http: 7000 + offset,
        }
    }

    pub(super) fn all(self) -> [u16; 4] {
        [self.primary, self.replica, self.split, self.http]
    }
}

/// What does not change while a demo runs.
pub(super) struct Plan {
    pub ports: ProxyPorts,
    pub passwords: Passwords,
    max_servers: Option<u32>,
}

impl Plan {
    pub(super) fn new(args: &UpArgs, passwords: Passwords) -> Plan {
        let servers = |n: u32| n.saturating_sub(KEPT_FREE).max(1);
        Plan {
            ports: ProxyPorts::new(args.port_offset),
            passwords,
            max_servers: args.max_connections.map(servers),
        }
    }

    /// Writes the file for the nodes that there are now; whole or not at all, readable for its owner alone.
    pub(super) fn write(&self, cluster: &Cluster, path: &Path) -> io::Result<()> {
        let nodes = cluster.nodes();
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| (node.name(), node.port()))
            .collect();
        let fresh = path.with_extension("toml.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&fresh)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        file.write_all(self.text(&nodes).as_bytes())?;
        fs::rename(&fresh, path)
    }

    fn text(&self, nodes: &[(&str, u16)]) -> String {
        let ProxyPorts {
            primary,
            replica,
            split,
            http,
        } = self.ports;
        let Passwords { probe, lookup, .. } = &self.passwords;
        let mut text = format!(
            r#"# Written by `pgsluice demo`, again at each start and for each new replica.

[http]
listen = "127.0.0.1:{http}"

[[listener]]
listen = "127.0.0.1:{primary}"
route = "primary"

[[listener]]
listen = "127.0.0.1:{replica}"
route = "replica"

[[listener]]
listen = "127.0.0.1:{split}"
route = "split"

[probe]
user = "pgsluice"
password = "{}"

# For trying out, on the loopback only: nobody is asked for a password, and the superuser may come in. Elsewhere leave
# `method` and `allow` out; the roles of the cluster then log in with their own passwords.
[auth]
method = "trust"
allow = ["postgres from 127.0.0.0/8", "postgres from ::1"]
user = "pgsluice_auth"
password = "{}"

[log]
format = "human"
"#,
            probe.reveal(),
            lookup.reveal(),
        );
        for (name, port) in nodes {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n[[node]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\n"
            );
            if let Some(servers) = self.max_servers {
                let _ = writeln!(text, "max_servers = {servers}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_good_configuration() {
        let plan = Plan {
            ports: ProxyPorts::new(100),
            passwords: Passwords::random().unwrap(),
            max_servers: Some(20),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgsluice.toml");
        fs::write(&path, plan.text(&[("pg1", 15_432), ("pg2", 15_433)])).unwrap();
        let config = crate::config::load(&path).unwrap().config;
        assert_eq!(config.nodes.len(), 2);
        assert_eq!(config.nodes[1].max_servers, 20);
        let ports: Vec<u16> = config.listeners.iter().map(|l| l.listen.port()).collect();
        assert_eq!(ports, [5100, 5101, 6532]);
    }
}
