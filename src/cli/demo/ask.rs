//! The asking side: finds the running demo, sends one request, prints what is answered.

use std::{
    io::BufReader,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    message::{Answer, Request, receive, send},
    runtime::{self, Note},
};

pub(super) fn run(dir: Option<PathBuf>, request: &Request) -> ExitCode {
    match find(dir.as_deref()).and_then(|demo| ask(demo, request)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pgsluice: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The one demo that runs, or the one in `dir`.
fn find(dir: Option<&Path>) -> Result<UnixStream, String> {
    let wanted = match dir {
        None => None,
        Some(dir) => Some(
            dir.canonicalize()
                .map_err(|e| format!("{}: {e}", dir.display()))?,
        ),
    };
    let all = runtime::running().into_iter();
    let is_wanted = |note: &Note| wanted.as_ref().is_none_or(|dir| *dir == note.dir);
    let mut found: Vec<_> = all.filter(|(note, _)| is_wanted(note)).collect();
    match (found.pop(), found.as_slice()) {
        (Some((_, stream)), []) => Ok(stream),
        (None, _) => {
            Err("no demo of yours is running (there): start one with `pgsluice demo`".into())
        }
        (Some((last, _)), others) => {
            let notes = others.iter().map(|(note, _)| note).chain([&last]);
            let dirs: String = notes
                .map(|n| format!("\n    --dir {}", n.dir.display()))
                .collect();
            Err(format!("several demos are running, choose one:{dirs}"))
        }
    }
}

/// As long as it takes: the demo itself has limits for each step.
fn ask(mut demo: UnixStream, request: &Request) -> Result<(), String> {
    let lost = |e: std::io::Error| format!("the demo does not answer: {e}");
    send(&mut demo, request).map_err(lost)?;
    let mut answers = BufReader::new(demo);
    loop {
        match receive(&mut answers).map_err(lost)? {
            Some(Answer::Say(text)) => println!("{text}"),
            Some(Answer::Done) => return Ok(()),
            Some(Answer::Failed(message)) => return Err(message),
            None => return Err("the demo has ended".to_owned()),
        }
    }
}
