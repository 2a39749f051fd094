//! Where nodes come from: Patroni's API and its store, repmgr's metadata, name servers; made up and real.

mod etcd;
mod names;
#[path = "../nodes/mod.rs"]
mod nodes;
mod patroni;
mod patroni_real;
mod repmgr;

use std::net::TcpListener;

/// A port on which nobody listens.
fn nobody() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}
