//! Why a cluster could not be made or changed, each time with what to do next.

use std::{fmt, io, path::PathBuf};

use super::process::Holder;

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. The text of each ends with what to do about it; the tail of the node's log is in it where there is
/// a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no PostgreSQL found (looked at {searched}): install it (Debian, Ubuntu: apt-get install postgresql), or name its bin directory with --pg-bin"
    )]
    NoPostgres { searched: String },
    #[error(
        "{} is no usable PostgreSQL bin directory: {why}; --pg-bin must name one that holds initdb, postgres and pg_basebackup", dir.display()
    )]
    BadBinaries { dir: PathBuf, why: String },
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as: create one (useradd --system postgres), or run this as another user"
    )]
    NoAccount,
    #[error(
        "PostgreSQL would run as user `{account}`, who may not enter {}: choose a directory that everybody may enter (such as below /tmp or /var/lib), or chmod o+x it", path.display()
    )]
    Unreachable { path: PathBuf, account: String },
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{tool} failed for {node} ({status}){log}")]
    Tool {
        tool: &'static str,
        node: String,
        status: String,
        log: LogTail,
    },
    #[error("{node} did not start: {why}{log}")]
    Start {
        node: String,
        why: String,
        log: LogTail,
    },
    #[error("{node}: still waiting after {seconds} s until {what}{log}")]
    Timeout {
        node: String,
        what: String,
        seconds: u64,
        log: LogTail,
    },
    #[error(
        "port {port}, which {node} needs, is taken by {by}: stop that, or let another port be chosen"
    )]
    PortTaken { node: String, port: u16, by: Holder },
    #[error("no free port found from {from} on: free some, or begin elsewhere")]
    NoPort { from: u16 },
    #[error(
        "{node} has {setting} = {have}, of which {used} are in use, and {need} more are needed: stop the cluster and start it again (the setting grows with the number of replicas), or raise it with --set {setting}=…"
    )]
    NotEnough {
        node: String,
        setting: &'static str,
        have: u32,
        used: u32,
        need: u32,
    },
    #[error("{node}: `{statement}` failed: {message}")]
    Sql {
        node: String,
        statement: String,
        message: String,
        /// None: no answer of a server (not reachable, timed out).
        sqlstate: Option<String>,
    },
    #[error("there is no node `{name}`; there are {known}")]
    UnknownNode { name: String, known: String },
    #[error("{node} is {is}: {hint}")]
    WrongState {
        node: String,
        is: &'static str,
        hint: &'static str,
    },
    #[error("{} is in use by another pgsluice{}: stop that one, or choose another directory", dir.display(), of_pid(*pid))]
    InUse { dir: PathBuf, pid: Option<i32> },
    #[error(
        "{} is not empty and was not made by pgsluice: choose another directory, or empty it yourself", dir.display()
    )]
    Foreign { dir: PathBuf },
    #[error(
        "{} was made by PostgreSQL {made}, and this is {ours}: name the other one's binaries with --pg-bin, or choose another directory", dir.display()
    )]
    OtherVersion { dir: PathBuf, made: u32, ours: u32 },
    #[error(
        "no node in {} is a primary: all are replicas; choose another directory, or remove standby.signal from the one that is to be the primary", dir.display()
    )]
    NoPrimary { dir: PathBuf },
    #[error("{} cannot be understood: {why}; choose another directory", path.display())]
    BadRecord { path: PathBuf, why: String },
    #[error("interrupted")]
    Interrupted,
}

fn of_pid(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// For `map_err`: an I/O error with what was tried, on which path.
pub(super) fn io_at(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { what, path, source }
}

/// The last lines of a node's log, shown below an error. May be empty.
#[derive(Debug, Clone, Default)]
pub struct LogTail {
    path: PathBuf,
    lines: Vec<String>,
}

impl LogTail {
    const LINES: usize = 15;
    /// Only the end of the file is read.
    const BYTES: u64 = 8192;

    /// Empty if there is no log, or it cannot be read.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let lines = Self::last_lines(&path).unwrap_or_default();
        LogTail { path, lines }
    }

    fn last_lines(path: &std::path::Path) -> io::Result<Vec<String>> {
        use io::{Read, Seek};
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(Self::BYTES)))?;
        let mut bytes = Vec::new();
        file.take(Self::BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        let from = all.len().saturating_sub(Self::LINES);
        Ok(all[from..].iter().map(|line| line.to_string()).collect())
    }

    pub fn contains(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return Ok(());
        }
        write!(f, "\nThe end of {}:", self.path.display())?;
        self.lines
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}
