//! Towards PostgreSQL: dialling, logging in, cancelling; pools of servers and what they may use.

pub mod budget;
pub mod cancel;
pub mod connection;
pub mod dial;
pub mod line;
mod login;
pub mod pool;
pub mod pools;
pub mod profile;
mod prove;
pub mod ramp;
mod refusal;
pub mod reset;
pub mod settings;
pub mod statements;
