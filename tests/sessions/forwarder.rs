//! A TCP forwarder between two parties: forwards at will in small pieces, spoils words, and cuts.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use nix::libc;
use socket2::{SockFilter, SockRef};

use crate::bed::{Bed, config, shared};

/// The kernel drops whatever comes for this socket, as a network might: nothing is acknowledged, nothing is refused.
pub fn cut_off(stream: &TcpStream) {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(stream).attach_filter(&[drop_all]).unwrap();
}

/// Bytes of a write when nothing is split.
const WHOLE: usize = 64 * 1024;

pub struct Forwarder {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// Bytes of one write.
    piece: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    /// Words, and what is to be passed in the place of each, once.
    spoils: Mutex<Vec<Spoil>>,
    closed: AtomicBool,
}

/// A word, and one as long.
pub type Spoil = (&'static [u8], &'static [u8]);

impl Forwarder {
    pub fn start(to: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            piece: AtomicUsize::new(WHOLE),
            streams: Mutex::default(),
            spoils: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closed.load(SeqCst) {
                    return;
                }
                accepting.serve(stream.unwrap());
            }
        });
        Forwarder { addr, shared }
    }

    /// From now on every write is of so many bytes, in a segment of its own.
    pub fn split(&self, piece: usize) {
        self.shared.piece.store(piece, SeqCst);
    }

    /// The next time that one of these words comes whole, the other is passed instead.
    pub fn spoil(&self, spoils: &[Spoil]) {
        assert!(spoils.iter().all(|(word, other)| word.len() == other.len()));
        *self.shared.spoils.lock().unwrap() = spoils.to_vec();
    }

    /// Words that have not come yet.
    pub fn unspoiled(&self) -> usize {
        self.shared.spoils.lock().unwrap().len()
    }

    /// Nothing reaches the present connections any more, and none of them ends; new ones are forwarded as before.
    pub fn cut_off(&self) {
        self.shared.streams.lock().unwrap().iter().for_each(cut_off);
    }

    /// Ends every connection; new ones are forwarded as before.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A proxy whose server connections pass a forwarder that can be cut.
pub fn behind_forwarder(size: usize) -> (Forwarder, Bed) {
    let server = shared();
    let forwarder = Forwarder::start(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mut node = server.node("pg1");
    node.port = forwarder.addr.port();
    let bed = Bed::start(server, config(vec![node], size));
    (forwarder, bed)
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(self.to) else {
            return;
        };
        let mut streams = self.streams.lock().unwrap();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            to.set_nodelay(true).unwrap();
            streams.push(to.try_clone().unwrap());
            let shared = self.clone();
            std::thread::spawn(move || shared.pump(from, to));
        }
    }

    fn spoil(&self, bytes: &mut [u8]) {
        self.spoils.lock().unwrap().retain(|(word, other)| {
            let at = bytes.windows(word.len()).position(|found| found == *word);
            if let Some(at) = at {
                bytes[at..at + word.len()].copy_from_slice(other);
            }
            at.is_none()
        });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; WHOLE];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            self.spoil(&mut buffer[..n]);
            for piece in buffer[..n].chunks(self.piece.load(SeqCst)) {
                if to.write_all(piece).is_err() {
                    break;
                }
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}
