//! One login to a server, message by message. The server is not trusted: each message has a limit, and so has their
//! number; what comes out of order ends the login.

use tokio::io::AsyncWriteExt;

use super::{
    connection::MAX_PARAMETERS,
    dial::{Dialed, ServerLogin},
    prove::Prover,
    refusal,
};
use crate::{
    error::{Error, Result},
    net::{
        Inbox, Stream, Target,
        inbox::{Broken, Message},
    },
    wire::{
        cancel_key::CancelKey,
        cursor::{Cursor, Malformed},
        frontend,
        startup::{NEWEST_MINOR, PROTOCOL_3},
    },
};

/// The longest message during a login.
const MAX_MESSAGE: usize = 65_535;
/// Messages during a login: 18 has about 25; event triggers and extensions add notices and parameters.
const MAX_MESSAGES: usize = 1000;
/// Notices kept for the client; more are dropped.
const MAX_NOTICES: usize = 16;

/// Up to the first ReadyForQuery. Bound it in time.
pub(super) async fn log_in(
    mut stream: Stream,
    target: &Target,
    login: &ServerLogin,
) -> Result<Dialed> {
    let mut inbox = Inbox::default();
    let mut out = Vec::new();
    write_startup(&mut out, login);
    send(&mut stream, target, &mut out).await?;
    let mut progress = Progress::new(target, &stream, login);
    for _ in 0..MAX_MESSAGES {
        let message = inbox
            .next(&mut stream, MAX_MESSAGE)
            .await
            .map_err(|broken| lost(target, broken))?;
        match progress.take(message, &mut out).await? {
            Step::Ready => return progress.finish(stream, inbox),
            Step::Wait => {}
            Step::Send => send(&mut stream, target, &mut out).await?,
        }
    }
    Err(target.gone("the server's login has no end", "too many messages"))
}

fn write_startup(out: &mut Vec<u8>, login: &ServerLogin) {
    let fixed = [("user", &*login.user), ("database", &*login.database)];
    let replication = login
        .replication
        .as_deref()
        .map(|kind| ("replication", kind));
    let settings = login
        .parameters
        .iter()
        .map(|(name, value)| (&**name, &**value));
    let named = fixed.into_iter().filter(|(_, value)| !value.is_empty());
    frontend::startup(out, NEWEST_MINOR, named.chain(replication).chain(settings));
}

async fn send(stream: &mut Stream, target: &Target, out: &mut Vec<u8>) -> Result<()> {
    let gone = |e: std::io::Error| target.gone("the server ended the connection", e);
    stream.write_all(out).await.map_err(gone)?;
    stream.flush().await.map_err(gone)?;
    out.clear();
    Ok(())
}

fn lost(target: &Target, broken: Broken) -> Error {
    match broken {
        Broken::Io(error) => target.gone("the server ended the connection", error),
        Broken::Closed => target.gone("the server ended the connection", "end of file"),
        Broken::Malformed(m) => target.gone("the server sent a malformed message", m),
        Broken::TooLong => target.gone("the server sent a malformed message", "too long"),
    }
}

enum Step {
    /// Nothing to say.
    Wait,
    /// There is an answer in `out`.
    Send,
    /// The server waits for queries.
    Ready,
}

/// Where a login is.
enum Phase<'a> {
    Authenticating(Box<Prover<'a>>),
    /// After AuthenticationOk.
    Starting,
}

struct Progress<'a> {
    target: &'a Target,
    phase: Phase<'a>,
    identity: Option<(i32, CancelKey)>,
    parameters: Vec<(Box<str>, Box<str>)>,
    notices: Vec<Box<[u8]>>,
}

impl<'a> Progress<'a> {
    fn new(target: &'a Target, stream: &Stream, login: &'a ServerLogin) -> Self {
        Progress {
            target,
            phase: Phase::Authenticating(Box::new(Prover::new(target, stream, login))),
            identity: None,
            parameters: Vec::new(),
            notices: Vec::new(),
        }
    }

    async fn take(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<Step> {
        let malformed = |m: Malformed| self.target.gone("the server sent a malformed message", m);
        match (message.tag, &mut self.phase) {
            (b'E', _) => Err(refusal::refused(self.target, message)),
            (b'N', _) => {
                self.keep_notice(message);
                Ok(Step::Wait)
            }
            (b'v', _) => {
                check_version(message.body).map_err(malformed)?;
                Ok(Step::Wait)
            }
            (b'R', Phase::Authenticating(prover)) => {
                if prover.take(message.body, out).await? {
                    self.phase = Phase::Starting;
                }
                Ok(match out.is_empty() {
                    true => Step::Wait,
                    false => Step::Send,
                })
            }
            (b'S', Phase::Starting) if self.parameters.len() >= MAX_PARAMETERS => Err(self
                .target
                .gone("the server's login has no end", "too many parameters")),
            (b'S', Phase::Starting) => {
                self.parameters
                    .push(parameter(message.body).map_err(malformed)?);
                Ok(Step::Wait)
            }
            (b'K', Phase::Starting) => {
                self.identity = Some(identity(message.body).map_err(malformed)?);
                Ok(Step::Wait)
            }
            (b'Z', Phase::Starting) if message.body == b"I" => Ok(Step::Ready),
            (tag, _) => Err(self.target.gone(
                "the server sent an unexpected message",
                format!("type {tag:#04x} during login"),
            )),
        }
    }

    fn keep_notice(&mut self, message: Message<'_>) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push(message.frame.into());
        }
    }

    fn finish(self, stream: Stream, inbox: Inbox) -> Result<Dialed> {
        let unnamed = || {
            self.target
                .gone("the server sent no BackendKeyData", "login")
        };
        let (pid, key) = self.identity.ok_or_else(unnamed)?;
        Ok(Dialed {
            stream,
            unread: inbox.into_unread(),
            pid,
            key,
            parameters: self.parameters,
            notices: self.notices,
        })
    }
}

fn identity(body: &[u8]) -> std::result::Result<(i32, CancelKey), Malformed> {
    let mut cursor = Cursor::new(body);
    let pid = cursor.i32()?;
    let key = CancelKey::new(cursor.rest()).ok_or(Malformed("cancel key of invalid length"))?;
    Ok((pid, key))
}

fn parameter(body: &[u8]) -> std::result::Result<(Box<str>, Box<str>), Malformed> {
    let mut cursor = Cursor::new(body);
    let name = String::from_utf8_lossy(cursor.cstr()?).into();
    let value = String::from_utf8_lossy(cursor.cstr()?).into();
    cursor.end().map(|()| (name, value))
}

/// NegotiateProtocolVersion: an older minor version is fine, there being nothing in 3.2 but longer keys.
fn check_version(body: &[u8]) -> std::result::Result<(), Malformed> {
    let version = Cursor::new(body).u32()?;
    match version.checked_sub(PROTOCOL_3) {
        Some(minor) if minor <= NEWEST_MINOR.into() => Ok(()),
        _ => Err(Malformed("protocol version that was not asked for")),
    }
}
