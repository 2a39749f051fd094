//! TLS contexts from `[tls.client]` and `[tls.server]`, and what SCRAM binds to.
//!
//! rustls over ring only. Tickets and session stores are off on both sides: memory per connection counts more than a
//! cheaper second handshake of connections that live long.

mod acceptor;
mod connector;
mod end_point;
mod files;

pub use acceptor::{Acceptor, common_name};
pub use connector::Connector;
pub use end_point::EndPoint;
pub use files::TlsError;

/// What a client of direct TLS must ask for by ALPN, and what we offer servers.
pub const ALPN: &[u8] = b"postgresql";

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}
