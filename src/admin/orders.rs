//! What an operator may ask a running proxy to do, over HTTP: POST, from this machine alone.
//!
//! Whoever can reach the port from elsewhere may look, not act. Nor may a web page that an operator has open: a browser
//! sends `Origin` with every POST, cannot add `X-Pgsluice` for another site without asking first, which is never granted,
//! and names its own site in `Host` where that was made to point here.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{self, Request},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::oneshot, time::timeout};

use super::State;

/// The header that shows that no web page has made the request.
const OURS: &str = "x-pgsluice";
/// Orders are carried out at once, but for a pause, which is looked at for a moment: whoever asked asks again.
const PATIENCE: Duration = Duration::from_secs(10);

/// An order, and where its outcome is told.
#[derive(Debug)]
pub enum Order {
    /// The configuration file is to be read again.
    Reload(oneshot::Sender<Reloaded>),
    /// No transaction is to begin on the primary, if it is that of this generation; those that are open may end.
    Pause(Option<u64>, oneshot::Sender<Paused>),
    /// What was paused goes on.
    Resume(oneshot::Sender<()>),
    /// A replica leaves rotation for maintenance (`drains`), or comes back.
    Drain {
        node: String,
        drains: bool,
        tell: oneshot::Sender<Drained>,
    },
}

/// What became of a node that is to be drained, or not to be any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    Done {
        /// Servers of it that sessions still have.
        busy: usize,
        /// How long they may (`failover.grace`).
        grace: Duration,
    },
    /// It is not done to a primary.
    IsPrimary,
    UnknownNode,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// The keys that changed, and those that need a restart.
    Done {
        live: Vec<&'static str>,
        restart: Vec<&'static str>,
    },
    /// The old configuration stays.
    Refused(String),
}

/// What became of a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paused {
    /// Nothing new begins there.
    Done {
        node: String,
        generation: u64,
        /// Servers that are at work on it still.
        busy: usize,
        /// How long they may be (`failover.grace`).
        grace: Duration,
    },
    /// There is none to be paused, or another than was meant.
    NoPrimary,
}

#[derive(Debug, Deserialize)]
struct Of {
    generation: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Which {
    node: String,
}

pub(super) fn pages(state: State, peer: IpAddr) -> Router {
    Router::new()
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/pause", post(pause))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/undrain", post(undrain))
        .route_layer(middleware::from_fn(
            move |request: Request, next: Next| async move {
                match refusal(peer, request.method(), request.headers()) {
                    Some(why) => told(StatusCode::FORBIDDEN, json!({"error": why})),
                    None => next.run(request).await,
                }
            },
        ))
        .with_state(state)
}

/// Why an order is not taken from there.
fn refusal(peer: IpAddr, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    if !peer.to_canonical().is_loopback() {
        return Some("orders are taken from this machine only");
    }
    if method != Method::POST {
        return None;
    }
    if headers.contains_key(header::ORIGIN) || !headers.contains_key(OURS) {
        return Some("orders are not taken from web pages: send the header X-Pgsluice");
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    match host.is_none_or(is_here) {
        true => None,
        false => Some("orders are taken under the machine's own address only"),
    }
}

/// Whether a Host header names this machine, and not a site whose name was made to point here.
fn is_here(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let is_loopback = |addr: IpAddr| addr.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost")
        || host
            .parse::<SocketAddr>()
            .is_ok_and(|at| is_loopback(at.ip()))
        || host.parse().is_ok_and(is_loopback)
}

type Given = extract::State<State>;

async fn reload(extract::State(state): Given) -> Response {
    match ask(&state, Order::Reload).await {
        Ok(Reloaded::Done { live, restart }) => {
            told(StatusCode::OK, json!({"live": live, "restart": restart}))
        }
        Ok(Reloaded::Refused(why)) => told(StatusCode::UNPROCESSABLE_ENTITY, json!({"error": why})),
        Err(response) => *response,
    }
}

async fn pause(extract::State(state): Given, extract::Query(of): extract::Query<Of>) -> Response {
    match ask(&state, |tell| Order::Pause(of.generation, tell)).await {
        Ok(Paused::Done {
            node,
            generation,
            busy,
            grace,
        }) => {
            let body = json!({"paused": node, "generation": generation, "busy": busy,
                "grace_ms": grace.as_millis() as u64});
            told(StatusCode::OK, body)
        }
        Ok(Paused::NoPrimary) => {
            let why = "there is no such primary: new transactions wait for one as it is";
            told(StatusCode::CONFLICT, json!({"error": why}))
        }
        Err(response) => *response,
    }
}

async fn resume(extract::State(state): Given) -> Response {
    match ask(&state, Order::Resume).await {
        Ok(()) => told(StatusCode::OK, json!({})),
        Err(response) => *response,
    }
}

async fn drain(extract::State(state): Given, of: extract::Query<Which>) -> Response {
    set_drained(state, of.0.node, true).await
}

async fn undrain(extract::State(state): Given, of: extract::Query<Which>) -> Response {
    set_drained(state, of.0.node, false).await
}

async fn set_drained(state: State, node: String, drains: bool) -> Response {
    let name = node.clone();
    let refused = |status, why: &str| told(status, json!({"error": format!("{name}: {why}")}));
    match ask(&state, |tell| Order::Drain { node, drains, tell }).await {
        Ok(Drained::Done { busy, grace }) => {
            let body = json!({"node": name, "busy": busy, "grace_ms": grace.as_millis() as u64});
            told(StatusCode::OK, body)
        }
        Ok(Drained::IsPrimary) => {
            let why = "it is the primary: switch over first, between pgsluice ctl pause and its successor";
            refused(StatusCode::CONFLICT, why)
        }
        Ok(Drained::UnknownNode) => refused(StatusCode::NOT_FOUND, "there is no node of this name"),
        Err(response) => *response,
    }
}

/// Has an order carried out. Boxed: an answer is large.
async fn ask<T>(
    state: &State,
    order: impl FnOnce(oneshot::Sender<T>) -> Order,
) -> Result<T, Box<Response>> {
    let (tell, outcome) = oneshot::channel();
    let unavailable = |why| Box::new(told(StatusCode::SERVICE_UNAVAILABLE, json!({"error": why})));
    if state.orders.try_send(order(tell)).is_err() {
        return Err(unavailable("other orders are being carried out: try again"));
    }
    match timeout(PATIENCE, outcome).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) => Err(unavailable("the proxy is ending")),
        Err(_) => Err(unavailable("not carried out in time")),
    }
}

fn told(status: StatusCode, body: serde_json::Value) -> Response {
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_no_web_page_may_give_orders() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let refused = |peer, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            refusal(peer, &Method::POST, &map).is_some()
        };
        let ours = ("x-pgsluice", "ctl");
        assert!(!refused(here, &[ours]));
        assert!(!refused(here, &[ours, ("host", "127.0.0.1:7000")]));
        assert!(!refused(here, &[ours, ("host", "localhost:7000")]));
        assert!(!refused(
            "::1".parse().unwrap(),
            &[ours, ("host", "[::1]:7000")]
        ));
        assert!(refused(here, &[]));
        assert!(refused(here, &[ours, ("origin", "http://127.0.0.1:7000")]));
        assert!(refused(here, &[ours, ("host", "evil.example:7000")]));
        assert!(refused(here, &[ours, ("host", "10.0.0.1:7000")]));
        assert!(refused([10, 0, 0, 1].into(), &[ours]));
    }
}
