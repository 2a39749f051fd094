//! Sockets: listeners, dialling, TLS, and the stream that hides whether there is TLS.
//!
//! Knows nothing of logins. `tls` turns `[tls.*]` into contexts; `connect` makes a connection to a server as libpq's
//! sslmode would; `silence` tells whether a peer's system still answers; `inbox` cuts whole messages out of a stream for
//! the phases where messages are small.

pub mod connect;
pub mod inbox;
pub mod silence;
pub mod stream;
pub mod tcp;
pub mod tls;

pub use connect::{Encryption, Target, connect};
pub use inbox::Inbox;
pub use silence::is_silent;
pub use stream::Stream;
pub use tcp::bind;
