//! The smallest proxy: greet, dial with what the login left, copy bytes both ways.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgsluice::{
    client::{self, Greeting, Login},
    config::{Allow, Auth, AuthMethod, Secret, TlsMode, TlsSide, User},
    credentials::Credentials,
    error::{Error, Severity},
    net::{self, Target, tls},
    server::{
        cancel::cancel,
        dial::{Dialed, ServerLogin, dial},
    },
    wire::{backend, cancel_key::CancelKey},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet, time::Instant};

use super::cluster::Cluster;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn side(cluster: &Cluster, mode: TlsMode, certificate: Option<&str>, ca: bool) -> TlsSide {
    TlsSide {
        mode,
        cert: certificate.map(|name| cluster.file(&format!("{name}.crt"))),
        key: certificate.map(|name| cluster.file(&format!("{name}.key"))),
        ca: ca.then(|| cluster.file("ca.crt")),
    }
}

pub fn auth(method: AuthMethod) -> Auth {
    Auth {
        method,
        user: Some("lookup".into()),
        password: Some(Secret::new("lookup secret")),
        database: "postgres".into(),
        query: "SELECT verifier, can_login, valid_until, superuser, replication FROM pgsluice.lookup($1)".into(),
        ttl: Duration::from_secs(5),
        allow: Vec::new(),
    }
}

/// How a front is set up; start with [`Setup::new`] and change what the test is about.
pub struct Setup {
    pub auth: Auth,
    pub users: Vec<User>,
    pub client: TlsSide,
    pub server: TlsSide,
    pub login_timeout: Duration,
}

impl Setup {
    pub fn new(cluster: &Cluster, method: AuthMethod) -> Self {
        Setup {
            auth: auth(method),
            users: Vec::new(),
            client: side(cluster, TlsMode::Prefer, Some("proxy"), false),
            server: match cluster.has_tls {
                true => side(cluster, TlsMode::VerifyFull, None, true),
                false => side(cluster, TlsMode::Disable, None, false),
            },
            login_timeout: PATIENCE,
        }
    }

    pub fn user(mut self, name: &str, password: &str) -> Self {
        let (name, password) = (name.into(), Secret::new(password));
        self.users.push(User { name, password });
        self
    }

    pub fn allow(mut self, user: &str) -> Self {
        let (database, net) = (None, None);
        let user = user.into();
        self.auth.allow.push(Allow {
            user,
            database,
            net,
        });
        self
    }
}

/// What the front saw of its clients' logins.
#[derive(Default)]
pub struct Seen {
    pub outcomes: Vec<Result<&'static str, String>>,
}

pub struct Front {
    pub port: u16,
    pub seen: Arc<Mutex<Seen>>,
    /// Ends the front when dropped.
    _tasks: JoinSet<()>,
}

struct Shared {
    ctx: client::Context,
    connector: tls::Connector,
    target: Target,
    seen: Arc<Mutex<Seen>>,
    /// The last server dialled: cancel requests go there.
    last: Mutex<Option<(i32, CancelKey)>>,
}

impl Front {
    pub async fn start(cluster: &Cluster, setup: &Setup) -> Self {
        let listener = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        let connector = tls::Connector::new(&setup.server).unwrap();
        let target = cluster.target();
        let node = target.clone();
        let lookup = client::verifier::start(
            &setup.auth,
            connector.clone(),
            Box::new(move || vec![node.clone()]),
            std::future::ready(()),
        );
        let rules = client::Rules {
            auth: &setup.auth,
            users: &setup.users,
            probe_password: None,
            tls_mode: setup.client.mode,
            login_timeout: setup.login_timeout,
        };
        let acceptor = tls::Acceptor::new(&setup.client, setup.auth.method).unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::new(Shared {
            ctx: client::Context::new(rules, acceptor, lookup),
            connector,
            target,
            seen: seen.clone(),
            last: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared));
        Front {
            port,
            seen,
            _tasks: tasks,
        }
    }

    /// Runs psql against the front; its output, or what it said on failure.
    pub async fn psql(&self, connection: &str, sql: &str) -> Result<String, String> {
        psql(self.port, connection, sql).await
    }
}

pub async fn psql(port: u16, connection: &str, sql: &str) -> Result<String, String> {
    let connection =
        format!("host=127.0.0.1 port={port} dbname=postgres gssencmode=disable {connection}");
    let run = tokio::process::Command::new("psql")
        .args(["-X", "-w", "-A", "-t", "-c", sql, &connection])
        .env("PGSSLCERT", "/nonexistent")
        .env("PGSSLROOTCERT", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run)
        .await
        .expect("psql hangs")
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        sessions.spawn(serve(socket, shared.clone()));
    }
}

async fn serve(socket: tokio::net::TcpStream, shared: Arc<Shared>) {
    let outcome = client::greet(socket, &shared.ctx).await;
    let note = |outcome| shared.seen.lock().unwrap().outcomes.push(outcome);
    match outcome {
        Err(error) => note(Err(error.to_string())),
        Ok(Greeting::Cancel { .. }) => {
            let (pid, key) = shared.last.lock().unwrap().clone().unwrap();
            let deadline = Instant::now() + PATIENCE;
            let outcome = cancel(&shared.target, &shared.connector, pid, &key, deadline).await;
            note(outcome.map(|()| "cancel").map_err(|e| e.to_string()));
        }
        Ok(Greeting::Session(login)) => {
            note(Ok(kind(&login.credentials)));
            relay(*login, &shared).await;
        }
    }
}

fn kind(credentials: &Credentials) -> &'static str {
    match credentials {
        Credentials::None => "none",
        Credentials::Password(_) => "password",
        Credentials::Scram(_) => "scram",
        Credentials::Md5(_) => "md5",
    }
}

async fn relay(mut client: Login, shared: &Shared) {
    let login = ServerLogin {
        user: client.user.clone(),
        database: client.database.clone(),
        parameters: client.parameters.clone(),
        credentials: client.credentials.clone(),
        replication: client.replication.clone(),
    };
    let deadline = Instant::now() + PATIENCE;
    match dial(&shared.target, &shared.connector, &login, deadline).await {
        Ok(server) => {
            *shared.last.lock().unwrap() = Some((server.pid, server.key.clone()));
            copy(client, server).await;
        }
        Err(error) => tell(&mut client, &error).await,
    }
}

async fn tell(client: &mut Login, error: &Error) {
    let mut out = Vec::new();
    client::report::error_response(&mut out, error, Some(Severity::Fatal));
    client.stream.write_all(&out).await.unwrap();
    let _ = client.stream.shutdown().await;
}

async fn copy(mut client: Login, mut server: Dialed) {
    let mut out = Vec::new();
    for (name, value) in &server.parameters {
        backend::parameter_status(&mut out, name, value);
    }
    // A key of our own: psql of before 18 takes four bytes only, whatever the server gave us.
    let key = CancelKey::new(&[1, 2, 3, 4]).unwrap();
    backend::backend_key_data(&mut out, server.pid, &key);
    backend::ready_for_query(&mut out, b'I');
    client.stream.write_all(&out).await.unwrap();
    client.stream.flush().await.unwrap();
    server.stream.write_all(&client.unread).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client.stream, &mut server.stream).await;
}
