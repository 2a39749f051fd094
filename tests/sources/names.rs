//! Host names with several addresses, in a mount namespace whose /etc/hosts the test writes.

use std::{
    fs,
    io::{BufRead, BufReader, copy},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use crate::{
    nobody,
    nodes::{PATIENCE, Probed, Server, config, installations},
};
use pgsluice::{config, topology::Health};

/// Passes what comes to one address on to a server. Its threads end with the test's process.
fn forward(from: &TcpListener, to: u16) {
    let from = from.try_clone().unwrap();
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    thread::spawn(move || {
        for client in from.incoming().map_while(Result::ok) {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                pump(client.try_clone().unwrap(), server.try_clone().unwrap());
                pump(server, client);
            }
        }
    });
}

/// One port at both addresses.
fn pair() -> (u16, [TcpListener; 2]) {
    let at = |host: u8, port| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port));
    loop {
        let first = at(2, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = at(3, port) {
            return (port, [first, second]);
        }
    }
}

/// The program with its own /etc/hosts, and what it logs; killed at the end.
struct Running {
    process: Child,
    log: Receiver<String>,
}

impl Running {
    fn start(hosts: &Path, args: &[&str]) -> Running {
        let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
        let mut process = isolated()
            .args(["sh", "-c", script, "sh"])
            .arg(hosts)
            .arg(env!("CARGO_BIN_EXE_pgsluice"))
            .args(args)
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        let (tell, log) = channel();
        thread::spawn(move || {
            let lines = said.lines().map_while(Result::ok);
            lines.map_while(|line| tell.send(line).ok()).for_each(drop);
        });
        Running { process, log }
    }

    /// Waits for a line of the log with all of these.
    fn wait_said(&self, parts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never said {parts:?}"));
            if parts.iter().all(|part| line.contains(part)) {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A command with mounts of its own.
fn isolated() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user"]);
    command
}

fn may_mount() -> bool {
    let mut tried = isolated();
    let tried = tried.args(["mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    tried.output().is_ok_and(|it| it.status.success())
}

#[test]
fn each_address_of_a_name_is_a_node_and_a_new_one_is_found() {
    if !may_mount() {
        eprintln!("*** No mount namespaces here: SKIPPED ***");
        return;
    }
    let primary = Server::primary(&installations()[0]);
    let replica = primary.replica();
    let (port, [first, second]) = pair();
    forward(&first, replica.port);
    forward(&second, primary.port);
    let dir = tempfile::tempdir().unwrap();
    let (hosts, file) = (dir.path().join("hosts"), dir.path().join("p.toml"));
    let listed = "127.0.0.2 pg.test\n127.0.0.3 pg.test\n";
    fs::write(&hosts, listed).unwrap();
    let text = format!(
        "[http]\nlisten = \"off\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"primary\"\n\
         [[node]]\nname = \"pg\"\nhost = \"pg.test\"\nport = {port}\n\
         [probe]\nuser = \"prober\"\nlookup_interval = \"1s\"\n\
         [[user]]\nname = \"app\"\npassword = \"x\"\n[log]\nformat = \"json\"\n"
    );
    fs::write(&file, text).unwrap();
    let running = Running::start(&hosts, &["run", "-c", file.to_str().unwrap()]);
    running.wait_said(&["\"pg@127.0.0.2\"", "unheard"]);
    running.wait_said(&["\"pg@127.0.0.3\"", "\"primary\"", "\"up\""]);
    fs::write(&hosts, format!("{listed}127.0.0.4 pg.test\n")).unwrap();
    running.wait_said(&["\"pg@127.0.0.4\"", "refused"]);
    primary.ctl(&["stop", "-m", "fast"]);
    replica.promote();
    running.wait_said(&["\"pg@127.0.0.2\"", "\"primary\"", "\"up\""]);
}

#[test]
fn a_name_that_is_one_server_stays_one_node_and_one_that_is_unknown_is_down() {
    let primary = Server::primary(&installations()[0]);
    let probed = Probed::with(config(vec![
        config::Node::at("local", "localhost", primary.port),
        config::Node::at("nowhere", "no.such.host.invalid", nobody()),
    ]));
    let topology = probed.wait_primary("local");
    assert_eq!(topology.nodes.len(), 2, "{topology:?}");
    assert_eq!(topology.node("nowhere").unwrap().health, Health::Down);
}
