//! One connection of a probe: dialling it, and asking the probe statement.
//!
//! Nothing here has a deadline: the caller's. Dropping a [`Link`] or any future closes the socket.

use std::{
    error::Error as _,
    io,
    time::{Instant, SystemTime},
};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, Row, Statement, config::SslMode, types::PgLsn};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Lsn,
    facts::{Answer, Dial, Wal},
    tls,
};
use crate::{
    config::{self, Config},
    error,
};

/// The WAL position and role, in one statement that is right across a promotion: recovery ends once in a session's
/// life, and the inner OFFSET 0 keeps the question from being asked twice.
const PROBE: &str = "SELECT r,
    CASE WHEN r THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END,
    CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() END,
    CASE WHEN r THEN NULL
         ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END,
    (SELECT w.received_tli FROM pg_catalog.pg_stat_wal_receiver w)
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) x";

/// When the checkpointer started. Costs as much as the probe itself; NULL or no row without pg_monitor.
const CHECKPOINTER: &str = "SELECT a.backend_start FROM pg_catalog.pg_stat_activity a \
    WHERE a.backend_type = 'checkpointer'";

const IDENTITY: &str = "SELECT c.system_identifier,
    (SELECT s.setting::pg_catalog.int8 FROM pg_catalog.pg_settings s WHERE s.name = 'wal_segment_size'),
    (SELECT s.setting::pg_catalog.int8 FROM pg_catalog.pg_settings s WHERE s.name = 'wal_block_size')
    FROM pg_catalog.pg_control_system() c";

/// The checkpointer is asked with every so many-th probe.
const CHECKPOINTER_EVERY: u32 = 20;

/// Whom the control plane logs in as, and how.
pub struct Login {
    probe: config::Probe,
    ssl_mode: SslMode,
    tls: MakeRustlsConnect,
}

impl Login {
    /// # Errors
    /// When the certificates of `[tls.server]` cannot be used.
    pub fn new(config: &Config) -> error::Result<Self> {
        let (ssl_mode, tls) = tls::connector(&config.tls.server)?;
        Ok(Login {
            probe: config.probe.clone(),
            ssl_mode,
            tls,
        })
    }

    /// Logs in to another database than the probe's, as `application`, with `options` for the session.
    ///
    /// # Errors
    /// Whatever keeps it from logging in. No deadline: the caller's.
    pub async fn connect(
        &self,
        node: &config::Node,
        database: &str,
        application: &str,
        options: &str,
    ) -> Result<(Client, Driver), Error> {
        let mut config = self.config(node);
        config
            .dbname(database)
            .application_name(application)
            .options(options);
        open(&config, self).await
    }

    fn config(&self, node: &config::Node) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&node.host)
            .port(node.port)
            .user(&self.probe.user)
            .dbname(&self.probe.database)
            .application_name("pgsluice probe")
            .ssl_mode(self.ssl_mode);
        if let Some(address) = node.address {
            config.hostaddr(address);
        }
        if let Some(password) = &self.probe.password {
            config.password(password.reveal());
        }
        config
    }
}

/// A connection, logged in. The statements are prepared on it once.
pub(super) struct Link {
    client: Client,
    driver: Driver,
    probe: Statement,
    checkpointer: Statement,
    identity: Identity,
    asked: u32,
}

/// What cannot change while a connection lives.
struct Identity {
    system_id: u64,
    segment_bytes: u64,
    block_bytes: u64,
}

impl Link {
    /// Logs in and prepares the statements.
    pub async fn dial(node: &config::Node, login: &Login) -> Result<Self, Error> {
        let (client, driver) = connect(node, login).await?;
        let identity = identify(&client).await?;
        let probe = client.prepare(PROBE).await?;
        let checkpointer = client.prepare(CHECKPOINTER).await?;
        Ok(Link {
            client,
            driver,
            probe,
            checkpointer,
            identity,
            asked: 0,
        })
    }

    /// Asks the probe statement; the first time and at times after that, for the checkpointer too.
    pub async fn ask(&mut self) -> Result<Answer, Error> {
        let asked = Instant::now();
        let with_checkpointer = self.asked.is_multiple_of(CHECKPOINTER_EVERY);
        self.asked = self.asked.wrapping_add(1);
        // In this order: a WAL position must not be taken for that of an incarnation that began after it.
        let checkpointer = match with_checkpointer {
            true => self.checkpointer().await?,
            false => None,
        };
        let row = self.client.query_one(&self.probe, &[]).await?;
        Ok(Answer {
            asked,
            system_id: self.identity.system_id,
            checkpointer,
            wal: wal(&row, &self.identity)?,
        })
    }

    async fn checkpointer(&self) -> Result<Option<SystemTime>, Error> {
        let row = self.client.query_opt(&self.checkpointer, &[]).await?;
        row.map_or(Ok(None), |row| row.try_get(0))
    }

    /// Returns when the server has ended the connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn ended(&mut self) {
        self.driver.ended().await;
    }

    /// Says goodbye and closes.
    pub async fn close(self) {
        let Link {
            client, mut driver, ..
        } = self;
        drop(client);
        driver.ended().await;
    }
}

/// Tries a fresh connection, and closes it.
pub(super) async fn knock(node: &config::Node, login: &Login) -> Result<(), Error> {
    let (client, mut driver) = connect(node, login).await?;
    drop(client);
    driver.ended().await;
    Ok(())
}

/// What a failed dial shows.
pub(super) fn failed_dial(error: &Error) -> Dial {
    if let Some(error) = error.as_db_error() {
        return match error.code().code() {
            "57P03" => Dial::NotNow,
            "53300" => Dial::Full,
            code if code.starts_with("28") || code == "3D000" => Dial::LoginRefused,
            _ => Dial::Broken,
        };
    }
    let io = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => Dial::Refused,
        Some(_) => Dial::Broken,
        None if error.is_closed() => Dial::Broken,
        None => Dial::LoginRefused,
    }
}

/// The task that moves a client's bytes; it ends with this. None once it has ended: a finished task must not be asked
/// twice.
pub struct Driver(Option<JoinHandle<Result<(), Error>>>);

impl Driver {
    /// Returns when the connection has ended; it does once its client is dropped.
    pub async fn ended(&mut self) {
        if let Some(task) = &mut self.0 {
            let _ = task.await;
            self.0 = None;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn connect(node: &config::Node, login: &Login) -> Result<(Client, Driver), Error> {
    open(&login.config(node), login).await
}

async fn open(config: &tokio_postgres::Config, login: &Login) -> Result<(Client, Driver), Error> {
    let (client, connection) = config.connect(login.tls.clone()).await?;
    Ok((client, Driver(Some(tokio::spawn(connection)))))
}

async fn identify(client: &Client) -> Result<Identity, Error> {
    let row = client.query_one(IDENTITY, &[]).await?;
    Ok(Identity {
        system_id: row.try_get::<_, i64>(0)? as u64,
        segment_bytes: row.try_get::<_, i64>(1)? as u64,
        block_bytes: row.try_get::<_, i64>(2)? as u64,
    })
}

fn wal(row: &Row, identity: &Identity) -> Result<Wal, Error> {
    let lsn = |lsn: PgLsn| u64::from(lsn);
    if row.try_get(0)? {
        let timeline: Option<i32> = row.try_get(4)?;
        let replay: Option<PgLsn> = row.try_get(2)?;
        return Ok(Wal::Replaying {
            timeline: timeline.map(|timeline| timeline as u32),
            replay: replay.map(lsn).map(Lsn),
        });
    }
    let timeline: String = row.try_get(3)?;
    Ok(Wal::Writing {
        // Eight hexadecimal digits by PostgreSQL's naming of WAL files; 0 loses against every real timeline.
        timeline: u32::from_str_radix(&timeline, 16).unwrap_or(0),
        insert: normalised(lsn(row.try_get(1)?), identity),
    })
}

/// The insert position without the header of a page on which nothing is written yet: it counts the header already,
/// while no replica's replay position can ever reach past it.
fn normalised(insert: u64, identity: &Identity) -> Lsn {
    /// XLogPageHeaderData and XLogLongPageHeaderData, aligned.
    const SHORT: u64 = 24;
    const LONG: u64 = 40;
    let in_segment = insert.checked_rem(identity.segment_bytes);
    let in_page = insert.checked_rem(identity.block_bytes);
    Lsn(match (in_segment, in_page) {
        (Some(LONG), _) => insert - LONG,
        (Some(in_segment), Some(SHORT)) if in_segment != SHORT => insert - SHORT,
        _ => insert,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_positions_just_past_a_header_count_as_the_page_start() {
        const MIB: u64 = 1 << 20;
        let identity = Identity {
            system_id: 1,
            segment_bytes: 16 * MIB,
            block_bytes: 8192,
        };
        let cases = [
            (16 * MIB + 40, 16 * MIB),
            (16 * MIB + 24, 16 * MIB + 24),
            (16 * MIB + 8192 + 24, 16 * MIB + 8192),
            (16 * MIB + 8192 + 40, 16 * MIB + 8192 + 40),
            (16 * MIB + 8192 + 32, 16 * MIB + 8192 + 32),
            (16 * MIB, 16 * MIB),
            (0, 0),
        ];
        for (insert, expected) in cases {
            assert_eq!(normalised(insert, &identity), Lsn(expected), "{insert}");
        }
    }

    #[test]
    fn unknown_sizes_leave_positions_alone() {
        let identity = Identity {
            system_id: 1,
            segment_bytes: 0,
            block_bytes: 0,
        };
        assert_eq!(normalised(40, &identity), Lsn(40));
    }
}
