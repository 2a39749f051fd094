//! Proven reads: a table of statements with their classes, held to real servers.
//!
//! `corpus.txt` has a line for each: what is expected, and the statement. What runs anywhere is run on a replica, which
//! must not refuse it, and on the primary, where it must write nothing and take no transaction's number.

#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod lines;
mod lists;
mod mutate;
