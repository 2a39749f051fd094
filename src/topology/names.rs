//! Host names with several addresses, as of a headless service: each address is a node of its own, `name@address`.
//!
//! One connection to such a name reaches one server, the next another: as one node its probe would speak for others. A
//! name that has one address, or one of each family, is one server: it is dialled by name, whatever it resolves to then.
//! While a name cannot be looked up, its last addresses go on.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, task::JoinSet, time::timeout};

use crate::config;

/// A lookup that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// An address that is missing from an answer stays for this long: name servers may answer with a part, and a server
/// that is not ready for a moment leaves some of them.
const FORGET: Duration = Duration::from_secs(30);
/// More addresses of one name are not looked at.
const MAX_ADDRESSES: usize = 64;

/// What was learned of each name.
#[derive(Default)]
pub(super) struct Names(HashMap<String, Known>);

enum Known {
    /// What one server may have, by the last answer; nothing if there was none.
    One(Vec<IpAddr>),
    /// Never empty. It stays so when one is left: the node would change its name otherwise. Each with the time of the
    /// last answer that had it, ordered.
    Several(Vec<(IpAddr, Instant)>),
}

impl Names {
    /// Takes in what `host` resolved to: nothing, where it could not be looked up.
    pub fn note(&mut self, host: &str, found: &[IpAddr], now: Instant) {
        let known = self.0.entry(host.to_owned());
        let known = known.or_insert_with(|| Known::One(Vec::new()));
        match known {
            Known::Several(old) => refresh(old, found, now),
            Known::One(_) if servers(found).len() > 1 => {
                let all = servers(found).into_iter();
                *known = Known::Several(all.map(|address| (address, now)).collect());
            }
            Known::One(_) if found.is_empty() => {}
            Known::One(old) => *old = found.to_vec(),
        }
    }

    /// Whether the node's host must be looked up first, before it may be dialled.
    pub fn is_open(&self, node: &config::Node) -> bool {
        is_name(&node.host) && !self.0.contains_key(&node.host)
    }

    /// The nodes with a node for each address in the place of a name with several. A server that is named twice is what
    /// its first name says, and a name of its own goes before one of several.
    pub fn spread(&self, nodes: &[config::Node]) -> Vec<config::Node> {
        let mut taken: Vec<(IpAddr, u16)> = Vec::new();
        let mut spread: Vec<(usize, config::Node)> = Vec::new();
        let (several, one): (Vec<_>, Vec<_>) = nodes
            .iter()
            .enumerate()
            .partition(|(_, node)| self.several(node).is_some());
        for (index, node) in one {
            let places = self.addresses(node).into_iter().map(|it| (it, node.port));
            let places: Vec<_> = places.collect();
            if !places.iter().any(|place| taken.contains(place)) {
                taken.extend(places);
                spread.push((index, node.clone()));
            }
        }
        for (index, node) in several {
            for (address, _) in self.several(node).unwrap_or_default() {
                if !taken.contains(&(*address, node.port)) {
                    taken.push((*address, node.port));
                    spread.push((index, at(node, *address)));
                }
            }
        }
        spread.sort_by_key(|(index, _)| *index);
        spread.into_iter().map(|(_, node)| node).collect()
    }

    /// Whether the node is at this `host:port`, by name or by address.
    pub fn is_at(&self, node: &config::Node, at: &str) -> bool {
        let Some((host, port)) = at.rsplit_once(':') else {
            return false;
        };
        let there = config::Node::at("", host, node.port);
        let same_host = node.address.is_none() && node.host == host;
        let own = self.addresses(node);
        let shares = self.addresses(&there).iter().any(|it| own.contains(it));
        port == node.port.to_string() && (same_host || shares)
    }

    fn several(&self, node: &config::Node) -> Option<&[(IpAddr, Instant)]> {
        match self.0.get(&node.host) {
            Some(Known::Several(all)) => Some(all),
            _ => None,
        }
    }

    fn addresses(&self, node: &config::Node) -> Vec<IpAddr> {
        if let Some(address) = node.address.or_else(|| node.host.parse().ok()) {
            return vec![address];
        }
        match self.0.get(&node.host) {
            Some(Known::One(all)) => all.clone(),
            _ => Vec::new(),
        }
    }
}

/// An answer without the family that was taken is a lookup that half failed: the other leads to the same servers.
fn refresh(all: &mut Vec<(IpAddr, Instant)>, found: &[IpAddr], now: Instant) {
    let is_v4 = all.first().is_some_and(|(address, _)| address.is_ipv4());
    let found = of_family(found, is_v4);
    if found.is_empty() {
        return;
    }
    all.retain(|(address, seen)| {
        !found.contains(address) && now.saturating_duration_since(*seen) < FORGET
    });
    all.extend(found.into_iter().map(|address| (address, now)));
    all.sort_unstable();
}

fn at(node: &config::Node, address: IpAddr) -> config::Node {
    config::Node {
        name: format!("{}@{address}", node.name),
        address: Some(address),
        ..node.clone()
    }
}

/// One address for each server: a server with two families has one of each.
fn servers(found: &[IpAddr]) -> Vec<IpAddr> {
    let [old, new] = [true, false].map(|is_v4| of_family(found, is_v4));
    if new.len() > old.len() { new } else { old }
}

fn of_family(found: &[IpAddr], is_v4: bool) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = found.to_vec();
    all.retain(|address| address.is_ipv4() == is_v4);
    all.sort_unstable();
    all.dedup();
    all.truncate(MAX_ADDRESSES);
    all
}

fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// The names among the nodes' hosts, each once.
pub(super) fn hosts<'a>(nodes: impl Iterator<Item = &'a config::Node>) -> Vec<String> {
    let mut hosts: Vec<String> = nodes.map(|node| node.host.clone()).collect();
    hosts.retain(|host| is_name(host));
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Looks all of them up at once; nothing is found of what fails. A set, since it ends what is in it when it is dropped.
pub(super) fn look_up(hosts: Vec<String>) -> JoinSet<(String, Vec<IpAddr>)> {
    let mut lookups = JoinSet::new();
    for host in hosts {
        lookups.spawn(async move {
            let answer = timeout(PATIENCE, resolve(&host)).await;
            let found = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let found = found.unwrap_or_else(|error| {
                tracing::debug!(host, %error, "a host name could not be looked up");
                Vec::new()
            });
            (host, found)
        });
    }
    lookups
}

async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = lookup_host((host, 0)).await?;
    Ok(found.map(|it: SocketAddr| it.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|it| it.parse().unwrap()).collect()
    }

    fn pg() -> config::Node {
        config::Node {
            weight: 7,
            ..config::Node::at("pg", "db", 5432)
        }
    }

    /// The addresses of the nodes that `pg` is; empty where it is dialled by name.
    fn addresses(names: &Names) -> Vec<String> {
        let nodes = names.spread(&[pg()]);
        let nodes = nodes.iter().filter_map(|node| node.address);
        nodes.map(|it| it.to_string()).collect()
    }

    #[test]
    fn each_of_several_addresses_is_a_node_with_the_settings_of_the_name() {
        let mut names = Names::default();
        assert!(names.is_open(&pg()));
        names.note("db", &ips(&["10.0.0.2", "10.0.0.1"]), Instant::now());
        assert!(!names.is_open(&pg()));
        let nodes = names.spread(&[pg()]);
        let shown = nodes.iter().map(|it| (&*it.name, &*it.host, it.weight));
        let expected = [("pg@10.0.0.1", "db", 7), ("pg@10.0.0.2", "db", 7)];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_address_of_each_family_is_one_server() {
        for found in [&["127.0.0.1", "::1"][..], &["::1"], &["10.0.0.1"], &[]] {
            let mut names = Names::default();
            names.note("db", &ips(found), Instant::now());
            assert_eq!(names.spread(&[pg()]), [pg()], "{found:?}");
            assert!(!names.is_open(&pg()), "{found:?}");
        }
    }

    #[test]
    fn of_two_families_one_is_taken_and_kept() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.note(
            "db",
            &ips(&["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"]),
            now,
        );
        let taken = ["10.0.0.1", "10.0.0.2"];
        assert_eq!(addresses(&names), taken);
        names.note("db", &ips(&["fd00::1", "fd00::2"]), now + FORGET);
        assert_eq!(addresses(&names), taken);
        let mut names = Names::default();
        names.note("db", &ips(&["fd00::1", "fd00::2", "10.0.0.1"]), now);
        assert_eq!(addresses(&names), ["fd00::1", "fd00::2"]);
    }

    #[test]
    fn a_missing_address_stays_for_a_while_and_a_new_one_comes_at_once() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.note("db", &ips(&["10.0.0.1", "10.0.0.2"]), now);
        names.note("db", &ips(&["10.0.0.2", "10.0.0.3"]), now + FORGET / 2);
        assert_eq!(addresses(&names), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        names.note("db", &[], now + FORGET * 2);
        assert_eq!(
            addresses(&names).len(),
            3,
            "a failed lookup changes nothing"
        );
        names.note("db", &ips(&["10.0.0.3"]), now + FORGET * 2);
        assert_eq!(names.spread(&[pg()])[0].name, "pg@10.0.0.3");
        assert_eq!(addresses(&names), ["10.0.0.3"]);
    }

    #[test]
    fn a_server_that_two_nodes_name_is_one_of_them() {
        let mut names = Names::default();
        let now = Instant::now();
        names.note("db", &ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), now);
        names.note("db-3", &ips(&["10.0.0.3"]), now);
        let mut nodes = vec![
            pg(),
            config::Node::at("first", "10.0.0.1", 5432),
            config::Node::at("other", "10.0.0.2", 5433),
            config::Node::at("third", "db-3", 5432),
            config::Node::at("again", "10.0.0.3", 5432),
            config::Node::at("unknown", "db-4", 5432),
        ];
        let names: Vec<_> = names.spread(&nodes).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["pg@10.0.0.2", "first", "other", "third", "unknown"]);
        nodes.truncate(1);
        assert_eq!(hosts(nodes.iter()), ["db"]);
    }

    #[test]
    fn a_place_is_known_by_name_and_by_address() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.note("db", &ips(&["10.0.0.1", "10.0.0.2"]), now);
        names.note("one", &ips(&["10.0.0.3", "fd00::3"]), now);
        let first = names.spread(&[pg()]).swap_remove(0);
        let one = config::Node::at("one", "one", 5432);
        let literal = config::Node::at("literal", "10.0.0.3", 5432);
        for (node, at, expected) in [
            (&first, "10.0.0.1:5432", true),
            (&first, "10.0.0.2:5432", false),
            (&first, "db:5432", false),
            (&one, "one:5432", true),
            (&one, "10.0.0.3:5432", true),
            (&one, "fd00::3:5432", true),
            (&one, "10.0.0.3:5433", false),
            (&literal, "one:5432", true),
            (&literal, "10.0.0.4:5432", false),
        ] {
            assert_eq!(names.is_at(node, at), expected, "{} {at}", node.name);
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_what_is_none_finds_nothing() {
        let hosts = ["localhost", "no.such.host.invalid"].map(str::to_owned);
        let mut found = look_up(hosts.into()).join_all().await;
        found.sort();
        assert!(found[0].1.iter().all(IpAddr::is_loopback) && !found[0].1.is_empty());
        assert_eq!(found[1], ("no.such.host.invalid".to_owned(), Vec::new()));
    }
}
