//! Where a session's `currval` and `lastval` are.
//!
//! A server remembers them for whoever has it. On a server that another session has had since, they would be that
//! session's values: such a read is refused, and its login learned ([`super::context::Identity`]).

use crate::server::connection::Server;

/// The server on which the session last advanced a sequence.
#[derive(Debug, Default)]
pub(super) struct SequenceState(Option<(i32, u64)>);

impl SequenceState {
    pub(super) fn advanced_on(&mut self, server: &Server) {
        self.0 = Some((server.backend.pid, server.tenure));
    }

    /// What `server` remembers is not this session's.
    pub(super) fn are_strangers(&self, server: &Server) -> bool {
        self.0 != Some((server.backend.pid, server.tenure))
    }
}
