//! Reading ahead: what the client has sent is looked at before there is a server, to know where it may run.
//!
//! A batch stays on one server from its first message to its Sync, so all of it decides. What is not here to its end, or
//! does more than parse, bind and execute proven reads, is not looked at further: it goes where everything can run.

use super::{Session, frontend::MAX_TEXT, statement::Statement};
use crate::{
    route::class::Reason,
    wire::{
        cursor::Cursor,
        frame::{self, Frame, HEADER_LEN, Sender},
    },
};

/// A Query, or the messages up to a Sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Bytes of it; 0 if not all of it is here.
    pub len: usize,
    /// Of its Query or Parse, as [`Session::statement`] reads it.
    pub statement: Option<Statement>,
    /// It is proven to do nothing but read.
    pub is_proven: bool,
    /// Or only said to: it must not run twice.
    pub is_hinted: bool,
}

impl Batch {
    /// It is no proven read only because something in it is not known.
    pub fn names_unknown(&self) -> bool {
        let class = self.statement.as_ref().and_then(|s| s.class.as_ref());
        class.is_some_and(|class| class.reason == Reason::Unknown && class.object.is_some())
    }

    /// Why it is no proven read, as far as its first statement says.
    pub fn reason(&self) -> Option<&'static str> {
        let class = self.statement.as_ref()?.class.as_ref()?;
        Some(class.reason.as_str())
    }
}

impl Session {
    /// The batch that the client's next message begins.
    pub(super) fn read_ahead(&self) -> Batch {
        let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
        let mut batch = Batch::default();
        let mut at = 0;
        let mut reads = 0;
        while let Some((frame, body)) = frame_at(unseen, at) {
            let is_read = match frame.tag {
                b'Q' if at == 0 => self.is_read_query(body, &mut batch),
                b'P' if batch.statement.is_none() => self.is_read_parse(body, &mut batch),
                b'B' => self.is_read_bind(body, &mut batch),
                b'D' | b'E' | b'H' | b'S' => true,
                _ => false,
            };
            at += frame.len;
            reads += u32::from(matches!(frame.tag, b'Q' | b'P' | b'B'));
            if !is_read {
                return batch;
            }
            if matches!(frame.tag, b'Q' | b'S') {
                batch.is_proven = reads > 0;
                batch.len = at;
                return batch;
            }
        }
        batch
    }

    fn is_read_query(&self, body: &[u8], batch: &mut Batch) -> bool {
        let text = body.strip_suffix(&[0]).filter(|t| t.len() < MAX_TEXT);
        let statement = text.map(|text| self.statement(text));
        let is_read = statement.as_ref().is_some_and(Statement::is_read);
        batch.is_hinted |= statement.as_ref().is_some_and(Statement::is_hinted);
        batch.statement = statement;
        is_read
    }

    /// One that gets a name is parsed where everything can run: the client may not be told twice that it is.
    fn is_read_parse(&self, body: &[u8], batch: &mut Batch) -> bool {
        let mut cursor = Cursor::new(body);
        match (cursor.cstr(), cursor.cstr()) {
            (Ok(b""), Ok(text)) if text.len() < MAX_TEXT => {
                let statement = self.statement(text);
                let is_read = statement.is_read();
                batch.is_hinted |= statement.is_hinted();
                batch.statement = Some(statement);
                is_read
            }
            _ => false,
        }
    }

    fn is_read_bind(&self, body: &[u8], batch: &mut Batch) -> bool {
        let mut cursor = Cursor::new(body);
        match (cursor.cstr(), cursor.cstr()) {
            (Ok(_portal), Ok(b"")) => match &batch.statement {
                // What was parsed in this batch has been looked at.
                Some(_) => true,
                None => self.is_read_unnamed(batch),
            },
            (Ok(_portal), Ok(name)) => self.is_read_named(name, batch),
            _ => false,
        }
    }
}

/// The frame at `at`, and its body, if it is here to its end.
fn frame_at(unseen: &[u8], at: usize) -> Option<(Frame, &[u8])> {
    let rest = unseen.get(at..)?;
    let frame = frame::peek(rest, Sender::Frontend).ok()??;
    let body = rest.get(HEADER_LEN..frame.len)?;
    Some((frame, body))
}
