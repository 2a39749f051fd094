//! Where a running demo is found: a note and a control socket in a directory of this user alone.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// What other processes need to know of a running demo.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    pub pid: u32,
    /// Of the cluster.
    pub dir: PathBuf,
    pub socket: PathBuf,
}

/// A note that others can see; both files are gone when it is dropped.
pub(super) struct Published {
    note: Note,
    file: PathBuf,
}

/// Short on purpose: a socket's path has room for some hundred bytes only.
fn directory() -> PathBuf {
    PathBuf::from(format!("/tmp/pgsluice-{}", geteuid()))
}

/// Makes the directory, or checks that nobody else made it.
fn make_directory() -> io::Result<PathBuf> {
    let dir = directory();
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match is_ours(&dir) {
        true => Ok(dir),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} belongs to another user, or others may use it: remove it",
                dir.display()
            ),
        )),
    }
}

fn is_ours(dir: &Path) -> bool {
    let meta = fs::symlink_metadata(dir);
    meta.is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw() && m.mode() & 0o077 == 0)
}

impl Published {
    /// Opens the control socket and tells where it is.
    pub(super) fn new(cluster: &Path) -> io::Result<(Published, UnixListener)> {
        // Looking removes what demos that were killed have left.
        drop(running());
        let pid = std::process::id();
        let base = make_directory()?.join(format!("demo-{pid}"));
        let note = Note {
            pid,
            dir: cluster.to_owned(),
            socket: base.with_extension("sock"),
        };
        // Of an earlier process with our number.
        let _ = fs::remove_file(&note.socket);
        let listener = UnixListener::bind(&note.socket)?;
        let file = base.with_extension("json");
        fs::write(&file, serde_json::to_vec_pretty(&note)?)?;
        Ok((Published { note, file }, listener))
    }

    pub(super) fn socket(&self) -> &Path {
        &self.note.socket
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.note.socket);
        // Fails while another demo runs.
        let _ = fs::remove_dir(directory());
    }
}

/// Demos of this user that answer. Notes of those that were killed are removed.
pub(super) fn running() -> Vec<(Note, UnixStream)> {
    let dir = directory();
    if !is_ours(&dir) {
        return Vec::new();
    }
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let notes = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    notes.filter_map(|path| connect(&path)).collect()
}

fn connect(file: &Path) -> Option<(Note, UnixStream)> {
    let note: Note = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    match UnixStream::connect(&note.socket) {
        Ok(stream) => Some((note, stream)),
        Err(_) => {
            let _ = fs::remove_file(&note.socket);
            let _ = fs::remove_file(file);
            None
        }
    }
}
