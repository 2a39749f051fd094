//! Three members under Debian's Patroni and etcd: switchover, loss of the store, failover; asked by one proxy's probes
//! through the members' REST APIs, by another's from the store.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgsluice::{
    config::{Etcd, HttpUrl},
    topology::Topology,
};

use crate::{
    nobody,
    nodes::{PATIENCE, Probed, Server, config, is_primary, system_bin},
};

/// A process that ends with this.
pub struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Member {
    name: String,
    api: u16,
    /// Dropped before its server, which it would start again.
    _patroni: Running,
    server: Server,
}

/// The members, and the store behind them.
struct Cluster {
    members: Vec<Member>,
    etcd: Running,
    etcd_port: u16,
    _dir: tempfile::TempDir,
}

pub fn is_installed() -> bool {
    ["/usr/bin/etcd", "/usr/bin/patroni", "/usr/bin/patronictl"]
        .iter()
        .all(|program| Path::new(program).exists())
}

pub fn start_etcd(dir: &Path, port: u16) -> Running {
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", nobody()),
    );
    let log = fs::File::create(dir.join("etcd.log")).unwrap();
    let etcd = Command::new("etcd")
        .args([
            "--name",
            "e",
            "--data-dir",
            dir.join("etcd").to_str().unwrap(),
        ])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args([
            "--initial-cluster",
            &format!("e={peer}"),
            "--unsafe-no-fsync",
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Running(etcd.unwrap())
}

/// What `patroni` and `patronictl` read.
fn settings(name: &str, server: &Server, api: u16, etcd: u16) -> String {
    let (data, bin, pg) = (server.data(), &server.bin, server.port);
    let (data, bin, pass) = (
        data.display(),
        bin.display(),
        server.dir.path().join("pass"),
    );
    let pass = pass.display();
    format!(
        "scope: sluice\nname: {name}\n\
         restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}\n\
         etcd3: {{hosts: '127.0.0.1:{etcd}'}}\n\
         bootstrap:\n  dcs:\n    ttl: 20\n    loop_wait: 1\n    retry_timeout: 3\n    master_start_timeout: 0\n    \
         postgresql:\n      use_pg_rewind: true\n      \
         parameters: {{fsync: 'off', shared_buffers: 8MB, max_connections: 30}}\n  \
         initdb: [data-checksums, no-sync, {{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}]\n\
         postgresql:\n  listen: '127.0.0.1:{pg}'\n  connect_address: '127.0.0.1:{pg}'\n  data_dir: {data}\n  \
         bin_dir: {bin}\n  pgpass: {pass}\n  parameters: {{unix_socket_directories: ''}}\n  \
         pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']\n  \
         authentication:\n    superuser: {{username: postgres}}\n    replication: {{username: postgres}}\n    \
         rewind: {{username: postgres}}\n"
    )
}

impl Member {
    fn start(name: &str, etcd: u16) -> Member {
        let mut server = Server::place(&system_bin());
        let file = server.dir.path().join("patroni.yml");
        let api = nobody();
        fs::write(&file, settings(name, &server, api, etcd)).unwrap();
        if nix::unistd::geteuid().is_root() {
            let owner =
                std::os::unix::fs::MetadataExt::uid(&fs::metadata(server.dir.path()).unwrap());
            chown(&file, Some(owner), None).unwrap();
        }
        let bin = std::mem::replace(&mut server.bin, "/usr/bin".into());
        let log = fs::File::create(server.dir.path().join("log")).unwrap();
        let patroni = server.command("patroni", &[file.to_str().unwrap()]);
        let mut patroni = patroni;
        let patroni = patroni.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        server.bin = bin;
        Member {
            name: name.to_owned(),
            api,
            _patroni: Running(patroni.unwrap()),
            server,
        }
    }

    fn settings(&self) -> PathBuf {
        self.server.dir.path().join("patroni.yml")
    }

    /// Whether it answers, and what.
    fn says(&self, sql: &str) -> Option<String> {
        let port = self.server.port.to_string();
        let args = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-XAtqc",
            sql,
        ];
        let output = self.server.command("psql", &args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !condition() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Cluster {
    fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let port = nobody();
        let etcd = start_etcd(dir.path(), port);
        let first = Member::start("pg1", port);
        let writable = "select not pg_is_in_recovery()";
        wait_until("bootstrapped", || {
            first.says(writable).as_deref() == Some("t")
        });
        first
            .server
            .sql("CREATE ROLE prober LOGIN IN ROLE pg_monitor");
        let others = ["pg2", "pg3"].map(|name| Member::start(name, port));
        Cluster {
            members: [first].into_iter().chain(others).collect(),
            etcd,
            etcd_port: port,
            _dir: dir,
        }
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|it| it.name == name).unwrap()
    }

    fn switch_over(&self, from: &str, to: &str) {
        let file = self.members[0].settings();
        let output = Command::new("patronictl")
            .args([
                "-c",
                file.to_str().unwrap(),
                "switchover",
                "sluice",
                "--force",
            ])
            .args(["--master", from, "--candidate", to])
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

fn primary(topology: &Topology) -> Option<String> {
    Some(topology.primary()?.config.name.clone())
}

fn by_api(cluster: &Cluster) -> Probed {
    let mut config = config(Vec::new());
    let api = format!("http://127.0.0.1:{}", cluster.member("pg1").api);
    config.patroni.urls = vec![HttpUrl::base(&api).unwrap()];
    Probed::with(config)
}

fn by_store(cluster: &Cluster) -> Probed {
    let mut config = config(Vec::new());
    config.patroni.etcd = Some(etcd_at(cluster.etcd_port, "sluice"));
    Probed::with(config)
}

pub fn etcd_at(port: u16, scope: &str) -> Etcd {
    Etcd {
        urls: vec![HttpUrl::base(&format!("http://127.0.0.1:{port}")).unwrap()],
        namespace: "/service".to_owned(),
        scope: scope.to_owned(),
        login: None,
    }
}

#[test]
fn a_switchover_a_lost_store_and_a_failover_of_patroni_are_followed() {
    if !is_installed() {
        eprintln!("*** Patroni and etcd are not installed: SKIPPED ***");
        return;
    }
    let cluster = Cluster::start();
    let both = [by_api(&cluster), by_store(&cluster)];
    let complete = |t: &Topology| t.nodes.len() == 3 && t.replicas_up().count() == 2;
    let all_complete = || both.iter().all(|it| complete(&it.handle.current()));
    wait_until("three members that stream", all_complete);
    both.iter()
        .for_each(|probed| drop(probed.wait_primary("pg1")));

    cluster.switch_over("pg1", "pg2");
    let switched = both.each_ref().map(|probed| probed.wait_primary("pg2"));
    wait_until("the old one follows", all_complete);
    for (probed, switched) in both.iter().zip(&switched) {
        assert!(!probed.ever(|t| t.number > switched.number && is_primary(t, "pg1")));
    }

    // Without its store a leader steps down; who has no primary still has nodes, and those that read.
    cluster.etcd.signal(Signal::SIGSTOP);
    for probed in &both {
        let down = probed.wait("no primary", |t| t.primary.is_none());
        assert_eq!(down.nodes.len(), 3);
    }
    cluster.etcd.signal(Signal::SIGCONT);
    let is_back = |t: &Topology| t.primary.is_some() && complete(t);
    wait_until("a primary again", || {
        both.iter().all(|it| is_back(&it.handle.current()))
    });

    let leader = primary(&both[0].handle.current()).unwrap();
    cluster.member(&leader).server.signal(Signal::SIGKILL);
    for probed in &both {
        let next = probed.wait("another primary", |t| {
            primary(t).is_some_and(|it| it != leader)
        });
        assert!(next.primary().unwrap().timeline > Some(2), "{next:?}");
    }
}
