//! Cancel requests to servers.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use crate::{
    error::{Error, Result},
    net::{self, Encryption, Stream, Target, tls::Connector},
    wire::{cancel_key::CancelKey, frontend},
};

/// A server answers a cancel request with nothing; what it may send all the same before we give up.
const MAX_ANSWER: usize = 8 * 1024;

/// Dials, sends CancelRequest, waits for the server to close the connection: only then has the signal been sent, and
/// nothing that is written to the cancelled connection later can be hit by it.
///
/// # Errors
/// `ServerGone`: the request may or may not have been delivered.
pub async fn cancel(
    target: &Target,
    connector: &Connector,
    pid: i32,
    key: &CancelKey,
    deadline: Instant,
) -> Result<()> {
    let stream = open(target, connector, deadline).await?;
    let mut request = Vec::new();
    frontend::cancel_request(&mut request, pid, key);
    match timeout_at(deadline, deliver(stream, &request)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(target.gone("the cancel request failed", error)),
        Err(_) => Err(target.gone("the cancel request failed", "timed out")),
    }
}

/// As the connector's first choice; without TLS where TLS was only preferred and failed. Access rules don't apply to
/// cancel requests, so plain text is never refused.
async fn open(target: &Target, connector: &Connector, deadline: Instant) -> Result<Stream> {
    let mut last: Option<Error> = None;
    for encryption in connector.attempts() {
        match net::connect(target, connector, *encryption, deadline).await {
            Ok(stream) => return Ok(stream),
            Err(error) if *encryption == Encryption::Try => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| target.gone("the cancel request failed", "no way to connect")))
}

async fn deliver(mut stream: Stream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut sink = [0; 256];
    let mut left = MAX_ANSWER;
    while left > 0 {
        match stream.read(&mut sink).await {
            Ok(0) => return Ok(()),
            Ok(read) => left = left.saturating_sub(read),
            // The server's process just exits: without a TLS farewell, perhaps with a reset.
            Err(e) if is_end(&e) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the server answers a cancel request"))
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
