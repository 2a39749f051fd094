//! What a node is told and asked while it runs: whom to follow, promotion, replay, SQL.

use std::fs;

use nix::sys::signal::Signal;

use super::{
    error::Result,
    node::Node,
    settings::{SUPERUSER, Upstream},
    sql::{Login, Rows},
    wait::{PATIENCE, poll},
};

impl Node {
    /// Takes WAL from the server at `port` from now on, or from the next start on.
    pub(super) fn follow(&self, port: u16) -> Result<()> {
        let name = self.name();
        Upstream { name, port }.write(self.data())?;
        self.signal(Signal::SIGHUP);
        Ok(())
    }

    /// Whether its directory says that it is to start as a replica.
    pub(super) fn is_replica_on_disk(&self) -> bool {
        self.data().join("standby.signal").exists()
    }

    /// The newest timeline that its directory knows.
    pub(super) fn timeline_on_disk(&self) -> u32 {
        let entries = fs::read_dir(self.data().join("pg_wal"));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name());
        let histories = names.filter_map(|name| {
            let timeline = name.to_str()?.strip_suffix(".history")?;
            u32::from_str_radix(timeline, 16).ok()
        });
        histories.max().unwrap_or(1)
    }

    /// By its own word: whether it is a replica now.
    pub fn in_recovery(&self) -> Result<bool> {
        let answer = self.value("SELECT pg_catalog.pg_is_in_recovery()")?;
        Ok(answer.as_deref() == Some("t"))
    }

    /// Makes this replica a primary, and waits until it is. The others go on following whom they followed; see
    /// [`Cluster::promote`](super::Cluster::promote).
    pub fn promote(&self) -> Result<()> {
        self.sql("SELECT pg_catalog.pg_promote(true, 30)")?;
        self.wait_until("it is promoted", || self.in_recovery().map(|is| !is))
    }

    /// Stops replay on a replica, and returns when nothing is replayed any more.
    pub fn pause_replay(&self) -> Result<()> {
        self.sql("SELECT pg_catalog.pg_wal_replay_pause()")?;
        self.wait_until("replay is paused", || {
            let state = self.value("SELECT pg_catalog.pg_get_wal_replay_pause_state()")?;
            Ok(state.as_deref() == Some("paused"))
        })
    }

    pub fn resume_replay(&self) -> Result<()> {
        self.sql("SELECT pg_catalog.pg_wal_replay_resume()")
            .map(drop)
    }

    /// Where this node's WAL ends: written out on a primary, replayed on a replica.
    pub fn lsn(&self) -> Result<String> {
        let lsn = self.value(
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
             ELSE pg_catalog.pg_current_wal_flush_lsn() END",
        )?;
        Ok(lsn.unwrap_or_default())
    }

    /// Waits until this replica has replayed up to `lsn`.
    pub fn wait_replayed(&self, lsn: &str) -> Result<()> {
        let ask = format!("SELECT pg_catalog.pg_last_wal_replay_lsn() >= '{lsn}'");
        self.wait_until("it has caught up", || {
            Ok(self.value(&ask)?.as_deref() == Some("t"))
        })
    }

    /// Runs SQL as superuser in database `postgres`: one connection for all of it, rows of all statements together.
    pub fn sql(&self, sql: &str) -> Result<Rows> {
        self.login().query(sql, PATIENCE)
    }

    /// The first column of the first row, if there is one and it is not null.
    pub fn value(&self, sql: &str) -> Result<Option<String>> {
        let rows = self.sql(sql)?;
        let first = rows.into_iter().next();
        Ok(first.and_then(|row| row.into_iter().next().flatten()))
    }

    /// The superuser's login; change its fields to log in as another.
    pub fn login(&self) -> Login<'_> {
        Login {
            node: self.name(),
            port: self.port(),
            user: SUPERUSER,
            password: None,
            database: "postgres",
        }
    }

    /// Waits until `done`, at most 30 s.
    ///
    /// # Errors
    /// [`Error::Timeout`] with `what` and the end of the log; `done`'s own errors at once.
    pub fn wait_until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let reached = poll(PATIENCE, self.stop_token(), || Ok(done()?.then_some(())))?;
        reached.ok_or_else(|| self.timeout(what, PATIENCE))
    }
}
