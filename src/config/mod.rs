//! The checked configuration: what the rest of the program reads.
//!
//! One TOML file (or none, with `run --node`) becomes one immutable [`Config`]; a reload makes a new one. Nothing here
//! opens a socket. Keys and defaults are the contract of `config/pgsluice.toml`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

mod allow;
mod check;
mod defaults;
mod logins;
mod mask;
mod nodes;
mod problem;
mod raw;
mod read;
mod reload;
mod report;
mod secret;
mod table;
mod tls;
mod tree;
mod url;
mod value;

pub use self::{
    defaults::default_workers,
    logins::Login,
    problem::{ConfigErrors, Problem},
    read::{Loaded, load, parse},
    reload::{Reload, diff},
    secret::Secret,
    url::first_host,
    value::is_host,
};

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; never 0 here (0 in the file means one per core).
    pub workers: usize,
    /// Where the proxy stands: nodes of the same zone are preferred. Empty: anywhere.
    pub zone: String,
    pub http: Http,
    pub listeners: Vec<Listener>,
    pub nodes: Vec<Node>,
    pub patroni: Patroni,
    pub repmgr: Repmgr,
    pub pool: Pool,
    pub probe: Probe,
    pub reads: Reads,
    pub rules: Vec<Rule>,
    pub logins: Vec<Login>,
    pub failover: Failover,
    pub limits: Limits,
    pub auth: Auth,
    pub users: Vec<User>,
    pub tls: Tls,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// None: no HTTP at all.
    pub listen: Option<SocketAddr>,
}

/// What a listener's sessions get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    Primary,
    Replica,
    Split,
}

/// What becomes of a write on a replica listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    Refuse,
    Primary,
}

/// Whether a replica listener may read from the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryReads {
    Never,
    /// Only while no replica is in rotation.
    Last,
    /// As one of the candidates.
    Also,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    Session,
    Transaction,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub listen: SocketAddr,
    pub route: Route,
    /// `[pool] mode` unless overridden.
    pub mode: PoolMode,
    pub writes: Writes,
    pub primary: PrimaryReads,
    /// With route `primary`: where statements would run on a listener that splits is counted.
    pub shadow: bool,
}

/// Where statements run that name something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulePlace {
    /// There only.
    Primary,
    /// On replicas too: it does not write.
    Replica,
}

/// What a rule is about, as `name` or `schema.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruled {
    Function(String),
    /// Or a view, or whatever else FROM may name.
    Table(String),
    /// All that differ in literals and comments only, by their fingerprint.
    Statement(u128),
}

/// The operator's word on one function, table or statement, against what the catalogue proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub of: Ruled,
    pub place: RulePlace,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique; the node's name in logs and metrics.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// The one address of `host` that is this node's, where the name has several; never from the file itself.
    pub address: Option<IpAddr>,
    pub port: u16,
    /// Share of reads relative to the other replicas; 0 takes none.
    pub weight: u32,
    /// Where it stands; empty: nobody said.
    pub zone: String,
    /// Server connections that all workers together may hold on this node (probes and cancels not counted).
    pub max_servers: usize,
}

/// Where Patroni's REST API or its store answers: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Host name or address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Patroni as a source of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Patroni {
    /// The REST APIs of one member or more.
    pub urls: Vec<HttpUrl>,
    pub etcd: Option<Etcd>,
    /// How often it is asked.
    pub interval: Duration,
}

/// Patroni's store.
#[derive(Debug, Clone, PartialEq)]
pub struct Etcd {
    /// Never empty.
    pub urls: Vec<HttpUrl>,
    /// As in Patroni's own configuration.
    pub namespace: String,
    pub scope: String,
    /// None: without a login.
    pub login: Option<(String, Secret)>,
}

/// repmgr's metadata as a source of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Repmgr {
    /// Where it is; None: no repmgr.
    pub database: Option<String>,
    /// How often it is asked.
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub mode: PoolMode,
    /// Servers per (node, database, user), over all workers.
    pub size: usize,
    pub checkout_timeout: Duration,
    /// An idle server older than this is closed.
    pub idle_timeout: Duration,
    /// A server older than this is closed when it is returned.
    pub lifetime: Duration,
    /// After a node refused a login, this long no other is tried for the same database and user.
    pub login_backoff: Duration,
    pub opaque: Opaque,
    /// Functions that leave nothing behind, whatever the catalogue shows: `name` or `schema.name`.
    pub harmless_functions: Vec<String>,
    pub sequences: Sequences,
    pub multiplex: Multiplex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opaque {
    Pin,
    Audit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sequences {
    Learn,
    Pin,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Multiplex {
    Auto,
    Off,
}

/// The probes' own login.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub interval: Duration,
    pub busy_interval: Duration,
    /// A probe that has no answer after this long is a failed one.
    pub timeout: Duration,
    /// How often host names are looked up again.
    pub lookup_interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    Eventual,
    OwnWrites,
    Session,
    Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadTransactions {
    Primary,
    Replica,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reads {
    pub consistency: Consistency,
    pub max_staleness: Duration,
    pub transactions: ReadTransactions,
    /// Where what is proven to read runs; with `primary` all of it there.
    pub place: RulePlace,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Failover {
    pub hold: Duration,
    /// Sessions that may wait for a node at once; one more gets 57P03.
    pub max_held: usize,
    pub settle: Duration,
    pub grace: Duration,
    pub replay_aborted: bool,
    pub trust_promotion: bool,
    pub state_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Sessions over all listeners; one more gets 53300.
    pub max_clients: usize,
    /// From accept to ReadyForQuery.
    pub login_timeout: Duration,
    /// Between SIGTERM and the end of sessions that are still in a transaction.
    pub drain_timeout: Duration,
    /// A client or server that has not acknowledged what was sent to it for so long is gone.
    pub peer_timeout: Duration,
    /// A session idle outside a transaction for longer ends with 57P05; None: never.
    pub idle_timeout: Option<Duration>,
    /// A session idle inside a transaction for longer ends with 25P03; None: never.
    pub idle_transaction_timeout: Option<Duration>,
}

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    Md5,
    Trust,
    Cert,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    pub method: AuthMethod,
    /// The role that runs `query`, on the nodes; None without lookups in the cluster.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// The database in which `query` runs.
    pub database: String,
    /// `SELECT verifier, can_login, valid_until, superuser, replication FROM … ($1)`.
    pub query: String,
    /// How long a verifier may be served from the cache.
    pub ttl: Duration,
    pub allow: Vec<Allow>,
}

/// Lets a superuser or replication role in: `user[@database] [from CIDR]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    pub user: String,
    /// None: any.
    pub database: Option<String>,
    /// None: any address.
    pub net: Option<ipnet::IpNet>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub name: String,
    /// Plain password, or a verifier as in pg_authid (`SCRAM-SHA-256$…`, `md5…`).
    pub password: Secret,
}

/// As libpq's sslmode; for clients, verify-* asks for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TlsSide {
    pub mode: TlsMode,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Towards applications.
    pub client: TlsSide,
    /// Towards the nodes.
    pub server: TlsSide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    Human,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}
