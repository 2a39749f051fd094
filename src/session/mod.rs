//! A logged-in client's life: the only place that knows both sides.
//!
//! A session waits at two points only: for bytes (of its client, and of the server it holds) in [`relay`], and for a
//! server in [`checkout`]. All progress lives in [`Session`], so that a dropped future loses nothing. What it reads of
//! its client is in [`frontend`], of its server in [`backend`]; what a lost server means is decided in [`outcome`].
//!
//! Invariants:
//! - in transaction mode a server is held from the first message of a transaction or batch to the ReadyForQuery that
//!   ends it, and longer while there is something on it that cannot be carried ([`pins`]);
//! - a server works for a session only under that session's settings ([`settle`]);
//! - the next server is taken only when the client has got all of the last one's replies;
//! - `out` goes to the client before `to_client`, and is written to only while `to_client` has nothing pending.

mod ahead;
mod aim;
mod application;
mod backend;
pub mod blocks;
mod book;
mod catalogue;
mod checkout;
pub mod context;
mod dressing;
mod end;
mod frontend;
pub mod held;
mod kept;
mod learned;
mod lost;
mod marks;
mod native;
mod opening;
pub mod outcome;
mod own;
mod parsing;
mod pins;
mod prepared;
mod readonly;
pub mod registry;
mod relay;
mod replication;
mod reread;
pub mod schema;
mod sequences;
mod settle;
pub mod shapes;
mod shutdown;
#[cfg(test)]
mod sim;
mod split;
mod statement;
mod tenure;
mod texts;
mod told;
mod unnamed;
mod visit;
mod welcome;

use std::{pin::Pin, rc::Rc, sync::Arc};

use tokio::time::Sleep;

use crate::{
    catalogues::Change,
    config::Listener,
    net::Stream,
    route,
    server::{connection::Parameters, connection::Server, pool::Pool, settings::Settings},
    wire::{Violation, buffer::Buffer, cancel_key::CancelKey},
};
use application::Application;
use book::Prepared;
use catalogue::Reliance;
use context::{Context, Identity};
use dressing::Dressing;
use kept::Kept;
use lost::Lost;
use marks::Sets;
use outcome::Flight;
use pins::Pins;
use registry::Entry;
use relay::{End, Step};
use schema::SchemaTrace;
use sequences::SequenceState;
use settle::{Question, Unsettled};
use split::Split;
use unnamed::Unnamed;

pub use welcome::{Admission, start};

/// The session's hold on a server.
enum Link {
    Free,
    Held {
        server: Box<Server>,
        pool: Rc<Pool>,
    },
    /// The server was lost inside a transaction: it counts as failed until the client ends it.
    Lost(Box<Lost>),
}

/// Whether the client may still say something.
#[derive(Debug)]
enum Inbound {
    Open,
    /// It has ended its side of the connection. What it said before is still answered, for it may listen: as long as the
    /// server is not silent for longer than this.
    Ended(Pin<Box<Sleep>>),
    /// What it said last is no message.
    Broken(Violation),
}

/// See the module's header. Kept small: ten thousand of them wait at once.
struct Session {
    context: Rc<Context>,
    listener: Arc<Listener>,
    identity: Rc<Identity>,
    entry: Rc<Entry>,
    client: Stream,
    inbound: Inbound,
    /// What the client sent; None while it is idle.
    from_client: Option<Box<Buffer>>,
    /// What the server sent; None while no server is held.
    to_client: Option<Box<Buffer>>,
    /// Our own messages to the client.
    out: Vec<u8>,
    link: Link,
    /// What the client was last told by ParameterStatus.
    told: Rc<Parameters>,
    /// Why the session keeps its server.
    pins: Pins,
    /// What it has set, as far as that is settled.
    settings: Settings,
    /// What must be asked of the server before it may go.
    unsettled: Option<Box<Unsettled>>,
    application: Application,
    /// What may be sent while the server is set to them.
    dressing: Dressing,
    /// What it is being asked.
    question: Option<Box<Question>>,
    flight: Flight,
    kept: Kept,
    unnamed: Unnamed,
    prepared: Prepared,
    schema: SchemaTrace,
    /// What was sent since the last ReadyForQuery outside of a transaction sets these, in whatever scope.
    sets: Sets,
    reliance: Reliance,
    /// The definition that its transaction holds.
    change: Option<Change>,
    sequences: SequenceState,
    /// Where statements may go to different nodes.
    split: Option<Box<Split>>,
    /// How its texts are to be read.
    reading: route::Context,
    /// Counts checkouts: tells what was sent to the present server from what was sent to an earlier one.
    hold: u32,
    /// The held server has said FATAL: its end is its own, and told.
    server_fatal: bool,
    /// What the client was given to cancel with.
    key: Option<Box<(i32, CancelKey)>>,
}

impl Session {
    /// Runs the session from its welcome to its end. The client has been told why, if it could be.
    async fn run(&mut self, minor: u16) {
        let welcome = Box::pin(self.welcome(minor)).await;
        if let Err(error) = welcome {
            return Box::pin(self.say_goodbye(End::Error(error))).await;
        }
        loop {
            let step = std::future::poll_fn(|cx| self.poll_relay(cx)).await;
            // Boxed: what happens seldom takes no room in a session that waits.
            let goes_on = match step {
                Step::WantsServer(pool) => Box::pin(self.take_server(pool)).await,
                Step::ServerEnded(why) => Box::pin(self.server_ended(why)).await,
                Step::Ended(end) => {
                    Box::pin(self.say_goodbye(end)).await;
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        self.finish_sending().await;
        self.give_up_server();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.registry.remove(self.entry.id);
        if let Some(pin) = self.entry.pin() {
            self.context.counters.pinned(Some(pin.reason), None);
        }
        if let Some(issued) = &self.key {
            self.context.outside.revoke_key(issued.0, &issued.1);
        }
    }
}
