//! The primary's end, through the whole proxy: who is told what, where writes go, and where they never go again.
//!
//! Every test has a cluster of its own: a primary and two streaming replicas. Nothing here depends on how fast the
//! machine is, only on what comes after what.

mod again;
mod announced;
#[path = "../common/mod.rs"]
mod common;
mod forwarder;
mod haproxy;
#[path = "../common/history.rs"]
mod history;
mod hold;
mod load;
mod lost;
#[path = "../nodes/mod.rs"]
mod nodes;
mod partition;
mod proxied;
mod readers;
mod replication;
mod restart;
mod runs;
mod shutdown;
mod stale;
