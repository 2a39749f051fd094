//! From the first byte to a startup packet: TLS by request or at once, GSS refused, cancel requests.

use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Context;
use crate::{
    error::{Error, Kind, Result, client_io},
    net::{Stream, tls},
    wire::startup::{self, Allowed, NEWEST_MINOR, Refused, Startup, TLS_HANDSHAKE},
};

/// Room for the packets of most clients.
const USUAL_PACKET: usize = 256;

/// The connection while its kind changes. Empty during a TLS handshake: there is then no one to talk to.
pub(super) type Slot = Option<Stream>;

/// Reads up to the packet that is no request for encryption. Never [`Startup::Ssl`] or [`Startup::Gss`].
pub(super) async fn first_packet(slot: &mut Slot, ctx: &Context) -> Result<Startup> {
    let mut allowed = Allowed {
        ssl: true,
        gss: true,
    };
    if starts_with_tls(slot).await? {
        direct_tls(slot, ctx).await?;
        allowed = Allowed {
            ssl: false,
            gss: false,
        };
    }
    // Three turns at most: each request is allowed once.
    loop {
        match read_packet(open(slot)?, allowed).await? {
            Startup::Ssl => {
                allowed.ssl = false;
                allowed.gss &= !answer_ssl(slot, ctx).await?;
            }
            Startup::Gss => {
                allowed.gss = false;
                refuse_encryption(open(slot)?).await?;
            }
            packet => return Ok(packet),
        }
    }
}

pub(super) fn open(slot: &mut Slot) -> Result<&mut Stream> {
    let gone = || Error::client(Kind::ServerGone, "the client connection ended");
    slot.as_mut().ok_or_else(gone)
}

async fn starts_with_tls(slot: &mut Slot) -> Result<bool> {
    let mut first = [0];
    let len = open(slot)?
        .tcp()
        .peek(&mut first)
        .await
        .map_err(client_io)?;
    Ok(len == 1 && first == [TLS_HANDSHAKE])
}

/// TLS without SSLRequest. ALPN must name PostgreSQL, so that no browser can be made to speak to us.
async fn direct_tls(slot: &mut Slot, ctx: &Context) -> Result<()> {
    let Some(acceptor) = &ctx.tls else {
        // The client could not read an answer: it waits for a ServerHello.
        return Err(Error::violation("direct TLS connection, but TLS is off"));
    };
    shake_hands(slot, acceptor).await?;
    match open(slot)?.alpn() {
        Some(tls::ALPN) => Ok(()),
        _ => Err(Error::violation(
            "received direct TLS connection request without ALPN protocol negotiation extension",
        )),
    }
}

/// Whether TLS is on now.
async fn answer_ssl(slot: &mut Slot, ctx: &Context) -> Result<bool> {
    let Some(acceptor) = &ctx.tls else {
        refuse_encryption(open(slot)?).await?;
        return Ok(false);
    };
    let stream = open(slot)?;
    refuse_early_bytes(stream)?;
    stream.write_all(b"S").await.map_err(client_io)?;
    shake_hands(slot, acceptor).await?;
    Ok(true)
}

async fn refuse_encryption(stream: &mut Stream) -> Result<()> {
    refuse_early_bytes(stream)?;
    stream.write_all(b"N").await.map_err(client_io)
}

/// Whatever follows the request before our answer was sent unencrypted, perhaps by someone in between, and must never
/// pass as part of the encrypted session (CVE-2021-3935). What comes after our answer is read by TLS alone.
fn refuse_early_bytes(stream: &Stream) -> Result<()> {
    let mut byte = [MaybeUninit::uninit()];
    match SockRef::from(stream.tcp()).peek(&mut byte) {
        Ok(1..) => Err(Error::violation(
            "received unencrypted data after encryption request",
        )),
        _ => Ok(()),
    }
}

async fn shake_hands(slot: &mut Slot, acceptor: &tls::Acceptor) -> Result<()> {
    let tcp: TcpStream = match slot.take() {
        Some(Stream::Plain(tcp)) => tcp,
        _ => return Err(Error::violation("TLS inside TLS")),
    };
    let failed = |e: std::io::Error| {
        Error::violation("the TLS handshake with the client failed").detail(e.to_string())
    };
    *slot = Some(acceptor.accept(tcp).await.map_err(failed)?);
    Ok(())
}

/// The beginning of a Terminate.
const TERMINATE: [u8; 4] = *b"X\0\0\0";

async fn read_packet(stream: &mut Stream, allowed: Allowed) -> Result<Startup> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.map_err(client_io)?;
    // A driver may end a connection that it has not begun. PostgreSQL says nothing to that, and who hears of an error
    // then does not expect one.
    if header == TERMINATE {
        return Err(client_io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let len = startup::body_len(header).map_err(|m| Error::violation(m.0))?;
    let body = read_body(stream, len).await.map_err(client_io)?;
    startup::parse(&body, allowed).map_err(refusal)
}

/// Memory grows with what has arrived: the length is anyone's word, before any login.
async fn read_body(stream: &mut Stream, len: usize) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(len.min(USUAL_PACKET));
    while body.len() < len {
        let left = (len - body.len()) as u64;
        if stream.take(left).read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}

fn refusal(refused: Refused) -> Error {
    match refused {
        Refused::Malformed(malformed) => Error::violation(malformed.0),
        Refused::Version { major, minor } => Error::client(
            Kind::Unsupported,
            format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}"
            ),
        ),
    }
}
