//! Server processes as the operating system sees them: a postmaster and its children, postmaster.pid, and who holds a
//! port.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What PostgreSQL writes into `postmaster.pid` (src/include/utils/pidfile.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: i32,
    pub status: Status,
    /// Of the small System V segment that guards the data directory.
    pub shared_memory: Option<i32>,
}

/// The last line of `postmaster.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Starting,
    Stopping,
    /// Accepts connections.
    Ready,
    /// Recovers, and does not accept connections yet.
    Standby,
}

impl PidFile {
    pub(super) fn path(data: &Path) -> PathBuf {
        data.join("postmaster.pid")
    }

    /// None without a file, or while it is being written.
    pub(super) fn read(data: &Path) -> Option<PidFile> {
        PidFile::parse(&fs::read_to_string(PidFile::path(data)).ok()?)
    }

    fn parse(text: &str) -> Option<PidFile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let status = match lines.get(7).copied() {
            Some("ready") => Status::Ready,
            Some("standby") => Status::Standby,
            Some("stopping") => Status::Stopping,
            _ => Status::Starting,
        };
        let shared_memory = lines.get(6).and_then(|line| line.split_whitespace().nth(1));
        Some(PidFile {
            pid: lines.first()?.parse().ok()?,
            status,
            shared_memory: shared_memory.and_then(|id| id.parse().ok()),
        })
    }

    /// Whether this is a live server of `data`, and not a number that another process has got since.
    pub(super) fn is_alive(&self, data: &Path) -> bool {
        let here = data.canonicalize().ok();
        let there = fs::read_link(format!("/proc/{}/cwd", self.pid)).ok();
        // A postmaster changes into its data directory first of all.
        here.is_some() && here == there
    }
}

/// A running postmaster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Postmaster(pub i32);

impl Postmaster {
    pub(super) fn signal(self, signal: Signal) {
        send(self.0, signal);
    }

    /// Stops it and all its children, so that nothing answers any more and no connection is closed.
    pub(super) fn freeze(self) {
        self.signal(Signal::SIGSTOP);
        self.each_child(Signal::SIGSTOP);
    }

    pub(super) fn thaw(self) {
        self.each_child(Signal::SIGCONT);
        self.signal(Signal::SIGCONT);
    }

    /// kill -9 for all its processes at once, as when the machine loses power. (Killed alone, it would leave children
    /// that go on for a moment.) Gives the children, which are not ours to wait for.
    pub(super) fn kill(self) -> Vec<Process> {
        self.signal(Signal::SIGSTOP);
        let children = self.each_child(Signal::SIGKILL);
        self.signal(Signal::SIGKILL);
        children
    }

    fn each_child(self, signal: Signal) -> Vec<Process> {
        let children = children(self.0);
        for child in &children {
            send(child.0, signal);
        }
        children
    }
}

/// A process that is not our child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(i32);

impl Process {
    /// A zombie is gone too: it holds no memory and no socket.
    pub(super) fn is_gone(self) -> bool {
        stat(self.0).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z"))
    }
}

fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        // Gone already: then it needs no signal.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %signal, %error, "a server could not be signalled"),
    }
}

fn children(parent: i32) -> Vec<Process> {
    let parent = parent.to_string();
    let is_child = |pid: &i32| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent));
    processes().filter(is_child).map(Process).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// proc(5)'s stat from its third field on: state, parent, … (The name before may hold anything, parentheses too.)
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').take(2).map(str::to_owned).collect())
}

/// Removes the segment that a killed server left; a server that starts on the same directory would do it too.
pub(super) fn remove_shared_memory(id: i32) {
    // Best effort: where ipcrm is missing, 56 bytes stay until the machine restarts.
    let _ = Command::new("ipcrm").args(["-m", &id.to_string()]).output();
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(Option<(i32, String)>);

impl Holder {
    /// Looks for the process that listens on a TCP port of this machine; other users' processes are visible to root
    /// only.
    pub fn of_port(port: u16) -> Holder {
        Holder(find_holder(port))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((pid, name)) => write!(f, "{name} (process {pid})"),
            None => f.write_str("another user's process"),
        }
    }
}

fn find_holder(port: u16) -> Option<(i32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        listening_inode(&text, port)
    })?;
    let link = format!("socket:[{inode}]");
    let pid = processes().find(|pid| has_open(*pid, &link))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim().to_owned()))
}

/// From the table of proc(5): local address is field 1, state field 3 (0A: listening), inode field 9.
fn listening_inode(table: &str, port: u16) -> Option<String> {
    let end = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect());
    rows.filter(|row: &Vec<&str>| row.len() > 9)
        .find(|row| row[1].ends_with(&end) && row[3] == "0A")
        .map(|row| row[9].to_owned())
}

fn has_open(pid: i32, link: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = files
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    links.into_iter().any(|target| target.as_os_str() == link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmaster_pid_is_read_at_every_stage_of_its_writing() {
        let whole = "4711\n/data\n1700000000\n15432\n\n127.0.0.1\n  5432001    163840\nready   \n";
        let file = PidFile::parse(whole).unwrap();
        assert_eq!(file.pid, 4711);
        assert_eq!(file.status, Status::Ready);
        assert_eq!(file.shared_memory, Some(163_840));
        for end in 0..whole.len() {
            if let Some(part) = PidFile::parse(&whole[..end]) {
                assert!(part.status == Status::Starting || end > whole.len() - 5);
            }
        }
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = Holder::of_port(port).to_string();
        let me = format!("(process {})", std::process::id());
        assert!(holder.ends_with(&me), "{holder}");
    }
}
