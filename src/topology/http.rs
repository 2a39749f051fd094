//! One HTTP request to a source, on a connection of its own.

use std::{io, net::Ipv6Addr, time::Duration};

use axum::body::{Body, to_bytes};
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::config::HttpUrl;

/// Who has not answered after this long is asked again at the next turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// A cluster of a hundred members takes some 20 KiB.
const MAX_BYTES: usize = 1 << 20;

/// Sends the request, and returns the body of the answer.
///
/// # Errors
/// No answer in time, one that is too long, or a status other than success.
pub(super) async fn ask(url: &HttpUrl, request: Request<Body>) -> io::Result<Vec<u8>> {
    let answer = timeout(PATIENCE, send(url, request)).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn send(url: &HttpUrl, mut request: Request<Body>) -> io::Result<Vec<u8>> {
    let tcp = TcpStream::connect((&*url.host, url.port)).await?;
    let handshake = http1::handshake(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    // A set, since it ends what is in it when it is dropped.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let host = authority(url).parse().map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    let response = sender.send_request(request).await;
    let response = response.map_err(io::Error::other)?;
    if !response.status().is_success() {
        return Err(io::Error::other(response.status().to_string()));
    }
    let body = to_bytes(Body::new(response.into_body()), MAX_BYTES).await;
    Ok(body.map_err(io::Error::other)?.to_vec())
}

/// `host:port`, as URLs and headers have it.
pub(super) fn authority(url: &HttpUrl) -> String {
    match url.host.parse::<Ipv6Addr>() {
        Ok(host) => format!("[{host}]:{}", url.port),
        Err(_) => format!("{}:{}", url.host, url.port),
    }
}
