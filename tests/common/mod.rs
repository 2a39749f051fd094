//! What integration tests share: real clusters ([`TestCluster`]), a TCP forwarder that misbehaves on demand
//! ([`Forwarder`]), and waiting without sleeping ([`wait_until`]).
//!
//! Each test takes a cluster of its own, or a shared one if it only reads. Nothing is left behind: clusters end with
//! their last owner; those of a killed test run are removed by the next one.

// Every test binary uses another part of this.
#![allow(dead_code, unused_imports, unused_macros)]

mod forwarder;
mod pg;
mod test_cluster;

pub use forwarder::{Behaviour, Direction, Forwarder};
pub use pg::Pg;
pub use test_cluster::{TestCluster, shared};

use std::time::{Duration, Instant};

/// The one patience with what should happen by itself.
pub const PATIENCE: Duration = pgsluice::cluster::PATIENCE;

/// Looks until `done`; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let stop = pgsluice::cluster::Stop::default();
    let reached = pgsluice::cluster::poll(PATIENCE, &stop, || Ok(done().then_some(())));
    assert!(
        matches!(reached, Ok(Some(()))),
        "still waiting after {PATIENCE:?} until {what}"
    );
}

/// The same, inside a runtime.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !done().await {
        assert!(
            Instant::now() < deadline,
            "still waiting after {PATIENCE:?} until {what}"
        );
        looks.tick().await;
    }
}

/// Makes of `fn name(pg) { … }` one test per PostgreSQL version: `name::system` and `name::v18`. A version that is not
/// there is skipped, with a line that says why.
macro_rules! per_version {
    ($($(#[$attribute:meta])* fn $name:ident($pg:ident) $body:block)*) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$attribute])*
            fn run($pg: $crate::common::Pg) $body

            #[test]
            fn system() {
                $crate::common::Pg::system().run(run)
            }

            #[test]
            fn v18() {
                $crate::common::Pg::v18().run(run)
            }
        })*
    };
}
pub(crate) use per_version;
