//! Logs: for people on a terminal, as JSON by choice; never a secret, never a line per query.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging to standard error; a second call in one process changes nothing. `RUST_LOG` overrides the level.
pub fn start(log: &Log) {
    let level = format!("pgsluice={},warn", level(log.level));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that logs were started before: a test's, or the demo's.
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let _ = match json {
        true => logs.json().try_init(),
        false => logs.with_target(false).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a bug in pgsluice ended a task: {panic}");
    }));
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
