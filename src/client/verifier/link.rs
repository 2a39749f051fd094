//! The lookups' own connection: to the first node that takes it.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, NoTls, Statement,
    config::SslMode,
    types::{ToSql, Type},
};

use super::{
    super::users::{Account, Attributes, Stored},
    Nodes, sql,
};
use crate::{
    config::{Auth, Secret},
    net::{self, Encryption, Stream, Target, tls::Connector},
};

/// One node may take this long to let us in, …
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// … one query this long to be answered.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// After a round over all nodes failed, and between attempts to get back to the first node.
const RETRY: Duration = Duration::from_millis(250);
/// Fixed settings of the connection; own names in `query` must be qualified.
const OPTIONS: &str = "-c search_path=pg_catalog -c statement_timeout=2000 -c client_encoding=UTF8";

/// What the query said of a role.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    verifier: Option<Secret>,
    can_login: bool,
    superuser: bool,
    replication: bool,
    /// None: never.
    expires: Option<Instant>,
}

impl Row {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        let verifier: Option<String> = row.try_get(0)?;
        let seconds: Option<f64> = row.try_get(2)?;
        Ok(Row {
            verifier: verifier.map(Secret::new),
            // Null means no where a yes would let someone in, and yes where it keeps a superuser out.
            can_login: row.try_get::<_, Option<bool>>(1)?.unwrap_or(false),
            superuser: row.try_get::<_, Option<bool>>(3)?.unwrap_or(true),
            replication: row.try_get::<_, Option<bool>>(4)?.unwrap_or(true),
            expires: seconds.and_then(expiry),
        })
    }

    pub(super) fn into_account(self) -> Account {
        let expired = self.expires.is_some_and(|at| at <= Instant::now());
        let verifier = self.verifier.as_ref().filter(|_| !expired);
        let stored = verifier.and_then(|text| Stored::verifier(text.reveal()));
        Account {
            stored: stored.unwrap_or(Stored::Nothing),
            attributes: Some(Attributes {
                can_login: self.can_login,
                superuser: self.superuser,
                replication: self.replication,
            }),
        }
    }
}

/// Beyond what a Duration or Instant can hold is never.
fn expiry(seconds: f64) -> Option<Instant> {
    let left = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    Instant::now().checked_add(left)
}

/// A query's end: what was found, or why the link is of no use.
pub(super) type Found = Result<Option<Row>, Broken>;

/// What broke, and on which connection: a newer one must not suffer for it.
pub(super) struct Broken {
    number: u64,
    reason: String,
}

pub(super) struct Link {
    login: tokio_postgres::Config,
    query: String,
    connector: Connector,
    nodes: Nodes,
    open: Option<Arc<Open>>,
    /// Counts connections.
    number: u64,
    retry_at: Instant,
}

struct Open {
    target: Target,
    client: Client,
    statement: Statement,
    number: u64,
    /// Drives the connection; ended with it.
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    pub(super) fn new(auth: &Auth, connector: Connector, nodes: Nodes) -> Option<Self> {
        let mut login = tokio_postgres::Config::new();
        login
            .user(auth.user.as_deref()?)
            .dbname(&auth.database)
            .application_name("pgsluice lookup")
            .options(OPTIONS)
            // Encryption is the stream's business.
            .ssl_mode(SslMode::Disable);
        if let Some(password) = &auth.password {
            login.password(password.reveal());
        }
        Some(Link {
            login,
            query: sql::wrap(&auth.query),
            connector,
            nodes,
            open: None,
            number: 0,
            retry_at: Instant::now(),
        })
    }

    /// Makes sure of a connection, and gives the query to be waited for elsewhere.
    pub(super) async fn query(
        &mut self,
        user: &str,
    ) -> impl Future<Output = Found> + Send + 'static {
        self.ensure().await;
        let open = self.open.clone();
        let user = user.to_owned();
        async move {
            let Some(open) = open else {
                return Err(Broken {
                    number: 0,
                    reason: "no node answers".into(),
                });
            };
            open.ask(&user).await.map_err(|reason| Broken {
                number: open.number,
                reason,
            })
        }
    }

    pub(super) fn broke(&mut self, broken: Broken) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.number == broken.number)
        {
            tracing::warn!(reason = broken.reason, "verifier lookup failed");
            self.open = None;
        }
    }

    async fn ensure(&mut self) {
        let nodes = (self.nodes)();
        let open = self.open.as_ref().filter(|open| !open.client.is_closed());
        let on_first = open.is_some_and(|open| nodes.first() == Some(&open.target));
        if on_first || (open.is_some() && Instant::now() < self.retry_at) {
            return;
        }
        if Instant::now() < self.retry_at {
            self.open = None;
            return;
        }
        self.reopen(&nodes).await;
    }

    async fn reopen(&mut self, nodes: &[Target]) {
        for target in nodes {
            self.number += 1;
            match self.dial(target).await {
                Ok(open) => {
                    self.open = Some(Arc::new(open));
                    break;
                }
                Err(reason) => {
                    tracing::warn!(node = target.name, reason, "verifier lookups cannot log in");
                    // What works already is better than nothing.
                    if self
                        .open
                        .as_ref()
                        .is_some_and(|open| !open.client.is_closed())
                    {
                        break;
                    }
                }
            }
        }
        self.retry_at = Instant::now() + RETRY;
    }

    async fn dial(&self, target: &Target) -> Result<Open, String> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut last = String::new();
        for encryption in self.connector.attempts() {
            match timeout_at(deadline, self.attempt(target, *encryption, deadline)).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => last = error,
                Err(_) => return Err("timed out".into()),
            }
        }
        Err(last)
    }

    async fn attempt(
        &self,
        target: &Target,
        encryption: Encryption,
        deadline: Instant,
    ) -> Result<Open, String> {
        let stream: Stream = net::connect(target, &self.connector, encryption, deadline)
            .await
            .map_err(|e| e.to_string())?;
        // If the kernel will not, the query's own timeout still does.
        let _ = net::tcp::set_user_timeout(stream.tcp(), QUERY_TIMEOUT);
        let (client, connection) = self
            .login
            .connect_raw(stream, NoTls)
            .await
            .map_err(|e| told(&e))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the lookups' connection ended");
            }
        });
        let statement = client.prepare_typed(&self.query, &[Type::TEXT]).await;
        match statement {
            Ok(statement) => Ok(Open {
                target: target.clone(),
                client,
                statement,
                number: self.number,
                driver,
            }),
            Err(error) => {
                driver.abort();
                Err(told(&error))
            }
        }
    }
}

impl Open {
    async fn ask(&self, user: &str) -> Result<Option<Row>, String> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&user];
        let query = self.client.query_opt(&self.statement, &parameters);
        match timeout(QUERY_TIMEOUT, query).await {
            Ok(Ok(row)) => row
                .as_ref()
                .map(Row::read)
                .transpose()
                .map_err(|e| told(&e)),
            Ok(Err(error)) => Err(told(&error)),
            Err(_) => Err("no answer in time".into()),
        }
    }
}

/// tokio-postgres says only "db error"; what the server said is the source.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
