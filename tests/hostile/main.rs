//! The proxy between hostile peers, before a real PostgreSQL: thousands of mutated conversations from the client's side,
//! a man in the middle on the server's side. Every seed is fixed, and named when a case fails.

mod clients;
mod contents;
mod fair;
mod memory;
mod mutate;
#[path = "../nodes/mod.rs"]
mod nodes;
#[path = "../common/random.rs"]
mod random;
mod rig;
mod servers;
mod speak;
