//! The one error type: what went wrong (kind), who is to blame (side), and a text.
//!
//! From the kind alone follow SQLSTATE, severity and metric label, by exhaustive matches, so that a new kind cannot
//! be added without deciding what a client sees. PostgreSQL's own errors never become an [`Error`] on their way to a
//! client: their bytes pass untouched.

use std::{borrow::Cow, fmt, io};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A peer broke the protocol (08P01).
    Protocol,
    /// A message or startup packet is larger than its phase allows (54000).
    TooLarge,
    /// A server connection ended, or could not be used, with nothing of the client's in flight (08006).
    ServerGone,
    /// The server vanished while a statement that may have been committed was in flight (08007).
    OutcomeUnknown,
    /// The server vanished inside a transaction whose COMMIT was not sent: rolled back (40001).
    RolledBack,
    /// No node that could serve the request is reachable (57P03).
    NoNode,
    /// No server became free in time, or too many clients (53300).
    Full,
    /// Wrong password or unknown user: the two are never told apart (28P01).
    BadPassword,
    /// This user, database or address may not log in, or TLS is required (28000).
    NotAllowed,
    /// The database does not exist (3D000).
    UnknownDatabase,
    /// A write where no write can go (25006).
    ReadOnly,
    /// Statements in a transaction that the proxy had to declare failed (25P02).
    FailedTransaction,
    /// A prepared statement that the session does not have (26000).
    UnknownStatement,
    /// Cancelled, or a limit of time was exceeded (57014).
    Cancelled,
    /// The session was idle in a transaction for too long (25P03).
    IdleInTransaction,
    /// The session was idle for too long (57P05).
    Idle,
    /// The proxy is shutting down, or the session was ended by an operator (57P01).
    ShuttingDown,
    /// Something that the proxy cannot do (0A000).
    Unsupported,
    /// A bug of ours (XX000).
    Internal,
}

/// Who is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    Client,
    /// A node, by name. The name never reaches a client.
    Server(String),
    Proxy,
}

/// Whether the session survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// As in field `V` of ErrorResponse.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

impl Kind {
    /// The SQLSTATE that a client gets.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Kind::Protocol => "08P01",
            Kind::TooLarge => "54000",
            Kind::ServerGone => "08006",
            Kind::OutcomeUnknown => "08007",
            Kind::RolledBack => "40001",
            Kind::NoNode => "57P03",
            Kind::Full => "53300",
            Kind::BadPassword => "28P01",
            Kind::NotAllowed => "28000",
            Kind::UnknownDatabase => "3D000",
            Kind::ReadOnly => "25006",
            Kind::FailedTransaction => "25P02",
            Kind::UnknownStatement => "26000",
            Kind::Cancelled => "57014",
            Kind::IdleInTransaction => "25P03",
            Kind::Idle => "57P05",
            Kind::ShuttingDown => "57P01",
            Kind::Unsupported => "0A000",
            Kind::Internal => "XX000",
        }
    }

    /// ERROR keeps the session, FATAL ends it.
    pub fn severity(self) -> Severity {
        match self {
            Kind::RolledBack
            | Kind::NoNode
            | Kind::Full
            | Kind::ReadOnly
            | Kind::FailedTransaction
            | Kind::UnknownStatement
            | Kind::Cancelled
            | Kind::Unsupported => Severity::Error,
            Kind::Protocol
            | Kind::TooLarge
            | Kind::ServerGone
            | Kind::OutcomeUnknown
            | Kind::BadPassword
            | Kind::NotAllowed
            | Kind::UnknownDatabase
            | Kind::IdleInTransaction
            | Kind::Idle
            | Kind::ShuttingDown
            | Kind::Internal => Severity::Fatal,
        }
    }

    /// The value of the `kind` label in `/metrics`.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Protocol => "protocol",
            Kind::TooLarge => "too_large",
            Kind::ServerGone => "server_gone",
            Kind::OutcomeUnknown => "outcome_unknown",
            Kind::RolledBack => "rolled_back",
            Kind::NoNode => "no_node",
            Kind::Full => "full",
            Kind::BadPassword => "bad_password",
            Kind::NotAllowed => "not_allowed",
            Kind::UnknownDatabase => "unknown_database",
            Kind::ReadOnly => "read_only",
            Kind::FailedTransaction => "failed_transaction",
            Kind::UnknownStatement => "unknown_statement",
            Kind::Cancelled => "cancelled",
            Kind::IdleInTransaction => "idle_in_transaction",
            Kind::Idle => "idle",
            Kind::ShuttingDown => "shutting_down",
            Kind::Unsupported => "unsupported",
            Kind::Internal => "internal",
        }
    }
}

/// An error with its kind, its side and the text that a client may see.
///
/// `message` must name no host and no other user; what only an operator may know goes into `detail`, which is logged
/// and never sent.
#[derive(Debug, Clone)]
pub struct Error {
    pub kind: Kind,
    pub side: Side,
    pub message: Cow<'static, str>,
    /// A hint for the client, as field `H` of ErrorResponse.
    pub hint: Option<Cow<'static, str>>,
    /// For the log only.
    pub detail: Option<String>,
    /// The server's own ErrorResponse (the whole frame), when it refused a login: passed to the client as it is.
    pub response: Option<Box<[u8]>>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, side: Side, message: impl Into<Cow<'static, str>>) -> Self {
        Error {
            kind,
            side,
            message: message.into(),
            hint: None,
            detail: None,
            response: None,
        }
    }

    pub fn client(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(kind, Side::Client, message)
    }

    pub fn server(
        kind: Kind,
        node: impl Into<String>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Error::new(kind, Side::Server(node.into()), message)
    }

    pub fn proxy(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(kind, Side::Proxy, message)
    }

    /// A broken protocol, client's side.
    pub fn violation(message: impl Into<Cow<'static, str>>) -> Self {
        Error::client(Kind::Protocol, message)
    }

    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn response(mut self, frame: &[u8]) -> Self {
        self.response = Some(frame.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.side {
            Side::Client => write!(f, "client: ")?,
            Side::Server(node) => write!(f, "server {node}: ")?,
            Side::Proxy => {}
        }
        write!(f, "{} ({})", self.message, self.kind.sqlstate())?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// An I/O error of a client's socket: there is no one left to tell.
pub fn client_io(error: io::Error) -> Error {
    Error::client(Kind::ServerGone, "the client connection ended").detail(error.to_string())
}
