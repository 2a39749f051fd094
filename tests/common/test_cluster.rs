//! A cluster that shows its nodes' logs when its test fails, and that knows where a statement ran.

use std::{
    fs,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pgsluice::cluster::{Builder, Cluster};

use super::{Pg, pg::home};

/// Lines of each log that a failing test prints; the whole is kept.
const LINES: usize = 40;

pub struct TestCluster {
    cluster: Cluster,
}

impl TestCluster {
    /// A primary and `replicas`, all streaming.
    pub fn new(pg: &Pg, replicas: usize) -> TestCluster {
        TestCluster::build(pg.builder().replicas(replicas))
    }

    /// `builder` from [`Pg::builder`].
    pub fn build(builder: Builder) -> TestCluster {
        let started = builder.set("log_statement", "all").start();
        TestCluster {
            cluster: started.unwrap_or_else(|e| panic!("{e}")),
        }
    }

    /// The nodes that ran a statement with `marker` in its text (a comment will do), in order. Servers write their log
    /// before they run a statement, so there is nothing to wait for once the answer is here.
    pub fn ran(&self, marker: &str) -> Vec<String> {
        let nodes = self.cluster.nodes().into_iter();
        let with_marker = nodes.filter(|node| node.log().contains(marker));
        with_marker.map(|node| node.name().to_owned()).collect()
    }

    /// How often `node` ran a statement with `marker`.
    pub fn times_ran(&self, node: &str, marker: &str) -> usize {
        let node = self.cluster.node(node).unwrap();
        let log = node.log();
        log.lines().filter(|line| line.contains(marker)).count()
    }

    fn show_logs(&self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unnamed").replace("::", "-");
        let kept = home().join("failed").join(test);
        for node in self.cluster.nodes() {
            let log = node.log();
            let lines: Vec<String> = log.lines().map(shorten).collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n    ");
            eprintln!(
                "--- {} (port {}), the end of its log:\n    {end}",
                node.name(),
                node.port()
            );
        }
        match self.keep_logs(&kept) {
            Ok(()) => eprintln!("--- the whole logs are in {}", kept.display()),
            Err(e) => eprintln!("--- the logs could not be kept: {e}"),
        }
    }

    fn keep_logs(&self, directory: &PathBuf) -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        for node in self.cluster.nodes() {
            fs::copy(
                node.log_path(),
                directory.join(format!("{}.log", node.name())),
            )?;
        }
        Ok(())
    }
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// A statement may be of any length.
fn shorten(line: &str) -> String {
    line.chars().take(200).collect()
}

/// A cluster with two replicas for all tests of this process that only read or keep to tables of their own. It ends
/// with the last test that holds it, and is made again if another wants it later.
pub fn shared(pg: &Pg) -> Arc<TestCluster> {
    static SHARED: Mutex<Vec<(u32, Weak<TestCluster>)>> = Mutex::new(Vec::new());
    let mut all = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let major = pg.binaries().major();
    let mut alive = all.iter().filter(|(version, _)| *version == major);
    if let Some(cluster) = alive.find_map(|(_, weak)| weak.upgrade()) {
        return cluster;
    }
    let cluster = Arc::new(TestCluster::new(pg, 2));
    all.retain(|(version, _)| *version != major);
    all.push((major, Arc::downgrade(&cluster)));
    cluster
}
