//! Reading ahead: what the client has sent is looked at before there is a server, to know where it may run.
//!
//! A batch stays on one server from its first message to its Sync, so all of it decides: what does nothing but parse,
//! describe, bind and execute proven reads may run on a replica. Until its Sync or Flush nobody owes the client an answer,
//! so the rest of a batch can be waited for.
//!
//! A *piece* is a batch's beginning up to a Flush, in which nothing is bound: drivers send it to learn what a statement is
//! before they bind it. Nothing it does depends on what follows, so that on a replica it is ended like a batch.

use super::{Session, frontend::MAX_TEXT, statement::Statement, unnamed::MAX_KEPT};
use crate::{
    route::class::Reason,
    server::statements::PREFIX,
    wire::{
        cursor::Cursor,
        frame::{self, Frame, HEADER_LEN, Sender},
    },
};

/// Names that one batch may parse.
const MAX_PARSED: usize = 64;
/// Bytes of a batch whose end is waited for.
const MAX_AWAITED: usize = 64 * 1024;

/// What is known of messages that were read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Proof {
    #[default]
    None,
    /// A Query or batch, to its end, does nothing but read.
    Batch,
    /// See the module's header.
    Piece,
    /// A batch that begins a read-only transaction, and does nothing else but read.
    Opening,
}

/// A Query, or the messages up to a Sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Bytes of what is proven.
    pub len: usize,
    /// Of its Query or first Parse, as [`Session::statement`] reads it.
    pub statement: Option<Statement>,
    pub proof: Proof,
    /// Or only said to read: it must not run twice.
    pub is_hinted: bool,
    /// A hint sends it to a replica.
    pub wants_replica: bool,
    /// Why its first statement that is no proven read is none.
    refused: Option<Reason>,
    /// Only because something in it is not known.
    pub names_unknown: bool,
}

impl Batch {
    pub fn is_proven(&self) -> bool {
        self.proof != Proof::None
    }

    /// Why it is no proven read, as far as that is known.
    pub fn reason(&self) -> Option<&'static str> {
        self.refused.map(Reason::as_str)
    }

    /// One of its statements: whether that is a proven read.
    pub fn holds(&mut self, statement: &Statement) -> bool {
        self.is_hinted |= statement.is_hinted();
        self.wants_replica |= statement.wants_replica;
        let is_read = statement.is_read();
        if let (false, Some(class)) = (is_read, &statement.class) {
            self.refused = Some(class.reason);
            self.names_unknown = class.reason == Reason::Unknown && class.object.is_some();
        }
        is_read
    }
}

/// The batch that is being read.
struct Reader<'s> {
    session: &'s Session,
    batch: Batch,
    /// Names of the statements that it has parsed, all of them proven reads. A batch without names allocates nothing.
    named: Vec<&'s [u8]>,
    /// The one without a name among them.
    has_unnamed: bool,
    /// How many it has parsed.
    parsed: usize,
    /// Bytes of those messages.
    parsed_len: usize,
    /// How many statements were bound.
    bound: usize,
    /// The first one begins a read-only transaction.
    opens: bool,
}

impl Session {
    /// The batch that the client's next message begins.
    pub(super) fn read_ahead(&self) -> Batch {
        let unseen = self.from_client.as_ref().map_or(&[][..], |b| b.unseen());
        let mut reader = Reader {
            session: self,
            batch: Batch::default(),
            named: Vec::new(),
            has_unnamed: false,
            parsed: 0,
            parsed_len: 0,
            bound: 0,
            opens: false,
        };
        let (mut at, mut last) = (0, 0);
        while let Some((frame, body)) = frame_at(unseen, at) {
            if !reader.reads(frame, body, at == 0) {
                return reader.batch;
            }
            at += frame.len;
            last = frame.tag;
            if matches!(last, b'Q' | b'S') {
                return reader.ends(at, Proof::Batch);
            }
        }
        match last == b'H' && reader.bound == 0 {
            true => reader.ends(at, Proof::Piece),
            false => reader.batch,
        }
    }

    /// Whether the rest of the client's batch is to be waited for.
    pub(super) fn awaits_rest(&mut self) -> bool {
        let Some(buffer) = &mut self.from_client else {
            return false;
        };
        let unseen = buffer.unseen();
        let (mut at, len) = (0, unseen.len());
        while let Some(rest) = unseen.get(at..).filter(|rest| !rest.is_empty()) {
            match frame::peek(rest, Sender::Frontend) {
                Ok(Some(frame)) if matches!(frame.tag, b'P' | b'B' | b'D' | b'C' | b'E') => {
                    at += frame.len;
                }
                Ok(None) => at = len + 1,
                _ => return false,
            }
        }
        if at > MAX_AWAITED || len == 0 {
            return false;
        }
        buffer.grow_for(len + 1);
        true
    }
}

impl<'s> Reader<'s> {
    fn ends(mut self, len: usize, proof: Proof) -> Batch {
        self.batch.len = len;
        self.batch.proof = match (self.opens, proof) {
            (false, proof) => proof,
            // Its first statement has to say where it opens.
            (true, Proof::Batch) if self.bound > 1 => Proof::Opening,
            (true, _) => Proof::None,
        };
        self.batch
    }

    /// Whether the next message does nothing but read.
    fn reads(&mut self, frame: Frame, body: &'s [u8], is_first: bool) -> bool {
        match frame.tag {
            b'Q' if is_first => self.reads_query(body),
            b'P' => self.reads_parse(frame, body),
            b'B' => self.reads_bind(body),
            b'D' => self.reads_describe(body),
            b'E' => self.bound > 0,
            b'C' | b'H' | b'S' => true,
            _ => false,
        }
    }

    fn reads_query(&mut self, body: &[u8]) -> bool {
        let text = body.strip_suffix(&[0]).filter(|t| t.len() < MAX_TEXT);
        self.bound = 1;
        text.is_some_and(|text| self.reads_text(text))
    }

    fn reads_text(&mut self, text: &[u8]) -> bool {
        let statement = self.session.statement(text);
        let is_read = self.opens_by(&statement) || self.batch.holds(&statement);
        self.batch.statement.get_or_insert(statement);
        is_read
    }

    fn reads_parse(&mut self, frame: Frame, body: &'s [u8]) -> bool {
        let mut cursor = Cursor::new(body);
        let (Ok(name), Ok(text)) = (cursor.cstr(), cursor.cstr()) else {
            return false;
        };
        self.parsed_len += frame.len;
        if !self.may_be_parsed(name, frame.len) || !self.reads_text(text) {
            return false;
        }
        self.parsed += 1;
        match name {
            b"" => self.has_unnamed = true,
            _ => self.named.push(name),
        }
        true
    }

    /// What cannot be carried keeps its server, which must not be a replica's.
    fn may_be_parsed(&self, name: &[u8], len: usize) -> bool {
        let prepared = &self.session.prepared;
        match name {
            _ if len >= MAX_TEXT || self.parsed >= MAX_PARSED => false,
            b"" => len <= MAX_KEPT,
            _ => {
                let is_plain = name.is_ascii() && !name.starts_with(PREFIX);
                is_plain && !prepared.is_full_with(self.parsed + 1, self.parsed_len)
            }
        }
    }

    fn reads_bind(&mut self, body: &[u8]) -> bool {
        let mut cursor = Cursor::new(body);
        let (Ok(_portal), Ok(name)) = (cursor.cstr(), cursor.cstr()) else {
            return false;
        };
        let is_read = self.reads_named(name);
        self.bound += 1;
        is_read
    }

    fn reads_describe(&mut self, body: &[u8]) -> bool {
        match body {
            [b'S', name @ ..] => {
                let name = Cursor::new(name).cstr();
                name.is_ok_and(|name| self.reads_named(name))
            }
            _ => true,
        }
    }

    /// The first statement may begin a read-only transaction.
    fn opens_by(&mut self, statement: &Statement) -> bool {
        let is_first = self.bound == 0 && self.parsed == 0 && !self.opens;
        self.opens |= is_first && !self.session.is_opening() && self.session.may_open(statement);
        self.opens && is_first
    }

    fn opens_by_name(&mut self, name: &[u8]) -> bool {
        let session = self.session;
        match session.prepared.find(name) {
            Some(named) => self.opens_by(&named.text.statement.borrow()),
            None => false,
        }
    }

    /// A statement of this batch or an earlier one.
    fn reads_named(&mut self, name: &[u8]) -> bool {
        match name {
            b"" if self.has_unnamed => true,
            _ if self.named.contains(&name) => true,
            _ if self.opens_by_name(name) => true,
            b"" => self.session.is_read_unnamed(&mut self.batch),
            _ => self.session.is_read_named(name, &mut self.batch),
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
