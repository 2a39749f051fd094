//! Verifiers of users that the configuration does not name, from the cluster itself.
//!
//! One task, on the control thread, owns one connection as `[auth] user` and runs `[auth] query` on it. Logins on any
//! thread ask through a [`Lookup`]. A changed password counts at once, so each login is answered by a query that was
//! sent after it asked; logins of one user that wait together share one. The cache, at most `[auth] ttl` old, serves only
//! while no node answers: failing over must not lock everybody out.
//!
//! The connection is ours alone and its settings are fixed: nothing of a client reaches it but the user's name, as a
//! parameter (CVE-2025-12819).

mod cache;
mod link;
mod sql;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use self::{cache::Cache, link::Link};
use super::users::{Account, Stored};
use crate::{
    config::Auth,
    error::{Error, Kind, Result},
    net::{Target, tls::Connector},
    wire::scram::DEFAULT_ITERATIONS,
};
pub use sql::lookup_sql;

/// Logins that may wait for the task; more wait in their own `ask`.
const QUEUE: usize = 1024;
/// Queries under way at once, each for another user.
const MAX_RUNNING: usize = 64;

/// Which nodes to ask now, best first (the primary, then other live ones). Called before every dial, never across an
/// await.
pub type Nodes = Box<dyn Fn() -> Vec<Target> + Send + Sync>;

type Reply = oneshot::Sender<Result<Option<Account>>>;

struct Ask {
    user: Box<str>,
    reply: Reply,
}

/// The asking end; cheap to clone, usable from every runtime.
#[derive(Clone)]
pub struct Lookup {
    asks: mpsc::Sender<Ask>,
    /// Of the last SCRAM verifier seen.
    iterations: Arc<AtomicU32>,
}

impl Lookup {
    /// None if there is no such role.
    pub(super) async fn ask(&self, user: &str) -> Result<Option<Account>> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            user: user.into(),
            reply,
        };
        self.asks.send(ask).await.map_err(|_| unavailable())?;
        answer.await.map_err(|_| unavailable())?
    }

    pub(super) fn iterations(&self) -> u32 {
        self.iterations.load(Ordering::Relaxed)
    }
}

fn unavailable() -> Error {
    Error::proxy(Kind::NoNode, "no server is available to check the password")
}

/// Starts the lookup task on the current runtime. None if `[auth] user` is not set. The task ends when the last
/// [`Lookup`] is dropped. Logins wait until `known`: before, `nodes` has nothing to say.
pub fn start(
    auth: &Auth,
    connector: Connector,
    nodes: Nodes,
    known: impl Future<Output = ()> + Send + 'static,
) -> Option<Lookup> {
    let link = Link::new(auth, connector, nodes)?;
    let (asks, queue) = mpsc::channel(QUEUE);
    let iterations = Arc::new(AtomicU32::new(DEFAULT_ITERATIONS));
    let desk = Desk {
        link,
        cache: Cache::new(auth.ttl),
        waiting: HashMap::new(),
        running: JoinSet::new(),
        iterations: iterations.clone(),
    };
    tokio::spawn(async move {
        known.await;
        desk.serve(queue).await;
    });
    Some(Lookup { asks, iterations })
}

/// Who waits for a user: for the query under way, and for the next one.
#[derive(Default)]
struct Waiting {
    now: Vec<Reply>,
    next: Vec<Reply>,
}

struct Done {
    user: Box<str>,
    found: link::Found,
}

struct Desk {
    link: Link,
    cache: Cache,
    /// An entry exists while a query for that user is under way.
    waiting: HashMap<Box<str>, Waiting>,
    running: JoinSet<Done>,
    iterations: Arc<AtomicU32>,
}

impl Desk {
    async fn serve(mut self, mut queue: mpsc::Receiver<Ask>) {
        loop {
            tokio::select! {
                ask = queue.recv(), if self.running.len() < MAX_RUNNING => match ask {
                    Some(ask) => self.take(ask).await,
                    None => return,
                },
                Some(done) = self.running.join_next() => match done {
                    Ok(done) => self.finish(done).await,
                    Err(error) => self.lose(&error),
                },
            }
        }
    }

    async fn take(&mut self, ask: Ask) {
        match self.waiting.get_mut(&ask.user) {
            // The query under way may have been answered from before this login's password was set.
            Some(waiting) => waiting.next.push(ask.reply),
            None => self.run(ask.user, vec![ask.reply]).await,
        }
    }

    async fn run(&mut self, user: Box<str>, replies: Vec<Reply>) {
        let waiting = Waiting {
            now: replies,
            next: Vec::new(),
        };
        self.waiting.insert(user.clone(), waiting);
        let query = self.link.query(&user).await;
        self.running.spawn(async move {
            let found = query.await;
            Done { user, found }
        });
    }

    async fn finish(&mut self, done: Done) {
        let waiting = self.waiting.remove(&done.user).unwrap_or_default();
        let answer = match done.found {
            Ok(row) => {
                self.cache.put(&done.user, row.clone(), Instant::now());
                Ok(row)
            }
            Err(broken) => {
                self.link.broke(broken);
                self.cache.get(&done.user, Instant::now())
            }
        };
        let answer = answer.map(|row| row.map(link::Row::into_account));
        self.note_iterations(&answer);
        for reply in waiting.now {
            // A client that went away does not want its answer.
            let _ = reply.send(answer.clone().map_err(|_| unavailable()));
        }
        if !waiting.next.is_empty() {
            self.run(done.user, waiting.next).await;
        }
    }

    /// A query's task can end without an answer only by a bug. Whose it was is not known: all waiters go, and are told
    /// by their closed channels.
    fn lose(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, "a verifier lookup panicked");
        self.waiting.clear();
    }

    fn note_iterations(&self, answer: &Result<Option<Account>>) {
        if let Ok(Some(Account {
            stored: Stored::Scram(verifier),
            ..
        })) = answer
        {
            self.iterations
                .store(verifier.iterations(), Ordering::Relaxed);
        }
    }
}
