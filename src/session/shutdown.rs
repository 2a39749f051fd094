//! A held server that was shut down with the primary, and said so (FATAL 57P01): no more than one statement's time is
//! lost (POSTGRES.md 7.1 and 7.3).
//!
//! The same words are said to one whose backend an administrator ends, on a primary that goes on. So before anything is
//! made of them the node is asked whether it still lets anybody in: a postmaster refuses new connections before it
//! tells its servers to end.

use std::{future::Future, rc::Rc, task::Poll};

use super::{
    Session, checkout,
    outcome::{Aftermath, Verdict, shut_down},
    registry::{Activity, Signal},
    relay::End,
};
use crate::{
    error::{Error, Severity},
    server::pool::Pool,
    topology::Evidence,
    wire::pipeline::Pipeline,
};

/// The server that was shut down.
pub(super) struct Lost {
    pub pool: Rc<Pool>,
    /// What it still owed.
    pub pipeline: Pipeline,
    pub generation: u64,
    /// Its last message.
    pub words: Box<[u8]>,
}

/// Why a session waits no longer.
pub(super) enum Interrupted {
    /// The client has left.
    ClientGone,
    /// It is to be told so.
    By(Error),
}

impl Session {
    /// False when that ends the session.
    pub(super) async fn server_shut_down(&mut self, lost: Lost) -> bool {
        let node = lost.pool.view().config.name.clone();
        self.context.outside.report(&node, Evidence::Terminated);
        let status = lost.pipeline.status_told();
        let repeat = self.repeat(&lost.pipeline);
        let aftermath = shut_down(status, self.flight, self.ties(), repeat);
        tracing::debug!(node, ?aftermath, "a server was shut down");
        (self.question, self.unsettled) = (None, None);
        let depends_on_node = matches!(
            aftermath,
            Aftermath::Again | Aftermath::Lost(Verdict::Failed(_))
        );
        if depends_on_node {
            match self.unless_interrupted(lost.pool.lets_in()).await {
                Ok(true) => return self.pass_on(&lost.words).await,
                Ok(false) => {}
                Err(Interrupted::ClientGone) => return false,
                // What was under way is rolled back, whoever is told what.
                Err(Interrupted::By(_)) => return self.pass_on(&lost.words).await,
            }
        }
        match aftermath {
            Aftermath::Lost(verdict) => self.obey_verdict(verdict, &lost.pipeline).await,
            Aftermath::Told => self.pass_on(&lost.words).await,
            Aftermath::Again => self.run_again(&lost).await,
        }
    }

    /// The server's last words end the session.
    async fn pass_on(&mut self, words: &[u8]) -> bool {
        if let Some(buffer) = &mut self.to_client {
            buffer.insert(words);
        }
        self.say_goodbye(End::Told).await;
        false
    }

    /// What was under way is sent again, once the workers know that its node has gone: until then they might give it
    /// another server of the same.
    async fn run_again(&mut self, lost: &Lost) -> bool {
        self.rewind(&lost.pipeline);
        self.context.counters.replays.one();
        let node = lost.pool.view().config.name.clone();
        tracing::info!(
            session = self.entry.id,
            node,
            "the primary was shut down: what it rolled back runs once more on the next"
        );
        self.entry
            .set_activity(Activity::Active, self.context.pools.now());
        let context = self.context.clone();
        let gone = async {
            while let Some(view) = context.node(&node)
                && view.is_up()
                && view.generation == lost.generation
            {
                context.topology_changed().await;
            }
        };
        let hold = self.context.config.borrow().failover.hold;
        match self
            .unless_interrupted(tokio::time::timeout(hold, gone))
            .await
        {
            Ok(_) => true,
            Err(interrupted) => self.interrupted(interrupted).await,
        }
    }

    /// Waits for `awaited` as long as the client stays, does not cancel, and may.
    pub(super) async fn unless_interrupted<T>(
        &mut self,
        awaited: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        // Boxed: it is waited for seldom, and sessions keep no room for it.
        let mut awaited = Box::pin(awaited);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = awaited.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if self.entry.take_cancelled() {
                return Poll::Ready(Err(Interrupted::By(checkout::cancelled())));
            }
            if self.entry.signal() == Signal::End {
                return Poll::Ready(Err(Interrupted::By(super::end::shutting_down())));
            }
            self.poll_client_gone(cx)
                .map(|()| Err(Interrupted::ClientGone))
        })
        .await
    }

    /// False when that ends the session; else its next message fails.
    pub(super) async fn interrupted(&mut self, interrupted: Interrupted) -> bool {
        match interrupted {
            Interrupted::ClientGone => false,
            Interrupted::By(error) => self.cannot_have_server(error).await,
        }
    }

    /// No server can be had, for this reason. False when that ends the session.
    pub(super) async fn cannot_have_server(&mut self, error: Error) -> bool {
        if error.kind.severity() == Severity::Error {
            self.refuse_next(error);
            return true;
        }
        self.say_goodbye(End::Error(error)).await;
        false
    }
}
