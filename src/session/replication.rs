//! Replication connections: a server of their own on the primary, bytes passed unread both ways.
//!
//! What is spoken after START_REPLICATION is COPY in both directions until one side ends, so there is nothing to pool.
//! Only where the server's messages begin and end is followed: an error of ours may not stand inside of one.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    time::{Instant, timeout},
};

use super::{
    aim::Aim,
    checkout::Search,
    context::Context,
    end::{node_left, shutting_down},
    outcome::{Cause, stream_lost},
    registry::{Entry, Signal},
    tenure::{Tenure, tenure},
    welcome::Admission,
};
use crate::{
    client::{Login, report},
    config::Listener,
    error::{Error, Kind, Result, Severity},
    net::{Stream, Target},
    server::{
        connection::Backend,
        dial::{self, Dialed, ServerLogin},
        pools,
        profile::Access,
    },
    topology::{Evidence, Health, NodeView},
    wire::{TransactionStatus, backend, cancel_key::CancelKey, frame::Boundary},
};

/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that does not read is given to take its last message.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the server is ahead of its client.
const BUFFER: usize = 16 * 1024;

/// Runs a replication connection to its end, and says why it ended.
pub(super) async fn run(admission: Admission) {
    let visit = Visit::new(&admission);
    let mut login = admission.login;
    let connected = tokio::select! {
        connected = Box::pin(visit.connect(&login)) => connected,
        error = visit.told_to_end() => Err(error),
        () = client_gone(&login.stream) => return,
    };
    let why = match connected {
        Ok(source) => Box::pin(relay(&visit, &mut login, source)).await,
        Err(error) => Some(error),
    };
    if let Some(error) = why {
        visit.context.counters.count_error(error.kind);
        let told = tell(&mut login.stream, &error);
        let _ = timeout(GOODBYE_TIMEOUT, told).await;
    }
}

/// Known to the worker as long as it lasts.
struct Visit {
    context: Rc<Context>,
    listener: Arc<Listener>,
    entry: Rc<Entry>,
}

/// A server, and where it is.
struct Source {
    dialed: Dialed,
    target: Arc<Target>,
}

impl Visit {
    fn new(admission: &Admission) -> Self {
        let context = admission.context.clone();
        let entry = context.registry.insert(admission.id, context.pools.now());
        if admission.draining {
            entry.send(Signal::Drain);
        }
        Visit {
            context,
            listener: admission.listener.clone(),
            entry,
        }
    }

    /// Dials the node of the listener's route, and waits for one as sessions do.
    async fn connect(&self, login: &Login) -> Result<Source> {
        let mut search = Search::new(&self.context);
        loop {
            let node = match self.context.replication_node(&self.listener) {
                Ok(node) => {
                    search.node_found();
                    node
                }
                Err(none) => {
                    search.wait_for_node(none, &Aim::Listener).await?;
                    continue;
                }
            };
            match self.dial(&node, login).await {
                Ok(source) => return Ok(source),
                Err(error) => search.dial_failed(error).await?,
            }
        }
    }

    async fn dial(&self, node: &NodeView, login: &Login) -> Result<Source> {
        let server_login = ServerLogin {
            user: login.user.clone(),
            database: login.database.clone(),
            parameters: login.parameters.clone(),
            credentials: login.credentials.clone(),
            replication: login.replication.clone(),
        };
        let connector = self.context.pools.settings().connector;
        let target = Arc::new(pools::target(&node.config));
        let deadline = Instant::now() + DIAL_TIMEOUT;
        let dialed = dial::dial(&target, &connector, &server_login, deadline).await;
        if let Err(error) = &dialed
            && let Some(evidence) = evidence(error)
        {
            self.context.outside.report(&node.config.name, evidence);
        }
        dialed.map(|dialed| Source { dialed, target })
    }

    /// Returns when the worker asks the connection to end.
    async fn told_to_end(&self) -> Error {
        poll_fn(|cx| {
            self.entry.watch(cx.waker());
            match self.entry.signal() {
                Signal::None => Poll::Pending,
                // Nothing that it streams is a transaction of its own: a drain need not wait for it.
                Signal::Drain | Signal::End => Poll::Ready(shutting_down()),
                // It is at work as long as it lasts.
                Signal::Expired(..) => Poll::Pending,
            }
        })
        .await
    }

    /// Returns when the node of `target` may not be listened to any more. A new snapshot wakes whoever holds a server.
    async fn node_lost(&self, target: &Target) -> Error {
        poll_fn(|cx| {
            self.entry.watch(cx.waker());
            let view = self.context.node(&target.name);
            match loss(&self.listener, target, view.as_deref()) {
                Some(error) => Poll::Ready(error),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.context.registry.remove(self.entry.id);
    }
}

fn evidence(error: &Error) -> Option<Evidence> {
    match error.kind {
        Kind::ServerGone => Some(Evidence::Refused),
        Kind::NoNode => Some(Evidence::NotNow),
        _ => None,
    }
}

/// Why a stream from `target` ends, by what its node is now.
fn loss(listener: &Listener, target: &Target, view: Option<&NodeView>) -> Option<Error> {
    let there =
        |view: &&NodeView| (&*view.config.host, view.config.port) == (&*target.host, target.port);
    let Some(view) = view.filter(there) else {
        return Some(node_left());
    };
    match tenure(listener.route, Access::Full, view) {
        Tenure::Good => None,
        // It ends by itself when the last of its WAL has been sent.
        Tenure::Leaving if view.health == Health::Draining => None,
        Tenure::Leaving => Some(node_left()),
        Tenure::Silent => Some(stream_lost(Cause::Silent)),
        Tenure::Deposed => Some(stream_lost(Cause::Deposed)),
    }
}

/// What a client may cancel with, while its connection lasts.
struct Key<'a>(&'a Context, i32, CancelKey);

impl Drop for Key<'_> {
    fn drop(&mut self) {
        self.0.outside.revoke_key(self.1, &self.2);
    }
}

/// Passes everything until a side ends, or the proxy must end it: why, if the client can be told.
async fn relay(visit: &Visit, login: &mut Login, source: Source) -> Option<Error> {
    let Source { dialed, target } = source;
    let (context, id) = (&*visit.context, visit.entry.id);
    let (pid, key) = context.outside.issue_key(id, Some(dialed.pid), login.minor);
    let mut greeting = Vec::new();
    for (name, value) in &dialed.parameters {
        backend::parameter_status(&mut greeting, name, value);
    }
    backend::backend_key_data(&mut greeting, pid, &key);
    backend::ready_for_query(&mut greeting, TransactionStatus::Idle.as_byte());
    greeting.extend_from_slice(&dialed.unread);
    let _key = Key(context, pid, key);
    let held = Backend::new(target.clone(), dialed.pid, dialed.key);
    visit.entry.hold(Some(Rc::new(held)));
    let mut server = dialed.stream;
    let mut passed = Boundary::default();
    let error = tokio::select! {
        _ = pump(&mut login.stream, &mut server, &greeting, &login.unread, &mut passed) => return None,
        error = visit.told_to_end() => error,
        error = visit.node_lost(&target) => error,
    };
    // A client in the middle of a message could not tell the error from it.
    passed.is_between().then_some(error)
}

/// Both ways until both have ended. Dropped at any time, `passed` knows what the client was sent.
async fn pump(
    client: &mut Stream,
    server: &mut Stream,
    greeting: &[u8],
    unread: &[u8],
    passed: &mut Boundary,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    send(&mut to_client, greeting, passed).await?;
    to_client.flush().await?;
    let up = async {
        to_server.write_all(unread).await?;
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = from_server.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..read).filter(|b| !b.is_empty()) else {
                return to_client.shutdown().await;
            };
            send(&mut to_client, bytes, passed).await?;
            to_client.flush().await?;
        }
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// Counts what was taken, not what was offered: the rest may never be.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    passed: &mut Boundary,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let (written, rest) = bytes.split_at(to.write(bytes).await?);
        if written.is_empty() {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        passed.pass(written);
        bytes = rest;
    }
    Ok(())
}

/// Returns when a client that has nothing to say before it is welcomed has left.
async fn client_gone(stream: &Stream) {
    if let Ok(1..) = stream.tcp().peek(&mut [0; 1]).await {
        std::future::pending::<()>().await;
    }
}

async fn tell(stream: &mut Stream, error: &Error) -> std::io::Result<()> {
    let mut out = Vec::new();
    report::error_response(&mut out, error, Some(Severity::Fatal));
    stream.write_all(&out).await?;
    stream.shutdown().await
}
