//! The topology as metrics, made from the snapshot at each scrape: a node that was removed leaves no trace.

use std::sync::Arc;

use crate::{
    metrics::{Family, Histogram, Text},
    topology::{Alarm, Cause, Health, Moment, NodeView, Role, Topology},
};

/// Adds the snapshot's metrics to a page.
pub(super) fn write_topology(text: &mut Text, topology: &Topology) {
    text.family(
        "pgsluice_topology_number",
        Family::Gauge,
        "Number of the topology snapshot.",
    )
    .sample(&[], topology.number);
    let mut alarms = text.family(
        "pgsluice_alarm",
        Family::Gauge,
        "1 while an operator must look.",
    );
    for alarm in Alarm::ALL {
        let rises = topology.alarms.contains(&alarm);
        alarms.sample(&[("alarm", alarm.as_str())], u8::from(rises));
    }
    write_states(text, topology);
    write_reasons(text, topology);
    write_staleness(text, topology);
    write_numbers(text, topology);
    write_balance(text, topology);
}

/// Adds the probes' times, per node, to a page.
pub(super) fn write_latencies(text: &mut Text, latencies: &[(String, Arc<Histogram>)]) {
    let mut family = text.family(
        "pgsluice_probe_seconds",
        Family::Histogram,
        "Time to an answer of a probe.",
    );
    for (node, histogram) in latencies {
        family.histogram(&[("node", node)], histogram);
    }
}

/// One sample per state, 1 for the one that holds.
fn write_states(text: &mut Text, topology: &Topology) {
    let mut roles = text.family(
        "pgsluice_node_role",
        Family::Gauge,
        "1 for the role that the node has.",
    );
    for node in &topology.nodes {
        for role in Role::ALL {
            let labels = [("node", name(node)), ("role", role.as_str())];
            roles.sample(&labels, u8::from(node.role == role));
        }
    }
    let mut healths = text.family(
        "pgsluice_node_health",
        Family::Gauge,
        "1 for the health that the node has.",
    );
    for node in &topology.nodes {
        for health in Health::ALL {
            let labels = [("node", name(node)), ("health", health.as_str())];
            healths.sample(&labels, u8::from(node.health == health));
        }
    }
}

/// In a word, as `pgsluice ctl status` shows it. Only the one that holds: there are many, and an operator looks for those
/// that are not `answering`.
fn write_reasons(text: &mut Text, topology: &Topology) {
    let mut reasons = text.family(
        "pgsluice_node_reason",
        Family::Gauge,
        "1 for why the node has its health.",
    );
    for node in &topology.nodes {
        let labels = [("node", name(node)), ("reason", node.reason.as_str())];
        reasons.sample(&labels, 1);
    }
}

fn write_staleness(text: &mut Text, topology: &Topology) {
    let mut staleness = text.family(
        "pgsluice_node_staleness_seconds",
        Family::Gauge,
        "How long ago a replica is known to have had everything.",
    );
    for node in &topology.nodes {
        if let Some(time) = topology.staleness(node) {
            staleness.sample(&[("node", name(node))], time.as_secs_f64());
        }
    }
}

fn write_numbers(text: &mut Text, topology: &Topology) {
    let number = |text: &mut Text, metric, help, value: &dyn Fn(&NodeView) -> Option<u64>| {
        let mut family = text.family(metric, Family::Gauge, help);
        for node in &topology.nodes {
            if let Some(value) = value(node) {
                family.sample(&[("node", name(node))], value);
            }
        }
    };
    number(
        text,
        "pgsluice_node_timeline",
        "Timeline that the node writes or receives.",
        &|node| node.timeline.map(u64::from),
    );
    number(
        text,
        "pgsluice_node_lag_bytes",
        "WAL that a replica has not replayed.",
        &|node| topology.lag_bytes(node),
    );
    number(
        text,
        "pgsluice_node_in_flight",
        "Servers checked out.",
        &|node| Some(u64::from(node.load.in_flight())),
    );
}

/// What the choice among replicas goes by, beside what is in flight.
fn write_balance(text: &mut Text, topology: &Topology) {
    let now = Moment::now();
    let mut latency = text.family(
        "pgsluice_node_latency_seconds",
        Family::Gauge,
        "What statements take there: an average that follows slow answers faster than fast ones.",
    );
    for node in &topology.nodes {
        if let Some(time) = node.load.latency(now) {
            latency.sample(&[("node", name(node))], time.as_secs_f64());
        }
    }
    let mut ejected = text.family(
        "pgsluice_node_ejected",
        Family::Gauge,
        "1 while reads pass the node over since it is far slower than others, or fails.",
    );
    for node in &topology.nodes {
        let is_ejected = node.load.is_ejected(now);
        ejected.sample(&[("node", name(node))], u8::from(is_ejected));
    }
    let mut ejections = text.family(
        "pgsluice_node_ejections_total",
        Family::Counter,
        "How often that began, and by what.",
    );
    for node in &topology.nodes {
        for cause in Cause::ALL {
            let labels = [("node", name(node)), ("cause", cause.as_str())];
            ejections.sample(&labels, node.load.ejections(cause));
        }
    }
}

fn name(node: &NodeView) -> &str {
    &node.config.name
}
