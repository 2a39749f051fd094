//! The network between the proxy and each of its peers goes away without a word, both ways or one way only, and comes back.
//! The proxy runs in a network namespace of its own, with links for its clients and one for each node.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    nodes::{Server, system_bin},
    proxied::{PROVEN, Session, WHERE, wait_until},
};

const COUNT: &str = "select count(*) from t";

/// Clients that stay. The nodes are behind links 1 to 3.
const CLIENTS: u8 = 0;
/// Clients that are cut off, one for each way.
const LEAVING: [u8; 3] = [4, 5, 6];
const LINKS: u8 = 7;
/// Of writes, of reads, of both, of pages.
const PORTS: [u16; 4] = [5000, 5001, 6432, 7000];

/// Which packets of a link are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Both,
    FromProxy,
    ToProxy,
}

const WAYS: [Way; 3] = [Way::Both, Way::FromProxy, Way::ToProxy];

/// Nobody has it: what is sent there is dropped without a word.
const NOBODY: &str = "02:00:00:00:00:01";

/// A namespace, and links to it; gone on drop.
struct Net {
    name: String,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

impl Net {
    fn new() -> Result<Net, String> {
        let name = format!("pgs{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let net = Net { name };
        let name = &net.name;
        ip(&format!("-n {name} link set lo up"))?;
        for link in 0..LINKS {
            let (here, there) = (net.here(link), net.there(link));
            ip(&format!(
                "link add {name}h{link} type veth peer name {name}p{link} netns {name}"
            ))?;
            ip(&format!("addr add {here}/30 dev {name}h{link}"))?;
            ip(&format!("-n {name} addr add {there}/30 dev {name}p{link}"))?;
            ip(&format!("-n {name} link set {name}p{link} up"))?;
            ip(&format!("link set {name}h{link} up"))?;
        }
        Ok(net)
    }

    /// Our end of a link: of addresses that are for tests of networks alone.
    fn here(&self, link: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, (std::process::id() % 256) as u8, 4 * link + 1)
    }

    fn there(&self, link: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, (std::process::id() % 256) as u8, 4 * link + 2)
    }

    fn cut(&self, link: u8, way: Way) {
        let (name, here, there) = (&self.name, self.here(link), self.there(link));
        ip(&match way {
            Way::Both => format!("link set {name}h{link} down"),
            Way::FromProxy => {
                format!("-n {name} neigh replace {here} lladdr {NOBODY} dev {name}p{link}")
            }
            Way::ToProxy => format!("neigh replace {there} lladdr {NOBODY} dev {name}h{link}"),
        })
        .unwrap();
    }

    fn heal(&self, link: u8, way: Way) {
        let (name, here, there) = (&self.name, self.here(link), self.there(link));
        ip(&match way {
            Way::Both => format!("link set {name}h{link} up"),
            Way::FromProxy => format!("-n {name} neigh del {here} dev {name}p{link}"),
            Way::ToProxy => format!("neigh del {there} dev {name}h{link}"),
        })
        .unwrap();
    }

    /// A node's place on its own link, for as long as the process lives.
    fn forward(&self, link: u8, server: &Server) -> u16 {
        let listener = TcpListener::bind((self.here(link), 0)).unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", to)) {
                    copy(near.try_clone().unwrap(), far.try_clone().unwrap());
                    copy(far, near);
                }
            }
        });
        port
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for link in 0..LINKS {
            let _ = ip(&format!("link del {}h{link}", self.name));
        }
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    });
}

/// A primary, two replicas, and the program in its namespace.
struct Scene {
    proxy: Child,
    net: Net,
    /// pg1, pg2, pg3; the first is the primary.
    servers: [Server; 3],
    _dir: tempfile::TempDir,
}

impl Scene {
    fn start(net: Net) -> Scene {
        let pg1 = Server::primary(&system_bin());
        for sql in [
            "CREATE ROLE app LOGIN",
            "CREATE TABLE t (id bigint PRIMARY KEY)",
            "GRANT ALL ON t TO app",
        ] {
            pg1.sql(sql);
        }
        let servers = [pg1.replica(), pg1.replica()];
        let [pg2, pg3] = servers;
        let servers = [pg1, pg2, pg3];
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgsluice.toml");
        fs::write(&file, config(&net, &servers)).unwrap();
        let proxy = run(&net, &file);
        let scene = Scene {
            proxy,
            net,
            servers,
            _dir: dir,
        };
        scene.wait_health(["up"; 3]);
        scene
    }

    fn address(&self, port: u16) -> SocketAddr {
        (self.net.there(CLIENTS), port).into()
    }

    fn writer(&self) -> Session {
        Session::open(self.address(PORTS[0]))
    }

    fn reader(&self) -> Session {
        Session::open(self.address(PORTS[1]))
    }

    /// The body of a page, empty when there was none.
    fn page(&self, path: &str) -> String {
        let mut page = String::new();
        let asked = TcpStream::connect(self.address(PORTS[3])).and_then(|mut http| {
            write!(
                http,
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )?;
            http.read_to_string(&mut page)
        });
        let body = page.split_once("\r\n\r\n").filter(|_| asked.is_ok());
        body.map_or_else(String::new, |(_, body)| body.to_owned())
    }

    fn nodes(&self) -> Vec<serde_json::Value> {
        let page = self.page("/api/v1/topology");
        let topology: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        topology["nodes"].as_array().cloned().unwrap_or_default()
    }

    /// What the proxy makes of pg1, pg2, pg3.
    fn health(&self) -> Vec<String> {
        let nodes = self.nodes();
        let health = nodes.iter().map(|node| node["health"].as_str());
        health
            .map(|word| word.unwrap_or_default().to_owned())
            .collect()
    }

    /// Waits until reads are proven, of this table too: only those are sent again when their server is lost.
    fn wait_proven(&self) {
        let session = Session::open(self.address(PORTS[2]));
        let counted = || {
            let page = self.page("/metrics");
            let mut lines = page.lines();
            let line = lines.find(|l| l.starts_with("pgsluice_routed_total{reason=\"read\"}"));
            line.map(str::to_owned)
        };
        for sql in [PROVEN, COUNT] {
            let before = counted();
            wait_until("a read leaves", || {
                session.sql(sql);
                counted() != before
            });
        }
        let since = Instant::now();
        let has_all = |node: &serde_json::Value| {
            let staleness = node["staleness_ms"].as_u64().map(Duration::from_millis);
            staleness.is_some_and(|it| it < since.elapsed())
        };
        wait_until("every replica has what was known by then", || {
            let nodes = self.nodes();
            nodes.len() == 3 && nodes[1..].iter().all(has_all)
        });
    }

    #[track_caller]
    fn wait_health(&self, expected: [&str; 3]) {
        wait_until(&format!("{expected:?}"), || self.health() == expected);
    }

    /// Waits until the worker goes by what the page of nodes has shown: it looks at that between any two statements.
    fn wait_followed(&self) {
        let reader = self.reader();
        for _ in 0..20 {
            reader.sql(COUNT);
        }
    }

    fn place(&self, node: usize, role: &str) -> String {
        format!("{} {role}", self.servers[node].port)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

fn config(net: &Net, servers: &[Server]) -> String {
    let [writes, reads, both, http] = PORTS;
    let mut text = format!(
        "workers = 1\n[http]\nlisten = \"0.0.0.0:{http}\"\n\
         [limits]\npeer_timeout = \"1s\"\n\
         [probe]\nuser = \"prober\"\npassword = \"unused\"\ntimeout = \"1s\"\n\
         [auth]\nmethod = \"trust\"\n[[user]]\nname = \"app\"\npassword = \"unused\"\n\
         [[listener]]\nlisten = \"0.0.0.0:{writes}\"\nroute = \"primary\"\n\
         [[listener]]\nlisten = \"0.0.0.0:{reads}\"\nroute = \"replica\"\nprimary = \"never\"\n\
         [[listener]]\nlisten = \"0.0.0.0:{both}\"\nroute = \"split\"\n"
    );
    for (link, server) in (1..).zip(servers) {
        let (host, port) = (net.here(link), net.forward(link, server));
        text += &format!("[[node]]\nname = \"pg{link}\"\nhost = \"{host}\"\nport = {port}\n");
    }
    text
}

fn run(net: &Net, file: &Path) -> Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &net.name, env!("CARGO_BIN_EXE_pgsluice")]);
    command.args(["run", "-c"]).arg(file).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("NOTIFY_SOCKET").spawn().unwrap()
}

#[test]
fn a_partition_on_any_link_costs_no_read_no_lost_write_and_no_server() {
    let net = match Net::new() {
        Ok(net) => net,
        Err(why) => {
            // Past the capture of output by the test runner.
            let line = format!("\n*** SKIPPED: network namespaces cannot be made (root?): {why}\n");
            return drop(fs::write("/dev/stderr", line));
        }
    };
    let scene = Scene::start(net);
    for way in WAYS {
        scene.wait_proven();
        replica_is_cut_off(&scene, way);
        primary_is_cut_off(&scene, way);
    }
    clients_are_cut_off(&scene);
    primary_is_replaced(&scene);
}

fn replica_is_cut_off(scene: &Scene, way: Way) {
    let readers: Vec<_> = (0..4).map(|_| scene.reader()).collect();
    let [pg2, pg3] = [scene.place(1, "replica"), scene.place(2, "replica")];
    let read = || readers.iter().map(|reader| reader.sql(WHERE));
    wait_until("both serve", || {
        let places: Vec<_> = read().collect();
        places.contains(&pg2) && places.contains(&pg3)
    });
    let count = readers[0].sql(COUNT);
    scene.net.cut(2, way);
    if way == Way::ToProxy {
        // Its probe has missed it, which is before it counts as down.
        let is_missed = |node: &serde_json::Value| node["staleness_ms"].is_null();
        wait_until("it is missed", || {
            scene.nodes().get(1).is_some_and(is_missed)
        });
    }
    // What is under way there is read once more elsewhere.
    wait_until("it counts as down", || {
        let mut counts = readers.iter().map(|it| it.sql(COUNT));
        assert!(counts.all(|it| it == count), "{way:?}");
        scene.health() == ["up", "down", "up"]
    });
    scene.wait_followed();
    assert!((0..20).all(|_| read().all(|place| place == pg3)));
    scene.net.heal(2, way);
    wait_until("it serves again", || read().any(|place| place == pg2));
}

fn primary_is_cut_off(scene: &Scene, way: Way) {
    let (writer, reader) = (scene.writer(), scene.reader());
    let insert = "insert into t select count(*) from t";
    writer.sql(insert);
    let count: u32 = writer.sql(COUNT).parse().unwrap();
    scene.net.cut(1, way);
    scene.wait_health(["down", "up", "up"]);
    scene.wait_followed();
    let held = writer.start(insert);
    assert!((0..20).all(|_| reader.sql(WHERE).ends_with("replica")));
    assert!(held.poll().is_none(), "{way:?}");
    scene.net.heal(1, way);
    held.wait().unwrap();
    assert_eq!(writer.sql(COUNT), (count + 1).to_string(), "{way:?}");
    scene.wait_health(["up"; 3]);
}

/// Clients that leave nothing behind, though they have read nothing of their answers.
fn clients_are_cut_off(scene: &Scene) {
    let clients = LEAVING.map(|link| {
        let address = (scene.net.there(link), PORTS[0]);
        let mut client = TcpStream::connect(address).unwrap();
        let startup = b"\0\x03\0\0user\0app\0database\0postgres\0\0";
        let sql = "select repeat('x', 1000) from generate_series(1, 100000)\0";
        let len = |text: &[u8]| (text.len() as u32 + 4).to_be_bytes();
        let query = [b"Q", &len(sql.as_bytes())[..], sql.as_bytes()].concat();
        let all = [&len(startup)[..], startup, &query].concat();
        client.write_all(&all).unwrap();
        client
    });
    let waiting = || {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
        scene.servers[0].sql(sql)
    };
    wait_until("they wait for their clients", || waiting() == "3");
    for (link, way) in LEAVING.into_iter().zip(WAYS) {
        scene.net.cut(link, way);
    }
    wait_until("they wait no more", || waiting() == "0");
    drop(clients);
}

fn primary_is_replaced(scene: &Scene) {
    let [pg1, pg2, _] = &scene.servers;
    let before = scene.writer();
    before.sql("insert into t values (1000)");
    let lsn = pg1.sql("select pg_current_wal_flush_lsn()");
    let sql = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
    wait_until("replayed", || pg2.sql(&sql) == "t");
    let count: u32 = pg1.sql(COUNT).parse().unwrap();
    scene.net.cut(1, Way::Both);
    pg2.promote();
    // What is sent to the old one before it counts as down ends its session.
    wait_until("the next one takes writes", || {
        let writer = Session::try_open(scene.address(PORTS[0]));
        writer.and_then(|it| it.try_sql(WHERE)) == Ok(scene.place(1, "primary"))
    });
    scene.net.heal(1, Way::Both);
    wait_until("the old one is fenced", || {
        scene.health().first().is_some_and(|word| word == "fenced")
    });
    for id in 1001..1050 {
        before.sql(&format!("insert into t values ({id})"));
    }
    assert_eq!(pg1.sql(COUNT), count.to_string());
    assert_eq!(pg2.sql(COUNT), (count + 49).to_string());
}
