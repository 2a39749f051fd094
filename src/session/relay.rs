//! Moves bytes between the client and the held server: reads once per readiness, writes each direction with one call.
//!
//! Frames are only looked at in [`super::frontend`] and [`super::backend`]; what they pass is forwarded as one span.
//! A peer that does not read stops the other from being read: what is under way is at most one buffer a direction.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{Inbound, Link, Session, blocks::Blocks, outcome::Cause, registry::Signal};
use crate::{
    error::Error, metrics::Count, net, net::Stream, server::pool::Pool, wire::buffer::Buffer,
};

/// Rounds of one poll: a busy session lets the worker's others run after so many.
const MAX_ROUNDS: u32 = 16;
/// Replies that may be owed before the client is read no further: pipelines of millions must not cost memory.
const MAX_OWED: usize = 64 * 1024;
/// How long a client that says nothing more waits for a server that says nothing: it may have left altogether, which
/// shows only when it is written to.
const MAX_SILENCE: Duration = Duration::from_secs(5);

/// Why the relay stopped.
pub(super) enum Step {
    /// The client's next message needs a server: of this pool, if one was chosen.
    WantsServer(Option<Rc<Pool>>),
    ServerEnded(ServerEnd),
    Ended(End),
}

/// How the held server was lost.
pub(super) enum ServerEnd {
    /// EOF, or an error of the socket.
    Gone(String),
    /// It was shut down, and said so in this message (FATAL 57P01), which the client has not got.
    ShutDown(Box<[u8]>),
    /// It broke the protocol.
    Broke(Error),
    /// Its connection may still live, but what it says no longer counts, or will never come.
    GivenUp(Cause),
    /// It was cancelled while it was set to the session's settings, and refuses what was sent behind them.
    Cancelled,
}

/// Why the session ends.
pub(super) enum End {
    /// Terminate, EOF, or an error of the client's socket: nobody is left to be told.
    ClientGone,
    /// The client is to be told.
    Error(Error),
    /// The server has said FATAL, and the client has got it.
    Told,
    /// The held server's node takes no more work, and nothing is open there.
    NodeLeft,
}

/// What one direction's step did.
enum Moved {
    Nothing,
    /// So many.
    Bytes(u64),
    Closed,
}

impl Session {
    /// Moves what can be moved until neither side can go on.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.entry.watch(cx.waker());
        for _ in 0..MAX_ROUNDS {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) => return self.rest(cx),
                Err(step) => return Poll::Ready(step),
            }
        }
        if let Some(step) = self.must_leave() {
            return Poll::Ready(step);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One pass over both directions; false when nothing moved.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, Step> {
        let mut moved = self.read_client(cx)?;
        self.scan_client()?;
        if self.write_server(cx)? {
            moved = true;
            self.release_if_free();
        }
        moved |= self.read_server(cx)?;
        moved |= self.write_client(cx)?;
        Ok(moved)
    }

    /// Nothing can move: the last look before sleeping.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.entry.signal() != Signal::None
            && let Some(end) = self.obey()
        {
            return Poll::Ready(Step::Ended(end));
        }
        if let Some(step) = self.must_leave() {
            return Poll::Ready(step);
        }
        if self.poll_silence(cx).is_ready() {
            return Poll::Ready(Step::Ended(End::ClientGone));
        }
        if self.entry.take_look()
            && let Some(step) = self.silent_peer()
        {
            return Poll::Ready(step);
        }
        let waits_for_client = match &self.link {
            Link::Free | Link::Lost(_) => true,
            Link::Held { server, .. } => server.pipeline.is_quiet(),
        };
        if waits_for_client {
            self.give_back_blocks();
        }
        Poll::Pending
    }

    fn give_back_blocks(&mut self) {
        let blocks = &self.context.blocks;
        if self.from_client.as_ref().is_some_and(|b| b.is_drained())
            && let Some(buffer) = self.from_client.take()
        {
            blocks.give_back(buffer);
        }
        if self.to_client.as_ref().is_some_and(|b| b.is_drained())
            && let Some(buffer) = self.to_client.take()
        {
            blocks.give_back(buffer);
        }
    }

    /// The client has got all there is for it.
    pub(super) fn client_is_served(&self) -> bool {
        self.out.is_empty()
            && self
                .to_client
                .as_ref()
                .is_none_or(|b| b.pending().is_empty() && !b.is_inside_frame())
    }

    /// Something that a server said is still on its way to the client.
    pub(super) fn has_more_to_tell(&self) -> bool {
        let buffer = self.to_client.as_ref();
        buffer.is_some_and(|b| !b.pending().is_empty())
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Step> {
        if !matches!(self.inbound, Inbound::Open) {
            return Ok(false);
        }
        if let Link::Held { server, .. } = &self.link
            && server.pipeline.depth() >= MAX_OWED
        {
            return Ok(false);
        }
        match fill(
            &mut self.client,
            &mut self.from_client,
            &self.context.blocks,
            cx,
        ) {
            Ok(Moved::Nothing) => Ok(false),
            Ok(Moved::Bytes(n)) => {
                self.context.counters.client_in.add(n);
                Ok(true)
            }
            Ok(Moved::Closed) => {
                self.end_inbound();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end_inbound();
                Ok(true)
            }
            Err(_) => Err(Step::Ended(End::ClientGone)),
        }
    }

    /// Whether the client still listens cannot be told from here: PostgreSQL, too, runs what it was sent.
    #[cold]
    fn end_inbound(&mut self) {
        if matches!(self.inbound, Inbound::Open) {
            let patience = tokio::time::sleep(MAX_SILENCE);
            self.inbound = Inbound::Ended(Box::pin(patience));
        }
    }

    /// Nothing has come for a client of which nobody knows whether it listens.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.inbound {
            Inbound::Ended(patience) => patience.as_mut().poll(cx),
            Inbound::Open | Inbound::Broken(_) => Poll::Pending,
        }
    }

    fn write_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Step> {
        let Link::Held { server, .. } = &mut self.link else {
            return Ok(false);
        };
        let Some(buffer) = &mut self.from_client else {
            return Ok(false);
        };
        // A server that no longer takes anything may still have said why: its end is found by reading.
        let counted = &self.context.counters.server_out;
        Ok(drain(&mut server.stream, buffer, counted, cx).unwrap_or(false))
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Step> {
        let Link::Held { server, .. } = &mut self.link else {
            return Ok(false);
        };
        match fill(
            &mut server.stream,
            &mut self.to_client,
            &self.context.blocks,
            cx,
        ) {
            Ok(Moved::Nothing) => Ok(false),
            Ok(Moved::Bytes(n)) => {
                self.context.counters.server_in.add(n);
                if let Inbound::Ended(patience) = &mut self.inbound {
                    patience.as_mut().reset(Instant::now() + MAX_SILENCE);
                }
                self.scan_server()?;
                Ok(true)
            }
            Ok(Moved::Closed) => Err(self.server_gone("end of file")),
            Err(error) => Err(self.server_gone(&error.to_string())),
        }
    }

    /// A peer that the network has taken away, which nothing else would tell for a quarter of an hour.
    #[cold]
    fn silent_peer(&self) -> Option<Step> {
        let patience = self.context.config.borrow().limits.peer_timeout;
        if net::is_silent(self.client.tcp(), patience) {
            return Some(Step::Ended(End::ClientGone));
        }
        match &self.link {
            Link::Held { server, .. } if net::is_silent(server.stream.tcp(), patience) => {
                Some(Step::ServerEnded(ServerEnd::GivenUp(Cause::Silent)))
            }
            _ => None,
        }
    }

    fn server_gone(&mut self, detail: &str) -> Step {
        Step::ServerEnded(ServerEnd::Gone(detail.to_owned()))
    }

    pub(super) fn write_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Step> {
        self.try_write_client(cx)
            .map_err(|_| Step::Ended(End::ClientGone))
    }

    fn try_write_client(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let moved = self.try_write_out(cx)?;
        if !self.out.is_empty() {
            return Ok(moved);
        }
        if self.split.is_some() && self.holds_back() {
            return Ok(moved);
        }
        let counted = &self.context.counters.client_out;
        match &mut self.to_client {
            Some(buffer) => {
                let answered = drain(&mut self.client, buffer, counted, cx)?;
                if answered && self.split.is_some() {
                    self.note_told();
                }
                Ok(answered | moved)
            }
            None => flush(&mut self.client, cx).map(|()| moved),
        }
    }

    fn try_write_out(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while !self.out.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut self.client).poll_write(cx, &self.out) else {
                return Ok(moved);
            };
            let written = written?;
            self.out.drain(..written);
            self.context.counters.client_out.add(written as u64);
            moved = true;
        }
        if moved {
            // An idle session keeps no memory for it.
            self.out = Vec::new();
        }
        Ok(moved)
    }

    /// Waits until the client has got everything; for the end of a session and of a server.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn flush_client(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while self.try_write_client(cx)? {}
            let pending = self.to_client.as_ref().map_or(0, |b| b.pending().len());
            if self.out.is_empty() && pending == 0 {
                Pin::new(&mut self.client).poll_flush(cx)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Reads on while the session waits for a server, so that a client that leaves is noticed.
    pub(super) fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.entry.watch(cx.waker());
        loop {
            match self.read_client(cx) {
                Ok(true) => {}
                Ok(false) => return self.poll_silence(cx),
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

/// Reads once into `buffer`'s room, taking a block if there is none.
fn fill(
    stream: &mut Stream,
    buffer: &mut Option<Box<Buffer>>,
    blocks: &Blocks,
    cx: &mut Context<'_>,
) -> io::Result<Moved> {
    let target = buffer.get_or_insert_with(|| blocks.take());
    let room = target.room();
    let len = room.len();
    if len == 0 {
        return Ok(Moved::Nothing);
    }
    let mut read = ReadBuf::new(room);
    match Pin::new(stream).poll_read(cx, &mut read) {
        Poll::Pending => Ok(Moved::Nothing),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(())) => match read.filled().len() {
            0 => Ok(Moved::Closed),
            n => {
                target.fill(n);
                if n == len {
                    blocks.enlarge(target);
                }
                Ok(Moved::Bytes(n as u64))
            }
        },
    }
}

/// Writes what is pending, as far as the socket takes it.
fn drain(
    stream: &mut Stream,
    buffer: &mut Buffer,
    counted: &Count,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    if buffer.pending().is_empty() {
        flush(stream, cx)?;
        return Ok(false);
    }
    let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, buffer.pending()) else {
        return Ok(false);
    };
    let written = written?;
    buffer.sent(written);
    counted.add(written as u64);
    flush(stream, cx)?;
    Ok(true)
}

/// TLS keeps written bytes until it is flushed; a plain socket does not.
fn flush(stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
    if stream.is_tls()
        && let Poll::Ready(flushed) = Pin::new(stream).poll_flush(cx)
    {
        flushed?;
    }
    Ok(())
}
