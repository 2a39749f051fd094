//! From nothing to a logged-in server connection.

use tokio::time::{Instant, timeout_at};

pub use crate::{credentials::Credentials, net::Target};
use crate::{
    error::{Error, Kind, Result},
    net::{self, Encryption, Stream, tls::Connector},
    server::login,
    wire::cancel_key::CancelKey,
};

/// Who logs in to what, and how the session starts.
#[derive(Debug, Clone)]
pub struct ServerLogin {
    pub user: Box<str>,
    pub database: Box<str>,
    /// Settings for the startup packet, in order; neither user nor database.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    pub credentials: Credentials,
    /// The `replication` parameter: a dedicated connection for a replication client.
    pub replication: Option<Box<str>>,
}

/// A server that said ReadyForQuery.
#[derive(Debug)]
pub struct Dialed {
    pub stream: Stream,
    /// What the server sent after its first ReadyForQuery: usually nothing.
    pub unread: Vec<u8>,
    pub pid: i32,
    pub key: CancelKey,
    /// ParameterStatus in the server's order; a later one of the same name is later in the list.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// NoticeResponse frames that came during the login, whole.
    pub notices: Vec<Box<[u8]>>,
}

/// Connects, encrypts as the connector says, logs in.
///
/// # Errors
/// The server's own ErrorResponse is in `Error::response`, with the kind that fits its SQLSTATE; else `ServerGone`, or
/// `NotAllowed` where the server asks for a proof that `login.credentials` cannot give.
pub async fn dial(
    target: &Target,
    connector: &Connector,
    login: &ServerLogin,
    deadline: Instant,
) -> Result<Dialed> {
    let mut attempts = connector.attempts().iter().copied();
    let mut encryption = attempts.next().unwrap_or(Encryption::Require);
    // Two turns at most: the attempts are one or two.
    loop {
        match attempt(target, connector, encryption, login, deadline).await {
            Ok(dialed) => return Ok(dialed),
            Err(failure) => match attempts.next() {
                Some(next) if failure.may_retry(encryption) => encryption = next,
                _ => return Err(failure.error),
            },
        }
    }
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Nothing,
    /// TCP, but the negotiation of TLS failed.
    Tcp,
    Plain,
    Tls,
}

struct Failure {
    error: Error,
    reached: Reached,
}

impl Failure {
    /// Whether trying with or without TLS instead could help: the server's access rules may ask for the other.
    fn may_retry(&self, encryption: Encryption) -> bool {
        let refused = self.error.kind == Kind::NotAllowed && self.error.response.is_some();
        match (self.reached, encryption) {
            (Reached::Nothing, _) => false,
            (Reached::Tcp, _) => true,
            // Plain text was not enough.
            (Reached::Plain, Encryption::Plain) => refused,
            // There is no TLS, so plain text is what was tried.
            (Reached::Plain, Encryption::Try | Encryption::Require) => false,
            (Reached::Tls, _) => refused,
        }
    }
}

async fn attempt(
    target: &Target,
    connector: &Connector,
    encryption: Encryption,
    login: &ServerLogin,
    deadline: Instant,
) -> std::result::Result<Dialed, Failure> {
    let at = |reached| move |error| Failure { error, reached };
    let tcp = net::connect::dial(target, deadline)
        .await
        .map_err(at(Reached::Nothing))?;
    let stream = net::connect::encrypt(target, connector, encryption, tcp, deadline)
        .await
        .map_err(at(Reached::Tcp))?;
    let reached = match stream.is_tls() {
        true => Reached::Tls,
        false => Reached::Plain,
    };
    match timeout_at(deadline, login::log_in(stream, target, login)).await {
        Ok(outcome) => outcome.map_err(at(reached)),
        Err(_) => {
            let error = target.gone("the server did not answer in time", "login");
            Err(at(reached)(error))
        }
    }
}
