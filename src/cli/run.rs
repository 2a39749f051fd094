//! `pgsluice run`: the proxy, from its configuration to its last session.
//!
//! SIGHUP reads the file again; SIGTERM and SIGINT drain, a second one ends at once. systemd is told, where it is there.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::logs;
use crate::{
    admin::{Order, Reloaded},
    config::{self, Config},
    proxy::Proxy,
};

#[derive(clap::Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A PostgreSQL server; may be given several times, instead of a file
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    node: Vec<String>,
    /// The REST API of a Patroni member, which names the servers; may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    patroni: Vec<String>,
    /// The servers' database with repmgr's metadata, which names the others
    #[arg(long, value_name = "DATABASE", num_args = 0..=1, require_equals = true)]
    #[arg(
        default_missing_value = "repmgr",
        requires = "node",
        conflicts_with = "patroni"
    )]
    repmgr: Option<String>,
    /// A connection string with all the servers, as libpq takes it: postgres://user@host1,host2:5433/database
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "node", "patroni"])]
    url: Option<String>,
}

pub fn run(args: RunArgs) -> ExitCode {
    let config = match (&args.config, &args.url) {
        (Some(path), _) => super::load(path).map(|loaded| loaded.config),
        (None, url) => match url {
            Some(url) => Config::from_url(url),
            None => Config::from_patroni(&args.patroni, &args.node),
        }
        .map(|mut config| {
            config.repmgr.database.clone_from(&args.repmgr);
            config
        })
        .map_err(|errors| super::refuse(&errors)),
    };
    match config {
        Ok(config) => serve(config, args.config.as_deref(), || {}),
        Err(code) => code,
    }
}

/// Runs the proxy until a signal ends it; calls `ready` once when its sockets are open. `file` is what SIGHUP reads.
pub fn serve(config: Config, file: Option<&Path>, ready: impl FnOnce()) -> ExitCode {
    logs::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(control(config, file, ready)),
        Err(error) => Err(error.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgsluice: {error}");
            ExitCode::from(super::FAILURE)
        }
    }
}

/// The signals that end the proxy.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> std::io::Result<Self> {
        Ok(Ending {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn control(config: Config, file: Option<&Path>, ready: impl FnOnce()) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut hangup = signal(SignalKind::hangup()).map_err(text)?;
    let mut ending = Ending::new().map_err(text)?;
    let routes: Vec<_> = config.listeners.iter().map(|l| l.route).collect();
    let mut proxy = Proxy::start(config)
        .await
        .map_err(|error| error.to_string())?;
    for (address, route) in proxy.addresses().iter().zip(routes) {
        tracing::info!(%address, ?route, "listening");
    }
    notify(NotifyState::Ready);
    ready();
    loop {
        tokio::select! {
            _ = hangup.recv() => drop(reload(&mut proxy, file)),
            order = proxy.ordered() => obey(&mut proxy, file, order),
            () = ending.asked() => break,
        }
    }
    tracing::info!("draining: sessions end with their transactions, a second signal ends them now");
    notify(NotifyState::Stopping);
    tokio::select! {
        () = proxy.drain() => {}
        () = ending.asked() => {}
    }
    proxy.end();
    tracing::info!("ended");
    Ok(())
}

/// Carries out what `pgsluice ctl` asks for. Whoever asked may have gone: it is done all the same.
fn obey(proxy: &mut Proxy, file: Option<&Path>, order: Order) {
    match order {
        Order::Reload(tell) => {
            let _ = tell.send(reload(proxy, file));
        }
        Order::Resume(tell) => {
            tracing::info!("resumed");
            proxy.resume();
            let _ = tell.send(());
        }
        Order::Drain { node, drains, tell } => {
            tracing::info!(node, drains, "drained, or not any more");
            let _ = tell.send(proxy.drain_node(&node, drains));
        }
        Order::Pause(of, tell) => {
            tracing::info!("paused: no transaction begins on the primary");
            let paused = proxy.pause(of);
            tokio::spawn(async move { tell.send(paused.await) });
        }
    }
}

/// A bad file is refused whole, and the old configuration stays.
fn reload(proxy: &mut Proxy, file: Option<&Path>) -> Reloaded {
    let reloaded = match file.map(config::load) {
        None => Err("there is nothing to reload: started without a configuration file".to_owned()),
        Some(Err(errors)) => Err(errors.render(false)),
        Some(Ok(loaded)) => proxy.reload(loaded.config).map_err(|e| e.to_string()),
    };
    match reloaded {
        Ok(config::Reload { live, restart }) => {
            tracing::info!(?live, needs_restart = ?restart, "reloaded");
            Reloaded::Done { live, restart }
        }
        Err(error) => {
            tracing::error!("reload refused, the old configuration stays: {error}");
            Reloaded::Refused(error)
        }
    }
}

/// Without systemd there is nobody to tell.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
