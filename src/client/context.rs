//! What all logins share: made once per configuration, held by every worker.

use std::time::Duration;

use super::{users::Users, verifier};
use crate::{
    config::{Allow, Auth, AuthMethod, Config, Secret, TlsMode, User},
    net::tls::Acceptor,
};

/// Send and Sync: one per configuration, behind an `Arc`.
pub struct Context {
    pub(super) tls: Option<Acceptor>,
    pub(super) tls_mode: TlsMode,
    pub(super) method: AuthMethod,
    pub(super) users: Users,
    pub(super) allow: Vec<Allow>,
    pub(super) login_timeout: Duration,
    /// Asks the cluster for users that the configuration does not name.
    pub(super) lookup: Option<verifier::Lookup>,
}

/// The parts of a [`Config`] that matter to logins.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub auth: &'a Auth,
    pub users: &'a [User],
    /// Like `auth.password`, a secret that all proxies of a cluster share: salts of mock exchanges are made from them.
    pub probe_password: Option<&'a Secret>,
    pub tls_mode: TlsMode,
    /// For the whole greeting.
    pub login_timeout: Duration,
}

impl<'a> From<&'a Config> for Rules<'a> {
    fn from(config: &'a Config) -> Self {
        Rules {
            auth: &config.auth,
            users: &config.users,
            probe_password: config.probe.password.as_ref(),
            tls_mode: config.tls.client.mode,
            login_timeout: config.limits.login_timeout,
        }
    }
}

impl Context {
    /// `rules`: a `&Config`, or its parts. `tls` as made by [`Acceptor::new`]; `lookup` as given by
    /// [`verifier::start`], where `[auth] user` is set.
    pub fn new<'a>(
        rules: impl Into<Rules<'a>>,
        tls: Option<Acceptor>,
        lookup: Option<verifier::Lookup>,
    ) -> Self {
        let rules = rules.into();
        Context {
            tls,
            tls_mode: rules.tls_mode,
            method: rules.auth.method,
            users: Users::new(&rules),
            allow: rules.auth.allow.clone(),
            login_timeout: rules.login_timeout,
            lookup,
        }
    }
}
