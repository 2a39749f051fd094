//! The answering side of `demo promote` and its kind: one request at a time, each step told to whoever asked.

use std::{
    io::BufReader,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use super::{
    How,
    config::Plan,
    message::{Answer, Request, receive, send},
    proxy,
};
use crate::cluster::{Cluster, Node, NodeState, Result, Shutdown};

/// For a request to arrive once somebody is connected.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// Tells steps to the terminal, and to whoever asked for them.
#[derive(Clone, Default)]
pub(super) struct Audience(Arc<Mutex<Option<UnixStream>>>);

impl Audience {
    pub(super) fn say(&self, text: &str) {
        println!("{text}");
        self.tell(&Answer::Say(text.to_owned()));
    }

    /// Whoever has gone away misses it; the work goes on.
    fn tell(&self, answer: &Answer) {
        if let Some(asker) = self.asker().as_mut() {
            let _ = send(asker, answer);
        }
    }

    fn asker(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What requests are carried out on.
pub(super) struct Control {
    /// Not an owner: the servers end with the demo, whoever waits for an answer.
    pub cluster: Weak<Cluster>,
    pub plan: Arc<Plan>,
    pub config: PathBuf,
    pub audience: Audience,
}

impl Control {
    /// Answers until the process ends.
    pub(super) fn serve(&self, listener: &UnixListener) {
        for asker in listener.incoming().flatten() {
            if let Err(error) = self.answer(asker) {
                tracing::debug!(%error, "a request to the demo was not understood");
            }
        }
    }

    fn answer(&self, asker: UnixStream) -> std::io::Result<()> {
        asker.set_read_timeout(Some(REQUEST_PATIENCE))?;
        asker.set_write_timeout(Some(REQUEST_PATIENCE))?;
        let mut from = BufReader::new(asker.try_clone()?);
        let Some(request) = receive(&mut from)? else {
            // Somebody who only looked whether we are here.
            return Ok(());
        };
        *self.audience.asker() = Some(asker);
        let last = match self.perform(request) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error),
        };
        self.audience.tell(&last);
        *self.audience.asker() = None;
        Ok(())
    }

    fn perform(&self, request: Request) -> std::result::Result<(), String> {
        let cluster = self.cluster.upgrade().ok_or("the demo is ending")?;
        let work = Work {
            cluster: &cluster,
            control: self,
        };
        let done = match request {
            Request::AddReplica => return work.add_replica(),
            Request::Promote(name) => work.promote(&name),
            Request::Stop(name, how) => work.stop(&name, how),
            Request::Start(name) => work.start(&name),
            Request::Status => work.status(),
        };
        done.map_err(|error| error.to_string())
    }
}

/// One request under way.
struct Work<'a> {
    cluster: &'a Cluster,
    control: &'a Control,
}

impl Work<'_> {
    fn say(&self, text: impl AsRef<str>) {
        self.control.audience.say(text.as_ref());
    }

    fn add_replica(&self) -> std::result::Result<(), String> {
        let node = self.cluster.add_replica().map_err(|e| e.to_string())?;
        let config = &self.control.config;
        let written = self.control.plan.write(self.cluster, config);
        written.map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        proxy::reload();
        self.say(format!("{}: streams; the proxy takes it in", node.name()));
        Ok(())
    }

    /// With a primary that still runs this is a switchover: it is stopped in order, so that nothing is lost, and comes
    /// back as a replica.
    fn promote(&self, name: &str) -> Result<()> {
        let node = self.cluster.node(name)?;
        let former = self.cluster.primary();
        if former.name() == name {
            self.say(format!("{name} is the primary already"));
            return Ok(());
        }
        let switchover = former.state() == NodeState::Running && node.state() == NodeState::Running;
        if switchover {
            self.say(format!("{}: stopping the primary", former.name()));
            former.stop(Shutdown::Fast)?;
        }
        self.cluster.promote(name)?;
        if switchover {
            self.cluster.start_node(former.name())?;
        }
        self.say(format!("{name} is the primary"));
        Ok(())
    }

    fn stop(&self, name: &str, how: How) -> Result<()> {
        let node = self.cluster.node(name)?;
        self.say(format!("{name}: stopping"));
        match how.shutdown() {
            Some(how) => node.stop(how)?,
            None => node.kill()?,
        }
        self.say(format!("{name} has stopped"));
        if name == self.cluster.primary().name() {
            self.say("it was the primary: `pgsluice demo promote NODE` makes another one");
        }
        Ok(())
    }

    fn start(&self, name: &str) -> Result<()> {
        self.cluster.start_node(name)?;
        self.say(format!("{name} runs"));
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let primary = self.cluster.primary();
        for node in self.cluster.nodes() {
            let role = match node.name() == primary.name() {
                true => "primary",
                false => "replica",
            };
            self.say(status_line(&node, role));
        }
        Ok(())
    }
}

fn status_line(node: &Node, role: &str) -> String {
    let state = node.state();
    let lsn = match state {
        NodeState::Running => node.lsn().unwrap_or_default(),
        NodeState::Stopped | NodeState::Frozen => String::new(),
    };
    let (name, port, state) = (node.name(), node.port(), state.as_str());
    format!("{name:5} {role:8} {state:8} port {port:5} {lsn}")
}
