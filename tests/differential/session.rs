//! A session that writes a script's messages and keeps what comes back, an end or a silence too.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    message::Message,
    raw::{Frame, startup},
};

/// A peer that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a session saw.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    Frame(Frame),
    /// The connection ended.
    End,
    /// Nothing came though something was owed.
    Silence,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seen::Frame(frame) => frame.fmt(f),
            Seen::End => f.write_str("the end of the connection"),
            Seen::Silence => f.write_str("silence"),
        }
    }
}

pub struct Session {
    stream: TcpStream,
    unread: Vec<u8>,
    pub pid: i32,
    /// Messages up to Sync are skipped by the server.
    skipping: bool,
    over: bool,
}

impl Session {
    /// Logs in; what was said goes to `seen`.
    pub fn connect(addr: SocketAddr, parameters: &[(&str, &str)], seen: &mut Vec<Seen>) -> Session {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&startup(parameters)).unwrap();
        let mut session = Session {
            stream,
            unread: Vec::new(),
            pid: 0,
            skipping: false,
            over: false,
        };
        session.ready(1, seen);
        session
    }

    /// Whether the connection has ended or hangs.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Writes the messages at once, and reads all that they are answered with.
    pub fn run(&mut self, messages: &[Message]) -> Vec<Seen> {
        let mut seen = Vec::new();
        if self.over {
            return seen;
        }
        let mut bytes = Vec::new();
        messages.iter().for_each(|m| m.write(&mut bytes));
        // A peer that has ended the connection need not take what we say.
        let _ = self.stream.write_all(&bytes);
        let last = messages.iter().rposition(Message::is_readied);
        let head = last.map_or(0, |last| last + 1);
        if head > 0 {
            let owed = messages[..head].iter().filter(|m| m.is_readied()).count();
            self.ready(owed, &mut seen);
            self.skipping = false;
        }
        self.tail(&messages[head..], &mut seen);
        seen
    }

    /// Reads up to the last of so many ReadyForQuery.
    fn ready(&mut self, mut owed: usize, seen: &mut Vec<Seen>) {
        while owed > 0 {
            match self.next() {
                Seen::Frame(frame) => {
                    owed -= usize::from(frame.tag == b'Z');
                    if frame.tag == b'K' {
                        self.pid = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
                    }
                    seen.push(Seen::Frame(frame));
                }
                end => {
                    self.over = true;
                    return seen.push(end);
                }
            }
        }
    }

    /// Reads what messages behind the last Sync are answered with, if they ask for it by Flush.
    fn tail(&mut self, messages: &[Message], seen: &mut Vec<Seen>) {
        if messages.last() != Some(&Message::Flush) {
            return;
        }
        for message in messages {
            while !self.skipping && !self.over && message.ends_with(0).is_some() {
                let next = self.next();
                seen.push(next.clone());
                match next {
                    Seen::Frame(frame) if frame.tag == b'E' => self.skipping = true,
                    Seen::Frame(frame) if message.ends_with(frame.tag) == Some(true) => break,
                    Seen::Frame(_) => {}
                    _ => self.over = true,
                }
            }
        }
    }

    fn next(&mut self) -> Seen {
        loop {
            if let Some(frame) = self.take() {
                return Seen::Frame(frame);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(n @ 1..) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Seen::Silence;
                }
                _ => return Seen::End,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let header: [u8; 5] = self.unread.get(..5)?.try_into().unwrap();
        let len = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let body = self.unread.get(5..len + 1)?.to_vec();
        self.unread.drain(..=len);
        let tag = header[0];
        Some(Frame { tag, body })
    }

    /// Says farewell.
    pub fn terminate(mut self) {
        let _ = self.stream.write_all(&[b'X', 0, 0, 0, 4]);
    }
}
