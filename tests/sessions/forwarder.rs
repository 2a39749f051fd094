//! A TCP forwarder between two parties: forwards at will in small pieces, and cuts.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

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
    closed: AtomicBool,
}

impl Forwarder {
    pub fn start(to: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            piece: AtomicUsize::new(WHOLE),
            streams: Mutex::default(),
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

    /// Ends every connection; new ones are forwarded as before.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
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

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; WHOLE];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
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
