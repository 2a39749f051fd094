//! A configuration from one connection string with several hosts, as libpq takes it.

use tokio_postgres::config::{Config as Conninfo, Host, SslMode};

use super::{
    Config, ConfigErrors, Problem, Secret, TlsMode,
    defaults::NODE_PORT,
    nodes::{env, named},
};

const EXPECTED: &str = "a URL such as \"postgres://pgsluice@db1,db2:5433/postgres\", with host names or addresses, and \
    sslmode disable, prefer or require";

impl Config {
    /// The configuration of `run --url postgres://user@h1,h2:5433/database`: its hosts are the nodes, its user and
    /// database the probes' and lookups'. What it does not say is as in [`Config::from_nodes`].
    ///
    /// # Errors
    /// It is no such URL, or a host is named twice.
    pub fn from_url(url: &str) -> Result<Config, ConfigErrors> {
        let is_url = ["postgres://", "postgresql://"].map(|it| url.starts_with(it));
        let conninfo = url.parse().ok().filter(|_| is_url.contains(&true));
        let conninfo: Conninfo = conninfo.ok_or_else(bad)?;
        let mut config = Config {
            nodes: named(&places(&conninfo).ok_or_else(bad)?)?,
            ..Config::with_login(&env)
        };
        if let Some(user) = conninfo.get_user() {
            config.probe.user = user.to_owned();
            config.auth.user = Some(user.to_owned());
        }
        if let Some(password) = conninfo.get_password() {
            let text = std::str::from_utf8(password).map_err(|_| bad())?;
            config.probe.password = Some(Secret::new(text));
            config.auth.password = config.probe.password.clone();
        }
        if let Some(database) = conninfo.get_dbname() {
            config.probe.database = database.to_owned();
            config.auth.database = database.to_owned();
        }
        config.tls.server.mode = match conninfo.get_ssl_mode() {
            SslMode::Disable => TlsMode::Disable,
            SslMode::Require => TlsMode::Require,
            _ => TlsMode::Prefer,
        };
        Ok(config)
    }
}

/// The first host of a connection string, and its port; None where there is none that can be dialled by name.
pub fn first_host(conninfo: &str) -> Option<(String, u16)> {
    let conninfo: Conninfo = conninfo.parse().ok()?;
    let port = conninfo.get_ports().first().unwrap_or(&NODE_PORT);
    match conninfo.get_hosts().first()? {
        Host::Tcp(name) => Some((name.clone(), *port)),
        Host::Unix(_) => None,
    }
}

/// Each host with its port; None where a host is none that can be dialled by name.
fn places(conninfo: &Conninfo) -> Option<Vec<String>> {
    let (hosts, ports) = (conninfo.get_hosts(), conninfo.get_ports());
    if hosts.is_empty() || !conninfo.get_hostaddrs().is_empty() {
        return None;
    }
    let place = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or(ports.first()).unwrap_or(&NODE_PORT);
        match host {
            Host::Tcp(name) if name.contains(':') => Some(format!("[{name}]:{port}")),
            Host::Tcp(name) => Some(format!("{name}:{port}")),
            Host::Unix(_) => None,
        }
    };
    hosts.iter().enumerate().map(place).collect()
}

/// The text is not repeated: there may be a password in it.
fn bad() -> ConfigErrors {
    ConfigErrors {
        problems: vec![Problem::new("url", "bad value for --url").expected(EXPECTED)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_of(url: &str) -> Vec<(String, u16)> {
        let config = Config::from_url(url).unwrap();
        let nodes = config.nodes.into_iter();
        nodes.map(|node| (node.host, node.port)).collect()
    }

    #[test]
    fn every_host_is_a_node_with_its_port() {
        let at = |all: &[(&str, u16)]| -> Vec<(String, u16)> {
            all.iter().map(|(h, p)| ((*h).to_owned(), *p)).collect()
        };
        let cases = [
            ("postgres://db1", at(&[("db1", 5432)])),
            ("postgresql://db1,db2/", at(&[("db1", 5432), ("db2", 5432)])),
            ("postgres://u@db1:1,db2:2/d", at(&[("db1", 1), ("db2", 2)])),
            (
                "postgres://[::1]:6,10.0.0.1:7/?target_session_attrs=read-write",
                at(&[("::1", 6), ("10.0.0.1", 7)]),
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(places_of(url), expected, "{url}");
        }
    }

    #[test]
    fn user_password_database_and_sslmode_are_the_probes_and_the_lookups() {
        let url = "postgres://scout:hunter%32@db1/app?sslmode=require";
        let config = Config::from_url(url).unwrap();
        let password = config.probe.password.as_ref().unwrap();
        assert_eq!(
            (&*config.probe.user, password.reveal()),
            ("scout", "hunter2")
        );
        assert_eq!(
            (&*config.probe.database, &*config.auth.database),
            ("app", "app")
        );
        assert_eq!(config.auth.user.as_deref(), Some("scout"));
        assert_eq!(config.tls.server.mode, TlsMode::Require);
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_showing_it() {
        for url in [
            "host=db1 password=hunter2",
            "postgres://app:hunter2@",
            "postgres://app:hunter2@db1:x",
            "postgres://app:hunter2@db1/?sslmode=verify-full",
            "postgres://app:hunter2@%2Frun%2Fpostgresql",
            "postgres://app:hunter2@db1,db1",
            "postgres://app:hunter2@db1/?nothing=1",
            "http://db1",
        ] {
            let error = Config::from_url(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
