//! What an operator sees: metrics, health and the state of the cluster over HTTP. Snapshots in, text out; no secret and
//! no configuration value with a password is in reach here.

pub mod http;
mod metrics;
mod orders;
mod view;

pub use orders::{Drained, Order, Paused, Reloaded};
use tokio::sync::{mpsc, watch};

use crate::{metrics::Metrics, topology};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The listeners are not open yet.
    Starting,
    Serving,
    /// New sessions are refused, old ones end.
    Draining,
}

/// What the pages are made of; cheap to clone.
#[derive(Clone)]
pub struct State {
    pub topology: topology::Handle,
    pub metrics: Metrics,
    /// Written by whoever opens and drains the listeners.
    pub phase: watch::Receiver<Phase>,
    /// To whoever can carry them out.
    pub orders: mpsc::Sender<Order>,
}
