//! One PostgreSQL server: start, stop, kill, freeze, promote, and questions to it.
//!
//! A node's state changes under its lock only; whoever asks while another starts it waits.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    account::Account,
    binaries::Binaries,
    error::{Error, LogTail, Result, io_at},
    keeper::Keeper,
    leftover,
    ports::{PortLease, is_free},
    process::{Holder, PidFile, Postmaster, Status, remove_shared_memory},
    settings::{self, Settings},
    wait::{PATIENCE, Stop, poll},
};

/// A start may have to replay much WAL after a crash.
const START_PATIENCE: Duration = Duration::from_secs(180);

/// What all nodes of a cluster share.
pub(super) struct Shared {
    pub binaries: Binaries,
    pub account: Account,
    pub settings: Settings,
    pub stop: Stop,
    pub keeper: Keeper,
}

/// PostgreSQL's three ways to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits until every session has ended by itself.
    Smart,
    /// Ends sessions, and leaves a clean directory.
    Fast,
    /// As a crash: recovery at the next start.
    Immediate,
}

impl Shutdown {
    fn signal(self) -> Signal {
        match self {
            Shutdown::Smart => Signal::SIGTERM,
            Shutdown::Fast => Signal::SIGINT,
            Shutdown::Immediate => Signal::SIGQUIT,
        }
    }
}

enum State {
    Stopped,
    Running(Child),
    /// Stopped by SIGSTOP: holds its connections, answers nothing.
    Frozen(Child),
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    Stopped,
    Running,
    Frozen,
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Stopped => "stopped",
            NodeState::Running => "running",
            NodeState::Frozen => "frozen",
        }
    }
}

/// A node of a [`Cluster`](super::Cluster), which ends it when dropped.
pub struct Node {
    name: String,
    data: PathBuf,
    log: PathBuf,
    port: PortLease,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

impl Node {
    pub(super) fn new(home: &Path, name: &str, port: PortLease, shared: Arc<Shared>) -> Node {
        Node {
            name: name.to_owned(),
            data: home.join(name),
            log: home.join(format!("{name}.log")),
            port,
            shared,
            state: Mutex::new(State::Stopped),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// On 127.0.0.1; the same for the node's whole life.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The server's log (and what initdb and pg_basebackup said).
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The whole log; empty if there is none.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn tail(&self) -> LogTail {
        LogTail::of(&self.log)
    }

    /// The postmaster's process id, while there is one.
    pub fn pid(&self) -> Option<u32> {
        match &*self.lock() {
            State::Stopped => None,
            State::Running(child) | State::Frozen(child) => Some(child.id()),
        }
    }

    /// A server that ended by itself counts as stopped.
    pub fn state(&self) -> NodeState {
        match &*self.lock() {
            State::Stopped => NodeState::Stopped,
            State::Running(_) => NodeState::Running,
            State::Frozen(_) => NodeState::Frozen,
        }
    }

    /// Notes a server that ended by itself.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(child) = &mut *state
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            *state = State::Stopped;
        }
        state
    }

    fn wrong_state(&self, is: NodeState, hint: &'static str) -> Error {
        Error::WrongState {
            node: self.name.clone(),
            is: is.as_str(),
            hint,
        }
    }

    /// Starts the server and waits until it accepts connections. Nothing happens if it runs.
    pub(super) fn start(&self) -> Result<()> {
        let mut state = self.lock();
        match &*state {
            State::Running(_) => return Ok(()),
            State::Frozen(_) => return Err(self.wrong_state(NodeState::Frozen, "thaw it first")),
            State::Stopped => {}
        }
        leftover::clear(&self.data, &self.shared.stop)?;
        self.write_settings()?;
        self.check_port()?;
        let mut child = self.spawn(self.server_command()?)?;
        let ready = self.wait_ready(&mut child);
        // Also where it is not ready in time: it is then stopped like any other.
        *state = State::Running(child);
        ready
    }

    fn server_command(&self) -> Result<Command> {
        let Shared {
            binaries, account, ..
        } = &*self.shared;
        let mut command = binaries.command("postgres", account);
        command.arg("-D").arg(&self.data);
        self.log_output(&mut command)?;
        Ok(command)
    }

    /// Output of `command` goes to the end of the node's log.
    fn log_output(&self, command: &mut Command) -> Result<()> {
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let again = |file: fs::File| file.try_clone().map(|copy| (file, copy));
        let (out, err) = open()
            .and_then(again)
            .map_err(io_at("cannot open", &self.log))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(())
    }

    fn spawn(&self, command: Command) -> Result<Child> {
        let program = PathBuf::from(command.get_program());
        let spawned = self.shared.keeper.spawn(command);
        spawned.map_err(io_at("cannot run", program))
    }

    fn write_settings(&self) -> Result<()> {
        let settings = &self.shared.settings;
        let conf = settings.conf(&self.name, self.port());
        settings::write(&self.data.join("pgsluice.conf"), &conf)?;
        settings::write(&self.data.join("pg_hba.conf"), &settings.hba_conf())?;
        self.shared.account.give(&self.data.join("pgsluice.conf"))?;
        settings::include(&self.data)
    }

    fn check_port(&self) -> Result<()> {
        match is_free(self.port()) {
            true => Ok(()),
            false => Err(Error::PortTaken {
                node: self.name.clone(),
                port: self.port(),
                by: Holder::of_port(self.port()),
            }),
        }
    }

    fn wait_ready(&self, child: &mut Child) -> Result<()> {
        let pid = child.id() as i32;
        let ready = poll(START_PATIENCE, &self.shared.stop, || {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.start_error(status));
            }
            let file = PidFile::read(&self.data);
            let up = file.is_some_and(|file| file.pid == pid && file.status == Status::Ready);
            Ok(up.then_some(()))
        })?;
        ready.ok_or_else(|| self.timeout("it accepts connections", START_PATIENCE))
    }

    fn start_error(&self, status: ExitStatus) -> Error {
        let log = self.tail();
        let why = match () {
            () if log.contains("could not map anonymous shared memory") => {
                "there is not enough memory for its shared_buffers: ask for less".to_owned()
            }
            () if log.contains("max_wal_senders") => {
                "its settings for replication do not fit (see the log); start the whole cluster again".to_owned()
            }
            () => format!("it ended with {status}"),
        };
        Error::Start {
            node: self.name.clone(),
            why,
            log,
        }
    }

    pub(super) fn timeout(&self, what: &str, patience: Duration) -> Error {
        Error::Timeout {
            node: self.name.clone(),
            what: what.to_owned(),
            seconds: patience.as_secs(),
            log: self.tail(),
        }
    }

    /// Asks the server to shut down and waits until it has. Nothing happens if it does not run; a frozen one is thawed.
    ///
    /// # Errors
    /// [`Error::Timeout`] after 30 s: a smart shutdown waits for sessions.
    pub fn stop(&self, how: Shutdown) -> Result<()> {
        self.begin_stop(how);
        self.wait_stopped()
    }

    /// Asks the server to shut down and does not wait.
    pub fn begin_stop(&self, how: Shutdown) {
        self.thaw();
        self.signal(how.signal());
    }

    /// To the postmaster, if the server runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let State::Running(child) = &*self.lock() {
            Postmaster(child.id() as i32).signal(signal);
        }
    }

    pub(super) fn stop_token(&self) -> &Stop {
        &self.shared.stop
    }

    /// Waits until the server has ended, by whatever reason.
    pub fn wait_stopped(&self) -> Result<()> {
        // Not interruptible: this is what an interrupted owner does last.
        let gone = poll(PATIENCE, &Stop::default(), || {
            Ok((self.state() == NodeState::Stopped).then_some(()))
        })?;
        gone.ok_or_else(|| self.timeout("it has shut down", PATIENCE))
    }

    /// kill -9 for all processes of the server, and waits until they are gone.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.lock();
        let child = match &mut *state {
            State::Stopped => return Ok(()),
            State::Running(child) | State::Frozen(child) => child,
        };
        let postmaster = Postmaster(child.id() as i32);
        let children = postmaster.kill();
        child.wait().map_err(io_at("cannot wait for", &self.data))?;
        *state = State::Stopped;
        let gone = poll(PATIENCE, &Stop::default(), || {
            Ok(children.iter().all(|child| child.is_gone()).then_some(()))
        })?;
        gone.ok_or_else(|| self.timeout("all its processes are gone", PATIENCE))
    }

    /// SIGSTOP for all processes of the server: connections stay, nothing answers.
    pub fn freeze(&self) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Stopped) {
            State::Running(child) => {
                Postmaster(child.id() as i32).freeze();
                State::Frozen(child)
            }
            other => other,
        };
    }

    /// Undoes [`Node::freeze`].
    pub fn thaw(&self) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Stopped) {
            State::Frozen(child) => {
                Postmaster(child.id() as i32).thaw();
                State::Running(child)
            }
            other => other,
        };
    }

    /// Removes the data directory of a stopped node.
    pub(super) fn clear_data(&self) -> Result<()> {
        leftover::clear(&self.data, &self.shared.stop)?;
        match fs::remove_dir_all(&self.data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(io_at("cannot remove", &self.data)(e))
            }
            _ => Ok(()),
        }
    }

    /// Runs one of PostgreSQL's programs for this node, its output in the node's log. `prepare` adds the arguments.
    pub(super) fn tool(
        &self,
        program: &'static str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<()> {
        let Shared {
            binaries, account, ..
        } = &*self.shared;
        let mut command = binaries.command(program, account);
        prepare(&mut command);
        self.log_output(&mut command)?;
        let mut child = self.spawn(command)?;
        let status = self.wait_tool(&mut child)?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Tool {
                tool: program,
                node: self.name.clone(),
                status: describe(status),
                log: self.tail(),
            }),
        }
    }

    /// As long as it takes: a base backup of a large directory has no natural limit.
    fn wait_tool(&self, child: &mut Child) -> Result<ExitStatus> {
        loop {
            let ended = poll(PATIENCE, &self.shared.stop, || {
                child
                    .try_wait()
                    .map_err(io_at("cannot wait for", &self.data))
            });
            match ended {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => {
                    // Gone already is as good.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Ends the server by force: whoever wants an orderly end has stopped it before.
impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(node = self.name, %error, "a server could not be ended");
        }
        if let Some(id) = PidFile::read(&self.data).and_then(|file| file.shared_memory) {
            remove_shared_memory(id);
        }
    }
}
