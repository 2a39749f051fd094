//! The topology as JSON. A separate set of structs, so that no field gets out by being added to the inner ones.

use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::topology::{Lsn, Moment, NodeView, Topology};

#[derive(Debug, Serialize)]
pub(super) struct TopologyJson<'a> {
    number: u64,
    primary: Option<&'a str>,
    alarms: Vec<&'static str>,
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeJson<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    zone: &'a str,
    weight: u32,
    role: &'static str,
    health: &'static str,
    reason: &'static str,
    /// RFC 3339, UTC.
    since: String,
    timeline: Option<u32>,
    /// A string: JSON's numbers end at 2^53.
    system_id: Option<String>,
    incarnation: u64,
    generation: u64,
    insert_lsn: Option<String>,
    replay_lsn: Option<String>,
    lag_bytes: Option<u64>,
    staleness_ms: Option<u64>,
    in_flight: u32,
    /// Of statements; None while there were none.
    latency_ms: Option<f64>,
    /// Passed over as an outlier.
    ejected: bool,
}

impl<'a> TopologyJson<'a> {
    pub fn new(topology: &'a Topology) -> Self {
        let nodes = topology.nodes.iter();
        TopologyJson {
            number: topology.number,
            primary: topology.primary().map(|node| &*node.config.name),
            alarms: topology.alarms.iter().map(|a| a.as_str()).collect(),
            nodes: nodes.map(|node| NodeJson::new(topology, node)).collect(),
        }
    }
}

impl<'a> NodeJson<'a> {
    pub fn new(topology: &Topology, node: &'a NodeView) -> Self {
        let now = Moment::now();
        NodeJson {
            name: &node.config.name,
            host: &node.config.host,
            port: node.config.port,
            zone: &node.config.zone,
            weight: node.config.weight,
            role: node.role.as_str(),
            health: node.health.as_str(),
            reason: node.reason.as_str(),
            since: wall_clock(node.since),
            timeline: node.timeline,
            system_id: node.system_id.map(|id| id.to_string()),
            incarnation: node.incarnation,
            generation: node.generation,
            insert_lsn: known(node.position.insert()),
            replay_lsn: known(node.position.replay()),
            lag_bytes: topology.lag_bytes(node),
            staleness_ms: topology.staleness(node).map(|it| it.as_millis() as u64),
            in_flight: node.load.in_flight(),
            latency_ms: node.load.latency(now).map(|time| time.as_secs_f64() * 1e3),
            ejected: node.load.is_ejected(now),
        }
    }
}

fn known(lsn: Lsn) -> Option<String> {
    (lsn > Lsn(0)).then(|| lsn.to_string())
}

/// For people: a monotonic time as the wall clock would have shown it, had it not been set since.
fn wall_clock(at: Instant) -> String {
    let now = SystemTime::now();
    let then = now.checked_sub(at.elapsed()).unwrap_or(now);
    humantime::format_rfc3339_millis(then).to_string()
}
