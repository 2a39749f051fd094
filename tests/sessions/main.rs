//! Sessions, pools and the relay, on a real PostgreSQL, with the proxy in process.
//!
//! Clients are raw sockets: a driver would hide the order of messages, and would not send the wrong ones.

#[allow(dead_code)] // not all of it is needed here
#[path = "../common/forwarder.rs"]
mod cutter;
#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../common/random.rs"]
mod random;

mod bed;
mod forwarder;
mod raw;

mod application;
mod cancel;
mod catalogue;
mod copy;
mod cut;
mod dressing;
mod habits;
mod leaks;
mod lifecycle;
mod limits;
mod lost;
mod parameters;
mod pooling;
mod prepared;
mod relay;
mod reread;
mod settings;
mod silent;
mod split;
mod vanish;
mod waiting;
