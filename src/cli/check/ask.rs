//! What one node says of itself, over one connection. No deadline here: the caller's.

use std::error::Error as _;

use tokio_postgres::{Client, Config as Dial, Error, config::SslMode, types::PgLsn};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{self, Config, Secret},
    error,
    topology::tls,
};

/// Right on both sides of a promotion: the inner OFFSET 0 asks for the role once. `reserved_connections` is new in 16.
const FACTS: &str = "SELECT r,
    pg_catalog.current_setting('server_version'),
    pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    pg_catalog.current_setting('max_connections')::pg_catalog.int4,
    pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4
      + coalesce(pg_catalog.current_setting('reserved_connections', true)::pg_catalog.int4, 0),
    pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE'),
    (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c),
    CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
    CASE WHEN r THEN NULL
         ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END,
    (SELECT w.received_tli FROM pg_catalog.pg_stat_wal_receiver w)
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) x";

/// A node's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub standing: Standing,
    /// As `server_version` says it.
    pub version: String,
    /// As `server_version_num`: 150018.
    pub version_num: i32,
    pub max_connections: i32,
    /// Of these, kept for superusers and members of pg_use_reserved_connections.
    pub reserved: i32,
    pub has_pg_monitor: bool,
    pub system_id: u64,
    /// Insert position of a primary, replay position of a replica, in bytes.
    pub lsn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Primary {
        timeline: u32,
    },
    /// None: no WAL receiver runs, or none may be seen (without pg_monitor).
    Replica {
        timeline: Option<u32>,
    },
}

/// How to reach nodes as the probe user.
pub struct Login {
    probe: config::Probe,
    ssl_mode: SslMode,
    tls: MakeRustlsConnect,
}

/// One connection to be made.
pub struct To {
    dial: Dial,
    tls: MakeRustlsConnect,
}

impl Login {
    pub fn new(config: &Config) -> error::Result<Self> {
        let (ssl_mode, tls) = tls::connector(&config.tls.server)?;
        Ok(Login {
            probe: config.probe.clone(),
            ssl_mode,
            tls,
        })
    }

    /// As the probe user, in the probe's database.
    pub fn to(&self, node: &config::Node) -> To {
        let probe = &self.probe;
        self.to_as(node, &probe.user, probe.password.as_ref(), &probe.database)
    }

    pub fn to_as(
        &self,
        node: &config::Node,
        user: &str,
        password: Option<&Secret>,
        database: &str,
    ) -> To {
        let mut dial = Dial::new();
        dial.host(&node.host)
            .port(node.port)
            .user(user)
            .dbname(database)
            .application_name("pgsluice check")
            .ssl_mode(self.ssl_mode);
        if let Some(address) = node.address {
            dial.hostaddr(address);
        }
        if let Some(password) = password {
            dial.password(password.reveal());
        }
        To {
            dial,
            tls: self.tls.clone(),
        }
    }
}

/// A connection; its driver ends with it.
pub struct Open {
    pub client: Client,
    driver: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl To {
    pub async fn open(self) -> Result<Open, Error> {
        let (client, connection) = self.dial.connect(self.tls).await?;
        Ok(Open {
            client,
            driver: tokio::spawn(connection),
        })
    }
}

/// Connects and asks.
///
/// # Errors
/// Why there is no answer, in words for the operator.
pub async fn facts(to: To) -> Result<Facts, String> {
    let read = async {
        let open = to.open().await?;
        read(&open.client).await
    };
    read.await.map_err(|error| words(&error))
}

async fn read(client: &Client) -> Result<Facts, Error> {
    let row = client.query_one(FACTS, &[]).await?;
    let timeline: Option<String> = row.try_get(8)?;
    let received: Option<i32> = row.try_get(9)?;
    let standing = match row.try_get(0)? {
        true => Standing::Replica {
            timeline: received.map(i32::cast_unsigned),
        },
        // Eight hexadecimal digits, by PostgreSQL's naming of WAL files.
        false => Standing::Primary {
            timeline: timeline
                .and_then(|text| u32::from_str_radix(&text, 16).ok())
                .unwrap_or(0),
        },
    };
    Ok(Facts {
        standing,
        version: row.try_get(1)?,
        version_num: row.try_get(2)?,
        max_connections: row.try_get(3)?,
        reserved: row.try_get(4)?,
        has_pg_monitor: row.try_get(5)?,
        system_id: row.try_get::<_, i64>(6)?.cast_unsigned(),
        lsn: row.try_get::<_, Option<PgLsn>>(7)?.map_or(0, u64::from),
    })
}

/// An error with its cause: tokio-postgres keeps the interesting half in the source.
pub fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
