//! Where nodes come from beside the file: a task that asks Patroni, and what is kept of its answers.
//!
//! A source says who belongs to the cluster and whom it takes for the leader; what the nodes are, the probes still find
//! out. While no member answers, the last good word and the probes go on.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    names::{self, Names},
    patroni::{self, Cluster},
    watch::Lister,
};
use crate::config::{self, Config, HttpUrl, Patroni};

/// Patroni no longer names a member that has been dead for its `ttl`. It is still probed for this long: it may come
/// back as what it was.
const FORGET: Duration = Duration::from_secs(10 * 60);
/// A leader's name counts for this long after it was last told: Patroni's default `ttl`.
const WORD: Duration = Duration::from_secs(30);
/// More places to ask are not remembered.
const MAX_APIS: usize = 64;

/// What a source last said of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// There is no source, or it has not been asked yet.
    None,
    /// Not heard of for too long.
    Silent,
    /// `host:port` of the leader.
    Leader(String),
    Leaderless,
}

/// The nodes of the file, and those that Patroni names now, host names looked up.
///
/// # Errors
/// No API of the file answers; the text says why each did not.
pub async fn named_nodes(config: &Config) -> Result<Vec<config::Node>, String> {
    let mut failures = Vec::new();
    for url in &config.patroni.urls {
        match patroni::ask(url).await {
            Ok(cluster) => return Ok(spread(merge(&config.nodes, &cluster.members)).await),
            Err(error) => failures.push(format!("{}:{}: {error}", url.host, url.port)),
        }
    }
    match failures.is_empty() {
        true => Ok(spread(config.nodes.clone()).await),
        false => Err(format!("no Patroni API answers: {}", failures.join("; "))),
    }
}

async fn spread(named: Vec<config::Node>) -> Vec<config::Node> {
    let (mut names, now) = (Names::default(), Instant::now());
    let mut lookups = names::look_up(names::hosts(named.iter()));
    while let Some(Ok((host, addresses))) = lookups.join_next().await {
        names.note(&host, &addresses, now);
    }
    names.spread(&named)
}

/// Asks for ever, and passes on what changes.
pub(super) async fn follow(settings: Patroni, lister: Lister) {
    let mut asked = Asked::new(&settings);
    let mut roll = Roll::default();
    let mut heard = Instant::now();
    loop {
        match asked.ask().await {
            Some(cluster) => {
                heard = Instant::now();
                asked.learn(&cluster.apis);
                lister.hear(roll.call(&cluster.members, heard), word(&cluster));
            }
            None if heard.elapsed() >= WORD => lister.miss(),
            None => {}
        }
        sleep(settings.interval).await;
    }
}

fn word(cluster: &Cluster) -> Word {
    match &cluster.leader {
        Some((host, port)) => Word::Leader(format!("{host}:{port}")),
        None => Word::Leaderless,
    }
}

/// Whom to ask: the one who answered last comes first.
struct Asked {
    apis: Vec<HttpUrl>,
    was_heard: bool,
    was_paused: bool,
}

impl Asked {
    fn new(settings: &Patroni) -> Self {
        Asked {
            apis: settings.urls.clone(),
            was_heard: true,
            was_paused: false,
        }
    }

    async fn ask(&mut self) -> Option<Cluster> {
        for index in 0..self.apis.len() {
            match patroni::ask(&self.apis[index]).await {
                Ok(cluster) => {
                    self.apis[..=index].rotate_right(1);
                    self.note(&cluster);
                    return Some(cluster);
                }
                Err(error) => {
                    let host = &self.apis[index].host;
                    tracing::debug!(host, %error, "a Patroni API did not answer");
                }
            }
        }
        if self.was_heard {
            tracing::warn!("no Patroni API answers: the last word and the probes go on");
            self.was_heard = false;
        }
        None
    }

    fn note(&mut self, cluster: &Cluster) {
        if self.was_paused != cluster.is_paused {
            tracing::info!(paused = cluster.is_paused, "Patroni");
        }
        self.was_heard = true;
        self.was_paused = cluster.is_paused;
    }

    /// Those of the configuration stay: members come and go.
    fn learn(&mut self, apis: &[HttpUrl]) {
        for api in apis {
            if !self.apis.contains(api) && self.apis.len() < MAX_APIS {
                self.apis.push(api.clone());
            }
        }
    }
}

/// The members, those too that have not been named for a while.
#[derive(Default)]
struct Roll {
    members: Vec<(config::Node, Instant)>,
}

impl Roll {
    fn call(&mut self, named: &[config::Node], now: Instant) -> Vec<config::Node> {
        self.members.retain(|(node, seen)| {
            let replaced = |new: &config::Node| {
                new.name == node.name || (&new.host, new.port) == (&node.host, node.port)
            };
            !named.iter().any(replaced) && now.saturating_duration_since(*seen) < FORGET
        });
        let fresh = named.iter().map(|node| (node.clone(), now));
        self.members.extend(fresh);
        self.members.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        self.members.iter().map(|(node, _)| node.clone()).collect()
    }
}

/// The nodes of the file, and those of a source that the file does not place.
pub(super) fn merge(listed: &[config::Node], found: &[config::Node]) -> Vec<config::Node> {
    let mut nodes = listed.to_vec();
    for node in found {
        let known = |it: &config::Node| {
            it.name == node.name || (&it.host, it.port) == (&node.host, node.port)
        };
        if !nodes.iter().any(known) {
            nodes.push(node.clone());
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(all: &[(&str, u16)]) -> Vec<config::Node> {
        let node = |(name, port): &(&str, u16)| config::Node::at(*name, "h", *port);
        all.iter().map(node).collect()
    }

    #[test]
    fn a_member_that_is_named_no_more_stays_for_a_while() {
        let (mut roll, now) = (Roll::default(), Instant::now());
        roll.call(&nodes(&[("b", 2), ("a", 1)]), now);
        assert_eq!(
            roll.call(&nodes(&[("b", 2)]), now),
            nodes(&[("a", 1), ("b", 2)])
        );
        assert_eq!(
            roll.call(&nodes(&[("b", 2)]), now + FORGET),
            nodes(&[("b", 2)])
        );
    }

    #[test]
    fn a_member_that_moved_or_was_renamed_is_there_once() {
        let (mut roll, now) = (Roll::default(), Instant::now());
        roll.call(&nodes(&[("a", 1), ("b", 2)]), now);
        let moved = nodes(&[("a", 3), ("c", 2)]);
        assert_eq!(roll.call(&moved, now), moved);
    }

    #[test]
    fn the_file_s_own_settings_of_a_member_stay() {
        let mut listed = nodes(&[("mine", 1)]);
        listed[0].weight = 7;
        let merged = merge(&listed, &nodes(&[("a", 1), ("b", 2)]));
        assert_eq!(merged, [listed, nodes(&[("b", 2)])].concat());
    }
}
