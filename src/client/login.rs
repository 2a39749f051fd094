//! One login, step by step, and what becomes of it when a step fails.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Context, Greeting, Login, authenticate, report,
    request::Request,
    startup::{self, Slot, open},
};
use crate::{
    config::TlsMode,
    error::{Error, Kind, Result, Severity, client_io},
    net::{Inbox, Stream, tcp},
    wire::{
        backend,
        startup::{Session, Startup},
    },
};

/// How long a client may take to read why it was refused.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a refused client may still send before the connection is cut: closing with unread bytes makes TCP throw our
/// last message away.
const FAREWELL_BYTES: usize = 64 * 1024;

pub(super) async fn greet(stream: TcpStream, ctx: &Context) -> Result<Greeting> {
    let deadline = Instant::now() + ctx.login_timeout;
    let mut slot = Some(Stream::Plain(stream));
    // Boxed: a login's future is large, and a session holds on to the caller's future for its whole life.
    let outcome = match timeout_at(deadline, Box::pin(walk(&mut slot, ctx))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::client(
            Kind::Cancelled,
            "canceling authentication due to timeout",
        )),
    };
    if let Err(error) = &outcome
        // A client that hung up is not spoken to.
        && error.kind != Kind::ServerGone
        && let Some(stream) = slot
    {
        dismiss(stream, error).await;
    }
    outcome
}

async fn walk(slot: &mut Slot, ctx: &Context) -> Result<Greeting> {
    let tcp = open(slot)?.tcp();
    tcp::configure(tcp).map_err(client_io)?;
    let peer = tcp.peer_addr().map_err(client_io)?;
    match startup::first_packet(slot, ctx).await? {
        Startup::Cancel { pid, key } => Ok(Greeting::Cancel {
            pid,
            key,
            stream: slot.take().map(Box::new),
        }),
        Startup::Session(session) => {
            let login = log_in(slot, ctx, session, peer).await?;
            Ok(Greeting::Session(Box::new(login)))
        }
        Startup::Ssl | Startup::Gss => Err(Error::violation("unexpected encryption request")),
    }
}

async fn log_in(
    slot: &mut Slot,
    ctx: &Context,
    session: Session,
    peer: SocketAddr,
) -> Result<Login> {
    let stream = open(slot)?;
    require_tls(stream, ctx.tls_mode)?;
    let minor = session.spoken_minor();
    if session.needs_negotiation() {
        let mut out = Vec::new();
        backend::negotiate_protocol_version(&mut out, minor, &session.protocol_options);
        stream.write_all(&out).await.map_err(client_io)?;
    }
    let request = Request::new(session, peer)?;
    let mut inbox = Inbox::default();
    let credentials = authenticate::authenticate(stream, &mut inbox, ctx, &request).await?;
    Ok(Login {
        stream: slot
            .take()
            .ok_or(Error::proxy(Kind::Internal, "the connection was lost"))?,
        unread: inbox.into_unread(),
        user: request.user,
        database: request.database,
        parameters: request.parameters,
        minor,
        replication: request.replication,
        credentials,
        peer,
    })
}

fn require_tls(stream: &Stream, mode: TlsMode) -> Result<()> {
    match mode {
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer => Ok(()),
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull if stream.is_tls() => Ok(()),
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => Err(Error::client(
            Kind::NotAllowed,
            "connections without TLS are not allowed",
        )
        .hint("Connect with sslmode=require or better.")),
    }
}

/// Tells the client, and sees to it that it can read what it was told.
async fn dismiss(mut stream: Stream, error: &Error) {
    let mut out = Vec::new();
    report::error_response(&mut out, error, Some(Severity::Fatal));
    let farewell = async {
        stream.write_all(&out).await?;
        stream.shutdown().await?;
        let mut left = FAREWELL_BYTES;
        let mut sink = [0; 1024];
        while left > 0 {
            match stream.read(&mut sink).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    // However it ends, the connection is dropped here.
    let _ = timeout(FAREWELL, farewell).await;
}
