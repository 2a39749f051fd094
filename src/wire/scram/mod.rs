//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677, 5929), both roles, without I/O or randomness: nonces come in.
//!
//! The roles are chains of structs, one per message expected, each consumed by its step. The server's last step yields
//! the ClientKey, which is what lets the proxy log in elsewhere without ever seeing a password.
//! User names inside the messages are ignored, as PostgreSQL does: the startup packet's counts.

pub mod client;
mod keys;
mod message;
pub mod server;
#[cfg(test)]
mod tests;

pub use keys::{Keys, Verifier};

use super::cursor::Malformed;

/// Mechanism without channel binding.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// Mechanism with channel binding.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";
/// What PostgreSQL takes when it hashes a password, unless told otherwise.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// More than this a server may not make us compute (CVE-2026-6665 and its kind).
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// A fresh nonce: 18 random bytes, 24 characters, as PostgreSQL's.
pub const NONCE_BYTES: usize = 18;
/// The longest nonce taken from a peer, in characters; ours and theirs together.
const MAX_NONCE: usize = 1024;
/// The longest salt taken from a peer, decoded.
const MAX_SALT: usize = 1024;

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The message is not SCRAM.
    Malformed(Malformed),
    /// The proof is wrong: wrong password. Server's role only.
    WrongProof,
    /// The channel bindings of the two sides do not fit, with the reason: someone may sit in between.
    ChannelBinding(&'static str),
    /// The server could not prove that it knows the verifier, or misused the exchange. Client's role only.
    Server(&'static str),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::Malformed(malformed)
    }
}

fn malformed(why: &'static str) -> Failure {
    Failure::Malformed(Malformed(why))
}

/// A nonce of random bytes as it stands in messages.
pub fn nonce(random: [u8; NONCE_BYTES]) -> String {
    message::encode(&random)
}
