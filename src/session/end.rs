//! Ends: of the held server, and of the session.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Link, Session,
    catalogue::Reliance,
    outcome::{Cause, Place, Ties, Verdict, outcome},
    pins::Trace,
    registry::{Activity, Signal},
    relay::{End, ServerEnd, Step},
    shutdown::Lost,
    tenure::{Tenure, tenure},
};
use crate::{
    client::report,
    error::{Error, Kind, Severity, Side},
    server::{connection::Server, pool::Pool},
    topology::{Evidence, Moment, NodeView},
    wire::{TransactionStatus, pipeline::Pipeline},
};

/// How long a server that does not read is given to take what a client sent before it left.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client that does not read is given to take its last messages.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client that broke the protocol may still send, and how long, before its connection is cut: closing with unread
/// bytes makes TCP throw our last message away.
const FAREWELL_BYTES: usize = 64 * 1024;
const FAREWELL: Duration = Duration::from_secs(2);

/// What was sent to `node` has failed, and might not have elsewhere.
pub(super) fn note_failure(node: &NodeView) {
    if node.load.note_failure(Moment::now()) {
        let node = &node.config.name;
        tracing::warn!(node, "failed time after time: passed over for a while");
    }
}

impl Session {
    /// A client may send a statement and leave: what it sent is executed, as it is without a proxy.
    pub(super) async fn finish_sending(&mut self) {
        let (Link::Held { server, .. }, Some(buffer)) = (&mut self.link, &mut self.from_client)
        else {
            return;
        };
        if self.server_fatal || buffer.is_inside_frame() || buffer.pending().is_empty() {
            return;
        }
        let sending = async {
            server.stream.write_all(buffer.pending()).await?;
            server.stream.flush().await
        };
        if let Ok(Ok(())) = tokio::time::timeout(LAST_WRITE_TIMEOUT, sending).await {
            buffer.sent(buffer.pending().len());
        }
    }

    /// The held server is lost. False when that ends the session.
    pub(super) async fn server_ended(&mut self, end: ServerEnd) -> bool {
        let repeats = self.repeats_after_loss(&end);
        let Link::Held { server, pool } = std::mem::replace(&mut self.link, Link::Free) else {
            return true;
        };
        self.entry.hold(None);
        self.prepared.server_lost();
        if self.schema.end() {
            self.context.schema.advance();
        }
        self.change = None;
        self.reliance = Reliance::None;
        let (node, place) = (pool.view(), self.place_of(&pool));
        let generation = server.generation;
        let pipeline = pool.close(server);
        let is_its_fault = matches!(end, ServerEnd::Gone(_) | ServerEnd::GivenUp(Cause::Silent));
        if is_its_fault && !pipeline.is_free() {
            note_failure(&node);
        }
        if repeats {
            self.tell_loss(&node.config.name, &end);
            self.question = None;
            self.resend();
            return true;
        }
        self.end_visit();
        if self.server_fatal {
            self.say_goodbye(End::Told).await;
            return false;
        }
        let verdict = match end {
            ServerEnd::ShutDown(words) => {
                let lost = Lost {
                    pool,
                    pipeline,
                    generation,
                    words,
                };
                return Box::pin(self.server_shut_down(lost)).await;
            }
            ServerEnd::Broke(error) => {
                // What it said beside the protocol is not passed, and must not stand in the way of our last message.
                if let Some(buffer) = &mut self.to_client {
                    buffer.discard(buffer.unseen().len());
                }
                tracing::warn!(%error, "closed a server");
                Verdict::Ended(error)
            }
            ServerEnd::Cancelled => {
                self.tell_loss(&node.config.name, &end);
                self.unsettled = None;
                return self.survive_cancel(&pipeline).await;
            }
            ServerEnd::Gone(_) => {
                self.tell_loss(&node.config.name, &end);
                self.outcome(&pipeline, place, Cause::Ended)
            }
            ServerEnd::GivenUp(cause) => {
                self.tell_loss(&node.config.name, &end);
                self.outcome(&pipeline, place, cause)
            }
        };
        // What was changed in the transaction that is gone is as it was.
        (self.question, self.unsettled) = (None, None);
        self.obey_verdict(verdict, &pipeline).await
    }

    pub(super) fn place_of(&self, pool: &Pool) -> Place {
        Place::of(self.route_held(), pool.profile().access, pool.view().role)
    }

    fn tell_loss(&self, node: &str, end: &ServerEnd) {
        match end {
            ServerEnd::Gone(detail) => {
                tracing::debug!(node, detail, "lost a server");
                self.context.outside.report(node, Evidence::Eof);
            }
            ServerEnd::GivenUp(cause) => tracing::debug!(node, ?cause, "gave a server up"),
            ServerEnd::Broke(error) => tracing::warn!(node, %error, "closed a server"),
            ServerEnd::Cancelled => tracing::debug!(node, "closed a server cancelled too early"),
            ServerEnd::ShutDown(_) => {}
        }
    }

    fn outcome(&self, pipeline: &Pipeline, place: Place, cause: Cause) -> Verdict {
        outcome(
            pipeline.status_told(),
            self.flight,
            place,
            self.ties(),
            cause,
        )
    }

    /// Whether the held server's node still stands by it, and what is to be done if not. Asked whenever the session
    /// is about to sleep; a new snapshot wakes it for that.
    #[inline]
    pub(super) fn must_leave(&self) -> Option<Step> {
        match &self.link {
            Link::Held { server, pool } if !pool.is_current(server) => self.leave(server, pool),
            Link::Held { .. } if self.split.is_some() && self.is_stranded() => {
                Some(Step::Ended(End::NodeLeft))
            }
            _ => None,
        }
    }

    fn leave(&self, server: &Server, pool: &Pool) -> Option<Step> {
        let tenure = match pool.has_moved(server) {
            true => Tenure::Leaving,
            false => tenure(self.route_held(), pool.profile().access, &pool.view()),
        };
        let gives_up = |cause| Some(Step::ServerEnded(ServerEnd::GivenUp(cause)));
        match tenure {
            Tenure::Good => None,
            Tenure::Deposed => gives_up(Cause::Deposed),
            Tenure::Silent if !server.pipeline.is_quiet() => gives_up(Cause::Silent),
            Tenure::Leaving if server.pipeline.is_free() && self.client_is_served() => {
                Some(Step::Ended(End::NodeLeft))
            }
            Tenure::Silent | Tenure::Leaving => None,
        }
    }

    pub(super) fn ties(&self) -> Ties {
        if !self.pins.is_pinned() && !self.has_unknown_settings() {
            return Ties::None;
        }
        Ties::Pinned {
            reason: self.pins.reason().unwrap_or("settings"),
            listened: self.pins.traces().has(Trace::Listen),
        }
    }

    pub(super) async fn obey_verdict(&mut self, verdict: Verdict, pipeline: &Pipeline) -> bool {
        match verdict {
            // The next server's replies must not follow half a message, nor its requests the rest of a stray one.
            Verdict::Unharmed if self.is_inside_reply() => false,
            Verdict::Unharmed => {
                self.abandon_unsent();
                true
            }
            Verdict::Ended(error) => {
                self.say_goodbye(End::Error(error)).await;
                false
            }
            // A client in the middle of a row could not tell the error from the row.
            Verdict::Failed(_) if self.is_inside_reply() => false,
            Verdict::Failed(error) => self.survive(error, pipeline).await,
        }
    }

    /// Something that the server said has not been read to its end.
    pub(super) fn is_inside_reply(&self) -> bool {
        let buffer = self.to_client.as_ref();
        buffer.is_some_and(|b| b.is_inside_frame() || !b.unseen().is_empty())
    }

    /// The client gets all that the server still said before the rest is answered in its place.
    async fn survive(&mut self, error: Error, pipeline: &Pipeline) -> bool {
        if self.flush_client().await.is_err() {
            return false;
        }
        self.abandon_unsent();
        self.fail_transaction(error, pipeline);
        true
    }

    /// The same, of a server that executed nothing and has said nothing for the client.
    async fn survive_cancel(&mut self, pipeline: &Pipeline) -> bool {
        if let Some(buffer) = &mut self.to_client {
            buffer.discard(buffer.unseen().len());
        }
        if !self.entry.was_cancel_sent() && self.begins_again() {
            return true;
        }
        if self.flush_client().await.is_err() {
            return false;
        }
        self.abandon_unsent();
        self.fail_cancelled(pipeline);
        true
    }

    /// What was meant for the lost server goes no further.
    fn abandon_unsent(&mut self) {
        if let Some(buffer) = &mut self.from_client {
            buffer.abandon();
        }
    }

    /// Tells the client why its session ends, if it can be told.
    pub(super) async fn say_goodbye(&mut self, end: End) {
        self.end_visit();
        let error = match end {
            End::ClientGone => return,
            End::Told => None,
            End::Error(error) => Some(error),
            End::NodeLeft => Some(node_left()),
        };
        let is_at_fault = matches!(&error, Some(error) if error.side == Side::Client);
        let told = tokio::time::timeout(GOODBYE_TIMEOUT, self.flush_and_tell(error)).await;
        if told.is_err() {
            tracing::debug!(
                session = self.entry.id,
                "the client did not take its last messages"
            );
        } else if is_at_fault {
            self.give_up_server();
            let _ = tokio::time::timeout(FAREWELL, Box::pin(self.read_away())).await;
        }
    }

    /// Takes what the client still sends, up to its end. Box it: sessions keep no room for its bytes.
    async fn read_away(&mut self) {
        let (mut left, mut sink) = (FAREWELL_BYTES, [0; 1024]);
        while left > 0 {
            match self.client.read(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }

    async fn flush_and_tell(&mut self, error: Option<Error>) {
        if let Some(error) = &error {
            self.context.counters.count_error(error.kind);
            tracing::debug!(session = self.entry.id, %error, "session ended");
        }
        if self.flush_client().await.is_err() {
            return;
        }
        // Of a message that the client has got nothing of it needs nothing.
        if let Some(buffer) = &mut self.to_client
            && !buffer.is_inside_frame()
        {
            buffer.discard(buffer.unseen().len());
        }
        if let Some(error) = error
            && !self.is_inside_reply()
        {
            report::error_response(&mut self.out, &error, Some(Severity::Fatal));
            let _ = self.flush_client().await;
        }
        let _ = std::future::poll_fn(|cx| {
            tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut self.client), cx)
        })
        .await;
    }

    /// What the worker asked for, if the session can do it now.
    pub(super) fn obey(&mut self) -> Option<End> {
        let in_transaction = match &self.link {
            Link::Free => self.is_opening(),
            Link::Held { server, .. } => {
                !server.pipeline.is_quiet() || server.pipeline.status() != TransactionStatus::Idle
            }
            Link::Lost(_) => true,
        };
        match self.entry.signal() {
            Signal::None => None,
            Signal::Drain if in_transaction || !self.client_is_served() => None,
            Signal::Drain | Signal::End => Some(End::Error(shutting_down())),
            Signal::Expired(activity, since) if self.entry.activity() != (activity, since) => {
                self.entry.take_back_signal();
                None
            }
            Signal::Expired(activity, _) => Some(End::Error(idle_too_long(activity))),
        }
    }
}

/// PostgreSQL's own words.
pub(super) fn shutting_down() -> Error {
    Error::proxy(
        Kind::ShuttingDown,
        "terminating connection due to administrator command",
    )
}

/// PostgreSQL's own words.
fn idle_too_long(activity: Activity) -> Error {
    match activity {
        Activity::IdleInTransaction => Error::proxy(
            Kind::IdleInTransaction,
            "terminating connection due to idle-in-transaction timeout",
        ),
        Activity::Idle | Activity::Active => Error::proxy(
            Kind::Idle,
            "terminating connection due to idle-session timeout",
        ),
    }
}

/// The session's state is on a node that takes no more work.
pub(super) fn node_left() -> Error {
    Error::proxy(
        Kind::ShuttingDown,
        "the server that holds this session's state leaves: nothing was in progress",
    )
}
