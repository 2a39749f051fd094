//! A client that writes frames and reads frames, and knows nothing else.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use crate::nodes::PATIENCE;

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(f, "{}({})", self.tag as char, shown.escape_ascii())
    }
}

impl Frame {
    /// A field of ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> String {
        let mut fields = self.body.split(|b| *b == 0);
        let found = fields.find(|f| f.first() == Some(&code));
        String::from_utf8_lossy(found.map_or(b"", |f| &f[1..])).into_owned()
    }

    /// The first column of a DataRow; "" for NULL.
    pub fn value(&self) -> String {
        let len = i32::from_be_bytes(self.body[2..6].try_into().unwrap());
        let end = 6 + len.max(0) as usize;
        String::from_utf8_lossy(&self.body[6..end]).into_owned()
    }

    /// Two strings, as in ParameterStatus.
    pub fn pair(&self) -> (String, String) {
        let mut texts = self.body.split(|b| *b == 0);
        let mut next = || String::from_utf8_lossy(texts.next().unwrap()).into_owned();
        (next(), next())
    }
}

pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), &[0]].concat())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let body = [name.as_bytes(), &[0], sql.as_bytes(), &[0, 0, 0]].concat();
    frame(b'P', &body)
}

/// Without parameters, all results as text.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    let names = [portal.as_bytes(), &[0], statement.as_bytes(), &[0]].concat();
    frame(b'B', &[&names[..], &[0; 6]].concat())
}

pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind], name.as_bytes(), &[0]].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind], name.as_bytes(), &[0]].concat())
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(
        b'E',
        &[portal.as_bytes(), &[0], &rows.to_be_bytes()].concat(),
    )
}

pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

/// Parse, Bind, Execute of an unnamed statement; without Sync.
pub fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("", 0)].concat()
}

/// StartupMessage of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend(body);
    out
}

pub struct Client {
    pub stream: TcpStream,
    pub pid: i32,
    pub key: Vec<u8>,
    /// What ParameterStatus told at login.
    pub told: Vec<(String, String)>,
}

impl Client {
    pub fn connect(addr: SocketAddr, database: &str, user: &str) -> Client {
        Client::connect_with(addr, &[("user", user), ("database", database)])
    }

    pub fn connect_with(addr: SocketAddr, parameters: &[(&str, &str)]) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client {
            stream,
            pid: 0,
            key: Vec::new(),
            told: Vec::new(),
        };
        client.send(&startup(parameters));
        client.log_in();
        client
    }

    fn log_in(&mut self) {
        loop {
            let frame = self.next();
            match frame.tag {
                b'R' => assert_eq!(frame.body, [0; 4], "trust"),
                b'S' => self.told.push(frame.pair()),
                b'K' => {
                    self.pid = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
                    self.key = frame.body[4..].to_vec();
                }
                b'N' => {}
                b'Z' => return,
                _ => panic!("{frame:?} at login"),
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn next(&mut self) -> Frame {
        self.try_next().expect("a message, not the end")
    }

    /// None at the end of the connection.
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Frame> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no message came")
            }
            Err(_) => return None,
        }
        let len = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; len - 4];
        self.stream.read_exact(&mut body).unwrap();
        let tag = header[0];
        Some(Frame { tag, body })
    }

    /// Everything up to and with the next ReadyForQuery.
    #[track_caller]
    pub fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            let done = frame.tag == b'Z';
            frames.push(frame);
            if done {
                return frames;
            }
        }
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub fn until_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.try_next()).collect()
    }

    /// The replies to `bytes` up to ReadyForQuery, as a word: tags, the status behind Z, the SQLSTATE behind E.
    /// ParameterStatus is left out.
    #[track_caller]
    pub fn word(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        word(&self.until_ready())
    }

    /// One query's first value.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        self.send(&query(sql));
        let frames = self.until_ready();
        let row = frames.iter().find(|f| f.tag == b'D');
        row.unwrap_or_else(|| panic!("{sql}: {frames:?}")).value()
    }

    /// One query that must not fail.
    #[track_caller]
    pub fn ok(&mut self, sql: &str) {
        self.send(&query(sql));
        let frames = self.until_ready();
        assert!(frames.iter().all(|f| f.tag != b'E'), "{sql}: {frames:?}");
    }

    /// The SQLSTATE and severity of one query that must fail.
    #[track_caller]
    pub fn error(&mut self, sql: &str) -> Frame {
        self.send(&query(sql));
        let frames = self.until_ready();
        let error = frames.iter().find(|f| f.tag == b'E').cloned();
        error.unwrap_or_else(|| panic!("{sql}: {frames:?}"))
    }

    /// The last words of a session that must end, and the end.
    #[track_caller]
    pub fn farewell(&mut self) -> String {
        word(&self.until_end())
    }

    pub fn cut(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// See [`Client::word`].
pub fn word(frames: &[Frame]) -> String {
    let mut out = String::new();
    for frame in frames.iter().filter(|f| f.tag != b'S') {
        out.push(frame.tag as char);
        match frame.tag {
            b'Z' => out.push(frame.body[0] as char),
            b'E' if frame.field(b'V') == "FATAL" => {
                out.push_str(&format!("[FATAL {}]", frame.field(b'C')));
            }
            b'E' => out.push_str(&format!("[{}]", frame.field(b'C'))),
            _ => {}
        }
    }
    out
}

/// CancelRequest on a connection of its own; returns at its end.
pub fn cancel(addr: SocketAddr, pid: i32, key: &[u8]) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = (12 + key.len() as u32).to_be_bytes().to_vec();
    packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
    packet.extend_from_slice(&pid.to_be_bytes());
    packet.extend_from_slice(key);
    stream.write_all(&packet).unwrap();
    let _ = stream.read(&mut [0; 1]);
}
