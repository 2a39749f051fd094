//! Which user of the operating system the servers run as.
//!
//! PostgreSQL refuses to run as root. Started by root, everything of PostgreSQL runs as another user, who owns the data
//! directories; the process itself stays what it is.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use nix::unistd::{Uid, User, chown, geteuid};

use super::error::{Error, Result, io_at};

/// In this order, where we are root.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

#[derive(Debug, Clone)]
pub enum Account {
    /// The process's own user, who is not root.
    Own,
    /// We are root, PostgreSQL runs as this one.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// # Errors
    /// [`Error::NoAccount`] for root without a user to drop to.
    pub fn choose() -> Result<Account> {
        if !geteuid().is_root() {
            return Ok(Account::Own);
        }
        let found = CANDIDATES
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or(Error::NoAccount)?;
        Ok(Account::Other {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// Makes `command` run as this user, without any group of ours.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Account::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives `path` (not what is below) to this user.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        match self {
            Account::Own => Ok(()),
            Account::Other { uid, gid, .. } => {
                let given = chown(path, Some(Uid::from_raw(*uid)), Some((*gid).into()));
                given.map_err(|e| io_at("cannot change the owner of", path)(e.into()))
            }
        }
    }

    /// Makes the directory, for this user alone.
    pub(super) fn make_dir(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(io_at("cannot create", path))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(io_at("cannot change", path))?;
        self.give(path)
    }

    /// Whether this user may enter `dir` and all above it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] names the first directory that is closed.
    pub fn check_reach(&self, dir: &Path) -> Result<()> {
        let Account::Other { name, uid, gid } = self else {
            return Ok(());
        };
        let full = dir.canonicalize().map_err(io_at("cannot find", dir))?;
        let mut parts: Vec<&Path> = full.ancestors().collect();
        parts.reverse();
        for part in parts {
            let meta = std::fs::metadata(part).map_err(io_at("cannot look at", part))?;
            let shift = match () {
                () if meta.uid() == *uid => 6,
                () if meta.gid() == *gid => 3,
                () => 0,
            };
            if meta.mode() >> shift & 1 == 0 {
                return Err(Error::Unreachable {
                    path: part.to_owned(),
                    account: name.clone(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_above_is_named() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("private/inner");
        std::fs::create_dir_all(&inner).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(top.path(), open).unwrap();
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(top.path().join("private"), private).unwrap();
        let account = Account::Other {
            name: "someone".into(),
            uid: 4_000_000,
            gid: 4_000_000,
        };
        match account.check_reach(&inner) {
            Err(Error::Unreachable { path, .. }) => assert!(path.ends_with("private")),
            other => panic!("{other:?}"),
        }
        assert!(Account::Own.check_reach(&inner).is_ok());
    }
}
