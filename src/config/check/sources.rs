//! `[patroni]` and `[repmgr]`: who names nodes beside the file. One of the two at most.

use std::time::Duration;

use toml::Spanned;

use super::{Context, MINUTE, secrets::Ways};
use crate::config::{
    Etcd, HttpUrl, Patroni, Repmgr, Secret,
    defaults::{ETCD_PORT, NAMESPACE},
    problem::Problem,
    raw,
    value::FromText,
};

/// Patroni itself looks once in ten seconds by default.
const TENTH: Duration = Duration::from_millis(100);
const ETCD_EXPECTED: &str = "a URL such as \"http://10.0.0.1:2379\"";

impl Context<'_, '_> {
    pub(super) fn patroni(&mut self, raw: raw::Patroni) -> Patroni {
        let interval = self.time(&raw.interval, "patroni.interval", TENTH, MINUTE);
        let urls = self.urls(
            &raw.urls,
            "patroni.urls",
            HttpUrl::EXPECTED,
            HttpUrl::from_text,
        );
        Patroni {
            urls,
            etcd: self.etcd(raw),
            interval: interval.unwrap_or(Patroni::default().interval),
        }
    }

    fn urls(
        &mut self,
        given: &[Spanned<String>],
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<HttpUrl>,
    ) -> Vec<HttpUrl> {
        let mut urls = Vec::new();
        for one in given {
            match read(one.get_ref()) {
                Some(url) => urls.push(url),
                None => self.bad(one.span(), key, expected),
            }
        }
        urls
    }

    fn etcd(&mut self, raw: raw::Patroni) -> Option<Etcd> {
        let read = |text: &str| HttpUrl::or_port(text, ETCD_PORT);
        let urls = self.urls(&raw.etcd, "patroni.etcd", ETCD_EXPECTED, read);
        let scope = self.name(&raw.scope, "patroni.scope");
        let namespace = self.name(&raw.namespace, "patroni.namespace");
        let login = self.etcd_login(&raw);
        let span = raw.etcd.first()?.span();
        if raw.scope.is_none() {
            self.missing(
                span,
                "patroni.scope",
                "the cluster's `scope` in Patroni's configuration",
            );
        }
        Some(Etcd {
            urls,
            namespace: namespace.unwrap_or(NAMESPACE.to_owned()),
            scope: scope?,
            login,
        })
    }

    fn etcd_login(&mut self, raw: &raw::Patroni) -> Option<(String, Secret)> {
        let ways = Ways {
            plain: &raw.password,
            file: &raw.password_file,
            env: &raw.password_env,
        };
        let user = self.name(&raw.user, "patroni.user");
        let password = self.secret(&ways, "patroni");
        if let Some(given) = &raw.user
            && !ways.is_given()
        {
            let expected = "one of `password`, `password_file`, `password_env`";
            self.missing(given.span(), "patroni.password", expected);
        }
        user.zip(password)
    }

    pub(super) fn repmgr(
        &mut self,
        raw: &raw::Repmgr,
        nodes: &[Spanned<raw::Node>],
        patroni: &raw::Patroni,
    ) -> Repmgr {
        let interval = self.time(&raw.interval, "repmgr.interval", TENTH, MINUTE);
        let database = self.name(&raw.database, "repmgr.database");
        let has_patroni = !patroni.urls.is_empty() || !patroni.etcd.is_empty();
        let trouble = match (nodes.is_empty(), has_patroni) {
            (_, true) => Some(("`[patroni]` names the nodes already", "one of the two")),
            (true, false) => Some(("there is nobody to ask", "one [[node]] or more")),
            (false, false) => None,
        };
        if let (Some(given), Some((why, expected))) = (&raw.database, trouble) {
            let key = "repmgr.database";
            let problem = Problem::new(key, format!("`{key}`: {why}"));
            self.error(given.span(), problem.expected(expected));
        }
        Repmgr {
            database,
            interval: interval.unwrap_or(Repmgr::default().interval),
        }
    }
}
