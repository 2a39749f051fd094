//! Writers and readers of registers, through one address or another, while the cluster changes under them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::task::LocalSet;
use tokio_postgres::{Client, Error, NoTls};

use crate::{
    history::{Did, Event, History, Key, Outcome, Value, violations},
    nodes::runtime,
    proxied::wait_until,
};

pub use crate::history::Promise;

/// The registers, as the superuser makes them.
pub const REGISTERS: &str = "create table register (key int primary key, value bigint not null); \
     insert into register select k, 0 from generate_series(0, 99) k; \
     grant all on register to app";

/// Between statements of one session: what counts is that they never stop, not how many there are.
const PAUSE: Duration = Duration::from_millis(2);
/// Before a session that was ended connects again, and tries again.
const RECONNECT: Duration = Duration::from_millis(20);

/// Where sessions go.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    pub writes: SocketAddr,
    /// Readers that are in the history.
    pub reads: SocketAddr,
    /// Half of the readers, who are not.
    pub replicas: Option<SocketAddr>,
}

/// How writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Autocommit,
    /// BEGIN, two statements, COMMIT.
    Transactions,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    history: History,
    /// By SQLSTATE.
    errors: Mutex<BTreeMap<String, usize>>,
    /// When the last write was acknowledged, and the longest time between two.
    written: Mutex<(Option<Instant>, Duration)>,
    writes: AtomicUsize,
    /// Reads of those who are not in the history.
    reads: AtomicUsize,
    stop: AtomicBool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    pub errors: BTreeMap<String, usize>,
    pub writes: usize,
    pub reads: usize,
    pub longest_pause: Duration,
    pub events: Vec<Event>,
}

impl Report {
    pub fn error_count(&self) -> usize {
        self.errors.values().sum()
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        let found = violations(&self.events, Promise::RealTime);
        assert!(
            found.is_empty(),
            "{} violations: {:#?}",
            found.len(),
            &found[..found.len().min(5)]
        );
    }
}

/// The last acknowledged value of each key.
pub fn acknowledged(events: &[Event]) -> BTreeMap<Key, Value> {
    let mut last = BTreeMap::new();
    for event in events {
        if let Did::Write(value, Outcome::Acknowledged) = event.did {
            let known: &mut Value = last.entry(event.key).or_default();
            *known = value.max(*known);
        }
    }
    last
}

/// Sessions at work on a thread of their own.
pub struct Load {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// `count` writers and as many readers.
    pub fn start(at: Targets, count: usize, writing: Writing) -> Load {
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let sessions = LocalSet::new();
            for id in 0..count {
                sessions.spawn_local(write(shared.clone(), at.writes, id, writing));
                match at.replicas {
                    Some(replicas) if id % 2 == 0 => {
                        sessions.spawn_local(read_anywhere(shared.clone(), replicas));
                    }
                    _ => {
                        let id = count + id;
                        sessions.spawn_local(read(shared.clone(), at.reads, id, count));
                    }
                }
            }
            runtime().block_on(sessions);
        });
        Load {
            seen,
            thread: Some(thread),
        }
    }

    /// Waits until another `count` writes have been acknowledged.
    #[track_caller]
    pub fn wait_writes(&self, count: usize) {
        let enough = self.seen.writes.load(SeqCst) + count;
        wait_until("they write", || self.seen.writes.load(SeqCst) >= enough);
    }

    /// What has happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.seen.history.events()
    }

    /// Ends the sessions.
    pub fn stop(mut self) -> Report {
        self.end();
        let seen = &self.seen;
        Report {
            errors: seen.errors.lock().unwrap().clone(),
            writes: seen.writes.load(SeqCst),
            reads: seen.reads.load(SeqCst),
            longest_pause: seen.written.lock().unwrap().1,
            events: seen.history.events(),
        }
    }

    fn end(&mut self) {
        self.seen.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Seen {
    fn stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    fn note_error(&self, error: &Error) {
        let code = error.code().map_or("none", |code| code.code());
        *self
            .errors
            .lock()
            .unwrap()
            .entry(code.to_owned())
            .or_default() += 1;
    }

    fn note_write(&self) {
        self.writes.fetch_add(1, SeqCst);
        let mut written = self.written.lock().unwrap();
        let now = Instant::now();
        if let Some(last) = written.0.replace(now) {
            written.1 = written.1.max(now - last);
        }
    }

    /// A session, as soon as there is one; None when all is to end.
    async fn connect(&self, address: SocketAddr) -> Option<Client> {
        let (host, port) = (address.ip(), address.port());
        let text = format!("host={host} port={port} user=app dbname=postgres");
        while !self.stopped() {
            match tokio_postgres::connect(&text, NoTls).await {
                Ok((client, connection)) => {
                    tokio::task::spawn_local(connection);
                    return Some(client);
                }
                Err(error) => self.note_error(&error),
            }
            tokio::time::sleep(RECONNECT).await;
        }
        None
    }
}

/// What an error says of the write that it answers.
fn outcome(error: &Error) -> Outcome {
    match error.code().map(|code| code.code()) {
        Some("40001" | "57P03" | "57014") => Outcome::RolledBack,
        _ => Outcome::Unknown,
    }
}

async fn write(seen: Arc<Seen>, address: SocketAddr, id: usize, writing: Writing) {
    let (key, mut value) = (id as Key, 0);
    while let Some(client) = seen.connect(address).await {
        while !seen.stopped() && !client.is_closed() {
            value += 1;
            let asked = seen.history.now();
            let written = match writing {
                Writing::Autocommit => set(&client, key, value).await,
                Writing::Transactions => set_in_transaction(&client, key, value).await,
            };
            let became = written
                .as_ref()
                .map_or_else(outcome, |()| Outcome::Acknowledged);
            seen.history.add(id, key, asked, Did::Write(value, became));
            match written {
                Ok(()) => seen.note_write(),
                Err(error) => {
                    seen.note_error(&error);
                    if ends_session(&error) {
                        break;
                    }
                    // A transaction that has failed is ended, as frameworks do.
                    let _ = client.batch_execute("rollback").await;
                }
            }
            // Each looks at what it has written.
            if !look(&seen, &client, id, key).await {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if seen.stopped() {
            return;
        }
    }
}

async fn set(client: &Client, key: Key, value: Value) -> Result<(), Error> {
    let sql = "update register set value = $2 where key = $1";
    client.execute(sql, &[&key, &value]).await.map(drop)
}

async fn set_in_transaction(client: &Client, key: Key, value: Value) -> Result<(), Error> {
    client.batch_execute("begin").await?;
    client
        .query("select value from register where key = $1", &[&key])
        .await?;
    set(client, key, value).await?;
    client.batch_execute("commit").await
}

/// False when that has ended the session.
async fn look(seen: &Seen, client: &Client, session: usize, key: Key) -> bool {
    let asked = seen.history.now();
    let sql = "select value from register where key = $1";
    match client.query_one(sql, &[&key]).await {
        Ok(row) => seen.history.add(session, key, asked, Did::Read(row.get(0))),
        Err(error) => {
            seen.note_error(&error);
            return !ends_session(&error);
        }
    }
    true
}

/// FATAL, or the connection ended without a word.
fn ends_session(error: &Error) -> bool {
    let told = error.as_db_error();
    told.is_none_or(|told| told.severity() == "FATAL")
}

/// Reads every writer's register, and is in the history.
async fn read(seen: Arc<Seen>, address: SocketAddr, id: usize, keys: usize) {
    while let Some(client) = seen.connect(address).await {
        let mut turn = id;
        while !seen.stopped() && !client.is_closed() {
            turn += 1;
            if !look(&seen, &client, id, (turn % keys) as Key).await {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if seen.stopped() {
            return;
        }
    }
}

/// Reads where nothing is promised but an answer.
async fn read_anywhere(seen: Arc<Seen>, address: SocketAddr) {
    while let Some(client) = seen.connect(address).await {
        while !seen.stopped() && !client.is_closed() {
            match client
                .query_one("select sum(value) from register", &[])
                .await
            {
                Ok(_) => drop(seen.reads.fetch_add(1, SeqCst)),
                Err(error) => {
                    seen.note_error(&error);
                    if ends_session(&error) {
                        break;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if seen.stopped() {
            return;
        }
    }
}
