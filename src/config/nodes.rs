//! A configuration without a file: nodes named on the command line, everything else at its default.

use super::{
    Config, HttpUrl, Node, Secret,
    defaults::NODE_PORT,
    problem::{ConfigErrors, Problem},
    value::{FromText, HostPort},
};

impl Config {
    /// The configuration of `run --node host:port …`.
    ///
    /// The login of the probes and of the verifier lookups is `PGUSER` and `PGPASSWORD` of the environment, by default
    /// `pgsluice` without a password.
    ///
    /// # Errors
    /// No node, one that is no address, or one that is named twice.
    pub fn from_nodes<S: AsRef<str>>(nodes: &[S]) -> Result<Config, ConfigErrors> {
        Config::from_nodes_in(nodes, &env)
    }

    /// The configuration of `run --patroni http://host:8008 …`, with `--node` beside it or not. The login is as in
    /// [`Config::from_nodes`].
    ///
    /// # Errors
    /// Neither a node nor a URL, one that is none, a node that is named twice.
    pub fn from_patroni<S: AsRef<str>>(urls: &[S], nodes: &[S]) -> Result<Config, ConfigErrors> {
        let mut config = match nodes.is_empty() && !urls.is_empty() {
            true => Config::with_login(&env),
            false => Config::from_nodes(nodes)?,
        };
        for text in urls.iter().map(AsRef::as_ref) {
            let url = HttpUrl::from_text(text);
            config.patroni.urls.push(url.ok_or_else(|| bad_url(text))?);
        }
        Ok(config)
    }

    /// As [`Config::from_nodes`], with another environment.
    pub fn from_nodes_in<S: AsRef<str>>(
        nodes: &[S],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigErrors> {
        let nodes = named(nodes)?;
        Ok(Config {
            nodes,
            ..Config::with_login(env)
        })
    }

    pub(super) fn with_login(env: &dyn Fn(&str) -> Option<String>) -> Config {
        let mut config = Config::default();
        let set = |name| env(name).filter(|value| !value.is_empty());
        if let Some(user) = set("PGUSER") {
            config.probe.user = user;
        }
        config.probe.password = set("PGPASSWORD").map(Secret::new);
        config.auth.user = Some(config.probe.user.clone());
        config.auth.password = config.probe.password.clone();
        config
    }
}

fn bad_url(text: &str) -> ConfigErrors {
    let problem = Problem::new(
        "patroni",
        format!("bad value `{}` for --patroni", shown(text)),
    );
    ConfigErrors {
        problems: vec![problem.expected(HttpUrl::EXPECTED)],
    }
}

/// The process's own environment.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn named<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Node>, ConfigErrors> {
    let mut nodes: Vec<Node> = Vec::with_capacity(texts.len());
    let mut problems = Vec::new();
    for text in texts.iter().map(AsRef::as_ref) {
        match HostPort::from_text(text).map(node) {
            None => problems.push(bad(text)),
            Some(node) if nodes.iter().any(|one| one.name == node.name) => {
                problems.push(twice(&node))
            }
            Some(node) => nodes.push(node),
        }
    }
    if texts.is_empty() {
        problems
            .push(Problem::new("node", "no node is named").help("name one with --node host:port"));
    }
    match problems.is_empty() {
        true => Ok(nodes),
        false => Err(ConfigErrors { problems }),
    }
}

fn node(at: HostPort) -> Node {
    let port = at.port.unwrap_or(NODE_PORT);
    let name = match at.host.contains(':') {
        true => format!("[{}]:{port}", at.host),
        false => format!("{}:{port}", at.host),
    };
    Node::at(name, at.host, port)
}

fn bad(text: &str) -> Problem {
    let shown = match text.contains('/') {
        true => "…",
        false => shown(text),
    };
    Problem::new("node", format!("bad value `{shown}` for --node")).expected(HostPort::EXPECTED)
}

/// The text is not repeated when it may be a URL with a password in it.
fn shown(text: &str) -> &str {
    match text.contains('@') {
        true => "…",
        false => text,
    }
}

fn twice(node: &Node) -> Problem {
    Problem::new("node", format!("--node {} is given twice", node.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scouts(name: &str) -> Option<String> {
        match name {
            "PGUSER" => Some("scout".to_owned()),
            "PGPASSWORD" => Some("hunter2".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn nodes_of_the_command_line_get_defaults_and_the_login_of_the_environment() {
        let config = Config::from_nodes_in(&["db1:6000", "::1"], &scouts).unwrap();
        let nodes: Vec<_> = config
            .nodes
            .iter()
            .map(|it| (it.name.as_str(), it.port))
            .collect();
        assert_eq!(nodes, [("db1:6000", 6000), ("[::1]:5432", 5432)]);
        assert_eq!(config.probe.user, "scout");
        assert_eq!(config.probe.password.unwrap().reveal(), "hunter2");
        assert_eq!(config.auth.user.as_deref(), Some("scout"));
        assert_eq!(config.listeners, Config::default().listeners);
    }

    #[test]
    fn every_bad_node_of_the_command_line_is_named() {
        let texts = ["db1:x", "db2", "db2:5432", "postgres://app:hunter2@db3"];
        let errors = Config::from_nodes_in(&texts, &scouts).unwrap_err();
        let expected = format!(
            "bad value `db1:x` for --node: expected {0}\n--node db2:5432 is given twice\nbad value `…` for --node: expected {0}",
            HostPort::EXPECTED
        );
        assert_eq!(errors.to_string(), expected);
    }

    #[test]
    fn no_node_at_all_is_refused() {
        let errors = Config::from_nodes_in::<&str>(&[], &scouts).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "no node is named; name one with --node host:port"
        );
    }
}
