//! The same switchovers behind HAProxy, as its usual template for PostgreSQL has it: health checks over HTTP, every three
//! seconds, three failures to be down. `scripts/failover` runs it for comparison; without that there is nothing to show.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use pgsluice::cluster::{Node, Replication};

use crate::{
    load::{Load, Targets, Writing},
    proxied::wait_until,
    runs::{RUNS, SESSIONS, Scene, print, rounds, switch_over},
};

const PROGRAM: &str = "/usr/sbin/haproxy";

/// Killed when dropped.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What Patroni's REST API answers to a health check: 200 on the primary, 503 elsewhere. Its port.
fn health_page(node: Arc<Node>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let status = match node.in_recovery() {
                Ok(false) => "200 OK",
                Ok(true) | Err(_) => "503 Service Unavailable",
            };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

fn start(dir: &Path, port: u16, nodes: Vec<Arc<Node>>) -> HaProxy {
    let servers: String = nodes
        .into_iter()
        .map(|node| {
            let (name, at) = (node.name().to_owned(), node.port());
            let check = health_page(node);
            format!("  server {name} 127.0.0.1:{at} maxconn 100 check port {check}\n")
        })
        .collect();
    let text = format!(
        "global\n  maxconn 200\ndefaults\n  mode tcp\n  retries 2\n  timeout connect 4s\n  timeout client 30m\n  \
         timeout server 30m\n  timeout check 5s\nlisten postgres\n  bind 127.0.0.1:{port}\n  option httpchk OPTIONS /primary\n  \
         http-check expect status 200\n  default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n{servers}"
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("-db").arg("-f").arg(file);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    HaProxy(child.unwrap())
}

#[test]
fn unannounced_switchovers_behind_haproxy_for_comparison() {
    if std::env::var_os(RUNS).is_none() || !Path::new(PROGRAM).exists() {
        return;
    }
    let scene = Scene::start(Replication::Asynchronous);
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let _haproxy = start(dir.path(), address.port(), scene.cluster.nodes());
    wait_until("it listens", || TcpStream::connect(address).is_ok());
    let targets = Targets {
        writes: address,
        reads: address,
        replicas: None,
    };
    let load = Load::start(targets, SESSIONS, Writing::Autocommit);
    let without_primary = switch_over(&scene, &load, false);
    let report = load.stop();
    print(
        "HAProxy: switchover, autocommit",
        rounds(),
        &report,
        without_primary,
        0,
    );
}
