//! pgsluice: a PostgreSQL proxy that splits reads from writes. See ARCHITECTURE.md for the way of a query.

pub mod admin;
pub mod cancels;
pub mod catalogues;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod credentials;
pub mod error;
pub mod metrics;
pub mod net;
pub mod proxy;
pub mod route;
pub mod server;
pub mod session;
pub mod topology;
pub mod wire;
pub mod worker;
