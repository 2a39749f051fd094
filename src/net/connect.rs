//! Makes one connection to a server, encrypted as asked.
//!
//! Which encryptions are tried, in which order, is the connector's ([`Connector::attempts`]); whether a further attempt
//! is due depends on what the login said, so the caller loops.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{Stream, tcp, tls::Connector};
use crate::{
    error::{Error, Kind, Result},
    wire::frontend,
};

/// Addresses tried for one host name: a hostile or broken resolver must not make us dial for ever.
const MAX_ADDRESSES: usize = 16;

/// A node as one dials it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// For errors and logs; never reaches a client.
    pub name: String,
    /// Host name or address; IPv6 with or without brackets.
    pub host: String,
    /// Dialled instead of what `host` resolves to; `host` is still what a certificate must name.
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// What one attempt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    Plain,
    /// TLS if the server has it.
    Try,
    /// TLS or nothing.
    Require,
}

impl Target {
    pub(crate) fn gone(&self, message: &'static str, detail: impl ToString) -> Error {
        Error::server(Kind::ServerGone, &self.name, message).detail(detail.to_string())
    }

    fn host(&self) -> &str {
        let inner = self
            .host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'));
        inner.unwrap_or(&self.host)
    }
}

/// Resolves, connects (every address in turn, within the deadline) and, if asked, starts TLS.
///
/// # Errors
/// `ServerGone` on the target's side for everything: no address, refused, timed out, no TLS, bad certificate.
pub async fn connect(
    target: &Target,
    connector: &Connector,
    encryption: Encryption,
    deadline: Instant,
) -> Result<Stream> {
    let tcp = dial(target, deadline).await?;
    encrypt(target, connector, encryption, tcp, deadline).await
}

/// The TCP half of [`connect`].
pub async fn dial(target: &Target, deadline: Instant) -> Result<TcpStream> {
    let addresses = resolve(target, deadline).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    let mut left = addresses.len() as u32;
    for address in addresses {
        // Each address gets its share of the time, so that a silent first one leaves some for the others.
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / left.max(1);
        left = left.saturating_sub(1);
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tcp::configure(&stream).map_err(|e| target.gone("could not connect", e))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(target.gone("could not connect to the server", last))
}

/// The TLS half of [`connect`]: asks for TLS if told to, and shakes hands.
pub async fn encrypt(
    target: &Target,
    connector: &Connector,
    encryption: Encryption,
    tcp: TcpStream,
    deadline: Instant,
) -> Result<Stream> {
    if encryption == Encryption::Plain {
        return Ok(Stream::Plain(tcp));
    }
    match timeout_at(deadline, secure(target, connector, encryption, tcp)).await {
        Ok(done) => done,
        Err(_) => Err(target.gone("the server did not answer in time", "TLS negotiation")),
    }
}

async fn resolve(target: &Target, deadline: Instant) -> Result<Vec<SocketAddr>> {
    if let Some(ip) = target.address.or_else(|| target.host().parse().ok()) {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let lookup = tokio::net::lookup_host((target.host(), target.port));
    match timeout_at(deadline, lookup).await {
        Ok(Ok(found)) => Ok(found.take(MAX_ADDRESSES).collect()),
        Ok(Err(error)) => Err(target.gone("could not resolve the server's host name", error)),
        Err(_) => Err(target.gone("could not resolve the server's host name", "timed out")),
    }
}

async fn secure(
    target: &Target,
    connector: &Connector,
    encryption: Encryption,
    mut tcp: TcpStream,
) -> Result<Stream> {
    let gone = |e: io::Error| target.gone("the server ended the connection", e);
    let mut request = Vec::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(gone)?;
    // One byte and no more: anything that came with it would be unencrypted, and TLS will choke on it.
    match tcp.read_u8().await.map_err(gone)? {
        b'S' => connector
            .handshake(target.host(), tcp)
            .await
            .map_err(|e| target.gone("the TLS handshake with the server failed", e)),
        b'N' if encryption == Encryption::Try => Ok(Stream::Plain(tcp)),
        b'N' => Err(target.gone(
            "the server does not support TLS",
            "answered N to SSLRequest",
        )),
        _ => Err(target.gone(
            "the server does not speak PostgreSQL's protocol",
            "answer to SSLRequest",
        )),
    }
}
