//! HTTP on `[http] listen`: metrics, health checks as load balancers make them, and the topology as JSON.
//!
//! One request per connection, a bounded number of connections, and a deadline for each: nobody can hold the port.
//! Health pages answer GET, HEAD and OPTIONS, with 200 for yes and 503 for no.

use std::{future::Future, net::IpAddr, pin::pin, time::Duration};

use axum::{
    Json, Router, extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Phase, State, metrics, orders,
    view::{NodeJson, TopologyJson},
};
use crate::topology::{NodeView, Reason, Topology};

/// Scrapers and health checks are few; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;

/// For a request's line and headers, in bytes and in time.
const MAX_HEADER_BYTES: usize = 8192;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// From accept to the last byte of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// After an accept that failed (no file descriptors): let some close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until `shutdown` is done; connections still open then are closed.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let pages = pages(state.clone(), peer.ip());
                    connections.spawn(timeout(CONNECTION_TIMEOUT, answer(stream, pages)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the HTTP port");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection, one request.
async fn answer(stream: TcpStream, pages: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection failed");
    }
}

fn pages(state: State, peer: IpAddr) -> Router {
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/livez", get(live).options(live))
        .route("/readyz", get(ready).options(ready))
        .route("/primary", get(primary).options(primary))
        .route("/replica", get(replica).options(replica))
        .route("/api/v1/topology", get(topology))
        .with_state(state.clone());
    pages.merge(orders::pages(state, peer))
}

type Given = extract::State<State>;

async fn metrics_page(extract::State(state): Given) -> Response {
    let mut text = state.metrics.text();
    metrics::write_topology(&mut text, &state.topology.current());
    metrics::write_latencies(&mut text, &state.topology.latencies());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text.into_string()).into_response()
}

/// The control runtime runs: that it answers is the answer.
async fn live() -> &'static str {
    "live\n"
}

async fn ready(extract::State(state): Given) -> Response {
    let phase = *state.phase.borrow();
    match phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Serving if !is_explored(&state.topology.current()) => {
            (StatusCode::SERVICE_UNAVAILABLE, "exploring\n")
        }
        Phase::Serving => (StatusCode::OK, "ready\n"),
    }
    .into_response()
}

/// Whether every node had its chance to speak.
fn is_explored(topology: &Topology) -> bool {
    let unknown = |node: &NodeView| matches!(node.reason, Reason::Unheard | Reason::Settling);
    !topology.nodes.iter().any(|node| unknown(node))
}

async fn primary(extract::State(state): Given) -> Response {
    let topology = state.topology.current();
    match topology.primary() {
        Some(node) => Json(json!({"node": NodeJson::new(&topology, node)})).into_response(),
        None => unavailable("no primary is known"),
    }
}

async fn replica(extract::State(state): Given) -> Response {
    let topology = state.topology.current();
    let nodes: Vec<_> = topology
        .replicas_up()
        .map(|node| NodeJson::new(&topology, node))
        .collect();
    match nodes.is_empty() {
        false => Json(json!({"nodes": nodes})).into_response(),
        true => unavailable("no replica is in rotation"),
    }
}

fn unavailable(reason: &str) -> Response {
    let body = Json(json!({"error": reason}));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn topology(extract::State(state): Given) -> Response {
    Json(TopologyJson::new(&state.topology.current())).into_response()
}
