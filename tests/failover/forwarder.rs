//! A TCP forwarder to a port of this machine that can refuse connections.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
};

/// Ends with the process; its connections end with either side.
pub struct Forwarder {
    pub port: u16,
    refusing: Arc<AtomicU32>,
    accepted: Arc<AtomicU32>,
}

impl Forwarder {
    pub fn start(to: u16) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let refusing = Arc::<AtomicU32>::default();
        let accepted = Arc::<AtomicU32>::default();
        let (refuses, accepts) = (refusing.clone(), accepted.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let refused = refuses.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
                if refused.is_err()
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", to))
                {
                    accepts.fetch_add(1, SeqCst);
                    forward(client, server);
                }
            }
        });
        Forwarder {
            port,
            refusing,
            accepted,
        }
    }

    /// Ends the next `count` connections before their first byte.
    pub fn refuse(&self, count: u32) {
        self.accepted.store(0, SeqCst);
        self.refusing.store(count, SeqCst);
    }

    /// Connections that got through since then.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(SeqCst)
    }
}

fn forward(client: TcpStream, server: TcpStream) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || copy(from, to));
    thread::spawn(move || copy(server, client));
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
