//! A TCP forwarder between a client and a server that delays, splits, stalls or cuts what passes, each way on its own.
//!
//! Threads, no runtime: it works the same below blocking and async tests. Behaviour may change at any time and holds for
//! all connections, present and future; or for those alone that log in as one user, so that probes go the same way unharmed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What happens to bytes that go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Pass,
    /// Each read is passed on this much later.
    Delay(Duration),
    /// Each byte in a write, and a packet, of its own.
    SingleBytes,
    /// Nothing passes, connections stay.
    Stall,
    /// After so many more bytes (of all connections together) both ways are reset; then new connections pass nothing.
    CutAfter(usize),
}

struct State {
    to_server: Behaviour,
    to_client: Behaviour,
    /// Both sockets of each connection that may be alive.
    connections: Vec<(TcpStream, TcpStream)>,
    accepting: Accepting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Connections are accepted and closed at once.
    No,
    /// The forwarder is gone.
    Ended,
}

impl State {
    fn of(&mut self, direction: Direction) -> &mut Behaviour {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    fn cut(&mut self) {
        for (client, server) in self.connections.drain(..) {
            reset(&client);
            reset(&server);
        }
    }
}

/// Ends a connection with RST where the system lets us, so that the peer sees an error and no orderly end.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Only connections of this user are subject to behaviours.
    user: Option<&'static str>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Forwarder {
    port: u16,
    shared: Arc<Shared>,
}

impl Forwarder {
    /// Forwards a free port of 127.0.0.1 to `target` there.
    pub fn to(target: u16) -> Forwarder {
        Forwarder::start(target, None)
    }

    /// The same, where all connections but those of `user` always pass.
    pub fn to_as(target: u16, user: &'static str) -> Forwarder {
        Forwarder::start(target, Some(user))
    }

    fn start(target: u16, user: Option<&'static str>) -> Forwarder {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            to_server: Behaviour::Pass,
            to_client: Behaviour::Pass,
            connections: Vec::new(),
            accepting: Accepting::Yes,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            user,
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, target, &accepting));
        Forwarder { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, direction: Direction, behaviour: Behaviour) {
        *self.shared.lock().of(direction) = behaviour;
        self.shared.changed.notify_all();
    }

    /// Ends all present connections; new ones are taken.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// From now on connections are closed as soon as they are made, and present ones end.
    pub fn refuse(&self) {
        let mut state = self.shared.lock();
        state.accepting = Accepting::No;
        state.cut();
        self.shared.changed.notify_all();
    }

    /// Undoes [`Forwarder::refuse`].
    pub fn accept(&self) {
        self.shared.lock().accepting = Accepting::Yes;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.accepting = Accepting::Ended;
        state.cut();
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, target: u16, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        let accepting = shared.lock().accepting;
        match accepting {
            Accepting::Ended => return,
            Accepting::No => reset(&client),
            Accepting::Yes => connect(client, target, shared),
        }
    }
}

fn connect(client: TcpStream, target: u16, shared: &Arc<Shared>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
    let Ok(server) = TcpStream::connect(address) else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
    let pair = (copy(&client), copy(&server));
    let subject = Arc::new(AtomicBool::new(shared.user.is_none()));
    if shared.user.is_none() {
        shared
            .lock()
            .connections
            .push((copy(&client), copy(&server)));
    }
    let ways = [
        (copy(&client), copy(&server), Direction::ToServer),
        (server, client, Direction::ToClient),
    ];
    let mut pair = Some(pair);
    for (from, to, direction) in ways {
        let way = Way {
            direction,
            subject: subject.clone(),
            unknown: pair.take(),
            shared: shared.clone(),
        };
        thread::spawn(move || way.pump(from, to));
    }
}

/// One direction of a connection.
struct Way {
    direction: Direction,
    /// Behaviours hold for the connection.
    subject: Arc<AtomicBool>,
    /// Both sockets, until the user is known; of the way to the server only.
    unknown: Option<(TcpStream, TcpStream)>,
    shared: Arc<Shared>,
}

impl Way {
    /// Until either side ends; the end is passed on.
    fn pump(mut self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            self.look_for_user(&buffer[..read]);
            if !self.pass(&buffer[..read], &mut to) {
                return;
            }
        }
        // A stalled way keeps the end back too.
        if self.subject.load(SeqCst) {
            hold_while_stalled(self.direction, &self.shared);
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// The startup packet names the user, at once or behind an SSLRequest.
    fn look_for_user(&mut self, bytes: &[u8]) {
        let Some(user) = self.shared.user else {
            return;
        };
        let named = [b"user\0", user.as_bytes(), b"\0"].concat();
        if bytes.windows(named.len()).any(|part| part == named)
            && let Some(pair) = self.unknown.take()
        {
            self.shared.lock().connections.push(pair);
            self.subject.store(true, SeqCst);
        }
    }

    /// Whether the connection goes on.
    fn pass(&self, bytes: &[u8], to: &mut TcpStream) -> bool {
        if !self.subject.load(SeqCst) {
            return to.write_all(bytes).is_ok();
        }
        let (direction, shared) = (self.direction, &*self.shared);
        match hold_while_stalled(direction, shared) {
            Behaviour::Pass | Behaviour::Stall => to.write_all(bytes).is_ok(),
            Behaviour::Delay(delay) => {
                wait_for(delay, shared);
                to.write_all(bytes).is_ok()
            }
            Behaviour::SingleBytes => bytes.iter().all(|byte| to.write_all(&[*byte]).is_ok()),
            Behaviour::CutAfter(left) => {
                let sent = left.min(bytes.len());
                let written = to.write_all(&bytes[..sent]).is_ok();
                let mut state = shared.lock();
                *state.of(direction) = Behaviour::CutAfter(left - sent);
                if sent == left {
                    state.cut();
                }
                written && sent < left
            }
        }
    }
}

/// The behaviour, once it is not Stall (or the forwarder has ended).
fn hold_while_stalled(direction: Direction, shared: &Shared) -> Behaviour {
    let mut state = shared.lock();
    while *state.of(direction) == Behaviour::Stall && state.accepting != Accepting::Ended {
        state = shared
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
    *state.of(direction)
}

/// Ends early with the forwarder.
fn wait_for(delay: Duration, shared: &Shared) {
    let deadline = Instant::now() + delay;
    let mut state = shared.lock();
    while state.accepting != Accepting::Ended {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let waited = shared.changed.wait_timeout(state, left);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
