//! The proxy of the demo: the same code as `pgsluice run`, in this process.

use std::{path::Path, process::ExitCode};

use nix::{
    sys::signal::{Signal, kill},
    unistd::getpid,
};

use super::config::ProxyPorts;
use crate::{
    cli::{load, run},
    cluster::{Holder, is_free},
};

/// Before anything is made: whether the proxy will get its ports.
pub(super) fn check_ports(ports: ProxyPorts) -> Result<(), String> {
    let Some(taken) = ports.all().into_iter().find(|port| !is_free(*port)) else {
        return Ok(());
    };
    Err(format!(
        "port {taken} is taken by {}: stop that, or move the proxy's ports with --port-offset 100",
        Holder::of_port(taken)
    ))
}

/// Runs until a signal ends it; calls `ready` when the listeners are open.
pub(super) fn serve(config: &Path, ready: impl FnOnce()) -> ExitCode {
    match load(config) {
        Ok(loaded) => run::serve(loaded.config, Some(config), ready),
        Err(code) => code,
    }
}

/// Makes the proxy read its configuration again. Only once [`serve`] has called `ready`.
pub(super) fn reload() {
    signal(Signal::SIGHUP);
}

/// Makes [`serve`] return.
pub(super) fn end() {
    signal(Signal::SIGTERM);
}

fn signal(signal: Signal) {
    if let Err(error) = kill(getpid(), signal) {
        tracing::error!(%error, "a signal to ourselves failed");
    }
}
