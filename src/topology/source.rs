//! Where nodes come from beside the file: a task that asks Patroni or repmgr's metadata, and what is kept of the answers.
//!
//! A source says who belongs to the cluster and whom it takes for the leader; what the nodes are, the probes still find
//! out. While no member answers, the last good word and the probes go on.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    Login,
    etcd::Store,
    http::authority,
    names::{self, Names},
    patroni::{self, Cluster},
    repmgr,
    watch::Lister,
};
use crate::config::{self, Config, HttpUrl, Patroni};

/// Patroni no longer names a member that has been dead for its `ttl`. It is still probed for this long: it may come
/// back as what it was.
const FORGET: Duration = Duration::from_secs(10 * 60);
/// A leader's name counts for this long after it was last told: Patroni's default `ttl`.
const WORD: Duration = Duration::from_secs(30);
/// More places to ask are not remembered.
const MAX_PLACES: usize = 64;
/// While no node has answered yet.
const SOON: Duration = Duration::from_millis(200);

/// What a source last said of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// There is no source, or one that has no say in it.
    None,
    /// It has not been heard since the start.
    Awaited,
    /// Not heard of for too long.
    Silent,
    /// `host:port` of the leader.
    Leader(String),
    Leaderless,
}

/// The nodes of the file, and those that a source names now, host names looked up.
///
/// # Errors
/// No source of the file answers; the text says why each did not.
pub async fn named_nodes(config: &Config) -> Result<Vec<config::Node>, String> {
    let found = match &config.repmgr.database {
        Some(database) => registered(config, database).await?,
        None => members(config).await?,
    };
    Ok(spread(merge(&config.nodes, &found)).await)
}

async fn members(config: &Config) -> Result<Vec<config::Node>, String> {
    let mut failures = Vec::new();
    for mut place in places(&config.patroni) {
        match place.ask().await {
            Ok(cluster) => return Ok(cluster.members),
            Err(error) => failures.push(format!("{place}: {error}")),
        }
    }
    match failures.is_empty() {
        true => Ok(Vec::new()),
        false => Err(format!("no Patroni API answers: {}", failures.join("; "))),
    }
}

async fn registered(config: &Config, database: &str) -> Result<Vec<config::Node>, String> {
    let login = Login::new(config).map_err(|error| error.to_string())?;
    let mut failures = Vec::new();
    for node in spread(config.nodes.clone()).await {
        match repmgr::ask(&node, &login, database).await {
            Ok(found) => return Ok(found),
            Err(error) => failures.push(format!("{}: {error}", node.name)),
        }
    }
    let failures = failures.join("; ");
    Err(format!(
        "no node tells repmgr's metadata (repmgr.database): {failures}"
    ))
}

async fn spread(named: Vec<config::Node>) -> Vec<config::Node> {
    let (mut names, now) = (Names::default(), Instant::now());
    let mut lookups = names::look_up(names::hosts(named.iter()));
    while let Some(Ok((host, addresses))) = lookups.join_next().await {
        names.note(&host, &addresses, now);
    }
    names.spread(&named)
}

/// Whether others than the file may name nodes.
pub(super) fn is_configured(config: &Config) -> bool {
    let patroni = &config.patroni;
    !patroni.urls.is_empty() || patroni.etcd.is_some() || config.repmgr.database.is_some()
}

/// Asks for ever, and passes on what changes.
pub(super) fn follow(config: &Config, lister: Lister) -> impl Future<Output = ()> + use<> {
    let (patroni, repmgr) = (config.patroni.clone(), config.repmgr.clone());
    async move {
        match repmgr.database {
            Some(database) => follow_repmgr(database, repmgr.interval, lister).await,
            None => follow_patroni(patroni, lister).await,
        }
    }
}

async fn follow_patroni(settings: Patroni, lister: Lister) {
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

/// Asks the nodes that answer.
async fn follow_repmgr(database: String, interval: Duration, lister: Lister) {
    let mut heard = Instant::now();
    let mut was_heard = true;
    loop {
        let nodes = lister.answering();
        // Soon after the start there are some.
        let pause = if nodes.is_empty() { SOON } else { interval };
        match ask_one_of(&nodes, &lister.settings().login, &database).await {
            Some(found) => {
                (heard, was_heard) = (Instant::now(), true);
                lister.hear(found, Word::None);
            }
            None if heard.elapsed() >= WORD => lister.miss(),
            None if was_heard && !nodes.is_empty() => {
                was_heard = false;
                tracing::warn!(
                    "no node tells repmgr's metadata: the last word and the probes go on"
                );
            }
            None => {}
        }
        sleep(pause.min(interval)).await;
    }
}

async fn ask_one_of(
    nodes: &[Arc<config::Node>],
    login: &Login,
    database: &str,
) -> Option<Vec<config::Node>> {
    for node in nodes {
        match repmgr::ask(node, login, database).await {
            Ok(found) => return Some(found),
            Err(error) => {
                tracing::debug!(
                    node = node.name,
                    error,
                    "a node does not tell repmgr's metadata"
                );
            }
        }
    }
    None
}

fn word(cluster: &Cluster) -> Word {
    match &cluster.leader {
        Some((host, port)) => Word::Leader(format!("{host}:{port}")),
        None => Word::Leaderless,
    }
}

/// Where Patroni's cluster can be learned.
enum Place {
    /// A member's REST API.
    Api(HttpUrl),
    Store(Store),
}

fn places(settings: &Patroni) -> Vec<Place> {
    let apis = settings.urls.iter().cloned().map(Place::Api);
    let stores = settings.etcd.iter().flat_map(Store::all);
    apis.chain(stores.map(Place::Store)).collect()
}

impl Place {
    async fn ask(&mut self) -> io::Result<Cluster> {
        match self {
            Place::Api(url) => patroni::ask(url).await,
            Place::Store(store) => store.ask().await,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Api(url) => write!(f, "patroni.urls {}", authority(url)),
            Place::Store(store) => write!(f, "patroni.etcd {}", authority(&store.url)),
        }
    }
}

/// Whom to ask: the one who answered last comes first.
struct Asked {
    places: Vec<Place>,
    was_heard: bool,
    was_paused: bool,
}

impl Asked {
    fn new(settings: &Patroni) -> Self {
        Asked {
            places: places(settings),
            was_heard: true,
            was_paused: false,
        }
    }

    async fn ask(&mut self) -> Option<Cluster> {
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            match place.ask().await {
                Ok(cluster) => {
                    self.places[..=index].rotate_right(1);
                    self.note(&cluster);
                    return Some(cluster);
                }
                Err(error) => tracing::debug!(%place, %error, "Patroni did not answer"),
            }
        }
        if self.was_heard {
            tracing::warn!("Patroni does not answer: the last word and the probes go on");
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
            let is_known = |place: &Place| matches!(place, Place::Api(known) if known == api);
            if !self.places.iter().any(is_known) && self.places.len() < MAX_PLACES {
                self.places.push(Place::Api(api.clone()));
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
