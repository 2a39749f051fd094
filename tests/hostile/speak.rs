//! The protocol from the client's side, as bytes: nothing is checked that a mutation might break.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use pgsluice::wire::{frontend, report::Report};

use super::nodes::PATIENCE;

pub fn startup(user: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::startup(&mut out, 0, [("user", user), ("database", "postgres")]);
    out
}

pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 + 4).to_be_bytes();
    [&[tag], &len[..], body].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// One message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Said {
    /// Type, and the SQLSTATE of an ErrorResponse: what must not depend on who answers.
    pub fn gist(&self) -> String {
        match self.tag {
            b'E' => format!("E{}", self.sqlstate()),
            tag => char::from(tag).to_string(),
        }
    }

    pub fn sqlstate(&self) -> String {
        Report::parse(&self.body).map_or("none".into(), |r| r.sqlstate_str().to_owned())
    }

    pub fn is_fatal(&self) -> bool {
        self.tag == b'E' && Report::parse(&self.body).is_ok_and(|r| r.severity == b"FATAL")
    }
}

/// How a peer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// It closed the connection.
    Ended,
    /// It says nothing, and keeps the connection.
    Waits,
}

/// A connection, and what came on it.
pub struct Conversation {
    pub socket: TcpStream,
    unread: Vec<u8>,
}

impl Conversation {
    pub fn open(addr: SocketAddr) -> Conversation {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Conversation {
            socket,
            unread: Vec::new(),
        }
    }

    /// As a user who is trusted.
    #[track_caller]
    pub fn log_in(addr: SocketAddr, user: &str) -> Conversation {
        let mut session = Conversation::open(addr);
        session.send(&startup(user));
        let said = session.until(|said| said.tag == b'Z');
        assert_eq!(said.last().map(|s| s.tag), Some(b'Z'), "no login: {said:?}");
        session
    }

    /// A peer that has ended the connection need not take what we say.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Messages up to the first that is `last`, or to the end of the connection.
    #[track_caller]
    pub fn until(&mut self, last: impl Fn(&Said) -> bool) -> Vec<Said> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        loop {
            while let Some(said) = self.take() {
                let is_last = last(&said);
                all.push(said);
                if is_last {
                    return all;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the peer hangs after {all:?}");
            if self.read(left) == Some(Now::Ended) {
                return all;
            }
        }
    }

    /// Everything up to the end, or until nothing has come for `quiet`.
    pub fn listen(&mut self, quiet: Duration) -> (Vec<Said>, Now) {
        let mut now = None;
        while now.is_none() {
            now = self.read(quiet);
        }
        let said = std::iter::from_fn(|| self.take()).collect();
        (said, now.unwrap_or(Now::Waits))
    }

    /// Columns of the rows that `sql` gives; errors are panics.
    #[track_caller]
    pub fn ask(&mut self, sql: &str) -> Vec<String> {
        self.send(&query(sql));
        let said = self.until(|said| said.tag == b'Z');
        assert_eq!(said.last().map(|s| s.tag), Some(b'Z'), "{sql}: {said:?}");
        assert!(said.iter().all(|s| s.tag != b'E'), "{sql}: {said:?}");
        let rows = said.iter().filter(|s| s.tag == b'D');
        rows.map(|row| String::from_utf8_lossy(&row.body[6..]).into_owned())
            .collect()
    }

    fn take(&mut self) -> Option<Said> {
        let header: [u8; 5] = self.unread.get(..5)?.try_into().unwrap();
        let len = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let body = self.unread.get(5..len.checked_add(1)?)?.to_vec();
        self.unread.drain(..=len);
        Some(Said {
            tag: header[0],
            body,
        })
    }

    fn read(&mut self, patience: Duration) -> Option<Now> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut chunk = [0; 64 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => Some(Now::Ended),
            Ok(n) => {
                self.unread.extend_from_slice(&chunk[..n]);
                None
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Some(Now::Waits),
            Err(_) => Some(Now::Ended),
        }
    }
}

/// The body of a page.
pub fn http(addr: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    page
}
