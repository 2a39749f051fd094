//! Frames that arrive byte by byte, in both directions, on both sides.

use std::net::SocketAddr;

use crate::{
    bed::{Bed, USER, config, shared},
    forwarder::Forwarder,
    raw::{Client, word},
    relay::conversations,
};

/// All replies as a word.
fn told(client: &mut Client, conversation: &[(Vec<u8>, usize)]) -> String {
    let mut out = String::new();
    for (bytes, ready) in conversation {
        client.send(bytes);
        for _ in 0..*ready {
            out.push_str(&word(&client.until_ready()));
        }
    }
    out
}

#[test]
fn conversations_are_the_same_when_every_byte_comes_alone() {
    let server = shared();
    let behind = Forwarder::start(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mut node = server.node("pg1");
    node.port = behind.addr.port();
    let bed = Bed::start(server, config(vec![node], 2));
    let before = Forwarder::start(bed.addr);
    // A server is there before bytes crawl.
    bed.client().ok("SELECT 1");
    behind.split(1);
    before.split(1);
    for conversation in conversations() {
        let direct = told(&mut bed.direct(), &conversation);
        let mut client = Client::connect(before.addr, &bed.database, USER);
        assert_eq!(told(&mut client, &conversation), direct, "{conversation:?}");
    }
}
