//! What is said of the nodes beforehand: by the file, by a source, by name servers.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, time::sleep};

use super::{Handle, Probe, Shared, lock};
use crate::{
    config,
    topology::{
        Role,
        judge::{self, NodeId, Rules},
        names::{self, Names},
        probe::Settings,
        source,
    },
};

pub(super) struct Listed {
    /// By the file.
    pub configured: Vec<config::Node>,
    /// By a source.
    pub found: Vec<config::Node>,
    pub names: Names,
    pub rules: Rules,
}

impl Listed {
    pub fn nodes(&self) -> Vec<config::Node> {
        let named = source::merge(&self.configured, &self.found);
        self.names.spread(&named)
    }

    /// A place as the judge knows it: the file may have a name for what a source calls by its address, and the other
    /// way round.
    fn own_words(&self, at: String) -> String {
        let nodes = self.nodes();
        let known = nodes.iter().find(|node| self.names.is_at(node, &at));
        known.map_or(at, judge::place)
    }
}

/// A source's way to name nodes. It keeps nothing alive.
pub(in crate::topology) struct Lister {
    shared: Arc<Shared>,
    settings: Arc<ArcSwap<Settings>>,
    listed: Arc<Mutex<Listed>>,
    probes: Weak<Mutex<HashMap<NodeId, Probe>>>,
    unnamed: Arc<Notify>,
    runtime: tokio::runtime::Handle,
}

impl Lister {
    /// These are the members, and this is known of their leader.
    pub fn hear(&self, found: Vec<config::Node>, word: source::Word) {
        let Some(handle) = self.handle() else {
            return;
        };
        let mut listed = lock(&self.listed);
        if listed.found != found {
            listed.found = found;
            handle.take_nodes(&listed);
        }
        let word = match word {
            source::Word::Leader(at) => source::Word::Leader(listed.own_words(at)),
            other => other,
        };
        drop(listed);
        self.shared.hear_source(word);
    }

    /// The source has not been heard for too long.
    pub fn miss(&self) {
        self.shared.hear_source(source::Word::Silent);
    }

    /// The nodes that answer, the primary first.
    pub fn answering(&self) -> Vec<Arc<config::Node>> {
        let topology = self.shared.published.load();
        let mut nodes: Vec<_> = topology.nodes.iter().filter(|node| node.is_up()).collect();
        nodes.sort_by_key(|node| node.role != Role::Primary);
        nodes.into_iter().map(|node| node.config.clone()).collect()
    }

    /// How probes log in now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    fn hosts(&self) -> Vec<String> {
        let listed = lock(&self.listed);
        names::hosts(listed.configured.iter().chain(&listed.found))
    }

    fn hear_addresses(&self, host: &str, found: &[IpAddr]) {
        let Some(handle) = self.handle() else {
            return;
        };
        let mut listed = lock(&self.listed);
        let before = listed.nodes();
        let was_open = before.iter().any(|node| listed.names.is_open(node));
        listed.names.note(host, found, Instant::now());
        if was_open || listed.nodes() != before {
            handle.set_nodes(&listed);
        }
    }

    /// None once nobody else has a handle any more.
    fn handle(&self) -> Option<Handle> {
        Some(Handle {
            shared: self.shared.clone(),
            settings: self.settings.clone(),
            listed: self.listed.clone(),
            probes: self.probes.upgrade()?,
            unnamed: self.unnamed.clone(),
            _keeper: None,
            _sources: Vec::new(),
            runtime: self.runtime.clone(),
        })
    }
}

impl Handle {
    pub(super) fn lister(&self) -> Lister {
        Lister {
            shared: self.shared.clone(),
            settings: self.settings.clone(),
            listed: self.listed.clone(),
            probes: Arc::downgrade(&self.probes),
            unnamed: self.unnamed.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

/// Looks host names up for ever: a new one at once, all of them at the interval.
pub(super) async fn look_up(lister: Lister, unnamed: Arc<Notify>) {
    loop {
        let hosts = lister.hosts();
        if hosts.is_empty() {
            unnamed.notified().await;
            continue;
        }
        let mut lookups = names::look_up(hosts);
        // Each as it comes: a name server that is silent about one must not keep the others waiting.
        while let Some(Ok((host, found))) = lookups.join_next().await {
            lister.hear_addresses(&host, &found);
        }
        let interval = lister.settings.load().lookup_interval;
        tokio::select! {
            () = sleep(interval) => {}
            () = unnamed.notified() => {}
        }
    }
}
