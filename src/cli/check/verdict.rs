//! What is wrong with a cluster, and where the proxy would send what. Pure: facts in, words out.

use std::fmt;

use super::ask::{Facts, Standing};
use crate::config::{self, Config, Listener, PrimaryReads, Route, Writes};

/// The oldest version whose protocol and catalogue this proxy is written for.
const OLDEST: i32 = 130_000;

/// A configured node and what it said, or why it said nothing.
pub struct Node<'a> {
    pub config: &'a config::Node,
    pub facts: Result<Facts, String>,
}

/// Something to say against starting.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    weight: Weight,
    message: String,
    help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Error,
    Warning,
}

impl Finding {
    pub fn error(message: impl Into<String>) -> Self {
        Finding::new(Weight::Error, message)
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Finding::new(Weight::Warning, message)
    }

    fn new(weight: Weight, message: impl Into<String>) -> Self {
        Finding {
            weight,
            message: message.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.weight == Weight::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        write!(f, "{label}: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  {help}"),
            None => Ok(()),
        }
    }
}

/// The one node that would get writes: writable, on the highest timeline, and alone there.
pub fn primary<'n, 'a>(nodes: &'n [Node<'a>]) -> Option<&'n Node<'a>> {
    let highest = highest_timeline(nodes)?;
    let mut candidates = nodes
        .iter()
        .filter(|node| written_timeline(node) == Some(highest));
    let first = candidates.next();
    match candidates.next() {
        Some(_) => None,
        None => first,
    }
}

fn highest_timeline(nodes: &[Node]) -> Option<u32> {
    nodes.iter().filter_map(timeline).max()
}

fn timeline(node: &Node) -> Option<u32> {
    match node.facts.as_ref().ok()?.standing {
        Standing::Primary { timeline } => Some(timeline),
        Standing::Replica { timeline } => timeline,
    }
}

fn written_timeline(node: &Node) -> Option<u32> {
    match node.facts.as_ref().ok()?.standing {
        Standing::Primary { timeline } => Some(timeline),
        Standing::Replica { .. } => None,
    }
}

fn is_replica(node: &Node) -> bool {
    let facts = node.facts.as_ref();
    facts.is_ok_and(|facts| matches!(facts.standing, Standing::Replica { .. }))
}

/// Role, version, timeline, system identifier, lag and connections, on one line.
pub fn describe(facts: &Facts, nodes: &[Node]) -> String {
    let role = match facts.standing {
        Standing::Primary { timeline } => format!("primary, timeline {timeline}"),
        Standing::Replica { timeline: None } => "replica, not streaming".to_owned(),
        Standing::Replica {
            timeline: Some(timeline),
        } => {
            format!("replica, timeline {timeline}{}", lag(facts, nodes))
        }
    };
    format!(
        "{role}, PostgreSQL {}, system {}, max_connections {}",
        facts.version, facts.system_id, facts.max_connections
    )
}

/// Asked a moment apart, so a busy primary always looks a little ahead.
fn lag(facts: &Facts, nodes: &[Node]) -> String {
    let written = primary(nodes).and_then(|node| node.facts.as_ref().ok());
    written.map_or_else(String::new, |written| {
        format!(", {} bytes behind", written.lsn.saturating_sub(facts.lsn))
    })
}

/// Everything to say about the nodes.
pub fn cluster(nodes: &[Node], config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = nodes.iter().flat_map(|one| node(one, config)).collect();
    findings.extend(strangers(nodes));
    findings.extend(writable(nodes));
    findings.extend(behind(nodes));
    if !nodes.iter().any(is_replica) {
        findings.push(Finding::warning(
            "no replica answers: there is nothing to spread reads over",
        ));
    }
    findings
}

/// What can be said about a node alone.
fn node(node: &Node, config: &Config) -> Vec<Finding> {
    let name = &node.config.name;
    let facts = match &node.facts {
        Ok(facts) => facts,
        Err(why) => return vec![Finding::error(format!("{name}: {why}"))],
    };
    let mut findings = Vec::new();
    if !facts.has_pg_monitor {
        let user = quoted(&config.probe.user);
        findings.push(
            Finding::error(format!("{name}: the probe user is no member of pg_monitor, and cannot see restarts and timelines"))
                .help(format!("on the primary: GRANT pg_monitor TO {user};")),
        );
    }
    if facts.version_num < OLDEST {
        findings.push(Finding::error(format!(
            "{name}: PostgreSQL {} is older than 13",
            facts.version
        )));
    }
    if facts.has_pg_monitor && facts.standing == (Standing::Replica { timeline: None }) {
        findings.push(Finding::warning(format!(
            "{name}: a replica without a WAL receiver; it falls behind"
        )));
    }
    findings.extend(room(node.config, facts));
    findings
}

/// Whether the node can hold what the proxy may open.
fn room(node: &config::Node, facts: &Facts) -> Option<Finding> {
    let free = usize::try_from(facts.max_connections - facts.reserved).unwrap_or(0);
    (node.max_servers > free).then(|| {
        Finding::warning(format!(
            "{}: max_servers is {}, but max_connections = {} leaves {free} connections to ordinary users",
            node.name, node.max_servers, facts.max_connections
        ))
        .help("lower max_servers, or raise max_connections; leave some for probes and for others")
    })
}

/// Nodes of another cluster than the first one that answered, or than the primary.
fn strangers(nodes: &[Node]) -> Vec<Finding> {
    let first = nodes.iter().find(|node| node.facts.is_ok());
    let Some((known, ours)) = primary(nodes)
        .or(first)
        .and_then(|node| Some((node, node.facts.as_ref().ok()?)))
    else {
        return Vec::new();
    };
    let other = nodes.iter().filter_map(|node| {
        let facts = node.facts.as_ref().ok()?;
        (facts.system_id != ours.system_id).then(|| {
            Finding::error(format!(
                "{}: another cluster than {}: system identifier {}, not {}",
                node.config.name, known.config.name, facts.system_id, ours.system_id
            ))
        })
    });
    other.collect()
}

/// None, several, or left-behind writable nodes.
fn writable(nodes: &[Node]) -> Vec<Finding> {
    let writers: Vec<&Node> = nodes
        .iter()
        .filter(|one| written_timeline(one).is_some())
        .collect();
    let Some(primary) = primary(nodes) else {
        let names: Vec<&str> = writers.iter().map(|one| one.config.name.as_str()).collect();
        return vec![match names.as_slice() {
            [] => Finding::error("no primary: writes would have nowhere to go"),
            [one] => Finding::error(format!(
                "{one}: writable on a timeline that a replica has left; writes would have nowhere to go"
            )),
            all => Finding::error(format!(
                "{} are writable on one timeline; writes would have nowhere to go",
                all.join(", ")
            )),
        }];
    };
    let left = writers
        .iter()
        .filter(|one| one.config.name != primary.config.name);
    left.map(|one| {
        Finding::error(format!(
            "{}: writable, but on an older timeline than {}: it would be fenced",
            one.config.name, primary.config.name
        ))
    })
    .collect()
}

/// Replicas on another timeline than the primary's.
fn behind(nodes: &[Node]) -> Vec<Finding> {
    let Some(current) = primary(nodes).and_then(written_timeline) else {
        return Vec::new();
    };
    let stale = nodes.iter().filter(|node| is_replica(node));
    stale
        .filter_map(|node| {
            let timeline = timeline(node)?;
            (timeline != current).then(|| {
                Finding::warning(format!(
                    "{}: follows timeline {timeline}, the primary is on {current}",
                    node.config.name
                ))
            })
        })
        .collect()
}

/// Where sessions of a listener would go.
pub fn plan(listener: &Listener, nodes: &[Node]) -> String {
    let writes = primary(nodes).map_or("nowhere: there is no primary", |node| {
        node.config.name.as_str()
    });
    match listener.route {
        Route::Primary => format!("primary: everything to {writes}"),
        Route::Split => {
            format!(
                "split: reads to {}; everything else to {writes}",
                readers(listener, nodes)
            )
        }
        Route::Replica => format!(
            "replica: reads to {}; {}",
            readers(listener, nodes),
            refusal(listener, writes)
        ),
    }
}

fn readers(listener: &Listener, nodes: &[Node]) -> String {
    let takes = |node: &&Node| is_replica(node) && node.config.weight > 0;
    let mut names: Vec<&str> = nodes
        .iter()
        .filter(takes)
        .map(|node| node.config.name.as_str())
        .collect();
    let primary = primary(nodes).map(|node| node.config.name.as_str());
    match (listener.primary, primary) {
        (PrimaryReads::Also, Some(name)) => names.push(name),
        (PrimaryReads::Last, Some(name)) if names.is_empty() => names.push(name),
        _ => {}
    }
    match names.is_empty() {
        true => "nowhere: there is no replica".to_owned(),
        false => names.join(", "),
    }
}

fn refusal(listener: &Listener, primary: &str) -> String {
    match listener.writes {
        Writes::Refuse => "writes are refused with 25006".to_owned(),
        Writes::Primary => format!("writes to {primary}"),
    }
}

/// As an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(standing: Standing) -> Facts {
        Facts {
            standing,
            version: "15.18".to_owned(),
            version_num: 150_018,
            max_connections: 100,
            reserved: 3,
            has_pg_monitor: true,
            system_id: 7,
            lsn: 1000,
        }
    }

    const WRITES: Standing = Standing::Primary { timeline: 2 };
    const FOLLOWS: Standing = Standing::Replica { timeline: Some(2) };

    /// Nodes pg1, pg2, … that said this.
    fn with<T>(said: Vec<Result<Facts, String>>, look: impl FnOnce(&[Node], &Config) -> T) -> T {
        let configs: Vec<config::Node> = (1..=said.len())
            .map(|at| config::Node::at(format!("pg{at}"), "db", 5432))
            .collect();
        let pairs = configs.iter().zip(said);
        let nodes: Vec<Node> = pairs
            .map(|(config, facts)| Node { config, facts })
            .collect();
        look(&nodes, &Config::default())
    }

    fn lines(said: Vec<Result<Facts, String>>) -> Vec<String> {
        with(said, |nodes, config| {
            cluster(nodes, config)
                .iter()
                .map(Finding::to_string)
                .collect()
        })
    }

    #[test]
    fn a_primary_with_a_replica_is_nothing_to_complain_about() {
        assert_eq!(lines(vec![Ok(facts(WRITES)), Ok(facts(FOLLOWS))]), [""; 0]);
    }

    #[test]
    fn what_is_unfit_is_an_error_with_its_remedy() {
        let blind = Facts {
            has_pg_monitor: false,
            ..facts(FOLLOWS)
        };
        let stranger = Facts {
            system_id: 8,
            ..facts(FOLLOWS)
        };
        let full = Facts {
            max_connections: 90,
            ..facts(FOLLOWS)
        };
        let said = vec![
            Ok(facts(WRITES)),
            Ok(blind),
            Ok(stranger),
            Ok(full),
            Err("gone".to_owned()),
        ];
        let expected = [
            "error: pg2: the probe user is no member of pg_monitor, and cannot see restarts and timelines\n  on the primary: GRANT pg_monitor TO \"pgsluice\";",
            "warning: pg4: max_servers is 90, but max_connections = 90 leaves 87 connections to ordinary users\n  lower max_servers, or raise max_connections; leave some for probes and for others",
            "error: pg5: gone",
            "error: pg3: another cluster than pg1: system identifier 8, not 7",
        ];
        assert_eq!(lines(said), expected);
    }

    #[test]
    fn an_old_primary_is_called_fenced_and_two_equal_ones_are_refused() {
        let old = facts(Standing::Primary { timeline: 1 });
        let fenced = "error: pg2: writable, but on an older timeline than pg1: it would be fenced";
        let alone = "warning: no replica answers: there is nothing to spread reads over";
        assert_eq!(
            lines(vec![Ok(facts(WRITES)), Ok(old.clone())]),
            [fenced, alone]
        );
        let two = "error: pg1, pg2 are writable on one timeline; writes would have nowhere to go";
        assert_eq!(
            lines(vec![Ok(facts(WRITES)), Ok(facts(WRITES))]),
            [two, alone]
        );
        let left = "error: pg1: writable on a timeline that a replica has left; writes would have nowhere to go";
        assert_eq!(lines(vec![Ok(old), Ok(facts(FOLLOWS))]), [left]);
    }

    #[test]
    fn replicas_that_do_not_stream_or_follow_another_timeline_are_warned_about() {
        let still = facts(Standing::Replica { timeline: None });
        let other = facts(Standing::Replica { timeline: Some(1) });
        let expected = [
            "warning: pg2: a replica without a WAL receiver; it falls behind",
            "warning: pg3: follows timeline 1, the primary is on 2",
        ];
        assert_eq!(
            lines(vec![Ok(facts(WRITES)), Ok(still), Ok(other)]),
            expected
        );
    }

    #[test]
    fn the_plan_names_where_each_listener_goes() {
        let plans = |said, primary| {
            with(said, |nodes, config| {
                let mut listeners = config.listeners.clone();
                listeners[1].primary = primary;
                [plan(&listeners[0], nodes), plan(&listeners[1], nodes)]
            })
        };
        let both = || vec![Ok(facts(WRITES)), Ok(facts(FOLLOWS))];
        let alone = || vec![Ok(facts(WRITES))];
        let writes = "primary: everything to pg1".to_owned();
        let reads = |to: &str| format!("replica: reads to {to}; writes are refused with 25006");
        assert_eq!(
            plans(both(), PrimaryReads::Last),
            [writes.clone(), reads("pg2")]
        );
        assert_eq!(
            plans(both(), PrimaryReads::Also),
            [writes.clone(), reads("pg2, pg1")]
        );
        assert_eq!(
            plans(alone(), PrimaryReads::Last),
            [writes.clone(), reads("pg1")]
        );
        assert_eq!(
            plans(alone(), PrimaryReads::Never),
            [writes, reads("nowhere: there is no replica")]
        );
    }
}
