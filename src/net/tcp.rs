//! TCP: listeners bound before anything starts, and the options that every connection gets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that the kernel may keep before they are accepted: thousands of clients reconnect at once after a
/// failover. The kernel's own limit (`net.core.somaxconn`) caps it.
const BACKLOG: i32 = 4096;

/// An idle peer is probed after this long, …
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// … then this often, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after this many probes without an answer.
const KEEPALIVE_RETRIES: u32 = 3;

/// Binds and listens at once, so that a bad address is an error before anything else starts.
///
/// # Errors
/// The kernel's, with the address in the text.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    listen(addr).map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // A wildcard [::] must not take 0.0.0.0's port in silence: both can be listed.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// No delay, keepalive. Not TCP_USER_TIMEOUT: Linux also counts a window that stays closed while the peer answers, so it
/// would cut a client that pauses in a pager, or a server that waits for a lock in the middle of a COPY. See
/// [`super::silence`].
pub fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// For connections that only carry small questions (probes, lookups): unacknowledged data ends them after `timeout`.
pub fn set_user_timeout(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_the_address() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind(addr).unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}
