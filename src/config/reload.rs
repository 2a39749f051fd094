//! What a reload can take over while sessions live, and what needs a restart.

use super::{Config, Failover, Listener};

/// The difference between two configurations. Both lists hold dotted keys, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Changed, and can be taken over at once.
    pub live: Vec<&'static str>,
    /// Changed, and stays as it was until a restart.
    pub restart: Vec<&'static str>,
}

impl Reload {
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

/// Compares the running configuration with a new one.
pub fn diff(old: &Config, new: &Config) -> Reload {
    let restart = [
        ("workers", old.workers != new.workers),
        ("http.listen", old.http != new.http),
        ("listener.listen", addresses(old) != addresses(new)),
        (
            "failover.state_file",
            old.failover.state_file != new.failover.state_file,
        ),
        ("patroni", old.patroni != new.patroni),
        ("repmgr", old.repmgr != new.repmgr),
        ("log", old.log != new.log),
    ];
    let live = [
        ("zone", old.zone != new.zone),
        ("listener", settings_differ(old, new)),
        ("node", old.nodes != new.nodes),
        ("pool", old.pool != new.pool),
        ("probe", old.probe != new.probe),
        ("reads", old.reads != new.reads),
        ("rule", old.rules != new.rules),
        ("login", old.logins != new.logins),
        ("failover", failover_differs(&old.failover, &new.failover)),
        ("limits", old.limits != new.limits),
        ("auth", old.auth != new.auth),
        ("user", old.users != new.users),
        // By path: the files' contents may have changed too, so certificates are read again at every reload.
        ("tls", old.tls != new.tls),
    ];
    Reload {
        live: changed(&live),
        restart: changed(&restart),
    }
}

fn changed(all: &[(&'static str, bool)]) -> Vec<&'static str> {
    let changed = all.iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| *key).collect()
}

/// The state file stays what it was.
fn failover_differs(old: &Failover, new: &Failover) -> bool {
    let state_file = old.state_file.clone();
    let new = Failover {
        state_file,
        ..new.clone()
    };
    *old != new
}

fn addresses(config: &Config) -> Vec<std::net::SocketAddr> {
    let mut all: Vec<_> = config.listeners.iter().map(|it| it.listen).collect();
    all.sort();
    all
}

/// Whether a listener that both have now behaves in another way.
fn settings_differ(old: &Config, new: &Config) -> bool {
    let same_address = |a: &Listener, b: &Listener| a.listen == b.listen;
    old.listeners.iter().any(|was| {
        let now = new.listeners.iter().find(|now| same_address(was, now));
        now.is_some_and(|now| now != was)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Node, PoolMode, Route};

    #[test]
    fn equal_configurations_differ_in_nothing() {
        assert!(diff(&Config::default(), &Config::default()).is_empty());
    }

    #[test]
    fn nodes_and_sizes_are_taken_over_live_and_addresses_are_not() {
        let old = Config::default();
        let mut new = old.clone();
        new.nodes.push(Node::at("pg1", "db1", 5432));
        new.pool.size = 7;
        new.workers += 1;
        new.http.listen = None;
        new.listeners[0].listen.set_port(1);
        let expected = Reload {
            live: vec!["node", "pool"],
            restart: vec!["workers", "http.listen", "listener.listen"],
        };
        assert_eq!(diff(&old, &new), expected);
    }

    #[test]
    fn a_listener_that_stays_where_it_is_takes_its_settings_over_live() {
        let old = Config::default();
        let mut new = old.clone();
        new.listeners[1].mode = PoolMode::Session;
        new.listeners[2].route = Route::Primary;
        new.listeners.reverse();
        let found = diff(&old, &new);
        assert_eq!((found.live, found.restart), (vec!["listener"], vec![]));
    }
}
