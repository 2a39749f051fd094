//! What is remembered over restarts: a small file, `failover.state_file`.
//!
//! It is written whenever the highest timeline or its primary changes, on a thread of its own: a slow disk must not
//! keep writes from the new primary. A file that cannot be written is an alarm and no reason to stop, and is tried
//! again; one that cannot be read, or is something else, is an error at the start: what it would have said is unknown.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};

use super::watch::Shared;
use crate::error::{Error, Kind, Result};

/// Of the file's form.
const VERSION: u32 = 1;
/// What is longer is another file.
const MAX_BYTES: u64 = 64 * 1024;
/// After a write that failed.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

const HEADER: &str = "# Written by pgsluice: the highest timeline that it has seen, so that an older primary gets no \
    writes after a restart.\n# Without this file it forgets that. Remove it only when the nodes have become another cluster.\n";

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub system_id: u64,
    /// The highest that was followed.
    pub timeline: u32,
    /// `host:port` of the node that was last its primary.
    pub primary: Option<String>,
}

/// The file as written. The identifier is text: TOML's numbers end at 2^63. Every key must be there, and the last one
/// is quoted: a file that was cut short is none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    system_id: String,
    timeline: u32,
    /// Empty: none.
    primary: String,
}

/// Reads the file; None where there is none yet. Makes sure that one can be written there.
///
/// # Errors
/// A file that is no state file, or cannot be read; a directory that is missing or cannot be written to.
pub(super) fn load(path: &Path) -> Result<Option<State>> {
    let state = match read(path) {
        Ok(text) => Some(parse(path, &text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refusal(path, &format!("cannot be read: {error}"))),
    };
    match File::create(draft(path)).and_then(|_| fs::remove_file(draft(path))) {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(refusal(
            path,
            &format!(
                "cannot be written: {error}; its directory must exist and be writable for the user that runs pgsluice"
            ),
        )),
        // A full disk is an alarm once there is something to write.
        _ => Ok(state),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<State> {
    let bad = |why: &str| {
        refusal(
            path,
            &format!(
                "is no state file of this version of pgsluice ({why}); name another file in failover.state_file, or \
                 remove it if nothing else needs it"
            ),
        )
    };
    if text.len() as u64 > MAX_BYTES {
        return Err(bad("too long"));
    }
    let form: Form = toml::from_str(text).map_err(|error| bad(error.message()))?;
    if form.version != VERSION {
        return Err(bad("another version wrote it"));
    }
    let system_id = form.system_id.parse();
    Ok(State {
        system_id: system_id.map_err(|_| bad("its system_id is no number"))?,
        timeline: form.timeline,
        primary: Some(form.primary).filter(|it| !it.is_empty()),
    })
}

fn refusal(path: &Path, why: &str) -> Error {
    let text = format!("failover.state_file `{}` {why}", path.display());
    Error::proxy(Kind::Internal, text)
}

/// Where the file is written before it takes the old one's place.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Replaces the file whole: after a crash there is the old one or the new one.
fn save(path: &Path, state: &State) -> io::Result<()> {
    let form = Form {
        version: VERSION,
        system_id: state.system_id.to_string(),
        timeline: state.timeline,
        primary: state.primary.clone().unwrap_or_default(),
    };
    let body = toml::to_string(&form).map_err(io::Error::other)?;
    let mut file = File::create(draft(path))?;
    file.write_all(HEADER.as_bytes())?;
    file.write_all(body.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft(path), path)?;
    // The new name is on disk only when its directory is.
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes down each new state, for ever. What comes while one is written replaces what waits.
pub(super) async fn keep(
    path: PathBuf,
    shared: Arc<Shared>,
    mut states: watch::Receiver<Option<State>>,
) {
    while states.changed().await.is_ok() {
        let Some(mut state) = states.borrow_and_update().clone() else {
            continue;
        };
        while !saved(&path, &state).await {
            shared.note_saved(false);
            // A newer state is tried at once. `shared` has the sender: there always is one.
            let _ = timeout(WRITE_AGAIN, states.changed()).await;
            if let Some(newer) = states.borrow_and_update().clone() {
                state = newer;
            }
        }
        shared.note_saved(true);
    }
}

async fn saved(path: &Path, state: &State) -> bool {
    let (to, what) = (path.to_owned(), state.clone());
    let written = tokio::task::spawn_blocking(move || save(&to, &what)).await;
    let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    match written {
        Ok(()) => true,
        Err(error) => {
            let path = path.display();
            tracing::error!(%path, %error, "cannot write the state file: after a restart an old primary could get writes");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(timeline: u32) -> State {
        State {
            system_id: u64::MAX,
            timeline,
            primary: Some("[::1]:5432".into()),
        }
    }

    #[test]
    fn a_state_that_was_saved_is_loaded_and_no_draft_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(load(&path).unwrap(), None);
        let unknown = State {
            primary: None,
            ..state(1)
        };
        for state in [unknown, state(u32::MAX)] {
            save(&path, &state).unwrap();
            assert_eq!(load(&path).unwrap(), Some(state));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_state_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let long = "#".repeat(MAX_BYTES as usize + 1);
        let cases = [
            "",
            "root:x:0:0:root:/root:/bin/sh\n",
            "version = 2\nsystem_id = \"1\"\ntimeline = 1\n",
            "version = 1\nsystem_id = \"one\"\ntimeline = 1\n",
            "version = 1\nsystem_id = \"1\"\ntimeline = -1\n",
            "version = 1\nsystem_id = \"1\"\ntimeline = 1\n",
            "version = 1\nsystem_id = \"1\"\ntimeline = 1\nprimary = \"\"\nmore = 1\n",
            &long,
        ];
        for text in cases {
            fs::write(&path, text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            let says = ["failover.state_file", "is no state file", "remove it"];
            assert!(says.iter().all(|it| error.contains(it)), "{error}");
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                text,
                "it is left as it was"
            );
        }
    }

    #[test]
    fn a_cut_file_is_never_taken_for_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        save(&path, &state(17)).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&path).is_err(), "{length}");
        }
    }

    #[test]
    fn a_missing_directory_is_an_error_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(&dir.path().join("none/state"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("its directory must exist"), "{error}");
    }
}
