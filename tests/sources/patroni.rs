//! Patroni as the source of nodes: a made-up API that says what a test wants.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use pgsluice::{
    config::{self, Config, HttpUrl},
    topology::{Alarm, Health, Reason},
};

use crate::{
    nobody,
    nodes::{Probed, Server, config, installations, is_primary},
};

/// Answers every request with the text that it holds; while that is empty, it hangs up.
struct Api {
    port: u16,
    body: Arc<Mutex<String>>,
}

impl Api {
    fn start() -> Api {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let body = Arc::<Mutex<String>>::default();
        let said = body.clone();
        // It ends with the test's process: nothing is left behind.
        std::thread::spawn(move || {
            for client in socket.incoming() {
                answer(client.unwrap(), &said.lock().unwrap());
            }
        });
        Api { port, body }
    }

    /// Names these members, the one called `leader` as the leader.
    fn say(&self, members: &[(&str, u16)], leader: &str) {
        let member = |(name, port): &(&str, u16)| {
            let role = if *name == leader { "leader" } else { "replica" };
            format!(
                r#"{{"name": "{name}", "role": "{role}", "host": "127.0.0.1", "port": {port}}}"#
            )
        };
        let members: Vec<_> = members.iter().map(member).collect();
        *self.body.lock().unwrap() = format!(r#"{{"members": [{}]}}"#, members.join(", "));
    }

    fn hang_up(&self) {
        self.body.lock().unwrap().clear();
    }

    /// A configuration that has its nodes from here.
    fn config(&self) -> Config {
        let mut config = config(Vec::new());
        config.patroni.urls =
            vec![HttpUrl::base(&format!("http://127.0.0.1:{}", self.port)).unwrap()];
        config.patroni.interval = Duration::from_millis(100);
        config
    }
}

fn answer(mut client: TcpStream, body: &str) {
    let mut request = [0; 1024];
    let _ = client.read(&mut request);
    if !body.is_empty() {
        let length = body.len();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let _ = client.write_all(format!("{head}{body}").as_bytes());
    }
}

#[test]
fn members_are_the_nodes_and_a_source_that_is_silent_leaves_them() {
    let primary = Server::primary(&installations()[0]);
    let replica = primary.replica();
    let api = Api::start();
    let probed = Probed::with(api.config());
    assert!(probed.handle.current().nodes.is_empty());
    api.say(&[("a", primary.port), ("b", replica.port)], "a");
    probed.wait("both by name", |t| {
        is_primary(t, "a") && t.replicas_up().count() == 1
    });
    api.hang_up();
    primary.ctl(&["stop", "-m", "fast"]);
    replica.promote();
    probed.wait_primary("b");
    // Patroni names no member that is dead; it is probed all the same.
    api.say(&[("b", replica.port), ("c", nobody())], "b");
    let after = probed.wait("another member", |t| t.node("c").is_some());
    assert!(is_primary(&after, "b") && after.node("a").is_some());
}

#[test]
fn check_asks_the_members_and_says_when_no_api_answers() {
    let primary = Server::primary(&installations()[0]);
    let api = Api::start();
    api.say(&[("member", primary.port)], "member");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    let check = |port: u16| {
        let text = format!(
            "[http]\nlisten = \"off\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"primary\"\n\
             [patroni]\nurls = [\"http://127.0.0.1:{port}\"]\n[probe]\nuser = \"prober\"\n\
             [[user]]\nname = \"app\"\npassword = \"x\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(["check", "-c", file.to_str().unwrap()])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let found = check(api.port);
    let at = format!("127.0.0.1:{}", primary.port);
    let line = found.lines().find(|line| line.contains("member")).unwrap();
    assert!(line.contains(&at) && line.contains("primary"), "{found}");
    let said = check(nobody());
    assert!(said.contains("no Patroni API answers"), "{said}");
}

#[test]
fn writes_wait_at_the_start_until_the_source_has_named_the_nodes_beside_those_of_the_file() {
    let old = Server::primary(&installations()[0]);
    let new = old.replica();
    new.promote();
    let api = Api::start();
    let mut config = api.config();
    config.nodes = vec![config::Node::at("old", "localhost", old.port)];
    config.failover.settle = Duration::from_secs(3600);
    let probed = Probed::with(config);
    let held = probed.wait("the old one answers", |t| {
        t.node("old")
            .is_some_and(|it| it.reason == Reason::Settling)
    });
    assert_eq!(held.primary, None);
    // By its address it is the node of the file.
    api.say(&[("a", old.port), ("b", new.port)], "b");
    let known = probed.wait_primary("b");
    assert!(known.node("a").is_none(), "{known:?}");
    assert!(!probed.ever(|t| is_primary(t, "old")));
    assert_eq!(known.node("old").unwrap().reason, Reason::OldTimeline);
}

#[test]
fn the_named_leader_gets_writes_although_another_node_has_not_spoken_at_the_start() {
    let primary = Server::primary(&installations()[0]);
    let silent = nobody();
    let api = Api::start();
    let members = [("a", primary.port), ("b", silent)];
    let mut config = api.config();
    config.failover.settle = Duration::from_secs(3600);
    api.say(&members, "b");
    let probed = Probed::with(config);
    let held = probed.wait("a answers", |t| {
        t.node("a").is_some_and(|a| a.reason == Reason::Settling)
            && t.node("b")
                .is_some_and(|b| b.health == Health::Down && b.reason != Reason::Unheard)
    });
    assert_eq!(held.primary, None);
    api.say(&members, "a");
    probed.wait_primary("a");
}

#[test]
fn the_named_leader_decides_a_disputed_promotion_either_way() {
    let primary = Server::primary(&installations()[0]);
    let (stray, replica) = (primary.replica(), primary.replica());
    let members = [("a", primary.port), ("b", stray.port), ("c", replica.port)];
    let api = Api::start();
    api.say(&members, "a");
    let probed = Probed::with(api.config());
    let before = probed.wait("all up", |t| {
        is_primary(t, "a") && t.replicas_up().count() == 2
    });
    stray.promote();
    let refused = probed.wait("the alarm", |t| t.alarms.contains(&Alarm::StrayPromotion));
    assert!(is_primary(&refused, "a"), "{refused:?}");
    assert_eq!(refused.node("b").unwrap().reason, Reason::Disputed);
    assert!(!probed.ever(|t| t.number >= before.number && t.primary.is_none()));
    api.say(&members, "b");
    let followed = probed.wait_primary("b");
    assert_eq!(followed.node("a").unwrap().reason, Reason::OldTimeline);
}
