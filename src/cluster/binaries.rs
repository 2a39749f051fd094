//! Where PostgreSQL's programs are, and of which version they are.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    account::Account,
    error::{Error, Result},
};

/// Where Debian and Ubuntu keep one directory per major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Without these nothing works; pg_rewind is missed only when it is needed.
const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
/// The oldest version with all that is used here (pg_get_wal_replay_pause_state came last).
const OLDEST: u32 = 14;

/// A checked bin directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
    version: String,
}

impl Binaries {
    /// `given` if there is one, else Debian's newest, else what `PATH` leads to.
    ///
    /// # Errors
    /// [`Error::NoPostgres`], or [`Error::BadBinaries`] for a given directory that is not one.
    pub fn find(given: Option<&Path>) -> Result<Binaries> {
        if let Some(dir) = given {
            return Binaries::at(dir);
        }
        let places = debian().into_iter().chain(on_path());
        let found = places.filter_map(|dir| Binaries::at(&dir).ok()).next();
        found.ok_or_else(|| Error::NoPostgres {
            searched: format!("{DEBIAN}/*/bin and PATH"),
        })
    }

    /// Checks that PostgreSQL's own programs are in `dir`, and asks for their version.
    pub fn at(dir: &Path) -> Result<Binaries> {
        let bad = |why: String| Error::BadBinaries {
            dir: dir.to_owned(),
            why,
        };
        let dir = dir.canonicalize().map_err(|e| bad(e.to_string()))?;
        for program in NEEDED {
            if !dir.join(program).is_file() {
                return Err(bad(format!("{program} is not there")));
            }
        }
        let version = version(&dir).map_err(bad)?;
        let major = major(&version).ok_or_else(|| bad(format!("version {version:?}")))?;
        if major < OLDEST {
            return Err(bad(format!(
                "it is version {major}, too old: {OLDEST} or later is needed"
            )));
        }
        Ok(Binaries {
            dir,
            major,
            version,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// 15, 18, …
    pub fn major(&self) -> u32 {
        self.major
    }

    /// As the program says it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A command that runs `program` as `account`, in a directory that it may enter, without settings of our own
    /// environment (PGHOST and its kind would lead it elsewhere).
    pub(super) fn command(&self, program: &str, account: &Account) -> Command {
        let mut command = Command::new(self.dir.join(program));
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| is_setting(name)) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir("/");
        account.apply(&mut command);
        command
    }
}

fn is_setting(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"PG")
}

/// Newest first.
fn debian() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut majors: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    let dir = |major| Path::new(DEBIAN).join(format!("{major}/bin"));
    majors.into_iter().map(dir).collect()
}

/// Links are followed, since the programs find their share directory from where they really are. Scripts that wrap
/// PostgreSQL's programs are passed over: their directory is not PostgreSQL's.
fn on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).map(|dir| dir.join("initdb"));
    programs
        .filter_map(|program| program.canonicalize().ok())
        .filter(|program| is_native(program))
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .collect()
}

fn is_native(program: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(program).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\x7fELF"
}

fn version(dir: &Path) -> std::result::Result<String, String> {
    let asked = Command::new(dir.join("postgres")).arg("--version").output();
    let output = asked.map_err(|e| format!("postgres cannot be run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().strip_prefix("postgres (PostgreSQL) ") {
        Some(version) => Ok(version.to_owned()),
        None => Err("its `postgres` is not PostgreSQL's".to_owned()),
    }
}

/// `15.18 (Debian …)`, `19beta1`, `18devel` → the leading number.
fn major(version: &str) -> Option<u32> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_what_postgres_says() {
        for (text, expected) in [
            ("15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("18.4", Some(18)),
            ("19beta1", Some(19)),
            ("devel", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }

    #[test]
    fn a_directory_without_postgresql_says_what_is_missing() {
        let error = Binaries::at(Path::new("/usr")).unwrap_err().to_string();
        assert!(error.contains("initdb is not there"), "{error}");
        assert!(error.contains("--pg-bin"), "{error}");
    }
}
