//! What a server that was not stopped in order left in its data directory: a process that still runs, its lock file.

use std::{fs, io::ErrorKind, path::Path};

use nix::sys::signal::Signal;

use super::{
    error::{Error, LogTail, Result, io_at},
    process::{PidFile, Postmaster},
    wait::{PATIENCE, Stop, poll},
};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A lock file without a process, now removed.
    StaleFile,
    /// A server of an earlier run, now ended.
    Server,
}

/// Clears `data` for a start or a removal. The caller's own server must not run there.
pub(super) fn clear(data: &Path, stop: &Stop) -> Result<Found> {
    let path = PidFile::path(data);
    let found = match PidFile::read(data) {
        Some(file) if file.is_alive(data) => {
            end(&file, data, stop)?;
            Found::Server
        }
        _ if path.exists() => Found::StaleFile,
        _ => return Ok(Found::Nothing),
    };
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io_at("cannot remove", path)(e)),
        _ => Ok(found),
    }
}

fn end(file: &PidFile, data: &Path, stop: &Stop) -> Result<()> {
    let server = Postmaster(file.pid);
    server.thaw();
    server.signal(Signal::SIGINT);
    let gone = || Ok((!file.is_alive(data)).then_some(()));
    if poll(PATIENCE, stop, gone)?.is_some() {
        return Ok(());
    }
    server.kill();
    poll(PATIENCE, stop, gone)?.ok_or_else(|| Error::Timeout {
        node: data.display().to_string(),
        what: format!("an earlier run's server (process {}) has ended", file.pid),
        seconds: PATIENCE.as_secs(),
        log: LogTail::default(),
    })
}
