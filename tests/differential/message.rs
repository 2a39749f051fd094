//! A client's messages as values: written as bytes, shown to a reader, and what each is answered with.

use std::fmt;

use crate::raw::{close, describe, execute, flush, frame, query, sync};

#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        formats: Vec<u16>,
        values: Vec<Option<Vec<u8>>>,
        results: Vec<u16>,
    },
    Describe(u8, String),
    Execute(String, u32),
    Close(u8, String),
    Sync,
    Flush,
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail(String),
    /// FunctionCall with arguments as text.
    Call(u32, Vec<String>),
}

impl Message {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(match self {
            Message::Query(sql) => query(sql),
            Message::Parse { name, sql, types } => {
                let mut body = [name.as_bytes(), &[0], sql.as_bytes(), &[0]].concat();
                list(&mut body, types, |body, oid| {
                    body.extend(oid.to_be_bytes());
                });
                frame(b'P', &body)
            }
            Message::Bind { .. } => self.bind(),
            Message::Describe(kind, name) => describe(*kind, name),
            Message::Execute(portal, rows) => execute(portal, *rows),
            Message::Close(kind, name) => close(*kind, name),
            Message::Sync => sync(),
            Message::Flush => flush(),
            Message::CopyData(data) => frame(b'd', data),
            Message::CopyDone => frame(b'c', &[]),
            Message::CopyFail(why) => frame(b'f', &[why.as_bytes(), &[0]].concat()),
            Message::Call(oid, values) => {
                let mut body = oid.to_be_bytes().to_vec();
                list(&mut body, &[0_u16; 0], |_, _| ());
                list(&mut body, values, |body, v| value(body, Some(v.as_bytes())));
                body.extend([0, 0]);
                frame(b'F', &body)
            }
        });
    }

    fn bind(&self) -> Vec<u8> {
        let Message::Bind {
            portal,
            statement,
            formats,
            values,
            results,
        } = self
        else {
            return Vec::new();
        };
        let mut body = [portal.as_bytes(), &[0], statement.as_bytes(), &[0]].concat();
        let word = |body: &mut Vec<u8>, format: &u16| body.extend(format.to_be_bytes());
        list(&mut body, formats, word);
        list(&mut body, values, |body, v| value(body, v.as_deref()));
        list(&mut body, results, word);
        frame(b'B', &body)
    }

    /// Whether it is answered with a ReadyForQuery of its own.
    pub fn is_readied(&self) -> bool {
        matches!(self, Message::Query(_) | Message::Sync | Message::Call(..))
    }

    /// Whether a frame of this type ends the answer to it; None if it has no answer.
    pub fn ends_with(&self, tag: u8) -> Option<bool> {
        let ends: &[u8] = match self {
            Message::Parse { .. } => b"1",
            Message::Bind { .. } => b"2",
            Message::Close(..) => b"3",
            Message::Describe(..) => b"Tn",
            Message::Execute(..) => b"CsI",
            _ => return None,
        };
        Some(ends.contains(&tag))
    }
}

fn list<T>(body: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    body.extend((items.len() as u16).to_be_bytes());
    for item in items {
        write(body, item);
    }
}

fn value(body: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => body.extend((-1_i32).to_be_bytes()),
        Some(bytes) => {
            body.extend((bytes.len() as u32).to_be_bytes());
            body.extend(bytes);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Query(sql) => write!(f, "Query {sql:?}"),
            Message::Parse { name, sql, types } => write!(f, "Parse {name:?} {sql:?} {types:?}"),
            Message::Bind {
                portal,
                statement,
                formats,
                values,
                results,
            } => {
                let shown = values.iter().map(|v| match v {
                    None => "NULL".to_owned(),
                    Some(bytes) => bytes.escape_ascii().to_string(),
                });
                let shown: Vec<_> = shown.collect();
                write!(
                    f,
                    "Bind {portal:?} {statement:?} {formats:?} {shown:?} {results:?}"
                )
            }
            Message::Describe(kind, name) => write!(f, "Describe {} {name:?}", *kind as char),
            Message::Execute(portal, rows) => write!(f, "Execute {portal:?} {rows}"),
            Message::Close(kind, name) => write!(f, "Close {} {name:?}", *kind as char),
            Message::Sync => write!(f, "Sync"),
            Message::Flush => write!(f, "Flush"),
            Message::CopyData(data) => write!(f, "CopyData {}", data.escape_ascii()),
            Message::CopyDone => write!(f, "CopyDone"),
            Message::CopyFail(why) => write!(f, "CopyFail {why:?}"),
            Message::Call(oid, values) => write!(f, "FunctionCall {oid} {values:?}"),
        }
    }
}
