//! What cluster to make, and the first steps: programs, user, directory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    Cluster, Progress,
    account::Account,
    binaries::Binaries,
    error::{Error, Result, io_at},
    keeper::Keeper,
    node::{Shared, Shutdown},
    place::{Home, Place},
    ports::Ports,
    record::Record,
    settings::{Durability, Replication, Settings},
    wait::Stop,
};

/// What cluster to make; see [`Cluster::builder`].
pub struct Builder {
    replicas: usize,
    binaries: Option<PathBuf>,
    place: Place,
    ports: Ports,
    settings: Settings,
    template: Option<PathBuf>,
    progress: Progress,
    stop: Stop,
}

impl Default for Builder {
    /// Two replicas, temporary, on free ports, not durable.
    fn default() -> Self {
        Builder {
            replicas: 2,
            binaries: None,
            place: Place::Temporary(std::env::temp_dir()),
            ports: Ports::Free,
            settings: Settings::default(),
            template: None,
            progress: Arc::new(|_| {}),
            stop: Stop::default(),
        }
    }
}

impl Builder {
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// PostgreSQL's bin directory; found by itself otherwise.
    pub fn pg_bin(mut self, dir: impl Into<PathBuf>) -> Self {
        self.binaries = Some(dir.into());
        self
    }

    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    pub fn replication(mut self, replication: Replication) -> Self {
        self.settings.replication = replication;
        self
    }

    pub fn max_connections(mut self, connections: u32) -> Self {
        self.settings.max_connections = Some(connections);
        self
    }

    /// As PostgreSQL writes sizes: `128MB`.
    pub fn shared_buffers(mut self, size: impl Into<String>) -> Self {
        self.settings.shared_buffers = Some(size.into());
        self
    }

    /// Any setting of postgresql.conf, on all nodes.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.extra.push((name.into(), value.into()));
        self
    }

    /// A line of pg_hba.conf, before those that trust everybody on this machine.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.settings.hba.push(line.into());
        self
    }

    /// A directory that [`Builder::make_template`] made with the same version, copied instead of running initdb. Clusters made
    /// from it share their system identifier.
    pub fn template(mut self, dir: impl Into<PathBuf>) -> Self {
        self.template = Some(dir.into());
        self
    }

    /// Is told of each step.
    pub fn progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// Lets another thread interrupt all waiting.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Makes the cluster, or goes on with what an earlier run left in a kept directory, and waits until every replica
    /// streams.
    pub fn start(self) -> Result<Cluster> {
        let binaries = Binaries::find(self.binaries.as_deref())?;
        let account = Account::choose()?;
        account.check_reach(binaries.dir())?;
        let home = Home::open(&self.place)?;
        account.check_reach(home.dir())?;
        let empty = Record {
            major: binaries.major(),
            nodes: Vec::new(),
        };
        let record = Record::read(home.dir())?.unwrap_or(empty);
        if record.major != binaries.major() {
            return Err(Error::OtherVersion {
                dir: home.dir().to_owned(),
                made: record.major,
                ours: binaries.major(),
            });
        }
        let mut settings = self.settings;
        settings.nodes = record.nodes.len().max(self.replicas + 1);
        let keeper = Keeper::start().map_err(io_at("cannot start a thread for", home.dir()))?;
        let cluster = Cluster {
            nodes: Mutex::default(),
            primary: Mutex::default(),
            record: Mutex::new(record.clone()),
            shared: Arc::new(Shared {
                binaries,
                account,
                settings,
                stop: self.stop,
                keeper,
            }),
            ports: self.ports,
            progress: self.progress,
            home,
        };
        cluster.bring_up(&record, self.replicas, self.template.as_deref())?;
        Ok(cluster)
    }

    /// Makes a directory for [`Builder::template`] at `dir`, which must not exist yet; its parent must.
    pub fn make_template(self, dir: &Path) -> Result<()> {
        let parent = dir.parent().unwrap_or(Path::new("."));
        let place = Place::Temporary(parent.to_owned());
        let cluster = self.replicas(0).place(place).start()?;
        let node = cluster.primary();
        node.stop(Shutdown::Fast)?;
        std::fs::rename(node.data(), dir).map_err(io_at("cannot create", dir))
    }
}
