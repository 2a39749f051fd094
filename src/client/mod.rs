//! Clients, from an accepted socket to a logged-in session: TLS, startup packet, authentication, cancel requests.
//!
//! [`greet`] is the way in. It ends before the first word about a server: ParameterStatus, BackendKeyData and
//! ReadyForQuery are the session's to send. Whatever goes wrong, the client has been told when `greet` returns.
//!
//! `context` holds what all logins share, `login` walks through one (`startup`, `request`), `authenticate` asks for the proof, `users` knows
//! who may log in, `verifier` asks the cluster, `report` turns errors into messages.

mod authenticate;
mod context;
mod login;
pub mod report;
mod request;
mod startup;
mod users;
pub mod verifier;

use std::net::SocketAddr;

use tokio::net::TcpStream;

pub use crate::credentials::Credentials;
use crate::{error::Result, net, wire::cancel_key::CancelKey};
pub use context::{Context, Rules};

/// What a connection turned out to be.
#[derive(Debug)]
pub enum Greeting {
    /// A CancelRequest. The client waits for the end of `stream`: it says that the request has been carried out.
    Cancel {
        pid: i32,
        key: CancelKey,
        stream: Option<Box<net::Stream>>,
    },
    /// Logged in; AuthenticationOk is sent.
    Session(Box<Login>),
}

/// A logged-in client.
#[derive(Debug)]
pub struct Login {
    pub stream: net::Stream,
    /// What the client sent after its login without waiting: usually nothing.
    pub unread: Vec<u8>,
    pub user: Box<str>,
    /// The user's name if the client named none; empty for physical replication.
    pub database: Box<str>,
    /// The session's settings in the order in which they apply (`options` first, then the packet's own), without user,
    /// database, options and replication. Names as the client wrote them.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// The minor version of protocol 3 that is spoken: 0, 1 or 2. From 2 on cancel keys may be longer than 4 bytes.
    pub minor: u16,
    /// The parameter `replication` as given, if it asks for a replication connection.
    pub replication: Option<Box<str>>,
    /// For the proxy's own logins on this user's behalf.
    pub credentials: Credentials,
    pub peer: SocketAddr,
}

/// Takes an accepted socket to a login, within `ctx`'s login timeout.
///
/// # Errors
/// The login failed. The client has been told (FATAL) if it could be, and the connection is closed.
pub async fn greet(stream: TcpStream, ctx: &Context) -> Result<Greeting> {
    login::greet(stream, ctx).await
}
