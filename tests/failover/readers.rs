//! Readers on both kinds of listener while replicas die, freeze, break, lag and return: they see no error, and on the split
//! listener nothing older than what their session has written or seen. `PGSLUICE_FAILOVER_READS` says how many reads each
//! fault lasts at least (200 by default).

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use pgsluice::{
    cluster::{Node, Replication, Shutdown},
    topology::Health,
};
use tokio::task::LocalSet;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage, Statement, types::Type};

use crate::{
    history::{Did, History, Key, Outcome, Promise, Value, violations},
    nodes::runtime,
    proxied::{READS, SPLIT, wait_until},
    runs::Scene,
};

/// Sessions of each manner and listener.
const SESSIONS: usize = 3;
/// One statement of so many writes.
const WRITE_EVERY: usize = 8;
/// Between writes that are in the way of replicas' reads.
const BETWEEN_VACUUMS: Duration = Duration::from_millis(20);

const READ: &str = "select value from register where key = $1";

fn reads_per_fault() -> usize {
    let given = std::env::var("PGSLUICE_FAILOVER_READS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(200)
}

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Simple,
    Unnamed,
    Prepared,
}

/// What readers saw.
#[derive(Default)]
struct Seen {
    history: History,
    errors: Mutex<BTreeMap<String, usize>>,
    /// On each listener.
    reads: [AtomicUsize; 2],
    stop: AtomicBool,
}

/// One session of one manner.
struct Reader {
    seen: Arc<Seen>,
    id: usize,
    manner: Manner,
    /// On the split listener, and so in the history.
    splits: bool,
}

impl Reader {
    async fn run(self, address: SocketAddr) {
        let mut value = 0;
        while !self.seen.stop.load(SeqCst) {
            if let Err(error) = self.live(address, &mut value).await {
                let told = error.as_db_error().map(ToString::to_string);
                let told = told.unwrap_or_else(|| error.to_string());
                let what = format!("{told} ({:?}, splits: {})", self.manner, self.splits);
                *self.seen.errors.lock().unwrap().entry(what).or_default() += 1;
            }
        }
    }

    async fn live(&self, address: SocketAddr, value: &mut Value) -> Result<(), Error> {
        let (host, port) = (address.ip(), address.port());
        let text = format!("host={host} port={port} user=app dbname=postgres");
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
        tokio::task::spawn_local(connection);
        let prepared = match self.manner {
            Manner::Prepared => Some(client.prepare(READ).await?),
            _ => None,
        };
        let mut turn = 0;
        while !self.seen.stop.load(SeqCst) {
            turn += 1;
            if self.splits && turn % WRITE_EVERY == 0 {
                *value += 1;
                self.write(&client, *value).await?;
            }
            // Its own register mostly, and its neighbour's.
            let key = (self.id + turn % 4 / 3) as Key;
            let asked = self.seen.history.now();
            let read = self.read(&client, prepared.as_ref(), key).await?;
            if self.splits {
                self.seen.history.add(self.id, key, asked, Did::Read(read));
            }
            self.seen.reads[usize::from(self.splits)].fetch_add(1, SeqCst);
        }
        Ok(())
    }

    async fn write(&self, client: &Client, value: Value) -> Result<(), Error> {
        let key = self.id as Key;
        let asked = self.seen.history.now();
        let sql = format!("update register set value = {value} where key = {key}");
        let written = client.batch_execute(&sql).await;
        let outcome = match written {
            Ok(()) => Outcome::Acknowledged,
            Err(_) => Outcome::Unknown,
        };
        let did = Did::Write(value, outcome);
        self.seen.history.add(self.id, key, asked, did);
        written
    }

    async fn read(
        &self,
        client: &Client,
        prepared: Option<&Statement>,
        key: Key,
    ) -> Result<Value, Error> {
        match (self.manner, prepared) {
            (Manner::Simple, _) => {
                let sql = READ.replace("$1", &key.to_string());
                let rows = client.simple_query(&sql).await?;
                let row = rows.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                Ok(row.unwrap().parse().unwrap())
            }
            (_, Some(statement)) => Ok(client.query_one(statement, &[&key]).await?.get(0)),
            (_, None) => {
                let rows = client.query_typed(READ, &[(&key, Type::INT4)]).await?;
                Ok(rows[0].get(0))
            }
        }
    }
}

/// All sessions, on a thread of their own.
struct Readers {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Readers {
    fn start(scene: &Scene) -> Readers {
        let seen = Arc::<Seen>::default();
        let (shared, addresses) = (seen.clone(), scene.proxied.addresses.clone());
        let thread = std::thread::spawn(move || {
            let sessions = LocalSet::new();
            let mut id = 0;
            for manner in [Manner::Simple, Manner::Unnamed, Manner::Prepared] {
                for n in 0..2 * SESSIONS {
                    let splits = n % 2 == 0;
                    let reader = Reader {
                        seen: shared.clone(),
                        id,
                        manner,
                        splits,
                    };
                    let listener = if splits { SPLIT } else { READS };
                    sessions.spawn_local(reader.run(addresses[listener]));
                    id += 1;
                }
            }
            runtime().block_on(sessions);
        });
        Readers {
            seen,
            thread: Some(thread),
        }
    }

    /// Waits until there were so many more reads on each listener.
    #[track_caller]
    fn wait_reads(&self, count: usize) {
        for reads in &self.seen.reads {
            let enough = reads.load(SeqCst) + count;
            wait_until("they read", || reads.load(SeqCst) >= enough);
        }
    }

    #[track_caller]
    fn assert_no_error(&self, during: &str) {
        let errors = self.seen.errors.lock().unwrap();
        assert!(errors.is_empty(), "{during}: {errors:#?}");
    }

    fn end(&mut self) {
        self.seen.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

/// What befalls a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped(Shutdown),
    Frozen,
    /// One of its backends is: it restarts, in its own past.
    BackendKilled,
    /// It lets nobody in any more, and has ended the proxy's servers.
    OutOfConnections,
    /// Its replay cancels reads.
    Conflicting,
    NotReplaying,
    Delayed,
    /// Its WAL receiver is gone.
    Unfed,
}

const FAULTS: [Fault; 11] = [
    Fault::Killed,
    Fault::Stopped(Shutdown::Fast),
    Fault::Stopped(Shutdown::Immediate),
    Fault::Stopped(Shutdown::Smart),
    Fault::Frozen,
    Fault::BackendKilled,
    Fault::OutOfConnections,
    Fault::Conflicting,
    Fault::NotReplaying,
    Fault::Delayed,
    Fault::Unfed,
];

/// A replica's setting from now on.
fn set(node: &Node, setting: &str) {
    node.sql(&format!("alter system set {setting}")).unwrap();
    node.sql("select pg_reload_conf()").unwrap();
}

fn reset(node: &Node, name: &str) {
    node.sql(&format!("alter system reset {name}")).unwrap();
    node.sql("select pg_reload_conf()").unwrap();
}

fn befall(scene: &Scene, readers: &Readers, node: &Node, fault: Fault) {
    let (name, count) = (node.name(), reads_per_fault());
    match fault {
        Fault::Killed | Fault::Stopped(_) => {
            match fault {
                Fault::Stopped(how) => node.stop(how).unwrap(),
                _ => node.kill().unwrap(),
            }
            readers.wait_reads(count);
            scene.cluster.start_node(name).unwrap();
        }
        Fault::Frozen => {
            node.freeze();
            scene.proxied.wait_health(name, Health::Down);
            readers.wait_reads(count);
            node.thaw();
        }
        Fault::BackendKilled => {
            kill_backend(node);
            readers.wait_reads(count);
        }
        Fault::OutOfConnections => {
            let crowd = Crowd::gather(node);
            readers.wait_reads(count);
            drop(crowd);
        }
        Fault::Conflicting => {
            set(node, "max_standby_streaming_delay = 0");
            conflict(scene, readers, count);
            reset(node, "max_standby_streaming_delay");
        }
        Fault::NotReplaying => {
            node.pause_replay().unwrap();
            readers.wait_reads(count);
            node.resume_replay().unwrap();
        }
        Fault::Delayed => {
            set(node, "recovery_min_apply_delay = '300ms'");
            readers.wait_reads(count);
            reset(node, "recovery_min_apply_delay");
        }
        Fault::Unfed => {
            let before = node.value("show primary_conninfo").unwrap().unwrap();
            set(node, "primary_conninfo = ''");
            scene.proxied.wait_health(name, Health::Down);
            readers.wait_reads(count);
            let quoted = before.replace('\'', "''");
            set(node, &format!("primary_conninfo = '{quoted}'"));
        }
    }
    scene.proxied.wait_health(name, Health::Up);
    scene.proxied.wait_proven();
    readers.wait_reads(count);
}

fn kill_backend(node: &Node) {
    let sql = "select pid from pg_stat_activity where usename = 'app' limit 1";
    let Some(pid) = node.value(sql).unwrap() else {
        return;
    };
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Rows go and the space is cleaned, and locks are taken that no reader can live with.
fn conflict(scene: &Scene, readers: &Readers, count: usize) {
    let before: Vec<_> = readers.seen.reads.iter().map(|r| r.load(SeqCst)).collect();
    let enough = |(reads, before): (&AtomicUsize, &usize)| reads.load(SeqCst) >= before + count;
    wait_until("they read on", || {
        for sql in [
            "update register set value = value where key > 50",
            "vacuum (truncate true) register",
            "begin; lock register in access exclusive mode; commit",
        ] {
            scene.cluster.primary().sql(sql).unwrap();
        }
        std::thread::sleep(BETWEEN_VACUUMS);
        readers.seen.reads.iter().zip(&before).all(enough)
    });
}

/// Connections to a node until it takes no more.
struct Crowd(Vec<TcpStream>);

impl Crowd {
    fn gather(node: &Node) -> Crowd {
        let mut crowd = Crowd(Vec::new());
        wait_until("it is full", || {
            crowd.0.extend(std::iter::from_fn(|| connect(node)));
            // The places of the proxy's servers, too.
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                 where usename = 'app' and application_name <> 'crowd'";
            // It may find no place itself, at first.
            node.value(sql)
                .is_ok_and(|ended| ended.as_deref() == Some("0"))
        });
        crowd
    }
}

/// A connection of `app`, if there is a place for it.
fn connect(node: &Node) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    let parameters = b"user\0app\0database\0postgres\0application_name\0crowd\0\0";
    let length = 8 + parameters.len() as u32;
    let mut startup = length.to_be_bytes().to_vec();
    startup.extend_from_slice(&0x0003_0000_u32.to_be_bytes());
    startup.extend_from_slice(parameters);
    stream.write_all(&startup).unwrap();
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).unwrap();
        match header[0] {
            b'E' => return None,
            b'Z' => return Some(stream),
            _ => {}
        }
    }
}

#[test]
fn readers_see_neither_error_nor_stale_own_read_whatever_befalls_a_replica() {
    let scene = Scene::start(Replication::Asynchronous);
    let mut readers = Readers::start(&scene);
    scene.proxied.wait_proven();
    readers.wait_reads(reads_per_fault());
    let replicas = scene.cluster.replicas();
    for (turn, fault) in FAULTS.into_iter().enumerate() {
        let began = std::time::Instant::now();
        befall(&scene, &readers, &replicas[turn % 2], fault);
        eprintln!("{fault:?}: {:?}", began.elapsed());
        readers.assert_no_error(&format!("{fault:?}"));
    }
    readers.end();
    let events = readers.seen.history.events();
    let found = violations(&events, Promise::Session);
    let reads: Vec<_> = readers.seen.reads.iter().map(|r| r.load(SeqCst)).collect();
    eprintln!("reads: {reads:?}, violations: {}", found.len());
    assert!(found.is_empty(), "{:#?}", &found[..found.len().min(5)]);
}
