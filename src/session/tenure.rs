//! Whether a session may stay on the server that it holds, as the topology changes. Pure.
//!
//! A connection that still answers proves little: a frozen or partitioned primary that was replaced acknowledges writes
//! that are lost, and a replica that was promoted is no longer read-only. So the node's word decides, not the socket.

use crate::{
    config::Route,
    server::profile::Access,
    topology::{Health, NodeView, Reason, Role},
};

/// How a held server stands with the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenure {
    /// It may be used on. Where its node is really gone, the connection says so by itself.
    Good,
    /// The node does not answer, and nothing can be written there: whoever waits for it waits in vain.
    Silent,
    /// What is open may end; then the session leaves.
    Leaving,
    /// The node has lost the role for which the server was taken: nothing that it still says counts.
    Deposed,
}

/// The tenure of a server that was taken for `route` with `access`, on a node that is now `view`.
pub(super) fn tenure(route: Route, access: Access, view: &NodeView) -> Tenure {
    match (view.role, view.health) {
        // Another machine under the same name, of which nothing is known yet.
        (Role::Unknown, Health::Down) if is_new(view.reason) => Tenure::Leaving,
        (Role::Unknown, _) => Tenure::Deposed,
        (Role::Replica, _) if route != Route::Replica => Tenure::Deposed,
        // Promoted: the next transaction there could write.
        (Role::Primary, _) if route == Route::Replica && access == Access::Full => Tenure::Leaving,
        (_, Health::Draining) => Tenure::Leaving,
        // A silent primary may come back with every answer that it owes; only a successor makes them worthless.
        (_, Health::Down) if view.reason == Reason::Silent && route == Route::Replica => {
            Tenure::Silent
        }
        _ => Tenure::Good,
    }
}

fn is_new(reason: Reason) -> bool {
    matches!(reason, Reason::Unheard | Reason::Settling)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::config::Node;

    fn view(role: Role, health: Health, reason: Reason) -> NodeView {
        let mut view = NodeView::unheard(Arc::new(Node::at("n", "h", 1)), Instant::now());
        (view.role, view.health, view.reason) = (role, health, reason);
        view
    }

    #[test]
    fn the_tenure_table() {
        use {
            Health::*,
            Reason::*,
            Role::*,
            Tenure::{Deposed, Good, Leaving},
        };
        let (primary, replica, split) = (Route::Primary, Route::Replica, Route::Split);
        let (full, read_only) = (Access::Full, Access::ReadOnly);
        for (route, access, role, health, reason, expected) in [
            (primary, full, Primary, Up, Answering, Good),
            (primary, full, Primary, Down, Reason::Silent, Good),
            (primary, full, Primary, Down, LoginRefused, Good),
            (primary, full, Primary, Draining, ShuttingDown, Leaving),
            (primary, full, Unknown, Down, Reason::Silent, Deposed),
            (primary, full, Unknown, Down, Unheard, Leaving),
            (primary, full, Unknown, Fenced, OldTimeline, Deposed),
            (primary, full, Replica, Up, Answering, Deposed),
            (split, full, Unknown, Fenced, Conflict, Deposed),
            (replica, full, Replica, Up, Answering, Good),
            (replica, full, Replica, Down, Reason::Silent, Tenure::Silent),
            (replica, full, Replica, Down, Full, Good),
            (replica, full, Replica, Draining, ShuttingDown, Leaving),
            (replica, full, Primary, Up, Answering, Leaving),
            (replica, read_only, Primary, Up, Answering, Good),
            (replica, read_only, Unknown, Fenced, OldTimeline, Deposed),
        ] {
            let view = view(role, health, reason);
            assert_eq!(
                tenure(route, access, &view),
                expected,
                "{route:?} {access:?} {role:?} {health:?} {reason:?}"
            );
        }
    }
}
