//! The file as written: one serde struct per table, every key optional, nothing checked but types.
//!
//! These structs are the one list of the keys that exist. Values that are checked later keep their place in the file
//! ([`Given`]).

use serde::Deserialize;
use toml::Spanned;

use super::{
    AuthMethod, Consistency, LogFormat, LogLevel, Multiplex, Opaque, PoolMode, PrimaryReads,
    ReadTransactions, Route, RulePlace, Secret, Sequences, TlsMode, Writes,
    table::{table, tables},
    value::{Address, Given, OptionalAddress, Time, Whole},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub workers: Given<Whole>,
    pub zone: Given<String>,
    #[serde(deserialize_with = "table")]
    pub http: Http,
    #[serde(deserialize_with = "tables")]
    pub listener: Vec<Spanned<Listener>>,
    #[serde(deserialize_with = "tables")]
    pub node: Vec<Spanned<Node>>,
    #[serde(deserialize_with = "table")]
    pub patroni: Patroni,
    #[serde(deserialize_with = "table")]
    pub repmgr: Repmgr,
    #[serde(deserialize_with = "table")]
    pub pool: Pool,
    #[serde(deserialize_with = "table")]
    pub probe: Probe,
    #[serde(deserialize_with = "table")]
    pub reads: Reads,
    #[serde(deserialize_with = "tables")]
    pub rule: Vec<Spanned<Rule>>,
    #[serde(deserialize_with = "tables")]
    pub login: Vec<Spanned<Login>>,
    #[serde(deserialize_with = "table")]
    pub failover: Failover,
    #[serde(deserialize_with = "table")]
    pub limits: Limits,
    #[serde(deserialize_with = "table")]
    pub auth: Auth,
    #[serde(deserialize_with = "tables")]
    pub user: Vec<Spanned<User>>,
    #[serde(deserialize_with = "table")]
    pub tls: Tls,
    #[serde(deserialize_with = "table")]
    pub log: Log,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: Given<OptionalAddress>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    pub listen: Given<Address>,
    pub route: Given<Route>,
    pub mode: Given<PoolMode>,
    pub writes: Given<Writes>,
    pub primary: Given<PrimaryReads>,
    pub shadow: Given<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    pub name: Given<String>,
    pub host: Given<String>,
    pub port: Given<Whole>,
    pub weight: Given<Whole>,
    pub zone: Given<String>,
    pub max_servers: Given<Whole>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Patroni {
    pub urls: Vec<Spanned<String>>,
    pub etcd: Vec<Spanned<String>>,
    pub scope: Given<String>,
    pub namespace: Given<String>,
    pub user: Given<String>,
    pub password: Given<Secret>,
    pub password_file: Given<String>,
    pub password_env: Given<String>,
    pub interval: Given<Time>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Repmgr {
    pub database: Given<String>,
    pub interval: Given<Time>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    pub mode: Given<PoolMode>,
    pub size: Given<Whole>,
    pub checkout_timeout: Given<Time>,
    pub idle_timeout: Given<Time>,
    pub lifetime: Given<Time>,
    pub login_backoff: Given<Time>,
    pub opaque: Given<Opaque>,
    pub harmless_functions: Vec<Spanned<String>>,
    pub sequences: Given<Sequences>,
    pub multiplex: Given<Multiplex>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    pub user: Given<String>,
    pub password: Given<Secret>,
    pub password_file: Given<String>,
    pub password_env: Given<String>,
    pub database: Given<String>,
    pub interval: Given<Time>,
    pub busy_interval: Given<Time>,
    pub timeout: Given<Time>,
    pub lookup_interval: Given<Time>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Reads {
    pub consistency: Given<Consistency>,
    pub max_staleness: Given<Time>,
    pub transactions: Given<ReadTransactions>,
    pub place: Given<RulePlace>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    pub user: Given<String>,
    pub database: Given<String>,
    pub consistency: Given<Consistency>,
    pub max_staleness: Given<Time>,
    pub transactions: Given<ReadTransactions>,
    pub place: Given<RulePlace>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    pub function: Given<String>,
    pub table: Given<String>,
    pub statement: Given<String>,
    pub place: Given<RulePlace>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Failover {
    pub hold: Given<Time>,
    pub max_held: Given<Whole>,
    pub settle: Given<Time>,
    pub grace: Given<Time>,
    pub replay_aborted: Given<bool>,
    pub trust_promotion: Given<bool>,
    pub state_file: Given<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_clients: Given<Whole>,
    pub login_timeout: Given<Time>,
    pub drain_timeout: Given<Time>,
    pub peer_timeout: Given<Time>,
    pub idle_timeout: Given<Time>,
    pub idle_transaction_timeout: Given<Time>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    pub method: Given<AuthMethod>,
    pub user: Given<String>,
    pub password: Given<Secret>,
    pub password_file: Given<String>,
    pub password_env: Given<String>,
    pub database: Given<String>,
    pub query: Given<String>,
    pub ttl: Given<Time>,
    pub allow: Vec<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    pub name: Given<String>,
    pub password: Given<Secret>,
    pub password_file: Given<String>,
    pub password_env: Given<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    #[serde(deserialize_with = "table")]
    pub client: TlsSide,
    #[serde(deserialize_with = "table")]
    pub server: TlsSide,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSide {
    pub mode: Given<TlsMode>,
    pub cert: Given<String>,
    pub key: Given<String>,
    pub ca: Given<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: Given<LogLevel>,
    pub format: Given<LogFormat>,
}
