//! A session's book of its named statements, and of the messages that may still take an entry back. Pure.
//!
//! Entries are made when a message is sent, as if it succeeded. Each has a ticket, which the server's pipeline carries:
//! its message's success settles it, an error that throws the message away has it undone, the latest first.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use super::{
    texts::Text,
    told::{Describing, Told},
};
use crate::{
    server::{
        settings::Settings,
        statements::{ContentId, Statements},
    },
    wire::pipeline::Ticket,
};

/// Named statements of one session, and bytes of their texts and names; with more it keeps its server.
const MAX_NAMES: usize = 1000;
const MAX_BYTES: usize = 1024 * 1024;
/// PostgreSQL looks at no more of a name (`NAMEDATALEN`).
const MAX_NAME: usize = 63;
/// Entries that may be undone, before the client is read no further.
const MAX_UNSETTLED: usize = 1024;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub text: Rc<Text>,
    /// The schema epoch of the client's Parse: an older parse of the same text may mean something else.
    pub epoch: u64,
    /// Digest of the settings under which it was read, if they were known.
    pub reading: Option<u64>,
    /// What of them the session had set.
    pub settings: Settings,
    /// What the client was told last when it asked what the statement is.
    pub told: Option<Told>,
    /// It is something else where it was parsed in this epoch.
    pub differs_in: Option<u64>,
    /// What the same words are where they were read under other settings.
    pub elsewhere: Option<Rc<Named>>,
    /// In the order of the client's Parses, from 1; 0 before it has a name.
    number: u32,
}

impl Named {
    pub fn new(text: Rc<Text>, epoch: u64, reading: Option<u64>, settings: Settings) -> Self {
        Named {
            text,
            epoch,
            reading,
            settings,
            told: None,
            differs_in: None,
            elsewhere: None,
            number: 0,
        }
    }

    /// The same words read under other settings: what the client was told of them is to be compared.
    pub fn read_as(&self, text: Rc<Text>, reading: Option<u64>, settings: Settings) -> Self {
        let mut other = Named::new(text, self.epoch, reading, settings);
        other.told = self.told.map(|told| Told {
            epoch: None,
            ..told
        });
        other
    }

    fn is_of(&self, content: ContentId) -> bool {
        let elsewhere = self.elsewhere.as_ref();
        self.text.id == content || elsewhere.is_some_and(|other| other.text.id == content)
    }

    /// How the statement of that content was described.
    fn learn_of(&mut self, content: ContentId, digest: u64, epoch: u64, describing: Describing) {
        let elsewhere = self.elsewhere.as_mut().map(Rc::make_mut);
        let elsewhere = elsewhere.filter(|other| other.text.id == content);
        let is_own = self.text.id == content;
        match (is_own, elsewhere) {
            (true, _) => self.learn(digest, epoch, describing),
            (false, Some(other)) => other.learn(digest, epoch, describing),
            (false, None) => return,
        }
        if describing == Describing::ForUs {
            return;
        }
        // That is what it was told of both.
        let epoch = None;
        match self.elsewhere.as_mut().map(Rc::make_mut) {
            Some(other) if is_own => other.told = Some(Told { digest, epoch }),
            Some(_) => self.told = Some(Told { digest, epoch }),
            None => {}
        }
    }

    /// How it was described where it was parsed in `epoch`.
    fn learn(&mut self, digest: u64, epoch: u64, describing: Describing) {
        match (describing, &mut self.told) {
            (Describing::ForClient, _) => {
                self.told = Some(Told {
                    digest,
                    epoch: Some(epoch),
                })
            }
            (Describing::ForUs, Some(told)) if told.digest == digest => told.epoch = Some(epoch),
            (Describing::ForUs, _) => self.differs_in = Some(epoch),
        }
    }
}

/// How an entry is taken back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The name stands again for what it stood for.
    Name {
        name: Box<[u8]>,
        before: Option<Named>,
    },
    /// The server has not parsed it.
    Parse { content: ContentId, number: u64 },
    /// The server has not closed it.
    Leftover(Box<[u8]>),
    /// Nothing: the statement is described, where it was parsed in `epoch`.
    Description {
        name: Box<[u8]>,
        content: ContentId,
        epoch: u64,
        describing: Describing,
    },
}

#[derive(Debug)]
struct Unsettled {
    ticket: Ticket,
    batch: u32,
    undo: Undo,
}

/// See the module's header. A session without named statements has one pointer.
#[derive(Debug, Default)]
pub(super) struct Prepared(Option<Box<Book>>);

#[derive(Debug, Default)]
struct Book {
    names: HashMap<Box<[u8]>, Named>,
    /// Of the latest.
    number: u32,
    bytes: usize,
    unsettled: VecDeque<Unsettled>,
    last_ticket: u32,
    /// Counts the client's Syncs.
    batch: u32,
    hold: Hold,
    /// Of the ParameterDescription that came last.
    parameters: u64,
    /// A Flush was sent for answers that the client's next message waits for.
    asked: bool,
    naming: Naming,
    rereading: Option<Rereading>,
}

/// A statement that is parsed under the settings of its first Parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rereading {
    pub content: ContentId,
    /// The checkout in which it was sent.
    pub hold: u32,
    /// The client's message that waits for it has not been looked at since.
    pub is_awaited: bool,
}

/// Whether the next message that names a statement must wait.
#[derive(Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    No,
    UntilQuiet,
}

/// By which names the server knows the session's statements.
#[derive(Debug, Default, PartialEq, Eq)]
enum Naming {
    #[default]
    Ours,
    Native,
}

impl Prepared {
    fn book_mut(&mut self) -> &mut Book {
        self.0.get_or_insert_default()
    }

    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Named> {
        self.0.as_ref()?.names.get(key(name))
    }

    /// A name of that content, which it has or may get back. Slow: for errors.
    pub fn name_of(&self, content: ContentId) -> Option<&[u8]> {
        let book = self.0.as_ref()?;
        let found = book.names.iter().find(|(_, named)| named.is_of(content));
        let left = book.unsettled.iter().find_map(|entry| match &entry.undo {
            Undo::Name {
                name,
                before: Some(before),
            } if before.is_of(content) => Some(name),
            _ => None,
        });
        found.map(|(name, _)| name).or(left).map(|name| &**name)
    }

    /// The same words were read under other settings.
    pub fn add_elsewhere(&mut self, name: &[u8], other: Named) {
        let named = self
            .0
            .as_mut()
            .and_then(|book| book.names.get_mut(key(name)));
        if let Some(named) = named {
            named.elsewhere = Some(Rc::new(other));
        }
    }

    /// Says what the name stood for.
    pub fn insert(&mut self, name: &[u8], mut named: Named) -> Option<Named> {
        let book = self.book_mut();
        book.bytes += cost(name, &named);
        // What is put back keeps its place.
        if named.number == 0 {
            book.number = book.number.wrapping_add(1);
            named.number = book.number;
        }
        let before = book.names.insert(key(name).into(), named);
        book.bytes -= before.as_ref().map_or(0, |before| cost(name, before));
        before
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Named> {
        let book = self.0.as_mut()?;
        let before = book.names.remove(key(name))?;
        book.bytes -= cost(name, &before);
        Some(before)
    }

    pub fn clear_names(&mut self) {
        if let Some(book) = &mut self.0 {
            book.names = HashMap::default();
            book.bytes = 0;
        }
    }

    /// Whether one more statement of so many bytes is too much.
    pub fn is_full(&self, len: usize) -> bool {
        self.is_full_with(1, len)
    }

    /// Whether so many more statements of so many bytes are too much.
    pub fn is_full_with(&self, count: usize, len: usize) -> bool {
        let (names, bytes) = self
            .0
            .as_ref()
            .map_or((0, 0), |book| (book.names.len(), book.bytes));
        names + count > MAX_NAMES || bytes + len > MAX_BYTES
    }

    pub fn next_ticket(&mut self) -> Ticket {
        let book = self.book_mut();
        book.last_ticket = book.last_ticket.wrapping_add(1);
        Ticket::new(book.last_ticket).unwrap_or(Ticket::MIN)
    }

    /// An entry that counts from now on, and how it is taken back.
    pub fn book(&mut self, ticket: Ticket, undo: Undo) {
        let book = self.book_mut();
        book.unsettled.push_back(Unsettled {
            ticket,
            batch: book.batch,
            undo,
        });
    }

    /// The client ends a batch.
    #[inline]
    pub fn end_batch(&mut self) {
        if let Some(book) = &mut self.0 {
            book.batch = book.batch.wrapping_add(1);
        }
    }

    /// Too many entries may still be undone.
    pub fn is_crowded(&self) -> bool {
        let book = self.0.as_ref();
        book.is_some_and(|book| book.unsettled.len() >= MAX_UNSETTLED)
    }

    /// Whether an entry of an earlier batch may still be undone: its Sync was sent, so that it is answered.
    #[inline]
    pub fn waits_for_batch(&self) -> bool {
        let book = self.0.as_ref();
        let oldest = book.and_then(|book| Some((book.unsettled.front()?, book.batch)));
        oldest.is_some_and(|(oldest, batch)| oldest.batch != batch)
    }

    /// Whether all answers are to be waited for.
    #[inline]
    pub fn waits_for_all(&self) -> bool {
        let book = self.0.as_ref();
        book.is_some_and(|book| book.hold == Hold::UntilQuiet)
    }

    /// What was parsed last under the settings of its first Parse.
    #[inline]
    pub fn rereading(&mut self) -> Option<&mut Rereading> {
        self.0.as_mut()?.rereading.as_mut()
    }

    /// The message that waited for it goes on.
    #[inline]
    pub fn end_rereading(&mut self) {
        if let Some(last) = self.rereading() {
            last.is_awaited = false;
        }
    }

    pub fn set_rereading(&mut self, rereading: Rereading) {
        self.book_mut().rereading = Some(rereading);
    }

    /// All answers have come.
    pub fn end_wait(&mut self) {
        if let Some(book) = &mut self.0 {
            book.hold = Hold::No;
        }
    }

    /// The next message that names a statement waits for all answers.
    pub fn wait_for_answers(&mut self) {
        self.book_mut().hold = Hold::UntilQuiet;
    }

    /// Says what it was before.
    pub fn set_asked(&mut self, asked: bool) -> bool {
        match &mut self.0 {
            Some(book) => std::mem::replace(&mut book.asked, asked),
            None if asked => std::mem::replace(&mut self.book_mut().asked, true),
            None => false,
        }
    }

    pub fn is_native(&self) -> bool {
        let book = self.0.as_ref();
        book.is_some_and(|book| book.naming == Naming::Native)
    }

    /// The server is left, and the next one is another: a session with native names would have kept it.
    pub fn end_native(&mut self) {
        if let Some(book) = &mut self.0 {
            book.naming = Naming::Ours;
        }
    }

    /// The server is to know them by their own names from now on: these, oldest first, as pg_prepared_statements shows them.
    pub fn turn_native(&mut self) -> Vec<(Box<[u8]>, Named)> {
        let book = self.book_mut();
        book.naming = Naming::Native;
        book.bytes = 0;
        let mut names: Vec<_> = std::mem::take(&mut book.names).into_iter().collect();
        names.sort_unstable_by_key(|(_, named)| named.number);
        names
    }

    /// The server is being asked what that content is.
    pub fn is_asking(&self, content: ContentId) -> bool {
        let asks = |entry: &Unsettled| match &entry.undo {
            Undo::Description {
                content: asked,
                describing: Describing::ForUs,
                ..
            } => *asked == content,
            _ => false,
        };
        let book = self.0.as_ref();
        book.is_some_and(|book| book.unsettled.iter().any(asks))
    }

    /// Descriptions are to come.
    #[inline]
    pub fn is_describing(&self) -> bool {
        let book = self.0.as_ref();
        book.is_some_and(|book| !book.unsettled.is_empty())
    }

    /// A message that describes the statement with this ticket; with the last one it is settled.
    pub fn described(&mut self, tag: u8, digest: u64, ticket: Ticket) {
        let Some(book) = &mut self.0 else {
            return;
        };
        if tag == b't' {
            book.parameters = digest;
            return;
        }
        let digest = book.parameters.rotate_left(1) ^ digest;
        let described = book.unsettled.front().filter(|u| u.ticket == ticket);
        if let Some(Unsettled {
            undo:
                Undo::Description {
                    name,
                    content,
                    epoch,
                    describing,
                },
            ..
        }) = described
            && let Some(named) = book.names.get_mut(key(name))
        {
            named.learn_of(*content, digest, *epoch, *describing);
        }
        self.settle(ticket);
    }

    /// The message with this ticket succeeded.
    #[inline]
    pub fn settle(&mut self, ticket: Ticket) {
        let Some(book) = &mut self.0 else {
            return;
        };
        while book
            .unsettled
            .front()
            .is_some_and(|oldest| oldest.ticket == ticket)
        {
            book.unsettled.pop_front();
        }
    }

    /// An error has thrown away all messages up to that with the ticket `last`.
    pub fn throw_away(&mut self, last: Ticket, statements: &mut Statements) {
        let Some(book) = &mut self.0 else {
            return;
        };
        let end = book.unsettled.iter().rposition(|u| u.ticket == last);
        self.undo(end.map_or(0, |at| at + 1), Some(statements));
    }

    /// The server is gone, and what it did not answer was not done.
    pub fn server_lost(&mut self) {
        self.end_native();
        let all = self.0.as_ref().map_or(0, |book| book.unsettled.len());
        self.undo(all, None);
    }

    fn undo(&mut self, count: usize, mut statements: Option<&mut Statements>) {
        let lost: Vec<_> = match &mut self.0 {
            Some(book) => book.unsettled.drain(..count).collect(),
            None => return,
        };
        for entry in lost.into_iter().rev() {
            match (entry.undo, &mut statements) {
                (Undo::Name { name, before }, _) => {
                    self.remove(&name);
                    if let Some(before) = before {
                        self.insert(&name, before);
                    }
                }
                (Undo::Parse { content, number }, Some(there)) => there.remove(content, number),
                (Undo::Leftover(name), Some(there)) => there.leave_name(name),
                (Undo::Description { .. }, _) | (_, None) => {}
            }
        }
    }
}

fn key(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

fn cost(name: &[u8], named: &Named) -> usize {
    key(name).len() + named.text.rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{statement::Statement, texts};

    fn named(sql: &str) -> Named {
        let rest: Box<[u8]> = sql.as_bytes().into();
        let text = Text {
            id: texts::content(0, &rest),
            rest,
            statement: Statement::TOO_LONG.into(),
        };
        Named::new(Rc::new(text), 0, None, Settings::default())
    }

    /// Parse of a name that the session does not have.
    fn parse(prepared: &mut Prepared, name: &str, sql: &str) -> Ticket {
        let ticket = prepared.next_ticket();
        let before = prepared.insert(name.as_bytes(), named(sql));
        let name = name.as_bytes().into();
        prepared.book(ticket, Undo::Name { name, before });
        ticket
    }

    fn close(prepared: &mut Prepared, name: &str) -> Ticket {
        let ticket = prepared.next_ticket();
        let before = prepared.remove(name.as_bytes());
        let name = name.as_bytes().into();
        prepared.book(ticket, Undo::Name { name, before });
        ticket
    }

    fn text(prepared: &Prepared, name: &str) -> Option<String> {
        let named = prepared.find(name.as_bytes())?;
        Some(String::from_utf8_lossy(&named.text.rest).into_owned())
    }

    #[test]
    fn what_was_thrown_away_is_undone_the_latest_first_and_nothing_else() {
        let (mut p, mut s) = (Prepared::default(), Statements::default());
        let first = parse(&mut p, "a", "one");
        p.settle(first);
        close(&mut p, "a");
        parse(&mut p, "a", "two");
        let last = parse(&mut p, "b", "three");
        p.end_batch();
        let later = parse(&mut p, "c", "four");
        assert!(!p.0.as_ref().unwrap().unsettled.is_empty());
        p.throw_away(last, &mut s);
        assert_eq!(text(&p, "a").as_deref(), Some("one"));
        assert_eq!(text(&p, "b"), None);
        assert_eq!(text(&p, "c").as_deref(), Some("four"));
        p.settle(later);
        p.server_lost();
        assert_eq!(text(&p, "c").as_deref(), Some("four"));
        assert_eq!(p.0.unwrap().bytes, 1 + 3 + 1 + 4);
    }

    #[test]
    fn a_server_that_is_lost_takes_back_what_it_did_not_answer() {
        let mut p = Prepared::default();
        let first = parse(&mut p, "a", "one");
        p.settle(first);
        parse(&mut p, "b", "two");
        close(&mut p, "a");
        p.server_lost();
        assert_eq!(text(&p, "a").as_deref(), Some("one"));
        assert_eq!(text(&p, "b"), None);
    }

    #[test]
    fn messages_that_depend_on_an_earlier_batch_wait_for_it() {
        let mut p = Prepared::default();
        let ticket = parse(&mut p, "a", "one");
        assert!(!p.waits_for_batch());
        p.end_batch();
        assert!(p.waits_for_batch());
        p.settle(ticket);
        assert!(!p.waits_for_batch() && !p.waits_for_all());
        p.wait_for_answers();
        assert!(p.waits_for_all());
        p.end_wait();
        assert!(!p.waits_for_all());
    }

    #[test]
    fn what_the_client_was_told_is_kept_and_only_equal_descriptions_renew_it() {
        let mut p = Prepared::default();
        let ticket = parse(&mut p, "a", "one");
        p.settle(ticket);
        let mut describe = |row, epoch, describing| {
            let ticket = p.next_ticket();
            let undo = Undo::Description {
                name: b"a"[..].into(),
                content: p.find(b"a").unwrap().text.id,
                epoch,
                describing,
            };
            p.book(ticket, undo);
            p.described(b't', 7, ticket);
            p.described(b'T', row, ticket);
            assert!(!p.is_describing());
            let named = p.find(b"a").unwrap();
            (named.told.unwrap().epoch.unwrap(), named.differs_in)
        };
        assert_eq!(describe(1, 3, Describing::ForClient), (3, None));
        assert_eq!(describe(1, 4, Describing::ForUs), (4, None));
        assert_eq!(describe(2, 5, Describing::ForUs), (4, Some(5)));
        assert_eq!(describe(2, 6, Describing::ForClient), (6, Some(5)));
    }

    #[test]
    fn names_are_equal_as_far_as_postgresql_looks() {
        let mut p = Prepared::default();
        let long = "x".repeat(MAX_NAME);
        parse(&mut p, &format!("{long}a"), "one");
        assert!(text(&p, &format!("{long}b")).is_some());
        assert!(p.is_full(MAX_BYTES));
        assert!(!p.is_full(100));
    }
}
