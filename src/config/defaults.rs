//! What a key means when it is absent. `config/pgsluice.toml` shows the same values; a test holds the two together.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::*;

/// The port of a node that names none.
pub const NODE_PORT: u16 = 5432;

/// The port of a Patroni API that names none.
pub const PATRONI_PORT: u16 = 8008;

/// The port of an etcd that names none.
pub const ETCD_PORT: u16 = 2379;

/// Where Patroni keeps its clusters unless it is told otherwise.
pub const NAMESPACE: &str = "/service";

/// Called with the role's name; `pgsluice check` prints the function behind it.
const AUTH_QUERY: &str =
    "SELECT verifier, can_login, valid_until, superuser, replication FROM pgsluice.lookup($1)";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// One worker for every two cores, as far as the system tells. Most of a proxy's work is the kernel's, for either side
/// of a connection, and fewer workers find more to do at each waking: on two cores, one worker costs a third less CPU
/// per transaction than two, and carries more of them.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

impl Default for Config {
    /// No nodes and no users: what every other key means when absent.
    fn default() -> Self {
        let pool = Pool::default();
        Config {
            workers: default_workers(),
            zone: String::new(),
            http: Http::default(),
            listeners: default_listeners(pool.mode),
            nodes: Vec::new(),
            patroni: Patroni::default(),
            repmgr: Repmgr::default(),
            pool,
            probe: Probe::default(),
            reads: Reads::default(),
            rules: Vec::new(),
            logins: Vec::new(),
            failover: Failover::default(),
            limits: Limits::default(),
            auth: Auth::default(),
            users: Vec::new(),
            tls: Tls::default(),
            log: Log::default(),
        }
    }
}

/// The listeners of a file that has none.
pub fn default_listeners(mode: PoolMode) -> Vec<Listener> {
    [
        (5000, Route::Primary),
        (5001, Route::Replica),
        (6432, Route::Split),
    ]
    .map(|(port, route)| Listener::at(loopback(port), route, mode))
    .into()
}

impl Listener {
    /// A listener with the defaults of every other key.
    pub fn at(listen: SocketAddr, route: Route, mode: PoolMode) -> Self {
        Listener {
            listen,
            route,
            mode,
            writes: Writes::Refuse,
            primary: PrimaryReads::Last,
            shadow: false,
        }
    }
}

impl Node {
    /// A node with the defaults of every other key.
    pub fn at(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Node {
            name: name.into(),
            host: host.into(),
            address: None,
            port,
            weight: 100,
            zone: String::new(),
            max_servers: 90,
        }
    }
}

impl Default for Patroni {
    fn default() -> Self {
        Patroni {
            urls: Vec::new(),
            etcd: None,
            interval: Duration::from_secs(1),
        }
    }
}

impl Default for Repmgr {
    fn default() -> Self {
        Repmgr {
            database: None,
            interval: Duration::from_secs(5),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: Some(loopback(7000)),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            mode: PoolMode::Transaction,
            size: 20,
            checkout_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10 * 60),
            lifetime: Duration::from_secs(60 * 60),
            login_backoff: Duration::from_secs(1),
            opaque: Opaque::Pin,
            harmless_functions: Vec::new(),
            sequences: Sequences::Learn,
            multiplex: Multiplex::Auto,
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            user: "pgsluice".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            interval: Duration::from_millis(50),
            busy_interval: Duration::from_millis(5),
            timeout: Duration::from_millis(400),
            lookup_interval: Duration::from_secs(2),
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Reads {
            consistency: Consistency::Session,
            max_staleness: Duration::from_secs(10),
            transactions: ReadTransactions::Primary,
            place: RulePlace::Replica,
        }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Failover {
            hold: Duration::from_secs(30),
            max_held: 10_000,
            settle: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            replay_aborted: true,
            trust_promotion: false,
            state_file: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_clients: 10_000,
            login_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            peer_timeout: Duration::from_secs(30),
            idle_timeout: None,
            idle_transaction_timeout: None,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            method: AuthMethod::ScramSha256,
            user: None,
            password: None,
            database: "postgres".to_owned(),
            query: AUTH_QUERY.to_owned(),
            ttl: Duration::from_secs(30),
            allow: Vec::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        let side = |mode| TlsSide {
            mode,
            cert: None,
            key: None,
            ca: None,
        };
        Tls {
            client: side(TlsMode::Disable),
            server: side(TlsMode::Prefer),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: LogLevel::Info,
            format: LogFormat::Auto,
        }
    }
}
