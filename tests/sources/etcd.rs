//! A store as Patroni fills it, in a real etcd that asks for a login.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pgsluice::config::{Config, Secret};
use serde_json::{Value, json};

use crate::{
    nobody,
    nodes::{Probed, Server, config, system_bin},
    patroni_real::{Running, etcd_at, is_installed, start_etcd, wait_until},
};

struct Store {
    port: u16,
    _etcd: Running,
    _dir: tempfile::TempDir,
}

impl Store {
    fn start() -> Store {
        let (dir, port) = (tempfile::tempdir().unwrap(), nobody());
        let store = Store {
            port,
            _etcd: start_etcd(dir.path(), port),
            _dir: dir,
        };
        wait_until("etcd answers", || {
            store
                .post("kv/range", &json!({"key": STANDARD.encode("x")}))
                .is_some()
        });
        store
    }

    /// None without an answer of success.
    fn post(&self, path: &str, body: &Value) -> Option<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let body = body.to_string();
        let length = body.len();
        let head = format!("POST /v3/{path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains(" 200 OK").then_some(())
    }

    fn put(&self, key: &str, value: &str) {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        self.post("kv/put", &json!({"key": key, "value": value}))
            .unwrap();
    }

    fn put_member(&self, name: &str, port: u16) {
        let url = format!("postgres://127.0.0.1:{port}/postgres");
        let value = json!({"conn_url": url, "state": "running"}).to_string();
        self.put(&format!("/db/main/members/{name}"), &value);
    }

    /// From now on only `root` may do anything.
    fn demand_login(&self, password: &str) {
        let root = json!({"name": "root", "password": password});
        self.post("auth/user/add", &root).unwrap();
        self.post("auth/role/add", &json!({"name": "root"}))
            .unwrap();
        let grant = json!({"user": "root", "role": "root"});
        self.post("auth/user/grant", &grant).unwrap();
        self.post("auth/enable", &json!({})).unwrap();
    }

    fn config(&self, password: Option<&str>) -> Config {
        let mut etcd = etcd_at(self.port, "main");
        etcd.namespace = "db/".to_owned();
        etcd.login = password.map(|it| ("root".to_owned(), Secret::new(it)));
        let mut config = config(Vec::new());
        config.patroni.etcd = Some(etcd);
        config
    }
}

#[test]
fn members_and_the_vouched_leader_come_from_a_store_with_a_login() {
    if !is_installed() {
        eprintln!("*** etcd is not installed: SKIPPED ***");
        return;
    }
    let server = Server::primary(&system_bin());
    let store = Store::start();
    store.put_member("a", server.port);
    store.put_member("b", nobody());
    store.put("/db/main/leader", "b");
    store.put("/db/mainland/members/c", "another cluster's");
    let open = Probed::with(store.config(None));
    open.wait("two members", |t| t.nodes.len() == 2);
    store.put("/db/main/leader", "a");
    store.demand_login("hunter2");

    let mut config = store.config(Some("hunter2"));
    // Only the leader's name lets writes begin while b has not spoken.
    config.failover.settle = std::time::Duration::from_secs(3600);
    let known = Probed::with(config);
    known.wait_primary("a");
    // Who is not let in any more has the last word, and its probes.
    assert_eq!(open.wait_primary("a").nodes.len(), 2);
}
