//! Brings the demo up and keeps it up: cluster, roles, configuration, proxy, control; and takes it down again.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    UpArgs,
    config::{Plan, ProxyPorts},
    control::{Audience, Control},
    proxy,
    roles::{self, Passwords},
    runtime::Published,
    verify,
};
use crate::cluster::{
    Builder, Cluster, Durability, Error, PATIENCE, Place, Ports, Replication, Stop, poll,
};

/// From here on `--replicas` gets a warning.
const MANY_REPLICAS: usize = 6;

pub(super) fn run(args: &UpArgs) -> ExitCode {
    match prepare(args, Stop::default()) {
        Ok(demo) => demo.run(args),
        Err(message) => {
            eprintln!("pgsluice: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A cluster that runs, and all that the proxy needs.
struct Demo {
    cluster: Arc<Cluster>,
    plan: Arc<Plan>,
    config: PathBuf,
    audience: Audience,
    stop: Stop,
}

fn prepare(args: &UpArgs, stop: Stop) -> Result<Demo, String> {
    let audience = Audience::default();
    proxy::check_ports(ProxyPorts::new(args.port_offset))?;
    stop_on_signals(stop.clone())?;
    notes(args).iter().for_each(|note| audience.say(note));
    let cluster = builder(args, &stop, &audience).start().map_err(text)?;
    let passwords = Passwords::random().map_err(|e| e.to_string())?;
    audience.say("making the roles pgsluice (probes), pgsluice_auth (lookups) and app");
    roles::make(&cluster.primary(), &passwords).map_err(text)?;
    let plan = Plan::new(args, passwords);
    let config = cluster.dir().join("pgsluice.toml");
    let written = plan.write(&cluster, &config);
    written.map_err(|e| format!("cannot write {}: {e}", config.display()))?;
    Ok(Demo {
        cluster: Arc::new(cluster),
        plan: Arc::new(plan),
        config,
        audience,
        stop,
    })
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Until the proxy runs (and handles signals itself, too), a signal ends the making of the cluster in order.
fn stop_on_signals(stop: Stop) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(text)?;
    let _guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    drop(_guard);
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.stop();
    };
    let work = move || runtime.block_on(wait);
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(work).map(drop).map_err(text)
}

/// What somebody should know before such a cluster is made.
fn notes(args: &UpArgs) -> Vec<String> {
    let mut notes = Vec::new();
    if args.replicas >= MANY_REPLICAS {
        notes.push(format!(
            "note: each of {} replicas costs the primary network (all WAL goes out once per replica) and CPU; \
             more than five usually hang below other replicas",
            args.replicas
        ));
    }
    if args.synchronous {
        notes.push(
            "note: synchronous replication: COMMIT returns when one replica has the transaction on disk. When no \
             replica is there, writes wait (they are not lost, and not refused) until one is back; reads go on."
                .to_owned(),
        );
    }
    if args.synchronous && args.replicas == 0 {
        notes.push("note: with no replica at all every write waits until you add one".to_owned());
    }
    notes
}

fn builder(args: &UpArgs, stop: &Stop, audience: &Audience) -> Builder {
    let audience = audience.clone();
    let mut builder = Cluster::builder()
        .replicas(args.replicas)
        .ports(Ports::From(args.node_port))
        .hba(roles::hba())
        .stop(stop.clone())
        .progress(move |text| audience.say(text));
    if let Some(dir) = &args.dir {
        builder = builder
            .place(Place::Kept(dir.clone()))
            .durability(Durability::Safe);
    }
    if let Some(dir) = &args.pg_bin {
        builder = builder.pg_bin(dir);
    }
    if args.synchronous {
        builder = builder.replication(Replication::Synchronous);
    }
    if let Some(connections) = args.max_connections {
        builder = builder.max_connections(connections);
    }
    if let Some(size) = &args.shared_buffers {
        builder = builder.shared_buffers(size);
    }
    let set = args.set.iter().cloned();
    set.fold(builder, |builder, (name, value)| builder.set(name, value))
}

impl Demo {
    fn run(self, args: &UpArgs) -> ExitCode {
        let (published, listener) = match Published::new(self.cluster.dir()) {
            Ok(published) => published,
            Err(error) => {
                eprintln!("pgsluice: the demo's control socket cannot be opened: {error}");
                return ExitCode::FAILURE;
            }
        };
        tracing::debug!(socket = %published.socket().display(), "control");
        let code = match args.verify {
            true => self.serve_verify(),
            false => {
                let control = self.control();
                let invitation = self.invitation(args.dir.as_deref());
                let ports = self.plan.ports;
                proxy::serve(&self.config, || {
                    thread::spawn(move || {
                        verify::wait_served(ports);
                        control.audience.say(&invitation);
                        control.serve(&listener);
                    });
                })
            }
        };
        drop(published);
        self.take_down();
        code
    }

    fn control(&self) -> Control {
        Control {
            cluster: Arc::downgrade(&self.cluster),
            plan: self.plan.clone(),
            config: self.config.clone(),
            audience: self.audience.clone(),
        }
    }

    /// Serves only as long as it takes to verify.
    fn serve_verify(&self) -> ExitCode {
        let mut verdict = None;
        let served = thread::scope(|scope| {
            let mut checking = None;
            let served = proxy::serve(&self.config, || {
                checking = Some(scope.spawn(|| {
                    let good = verify::verify(&self.cluster, self.plan.ports, &self.audience);
                    proxy::end();
                    good
                }));
            });
            verdict = checking.and_then(|thread| thread.join().ok());
            served
        });
        match verdict {
            Some(true) => served,
            Some(false) | None => ExitCode::FAILURE,
        }
    }

    /// What to try, ready to be copied.
    fn invitation(&self, kept: Option<&Path>) -> String {
        let ProxyPorts {
            primary,
            replica,
            split,
            http,
        } = self.plan.ports;
        let name = roles::APP;
        let ask = kept.map_or(String::new(), |dir| format!(" --dir {}", dir.display()));
        format!(
            "
Ready. In another terminal:
  psql -h localhost -U postgres -p {primary} -c \"CREATE TABLE t AS SELECT 1 AS a\"    # writes, on the primary
  psql -h localhost -U postgres -p {replica} -c \"TABLE t\"                           # reads, on the replicas
  psql -h localhost -U postgres -p {split}                                        # each statement where it belongs
  curl http://localhost:{http}/metrics

Applications:
  postgresql://{name}:{name}@localhost:{primary}/postgres
  postgresql://{name}:{name}@localhost:{replica}/postgres    # to read
  postgresql://{name}:{name}@localhost:{split}/postgres    # for everything

Play failover:
  pgsluice demo status{ask}
  pgsluice demo stop pg1{ask}
  pgsluice demo promote pg2{ask}
  pgsluice demo start pg1{ask}
  pgsluice demo add-replica{ask}

Whoever can reach the loopback of this machine may log in, as superuser too: this is for trying out.
Configuration: {}
Ctrl-C ends it{}.
",
            self.config.display(),
            match kept {
                Some(_) => "; the same command starts it again",
                None => ", and nothing is left behind",
            }
        )
    }

    /// The servers end with the cluster's last owner: a request that is under way is interrupted first.
    fn take_down(self) {
        self.audience.say("stopping the servers");
        self.stop.stop();
        let alone = || Ok((Arc::strong_count(&self.cluster) == 1).then_some(()));
        // If it takes longer than that, they end with this process.
        let _ = poll(PATIENCE, &Stop::default(), alone);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        up: UpArgs,
    }

    fn said(line: &str) -> String {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        notes(&cli.up).join("\n")
    }

    #[test]
    fn more_than_five_replicas_get_a_warning_of_what_they_cost() {
        assert_eq!(said("demo --replicas 5"), "");
        let note = said("demo --replicas 6");
        assert!(note.contains("each of 6 replicas costs the primary network"));
        assert!(note.contains("CPU"), "{note}");
    }

    #[test]
    fn synchronous_says_what_becomes_of_writes_without_a_replica() {
        let note = said("demo --synchronous");
        assert!(note.contains("COMMIT returns when one replica has the transaction"));
        assert!(note.contains("When no replica is there, writes wait"));
        assert!(!note.contains("no replica at all"), "{note}");
        let note = said("demo --synchronous --replicas 0");
        assert!(note.contains("with no replica at all every write waits until you add one"));
    }
}
