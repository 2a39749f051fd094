//! The HTTP port: health checks as load balancers make them, metrics, and peers that misbehave.

mod nodes;

use std::time::Duration;

use nodes::{PATIENCE, Server, config, installations};
use pgsluice::{
    admin::{self, Phase, http},
    metrics::Metrics,
    topology,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::timeout,
};

/// A served port over probes of `nodes`.
struct Port {
    address: std::net::SocketAddr,
    state: admin::State,
    phase: watch::Sender<Phase>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn open(nodes: Vec<pgsluice::config::Node>) -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, phases) = watch::channel(Phase::Serving);
        let state = admin::State {
            topology: topology::spawn(&config(nodes)).unwrap(),
            metrics: Metrics::new(),
            phase: phases,
            orders: tokio::sync::mpsc::channel(1).0,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(http::serve(listener, state.clone(), shutdown));
        Port {
            address,
            state,
            phase,
            stop,
            served,
        }
    }

    /// Sends `request` and returns all that comes back.
    async fn raw(&self, request: &[u8]) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let _ = stream.write_all(request).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        timeout(PATIENCE, exchange)
            .await
            .expect("an answer in time")
    }

    /// (status, body)
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
        let answer = self.raw(request.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        (
            status.unwrap_or_else(|| panic!("{answer}")),
            body.unwrap_or_default(),
        )
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path).await
    }

    async fn wait(&self, condition: impl Fn(&topology::Topology) -> bool) {
        let changes = async {
            let mut topology = self.state.topology.current();
            while !condition(&topology) {
                topology = self.state.topology.changed(topology.number).await;
            }
        };
        timeout(PATIENCE, changes)
            .await
            .expect("the topology in time");
    }
}

/// A node where nothing listens.
fn nowhere() -> pgsluice::config::Node {
    Server::place(&installations()[0]).node("nowhere")
}

#[tokio::test]
async fn without_any_node_up_health_pages_say_no() {
    let port = Port::open(vec![nowhere()]).await;
    port.wait(|t| t.nodes[0].reason == topology::Reason::Refused)
        .await;
    assert_eq!(port.get("/livez").await.0, 200);
    assert_eq!(port.get("/readyz").await.0, 200);
    let (status, body) = port.get("/primary").await;
    assert_eq!(
        (status, body.as_str()),
        (503, r#"{"error":"no primary is known"}"#)
    );
    assert_eq!(port.get("/replica").await.0, 503);
}

#[tokio::test]
async fn readiness_follows_the_phase() {
    let port = Port::open(vec![nowhere()]).await;
    port.wait(|t| t.nodes[0].reason == topology::Reason::Refused)
        .await;
    for (phase, status) in [
        (Phase::Starting, 503),
        (Phase::Serving, 200),
        (Phase::Draining, 503),
    ] {
        port.phase.send_replace(phase);
        assert_eq!(port.get("/readyz").await.0, status, "{phase:?}");
        assert_eq!(port.get("/livez").await.0, 200, "{phase:?}");
    }
}

#[tokio::test]
async fn a_real_cluster_shows_in_every_page() {
    let primary = Server::primary(&installations()[0]);
    let replica = primary.replica();
    let port = Port::open(vec![primary.node("pg1"), replica.node("pg2")]).await;
    port.wait(|t| t.primary == Some(0) && t.replicas_up().count() == 1)
        .await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for page in ["/primary", "/replica", "/readyz", "/livez"] {
            assert_eq!(port.ask(method, page).await.0, 200, "{method} {page}");
        }
    }
    assert_eq!(port.ask("HEAD", "/primary").await.1, "");
    let (_, body) = port.get("/primary").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["node"]["name"], "pg1");
    let (status, json) = port.get("/api/v1/topology").await;
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["primary"], "pg1");
    assert_eq!(json["nodes"][1]["role"], "replica");
    assert_eq!(json["nodes"][0]["timeline"], 1);
    assert_eq!(json["nodes"][0]["reason"], "answering");
    let (status, text) = port.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "pgsluice_node_role{node=\"pg1\",role=\"primary\"} 1",
        "pgsluice_node_role{node=\"pg2\",role=\"primary\"} 0",
        "pgsluice_node_health{node=\"pg2\",health=\"up\"} 1",
        "pgsluice_node_reason{node=\"pg2\",reason=\"answering\"} 1",
        "pgsluice_node_timeline{node=\"pg1\"} 1",
        "pgsluice_alarm{alarm=\"no_primary\"} 0",
        "pgsluice_probe_seconds_bucket{node=\"pg2\",le=\"+Inf\"}",
        "# TYPE pgsluice_probe_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_probes_password_is_on_no_page() {
    let port = Port::open(vec![nowhere()]).await;
    for page in [
        "/metrics",
        "/api/v1/topology",
        "/primary",
        "/replica",
        "/readyz",
    ] {
        let (_, body) = port.get(page).await;
        assert!(!body.contains("unused"), "{page}: {body}");
    }
}

#[tokio::test]
async fn unknown_pages_and_methods_are_refused() {
    let port = Port::open(vec![nowhere()]).await;
    assert_eq!(port.get("/nothing").await.0, 404);
    assert_eq!(port.ask("POST", "/primary").await.0, 405);
    assert_eq!(port.ask("DELETE", "/metrics").await.0, 405);
}

#[tokio::test]
async fn garbage_and_oversized_headers_end_their_connection_only() {
    let port = Port::open(vec![nowhere()]).await;
    let garbage = port.raw(b"\x00\x03\x00\x00user\0x\0\0\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let long = port.raw(long.as_bytes()).await;
    assert!(!long.starts_with("HTTP/1.1 200"), "{long}");
    assert_eq!(port.get("/livez").await.0, 200);
}

#[tokio::test]
async fn silent_connections_cannot_hold_the_port() {
    let port = Port::open(vec![nowhere()]).await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    assert_eq!(
        port.get("/livez").await.0,
        200,
        "once the silent ones timed out"
    );
}

#[tokio::test]
async fn shutdown_closes_the_port_and_open_connections() {
    let port = Port::open(vec![nowhere()]).await;
    let mut open = TcpStream::connect(port.address).await.unwrap();
    port.stop.send(()).unwrap();
    timeout(PATIENCE, port.served)
        .await
        .expect("ended")
        .unwrap();
    let mut end = Vec::new();
    let read = timeout(Duration::from_secs(5), open.read_to_end(&mut end)).await;
    assert!(matches!(read, Ok(Ok(0)) | Ok(Err(_))), "{read:?}");
    assert!(TcpStream::connect(port.address).await.is_err());
}
