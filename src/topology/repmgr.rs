//! repmgr's metadata: the table `repmgr.nodes` names the nodes, on any of them.
//!
//! Each server has its own copy, and calls primary whom it last followed, or itself: that is no second opinion, so no
//! word on the leader is taken from it.

use std::{fmt::Display, time::Duration};

use tokio::time::timeout;

use super::Login;
use crate::config;

/// From the dial to the rows.
const PATIENCE: Duration = Duration::from_secs(2);
/// A port that the connection string does not give.
const PORT: u16 = 5432;

/// A witness is a database of repmgr's own, no copy of the cluster's. No more than these are looked at.
const NODES: &str = "SELECT n.node_name, n.conninfo FROM repmgr.nodes n \
    WHERE n.type OPERATOR(pg_catalog.<>) 'witness' ORDER BY n.node_id LIMIT 64";

/// Asks one node, as the probe's user.
///
/// # Errors
/// Why it cannot be asked, in words: it is not reached in time, or the user may not read the table.
pub(super) async fn ask(
    node: &config::Node,
    login: &Login,
    database: &str,
) -> Result<Vec<config::Node>, String> {
    let asked = timeout(PATIENCE, rows(node, login, database)).await;
    let rows = asked.map_err(|_| "no answer in time".to_owned())?;
    let mut nodes = Vec::new();
    for (name, conninfo) in rows.map_err(|error| words(&error))? {
        match place(&conninfo) {
            Some((host, port)) => nodes.push(config::Node::at(name, host, port)),
            None => tracing::debug!(name, "repmgr gives no host for a node"),
        }
    }
    match nodes.is_empty() {
        true => Err("repmgr.nodes has no node with a host".to_owned()),
        false => Ok(nodes),
    }
}

async fn rows(
    node: &config::Node,
    login: &Login,
    database: &str,
) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let connected = login.connect(node, database, "pgsluice repmgr", "").await;
    let (client, _driver) = connected?;
    let rows = client.query(NODES, &[]).await?;
    let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(pair).collect()
}

fn words(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error);
    let said: &dyn Display = match &cause {
        Some(cause) => cause,
        None => error,
    };
    said.to_string()
}

/// Host and port of a connection string with whatever keywords; None without a host that can be dialled.
fn place(conninfo: &str) -> Option<(String, u16)> {
    if conninfo.contains("://") {
        return config::first_host(conninfo);
    }
    let (mut host, mut address, mut port) = (None, None, None);
    let mut rest = conninfo.trim();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let (value, behind) = value(behind.trim_start())?;
        match key.trim_end() {
            "host" => host = Some(value),
            "hostaddr" => address = Some(value),
            "port" => port = Some(value),
            _ => {}
        }
        rest = behind.trim_start();
    }
    let host = host.or(address).filter(|host| config::is_host(host))?;
    match port {
        Some(port) => Some((host, port.parse().ok()?)),
        None => Some((host, PORT)),
    }
}

/// The value at the beginning of `text`, quoted or not, and what is behind it. As in libpq, a backslash takes the next
/// character as it is.
fn value(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('\'');
    let mut value = String::new();
    let mut chars = inner.unwrap_or(text).chars();
    loop {
        match (chars.next(), inner) {
            (Some('\\'), _) => value.push(chars.next()?),
            (Some('\''), Some(_)) | (None, None) => return Some((value, chars.as_str())),
            (None, Some(_)) => return None,
            (Some(c), None) if c.is_whitespace() => return Some((value, chars.as_str())),
            (Some(c), _) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_read_among_whatever_else_libpq_takes() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        let cases = [
            (
                "host=db1 user=repmgr dbname=repmgr connect_timeout=2",
                at("db1", 5432),
            ),
            ("  port = 6000 host = 'db1' ", at("db1", 6000)),
            (
                "passfile='/a b/it\\'s' host=db1 sslrootcert=x\\ y",
                at("db1", 5432),
            ),
            ("hostaddr=10.0.0.1", at("10.0.0.1", 5432)),
            ("hostaddr=10.0.0.1 host=db1", at("db1", 5432)),
            ("host=fd00::1 port='1'", at("fd00::1", 1)),
            (
                "postgresql://repmgr@[fd00::1]:6000/repmgr",
                at("fd00::1", 6000),
            ),
            ("host=/run/postgresql", None),
            ("host=db1,db2", None),
            ("host=db1 port=x", None),
            ("host='db1", None),
            ("user=repmgr", None),
            ("host", None),
            ("", None),
        ];
        for (conninfo, expected) in cases {
            assert_eq!(place(conninfo), expected, "{conninfo}");
        }
    }
}
