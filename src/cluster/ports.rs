//! Ports for nodes: free ones, kept reserved while the node lives.
//!
//! A node that is stopped and started again needs its port back, so a port is reserved for the life of its node, not
//! only while the node listens. The reservation is a bound socket in Linux's abstract namespace: it vanishes with its
//! process however that ends, and leaves no file. Free ports are taken from below the kernel's ephemeral range, so that
//! no outgoing connection sits on the port of a stopped node.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    sync::atomic::{AtomicU16, Ordering},
};

use super::error::{Error, Result};

/// Where the search for any free port may go; Linux's ephemeral ports begin at 32768.
const FREE: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried after the wished-for one.
const NEIGHBOURS: u16 = 100;

/// Which ports the nodes of a cluster get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Any that are free.
    Free,
    /// This one and the next ones; those that are taken are passed over.
    From(u16),
}

/// A reserved port; free again when dropped.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _reservation: UnixListener,
}

impl PortLease {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Any free port.
    pub fn any() -> Result<PortLease> {
        let start = start();
        let all = FREE.len() as u16;
        let mut ports = (0..all).map(|i| FREE.start + (start + i) % all);
        let lease = ports.find_map(PortLease::exactly);
        lease.ok_or(Error::NoPort { from: FREE.start })
    }

    /// `wish` or one of those after it.
    pub fn near(wish: u16) -> Result<PortLease> {
        let mut ports = wish..=wish.saturating_add(NEIGHBOURS);
        let lease = ports.find_map(PortLease::exactly);
        lease.ok_or(Error::NoPort { from: wish })
    }

    /// None if somebody has reserved it or listens there.
    pub fn exactly(port: u16) -> Option<PortLease> {
        let reservation = reserve(port).ok()?;
        is_free(port).then_some(PortLease {
            port,
            _reservation: reservation,
        })
    }
}

/// Whether a server could listen there now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn reserve(port: u16) -> io::Result<UnixListener> {
    let name = format!("pgsluice-port-{port}");
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Somewhere else for each process and call, so that parallel ones seldom try the same ports.
fn start() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id().wrapping_mul(131) as u16;
    process.wrapping_add(call.wrapping_mul(7)) % FREE.len() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_exclusive_until_dropped() {
        let lease = PortLease::any().unwrap();
        assert!(PortLease::exactly(lease.port()).is_none());
        let port = lease.port();
        drop(lease);
        assert!(PortLease::exactly(port).is_some());
    }

    #[test]
    fn a_port_where_somebody_listens_is_passed_over() {
        let lease = PortLease::any().unwrap();
        let port = lease.port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(lease);
        let next = PortLease::near(port).unwrap();
        assert_ne!(next.port(), port);
        drop(listener);
    }
}
