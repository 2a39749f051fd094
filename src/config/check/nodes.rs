//! `[[node]]`: at least one, names and addresses unique.

use std::collections::HashMap;

use toml::Spanned;

use super::{Context, text};
use crate::config::{
    Node, Pool,
    defaults::NODE_PORT,
    problem::Problem,
    raw,
    value::{Given, is_host},
};

const MAX_WEIGHT: i64 = 10_000;
/// PostgreSQL's own limit is 262,143.
const MAX_SERVERS: i64 = 262_143;

impl Context<'_, '_> {
    pub(super) fn nodes(
        &mut self,
        raw: &[Spanned<raw::Node>],
        patroni: &raw::Patroni,
        pool: &Pool,
    ) -> Vec<Node> {
        let nowhere = raw.is_empty() && patroni.urls.is_empty() && patroni.etcd.is_empty();
        let sources = ["node", "patroni.urls", "patroni.etcd"];
        if nowhere && !sources.iter().any(|key| self.report.is_blamed(key)) {
            self.report.error_nowhere(
                Problem::new("node", "no `[[node]]`: there is nothing to connect to")
                    .help("add [[node]] with name = \"pg1\" and host = \"10.0.0.1\" for each PostgreSQL server"),
            );
        }
        let nodes: Vec<Node> = raw
            .iter()
            .enumerate()
            .filter_map(|(index, one)| self.node(one, &format!("node[{index}]"), pool))
            .collect();
        self.unique_names(raw);
        self.unique_places(raw);
        nodes
    }

    fn node(&mut self, raw: &Spanned<raw::Node>, key: &str, pool: &Pool) -> Option<Node> {
        let (span, raw) = (raw.span(), raw.get_ref());
        let host = self.host(raw, key, span);
        let port = self.whole(&raw.port, &format!("{key}.port"), 1..=65_535);
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(NODE_PORT);
        let weight = self.whole(&raw.weight, &format!("{key}.weight"), 0..=MAX_WEIGHT);
        let max_servers = self.count(
            &raw.max_servers,
            &format!("{key}.max_servers"),
            1..=MAX_SERVERS,
        );
        let name = self.name(&raw.name, &format!("{key}.name"));
        let host = host?;
        let base = Node::at(name.unwrap_or_else(|| format!("{host}:{port}")), host, port);
        let node = Node {
            weight: weight
                .and_then(|it| u32::try_from(it).ok())
                .unwrap_or(base.weight),
            max_servers: max_servers.unwrap_or(base.max_servers),
            zone: text(&raw.zone),
            ..base
        };
        self.room(&raw.max_servers, key, &node, pool);
        Some(node)
    }

    fn host(
        &mut self,
        raw: &raw::Node,
        key: &str,
        table: std::ops::Range<usize>,
    ) -> Option<String> {
        let key = format!("{key}.host");
        let Some(host) = &raw.host else {
            self.missing(table, &key, "a host name or address");
            return None;
        };
        let text = host.get_ref();
        if is_host(text) {
            return Some(text.clone());
        }
        self.bad(
            host.span(),
            &key,
            "a host name or address alone; the port has a key of its own",
        );
        None
    }

    /// A pool that alone may fill the node is worth a word.
    fn room(
        &mut self,
        given: &Given<crate::config::value::Whole>,
        key: &str,
        node: &Node,
        pool: &Pool,
    ) {
        if let Some(given) = given
            && pool.size > node.max_servers
        {
            let message = format!(
                "`pool.size` is {}, but `{key}.max_servers` lets no more than {} through",
                pool.size, node.max_servers
            );
            self.report
                .warning(given.span(), Problem::new(key, message));
        }
    }

    fn unique_names(&mut self, raw: &[Spanned<raw::Node>]) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, one) in raw.iter().enumerate() {
            let Some(name) = &one.get_ref().name else {
                continue;
            };
            if let Some(first) = seen.insert(name.get_ref(), index) {
                let key = format!("node[{index}].name");
                let message = format!("`{}` is the name of `node[{first}]` too", name.get_ref());
                self.error(
                    name.span(),
                    Problem::new(key, message).expected("a name of its own"),
                );
            }
        }
    }

    fn unique_places(&mut self, raw: &[Spanned<raw::Node>]) {
        let mut seen: HashMap<(&str, i64), usize> = HashMap::new();
        for (index, one) in raw.iter().enumerate() {
            let raw = one.get_ref();
            let Some(host) = &raw.host else { continue };
            let port = raw
                .port
                .as_ref()
                .map_or(i64::from(NODE_PORT), |it| it.get_ref().0);
            if let Some(first) = seen.insert((host.get_ref(), port), index) {
                let message = format!("`node[{index}]` is the same server as `node[{first}]`");
                let problem = Problem::new(format!("node[{index}].host"), message);
                self.error(host.span(), problem.expected("another host or port"));
            }
        }
    }
}
