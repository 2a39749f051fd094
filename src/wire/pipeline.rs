//! The queue of replies that one server still owes.
//!
//! Every frontend message that goes to a server is recorded with [`Pipeline::send`], in order; every backend message
//! is held against the head of the queue with [`Pipeline::receive`], which says whether the client sees it. The rules
//! are those of PostgreSQL's main loop (tcop/postgres.c) and COPY (commands/copyfromparse.c):
//!
//! - an error in the extended protocol throws away everything up to the next Sync, a simple Query among it;
//! - in copy-in mode the server reads over Sync and Flush, and ends the connection for anything but COPY messages;
//! - COPY messages outside of copy-in mode are read over.
//!
//! Invariant: a server whose pipeline [`is_free`](Pipeline::is_free) owes nothing and has no transaction open. When
//! the rules leave it open what the server did with a message, the pipeline is no longer certain, for good, and such a
//! server must not be given to anyone else.

use std::{collections::VecDeque, num::NonZeroU32};

use super::{TransactionStatus, Violation};

/// A frontend message that changes what is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Query,
    /// A Query behind a Parse, Bind and Execute without a Sync: what comes of all of them is its answer. An error of it is
    /// to be the server's end: whether what was sent behind it is thrown away is not followed.
    OpenedQuery,
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Flush,
    Sync,
    FunctionCall,
    CopyData,
    /// CopyDone or CopyFail.
    CopyEnd,
}

/// Whether the client sees a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Client,
    /// We sent the message ourselves; only its error is shown.
    Swallow,
    /// A Query of our own, whose answer is for us alone, its error too.
    Own,
    /// We sent the message ourselves, and its failure is nobody's: not even its error is shown.
    Hide,
    /// A Close that stands where the client sent a Parse: the client sees its end as ParseComplete.
    AsParse,
    /// A Bind of nothing: the client sees its error as that of a statement which has come to mean something else.
    AsChanged,
}

/// Numbers a message of which somebody keeps book until it has succeeded or was thrown away. On one server tickets are
/// given out in ascending order.
pub type Ticket = NonZeroU32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owed {
    sent: Sent,
    show: Show,
    ticket: Option<Ticket>,
}

impl Owed {
    fn plain(sent: Sent, show: Show) -> Self {
        Owed {
            sent,
            show,
            ticket: None,
        }
    }

    /// It is answered by a ReadyForQuery.
    fn ends(&self) -> bool {
        self.sent == Sent::Sync || is_ready_by_itself(self.sent)
    }
}

/// What a ReadyForQuery says.
fn status_in(first: Option<u8>) -> Result<TransactionStatus, Violation> {
    first
        .and_then(TransactionStatus::from_byte)
        .ok_or(Violation::Malformed(b'Z'))
}

/// ReadyForQuery follows by itself, after an error too.
#[inline]
fn is_ready_by_itself(sent: Sent) -> bool {
    matches!(sent, Sent::Query | Sent::OpenedQuery | Sent::FunctionCall)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Normal,
    /// The head asked for COPY data.
    CopyIn,
    /// After an error in the extended protocol, when no Sync has been sent yet.
    SkipToSync,
}

/// Whether the bookkeeping is still exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Exact,
    Lost,
}

/// Extended messages since the last Sync or Query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Closed,
    Open,
}

/// What an error throws away of statements that were to be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrownAway {
    Nothing,
    /// Ours: swallowed ones only.
    Ours,
    /// The client's, and none of them is sent again in a later batch.
    Clients,
}

/// What one server still owes. See the module's header.
#[derive(Debug)]
pub struct Pipeline {
    owed: VecDeque<Owed>,
    phase: Phase,
    batch: Batch,
    certainty: Certainty,
    status: TransactionStatus,
    /// The status but for what is hidden.
    told: TransactionStatus,
    /// The head has had a reply.
    begun: bool,
    /// Syncs that the head's COPY reads over, unless it failed before it came to them.
    read_over: u32,
    /// Syncs of a failed COPY, read over or still to be answered: no one can tell from here.
    doubtful: u32,
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline {
            owed: VecDeque::new(),
            phase: Phase::Normal,
            batch: Batch::Closed,
            certainty: Certainty::Exact,
            status: TransactionStatus::Idle,
            told: TransactionStatus::Idle,
            begun: false,
            read_over: 0,
            doubtful: 0,
        }
    }
}

impl Pipeline {
    /// The status of the last ReadyForQuery, but that a transaction is failed no longer once something has succeeded in it:
    /// that was its end, perhaps only to a savepoint.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The status as the client knows it: without a transaction of our own around messages that are hidden, or around
    /// settings.
    pub fn status_told(&self) -> TransactionStatus {
        self.told
    }

    /// Nothing is owed, no batch and no transaction is open, and that is certain.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.owed.is_empty()
            && self.status == TransactionStatus::Idle
            && self.batch == Batch::Closed
            && self.certainty == Certainty::Exact
    }

    /// No reply is outstanding: the server is waiting for the client, inside a transaction or batch or not.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.owed.is_empty()
    }

    /// Replies still owed.
    pub fn depth(&self) -> usize {
        self.owed.len()
    }

    /// How many ReadyForQuery the client is owed.
    pub fn owed_ready(&self) -> usize {
        let is_awaited = |owed: &&Owed| owed.show == Show::Client && owed.ends();
        self.owed.iter().filter(is_awaited).count()
    }

    /// Whether a ReadyForQuery is to come, be it for the client or not, but of no Query that is for us alone.
    pub fn awaits_ready(&self) -> bool {
        let is_awaited = |owed: &Owed| owed.show != Show::Own && owed.ends();
        self.owed.iter().any(is_awaited)
    }

    /// A Sync has not been answered yet.
    pub fn owes_sync(&self) -> bool {
        self.owed.iter().any(|owed| owed.sent == Sent::Sync)
    }

    /// Messages whose answers are for the client, and have not come to their end.
    pub fn owed_to_client(&self) -> usize {
        let is_shown =
            |owed: &&Owed| matches!(owed.show, Show::Client | Show::AsParse | Show::AsChanged);
        self.owed.iter().filter(is_shown).count()
    }

    /// The message that is answered now has had a part of its answer.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Something that is still to be answered may turn out to be a COPY from the client.
    pub fn may_be_copying(&self) -> bool {
        let may = |owed: &Owed| {
            owed.show != Show::Own && matches!(owed.sent, Sent::Query | Sent::Execute)
        };
        self.owed.iter().any(may)
    }

    /// What comes next answers a message of our own of which nobody is told.
    #[inline]
    pub fn answers_hidden(&self) -> bool {
        self.owed
            .front()
            .is_some_and(|owed| owed.show == Show::Hide)
    }

    /// What comes next answers a Query of our own.
    #[inline]
    pub fn answers_own(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.show == Show::Own)
    }

    /// A Query of our own has not been answered yet.
    pub fn owes_own(&self) -> bool {
        self.owed.iter().any(|owed| owed.show == Show::Own)
    }

    /// Whether a batch was begun and not yet ended by Sync.
    pub fn has_open_batch(&self) -> bool {
        self.batch == Batch::Open
    }

    /// The server throws away what it reads, up to the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.phase == Phase::SkipToSync
    }

    /// The server waits for COPY data.
    pub fn is_copying_in(&self) -> bool {
        self.phase == Phase::CopyIn
    }

    /// What an error that came now would throw away.
    pub fn thrown_away(&self) -> ThrownAway {
        let fails = |owed: &&Owed| !is_ready_by_itself(owed.sent);
        let Some(_) = self.owed.front().filter(fails) else {
            return ThrownAway::Nothing;
        };
        let is_sync = |owed: &Owed| owed.sent == Sent::Sync;
        let batch = self.owed.iter().take_while(|o| !is_sync(o));
        let mut later = self.owed.iter().skip_while(|o| !is_sync(o));
        let is_clients = |o: &Owed| o.sent == Sent::Parse && o.show == Show::Client;
        let (mut ours, mut clients) = (false, false);
        for owed in batch {
            clients |= is_clients(owed);
            ours |= owed.show == Show::Swallow;
        }
        match (clients && !later.any(is_clients), ours) {
            (true, _) => ThrownAway::Clients,
            (false, true) => ThrownAway::Ours,
            (false, false) => ThrownAway::Nothing,
        }
    }

    /// The server reads messages as such: it neither skips to the next Sync nor waits for COPY data. Only then may a
    /// message have a ticket.
    #[inline]
    pub fn is_listening(&self) -> bool {
        self.phase == Phase::Normal
    }

    /// The ticket of the message that is answered now.
    #[inline]
    pub fn head_ticket(&self) -> Option<Ticket> {
        self.owed.front()?.ticket
    }

    /// The last ticket among the messages that an error now would throw away: all before it are lost, too.
    pub fn last_lost_ticket(&self) -> Option<Ticket> {
        let head = self.owed.front()?;
        if is_ready_by_itself(head.sent) {
            return None;
        }
        let batch = self.owed.iter().take_while(|o| o.sent != Sent::Sync);
        batch.filter_map(|owed| owed.ticket).last()
    }

    /// A frontend message goes to the server.
    #[inline]
    pub fn send(&mut self, sent: Sent, show: Show) {
        self.send_ticketed(sent, show, None);
    }

    /// [`Pipeline::send`] of a message of which somebody keeps book.
    #[inline]
    pub fn send_ticketed(&mut self, sent: Sent, show: Show, ticket: Option<Ticket>) {
        debug_assert!(ticket.is_none() || self.is_listening());
        match sent {
            Sent::Flush | Sent::CopyData => return,
            Sent::CopyEnd => return self.send_copy_end(show),
            Sent::Sync => return self.send_sync(show),
            Sent::Query | Sent::OpenedQuery | Sent::FunctionCall => {
                if self.phase != Phase::SkipToSync {
                    self.batch = Batch::Closed;
                }
            }
            _ => self.batch = Batch::Open,
        }
        // In copy-in mode too: the COPY may have failed already, and then this is executed.
        if self.phase != Phase::SkipToSync {
            self.owed.push_back(Owed { sent, show, ticket });
        }
    }

    fn send_sync(&mut self, show: Show) {
        match self.phase {
            Phase::CopyIn => self.read_over = self.read_over.saturating_add(1),
            Phase::Normal | Phase::SkipToSync => {
                self.phase = Phase::Normal;
                self.batch = Batch::Closed;
                self.owed.push_back(Owed::plain(Sent::Sync, show));
            }
        }
    }

    fn send_copy_end(&mut self, show: Show) {
        match self.phase {
            Phase::CopyIn => self.phase = Phase::Normal,
            // Something ahead of it may still turn out to be a COPY.
            Phase::Normal if !self.owed.is_empty() => {
                self.owed.push_back(Owed::plain(Sent::CopyEnd, show));
            }
            Phase::Normal | Phase::SkipToSync => {}
        }
    }

    /// A backend message arrived; `first` is the first byte of its body, if it has one.
    ///
    /// # Errors
    /// A message that nothing asked for: the server is broken or hostile and must be closed.
    #[inline]
    pub fn receive(&mut self, tag: u8, first: Option<u8>) -> Result<Show, Violation> {
        // NoticeResponse, NotificationResponse and ParameterStatus may come at any place.
        if matches!(tag, b'N' | b'A' | b'S') {
            let head = self.owed.front().map(|owed| owed.show);
            return Ok(match head.filter(|_| tag == b'N') {
                // What is noticed of a text was told when the client sent it.
                Some(show @ (Show::Own | Show::Hide | Show::Swallow)) => show,
                _ => Show::Client,
            });
        }
        if tag == b'Z' && self.answers_doubtful_sync() {
            return self.receive_doubtful(first).map(|()| Show::Client);
        }
        let Some(&head) = self.owed.front() else {
            return self.receive_unasked(tag);
        };
        self.begun = true;
        if tag == b'C' && self.status == TransactionStatus::Failed {
            self.status = TransactionStatus::Transaction;
        }
        match (tag, head.sent) {
            (b'D', Sent::Query | Sent::Execute) => {}
            (b'E', _) => {
                self.receive_error(head);
                return Ok(match head.show {
                    Show::Own | Show::Hide | Show::AsChanged => head.show,
                    Show::Client | Show::Swallow | Show::AsParse => Show::Client,
                });
            }
            (b'Z', sent) if sent == Sent::Sync || is_ready_by_itself(sent) => {
                self.receive_ready(head, first)?;
            }
            (b'1' | b'2' | b'T' | b'D' | b'C', Sent::OpenedQuery) => {}
            (b'T' | b'C' | b'I' | b'H' | b'd' | b'c', Sent::Query) => {}
            (b'G', Sent::Query | Sent::Execute) => self.receive_copy_in(),
            (b'H' | b'd' | b'c', Sent::Execute) | (b'V', Sent::FunctionCall) => {}
            (b't', Sent::DescribeStatement) => self.described_parameters(),
            (b'1', Sent::Parse)
            | (b'2', Sent::Bind)
            | (b'3', Sent::Close)
            | (b'T' | b'n', Sent::DescribePortal)
            | (b'C' | b's' | b'I', Sent::Execute) => self.pop(),
            _ => return Err(Violation::Unexpected(tag)),
        }
        Ok(head.show)
    }

    /// With nothing owed only an error that ends the connection can come: whatever it is, nobody else gets this server.
    fn receive_unasked(&mut self, tag: u8) -> Result<Show, Violation> {
        self.certainty = Certainty::Lost;
        match tag {
            b'E' => Ok(Show::Client),
            _ => Err(Violation::Unexpected(tag)),
        }
    }

    /// A ReadyForQuery that the head cannot have caused, as a doubtful Sync may have. A Query never gets it alone.
    fn answers_doubtful_sync(&self) -> bool {
        self.doubtful > 0
            && match self.owed.front().map(|owed| owed.sent) {
                Some(Sent::Sync) => false,
                Some(sent) if is_ready_by_itself(sent) => !self.begun,
                _ => true,
            }
    }

    fn receive_doubtful(&mut self, first: Option<u8>) -> Result<(), Violation> {
        self.doubtful -= 1;
        if self.phase == Phase::SkipToSync {
            self.phase = Phase::Normal;
            self.batch = Batch::Closed;
        }
        self.told = status_in(first)?;
        self.status = self.told;
        Ok(())
    }

    /// ParameterDescription is followed by RowDescription or NoData, as a portal's description is.
    fn described_parameters(&mut self) {
        if let Some(head) = self.owed.front_mut() {
            head.sent = Sent::DescribePortal;
        }
    }

    fn receive_ready(&mut self, head: Owed, first: Option<u8>) -> Result<(), Violation> {
        self.status = status_in(first)?;
        if head.show != Show::Hide && head.sent != Sent::OpenedQuery {
            self.told = self.status;
        }
        self.pop();
        Ok(())
    }

    fn receive_error(&mut self, head: Owed) {
        let copying = self.phase == Phase::CopyIn;
        if copying {
            self.phase = Phase::Normal;
        }
        if self.read_over > 0 {
            self.doubtful = self.doubtful.saturating_add(self.read_over);
            self.read_over = 0;
            self.certainty = Certainty::Lost;
        }
        if head.sent == Sent::OpenedQuery {
            self.certainty = Certainty::Lost;
        }
        if is_ready_by_itself(head.sent) {
            return;
        }
        while let Some(next) = self.owed.front() {
            if next.sent == Sent::Sync {
                return;
            }
            self.owed.pop_front();
            self.begun = false;
        }
        self.phase = Phase::SkipToSync;
        self.batch = Batch::Open;
    }

    fn receive_copy_in(&mut self) {
        self.phase = Phase::CopyIn;
        // What was sent behind the head before it was known to be a COPY is read in copy-in mode.
        while let Some(next) = self.owed.get(1) {
            match next.sent {
                Sent::Sync => {
                    self.owed.remove(1);
                    self.read_over = self.read_over.saturating_add(1);
                    self.batch = Batch::Open;
                }
                Sent::CopyEnd => {
                    self.owed.remove(1);
                    self.phase = Phase::Normal;
                    return;
                }
                // The server ends the connection for it.
                _ => return,
            }
        }
        if self.owed.front().is_some_and(|o| o.sent == Sent::Query) {
            self.batch = Batch::Closed;
        }
    }

    #[inline]
    fn pop(&mut self) {
        self.owed.pop_front();
        self.begun = false;
        self.read_over = 0;
        // COPY messages that met no copy-in mode are read over.
        while self
            .owed
            .front()
            .is_some_and(|next| next.sent == Sent::CopyEnd)
        {
            self.owed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sent::*;

    /// `q p b d s e c y` send (s: DescribeStatement, y: Sync, k: CopyEnd, u: swallowed Parse); `<` receives the bytes that follow,
    /// `Z` being followed by its status.
    fn run(script: &str) -> Result<Pipeline, Violation> {
        let mut p = Pipeline::default();
        let mut bytes = script.bytes();
        while let Some(b) = bytes.next() {
            let sent = match b {
                b' ' => continue,
                b'<' => {
                    let tag = bytes.next().unwrap();
                    let first = (tag == b'Z').then(|| bytes.next().unwrap());
                    p.receive(tag, first)?;
                    continue;
                }
                b'q' => Query,
                b'p' => Parse,
                b'b' => Bind,
                b'd' => DescribePortal,
                b's' => DescribeStatement,
                b'e' => Execute,
                b'c' => Close,
                b'y' => Sync,
                b'h' => Flush,
                b'f' => FunctionCall,
                b'k' => CopyEnd,
                b'x' => CopyData,
                other => panic!("{other}"),
            };
            p.send(sent, Show::Client);
        }
        Ok(p)
    }

    fn free(script: &str) {
        let p = run(script).unwrap_or_else(|v| panic!("{script}: {v}"));
        assert!(p.is_free(), "{script}: {p:?}");
    }

    fn busy(script: &str) {
        let p = run(script).unwrap_or_else(|v| panic!("{script}: {v}"));
        assert!(!p.is_free(), "{script}: {p:?}");
    }

    #[test]
    fn simple_queries_are_free_after_each_ready_for_query() {
        free("q <T<D<D<C<ZI");
        free("q <I<ZI");
        free("q <T<C<C<E<ZI");
        free("q q <C<ZI <C<ZI");
        busy("q q <C<ZI");
        busy("q <C<ZT");
        busy("q <E<ZE");
        free("f <V<ZI");
        free("f <E<ZI");
    }

    #[test]
    fn a_query_sent_while_the_failure_of_a_copy_was_under_way_is_answered() {
        free("q <G xx q q <E<ZI <T<D<C<ZI <I<ZI");
        busy("q <G x q <E<ZI");
        free("q <G x k q <E<ZI <C<ZI");
    }

    #[test]
    fn batches_are_free_after_their_sync_only() {
        free("pbdey <1<2<T<D<C<ZI");
        free("psy <1<t<n<ZI");
        free("bey bey <2<C<ZI <2<s<ZI");
        busy("pbe <1<2<C");
        busy("pbeh <1<2<C");
        free("pbeh <1<2<C y <ZI");
        busy("pbey <1<2<C<ZT");
        free("y <ZI");
        free("cy <3<ZI");
    }

    #[test]
    fn an_error_skips_to_the_next_sync_and_no_further() {
        free("pbdey <E<ZI");
        free("pbdey <1<E<ZI");
        free("pbey pbey <E<ZI <1<2<C<ZI");
        free("pbe <E by <ZI");
        // A Query before the Sync is thrown away like the rest.
        free("pbe <E q y <ZI");
        busy("pbe <E");
        busy("pbe <E q");
        free("pbe q y <E<ZI");
    }

    #[test]
    fn a_failed_transaction_is_failed_until_something_succeeds_in_it() {
        let status = |script| run(script).unwrap().status();
        assert_eq!(status("q <E<ZE"), TransactionStatus::Failed);
        assert_eq!(status("q <E<ZE pbe <E"), TransactionStatus::Failed);
        assert_eq!(status("q <E<ZE pbe <1<2<C"), TransactionStatus::Transaction);
        assert_eq!(status("q <E<ZE pbey <1<2<C<ZI"), TransactionStatus::Idle);
    }

    #[test]
    fn copy_in_reads_over_what_was_sent_before_it_was_known() {
        free("q <G xxk <C<ZI");
        free("q <G xx <E<ZI k");
        free("q <G xxk <E<ZI");
        free("pbey <1<2<G xxk y <C<ZI");
        free("q xxk <G<C<ZI");
        free("q xxk <E<ZI");
        free("pbe xxk y <1<2<G<C<ZI");
        free("q <H<d<d<c<C<ZI");
        free("pbey <1<2<H<d<c<C<ZI");
    }

    #[test]
    fn a_sync_inside_copy_in_makes_the_server_unfit_for_others_if_the_copy_fails() {
        free("q <G xyxk <C<ZI");
        // Read over, or still to be answered.
        busy("q <G xyxk <E<ZI");
        busy("q <G xyxk <E<ZI<ZI");
        busy("pbey <1<2<G xx <E k y <ZI");
        busy("pbey <1<2<G xx <E <ZI k y <ZI");
        busy("pbey <1<2<G xx <E k y <ZI<ZI q <C<ZI");
        busy("q xy q <G<E<ZI <ZI <C<ZI");
        assert!(run("q <G xyxk <E<ZI<ZI<ZI").is_err());
    }

    #[test]
    fn asynchronous_messages_change_nothing_anywhere() {
        free("<N<A<S");
        free("<S q <N<T<A<D<S<C<N<ZI<A");
        free("pb<N ey <1<S<2<A<C<N<ZI");
    }

    #[test]
    fn what_nothing_asked_for_is_a_violation() {
        for script in [
            "<ZI",
            "<C",
            "<D",
            "q<1",
            "q<ZX",
            "q<n",
            "py<2",
            "p<ZI",
            "pbey<1<2<T",
            "sy<T",
            "f<C",
            "q<W",
            "q<ZI<ZI",
        ] {
            assert!(run(script).is_err(), "{script}");
        }
        assert_eq!(run("q<Z\0").err(), Some(Violation::Malformed(b'Z')));
        assert!(run("<E").is_ok());
    }

    #[test]
    fn an_error_tells_which_statements_were_not_prepared() {
        use ThrownAway::*;
        for (script, expected) in [
            ("py", Clients),
            ("epy", Clients),
            ("py py", Nothing),
            ("py by", Clients),
            ("pby <1", Nothing),
            ("q", Nothing),
            ("", Nothing),
            ("by py", Nothing),
        ] {
            assert_eq!(run(script).unwrap().thrown_away(), expected, "{script}");
        }
        let mut p = run("e").unwrap();
        p.send(Parse, Show::Swallow);
        assert_eq!(p.thrown_away(), Ours);
    }

    #[test]
    fn tickets_end_with_their_message_or_are_lost_with_its_batch() {
        let ticket = NonZeroU32::new;
        let mut p = run("y").unwrap();
        p.send_ticketed(Parse, Show::Client, ticket(1));
        p.send(Bind, Show::Client);
        p.send_ticketed(Close, Show::AsParse, ticket(2));
        p.send(Sync, Show::Client);
        p.send_ticketed(Parse, Show::Client, ticket(3));
        // An error at a Sync throws nothing away.
        assert_eq!((p.head_ticket(), p.last_lost_ticket()), (None, None));
        p.receive(b'Z', Some(b'I')).unwrap();
        assert_eq!(p.head_ticket(), ticket(1));
        assert_eq!(p.last_lost_ticket(), ticket(2));
        p.receive(b'1', None).unwrap();
        assert_eq!((p.head_ticket(), p.last_lost_ticket()), (None, ticket(2)));
        p.receive(b'E', None).unwrap();
        assert_eq!((p.head_ticket(), p.last_lost_ticket()), (None, None));
        p.receive(b'Z', Some(b'I')).unwrap();
        assert_eq!(p.last_lost_ticket(), ticket(3));
        p.receive(b'E', None).unwrap();
        assert!(!p.is_listening());

        // An error of a simple Query throws nothing away.
        let mut p = run("q").unwrap();
        p.send_ticketed(Parse, Show::Client, ticket(1));
        assert_eq!(p.last_lost_ticket(), None);
    }

    #[test]
    fn the_error_of_a_hidden_message_is_not_shown_and_skips_like_any_other() {
        let mut p = Pipeline::default();
        p.send(Parse, Show::Hide);
        p.send(Sync, Show::Hide);
        p.send(Query, Show::Client);
        assert_eq!(p.receive(b'E', None), Ok(Show::Hide));
        assert_eq!(p.receive(b'Z', Some(b'I')), Ok(Show::Hide));
        assert_eq!(p.receive(b'C', None), Ok(Show::Client));
        p.receive(b'Z', Some(b'I')).unwrap();
        p.send(Close, Show::AsParse);
        p.send(Close, Show::AsParse);
        assert_eq!(p.receive(b'3', None), Ok(Show::AsParse));
        assert_eq!(p.receive(b'E', None), Ok(Show::Client));
    }

    #[test]
    fn the_client_awaits_no_end_of_what_was_not_its_own() {
        let mut p = Pipeline::default();
        p.send(Query, Show::Hide);
        p.send(Parse, Show::Hide);
        p.send(Sync, Show::Hide);
        assert_eq!((p.owed_ready(), p.awaits_ready()), (0, true));
        p.send(Parse, Show::Client);
        p.send(Sync, Show::Swallow);
        assert_eq!(p.owed_ready(), 0);
        p.send(Query, Show::Client);
        p.send(Query, Show::Own);
        assert_eq!(p.owed_ready(), 1);
        // Nor has it a transaction of ours.
        p.receive(b'C', None).unwrap();
        p.receive(b'Z', Some(b'T')).unwrap();
        let (told, status) = (p.status_told(), p.status());
        assert_eq!(told, TransactionStatus::Idle);
        assert_eq!(status, TransactionStatus::Transaction);
        let mut p = Pipeline::default();
        p.send(Query, Show::Own);
        assert_eq!((p.owed_ready(), p.awaits_ready()), (0, false));
        let p = run("q <C<ZT q").unwrap();
        assert_eq!(p.status_told(), TransactionStatus::Transaction);
    }

    #[test]
    fn a_query_that_is_opened_by_a_batch_without_an_end_has_one_answer() {
        let opened = || {
            let mut p = Pipeline::default();
            p.send(OpenedQuery, Show::Own);
            p.send(Query, Show::Client);
            p
        };
        let mut p = opened();
        for tag in *b"12CTDC" {
            assert_eq!(p.receive(tag, None), Ok(Show::Own));
        }
        assert_eq!(p.receive(b'Z', Some(b'I')), Ok(Show::Own));
        assert_eq!(p.owed_to_client(), 1);
        p.receive(b'C', None).unwrap();
        p.receive(b'Z', Some(b'I')).unwrap();
        assert!(p.is_free());
        // What it throws away is not known: the server is for nobody any more.
        let mut p = opened();
        assert_eq!(p.receive(b'E', None), Ok(Show::Own));
        assert_eq!((p.owed_to_client(), p.owed_ready()), (1, 1));
        assert!(!p.is_free());
        assert!(opened().receive(b'3', None).is_err());
    }

    #[test]
    fn only_the_reply_of_a_swallowed_message_is_hidden() {
        let mut p = Pipeline::default();
        p.send(Parse, Show::Swallow);
        p.send(Bind, Show::Client);
        p.send(Sync, Show::Client);
        assert_eq!(p.receive(b'1', None), Ok(Show::Swallow));
        assert_eq!(p.receive(b'2', None), Ok(Show::Client));
        p.send(Parse, Show::Swallow);
        assert_eq!(p.receive(b'Z', Some(b'I')), Ok(Show::Client));
        assert_eq!(p.receive(b'E', None), Ok(Show::Client));
    }
}
