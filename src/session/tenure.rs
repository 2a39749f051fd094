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
        for (route, access, role, health, reason, expected) in [
            (Route::Primary, Access::Full, Primary, Up, Answering, Good),
            (
                Route::Primary,
                Access::Full,
                Primary,
                Down,
                Reason::Silent,
                Good,
            ),
            (
                Route::Primary,
                Access::Full,
                Primary,
                Down,
                LoginRefused,
                Good,
            ),
            (
                Route::Primary,
                Access::Full,
                Primary,
                Draining,
                ShuttingDown,
                Leaving,
            ),
            (
                Route::Primary,
                Access::Full,
                Unknown,
                Down,
                Reason::Silent,
                Deposed,
            ),
            (
                Route::Primary,
                Access::Full,
                Unknown,
                Down,
                Unheard,
                Leaving,
            ),
            (
                Route::Primary,
                Access::Full,
                Unknown,
                Fenced,
                OldTimeline,
                Deposed,
            ),
            (
                Route::Primary,
                Access::Full,
                Replica,
                Up,
                Answering,
                Deposed,
            ),
            (
                Route::Split,
                Access::Full,
                Unknown,
                Fenced,
                Conflict,
                Deposed,
            ),
            (Route::Replica, Access::Full, Replica, Up, Answering, Good),
            (
                Route::Replica,
                Access::Full,
                Replica,
                Down,
                Reason::Silent,
                Tenure::Silent,
            ),
            (Route::Replica, Access::Full, Replica, Down, Full, Good),
            (
                Route::Replica,
                Access::Full,
                Replica,
                Draining,
                ShuttingDown,
                Leaving,
            ),
            (
                Route::Replica,
                Access::Full,
                Primary,
                Up,
                Answering,
                Leaving,
            ),
            (
                Route::Replica,
                Access::ReadOnly,
                Primary,
                Up,
                Answering,
                Good,
            ),
            (
                Route::Replica,
                Access::ReadOnly,
                Unknown,
                Fenced,
                OldTimeline,
                Deposed,
            ),
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
