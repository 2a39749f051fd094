//! The directory of a cluster: a temporary one that goes with its owner, or one that is kept. Locked while in use.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::{geteuid, mkdtemp},
};

use super::{
    error::{Error, Result, io_at},
    process::{PidFile, Postmaster, remove_shared_memory},
    record::Record,
};

const PREFIX: &str = "pgsluice-cluster-";
const LOCK: &str = "lock";

/// Where a cluster is to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A new directory below this one, removed with the cluster.
    Temporary(PathBuf),
    /// This one, kept, and started again from where it was.
    Kept(PathBuf),
}

/// A directory that is ours; temporary ones are removed when it is dropped.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    fate: Fate,
    _lock: Flock<File>,
}

/// What becomes of a directory when its cluster ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Remove,
}

impl Home {
    /// # Errors
    /// [`Error::InUse`], [`Error::Foreign`], or what the file system says.
    pub(super) fn open(place: &Place) -> Result<Home> {
        match place {
            Place::Temporary(parent) => {
                reap(parent);
                let dir = make_temporary(parent)?;
                let lock = new_lock(&dir)?;
                Ok(Home {
                    dir,
                    fate: Fate::Remove,
                    _lock: lock,
                })
            }
            Place::Kept(dir) => Home::keep(dir),
        }
    }

    fn keep(dir: &Path) -> Result<Home> {
        fs::create_dir_all(dir).map_err(io_at("cannot create", dir))?;
        let dir = dir.canonicalize().map_err(io_at("cannot find", dir))?;
        let mut entries = fs::read_dir(&dir).map_err(io_at("cannot read", &dir))?;
        let known = Record::path(&dir).exists() || dir.join(LOCK).exists();
        if !known && entries.next().is_some() {
            return Err(Error::Foreign { dir });
        }
        let lock = match dir.join(LOCK).exists() {
            true => old_lock(&dir)?,
            false => new_lock(&dir)?,
        };
        Ok(Home {
            dir,
            fate: Fate::Keep,
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn is_kept(&self) -> bool {
        self.fate == Fate::Keep
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.fate == Fate::Remove {
            remove(&self.dir);
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "a temporary directory could not be removed");
    }
}

fn make_temporary(parent: &Path) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(io_at("cannot create", parent))?;
    let made = mkdtemp(&parent.join(format!("{PREFIX}{:X<6}", "")));
    let dir = made.map_err(|e| io_at("cannot create a directory in", parent)(e.into()))?;
    // Servers of another user pass through it; their own directories below are private.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&dir, open).map_err(io_at("cannot change", &dir))?;
    Ok(dir)
}

/// A lock file that appears under its name already locked, so that no one else takes the directory for abandoned.
fn new_lock(dir: &Path) -> Result<Flock<File>> {
    let fresh = dir.join(format!("{LOCK}.{}", std::process::id()));
    let file = File::create(&fresh).map_err(io_at("cannot create", &fresh))?;
    let lock = lock(file, dir)?;
    fs::rename(&fresh, dir.join(LOCK)).map_err(io_at("cannot create", fresh))?;
    Ok(lock)
}

fn old_lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    lock(opened.map_err(io_at("cannot open", path))?, dir)
}

fn lock(file: File, dir: &Path) -> Result<Flock<File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let pid = std::process::id().to_string();
            let written = lock
                .set_len(0)
                .and_then(|()| lock.write_all(pid.as_bytes()));
            written.map_err(io_at("cannot write the lock in", dir))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            Err(Error::InUse {
                dir: dir.to_owned(),
                pid: pid.trim().parse().ok(),
            })
        }
        Err((_, errno)) => Err(io_at("cannot lock", dir)(errno.into())),
    }
}

/// Removes temporary clusters whose owner ended without doing so (kill -9), and servers of theirs that were frozen
/// then. Only directories of this user's, and only those whose lock nobody holds.
fn reap(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for dir in ours.map(|entry| entry.path()).filter(|dir| is_own(dir)) {
        if let Ok(_lock) = old_lock(&dir) {
            kill_leftovers(&dir);
            remove(&dir);
        }
    }
}

fn is_own(dir: &Path) -> bool {
    let meta = fs::symlink_metadata(dir);
    meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw())
}

fn kill_leftovers(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for data in entries.map(|entry| entry.path()) {
        let Some(file) = PidFile::read(&data) else {
            continue;
        };
        if file.is_alive(&data) {
            Postmaster(file.pid).kill();
        }
        if let Some(id) = file.shared_memory {
            remove_shared_memory(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_directory_in_use_is_refused_and_named() {
        let parent = parent();
        let place = Place::Kept(parent.path().join("demo"));
        let home = Home::open(&place).unwrap();
        let error = Home::open(&place).unwrap_err().to_string();
        let pid = format!("(process {})", std::process::id());
        assert!(error.contains(&pid), "{error}");
        drop(home);
        Home::open(&place).unwrap();
    }

    #[test]
    fn a_directory_with_other_things_is_refused() {
        let parent = parent();
        fs::write(parent.path().join("thesis.tex"), "x").unwrap();
        let place = Place::Kept(parent.path().to_owned());
        assert!(matches!(Home::open(&place), Err(Error::Foreign { .. })));
    }

    #[test]
    fn only_abandoned_temporary_directories_are_reaped() {
        let parent = parent();
        let place = Place::Temporary(parent.path().to_owned());
        let alive = Home::open(&place).unwrap();
        let abandoned = make_temporary(parent.path()).unwrap();
        drop(new_lock(&abandoned).unwrap());
        let unlocked_yet = make_temporary(parent.path()).unwrap();
        let _next = Home::open(&place).unwrap();
        assert!(alive.dir().exists());
        assert!(!abandoned.exists());
        assert!(unlocked_yet.exists());
    }
}
