//! Patroni's REST API: `GET /cluster` names the members and the leader. Any member answers it, from the store that they
//! all agree through.

use std::io;

use axum::body::Body;
use hyper::Request;
use serde::Deserialize;

use super::http;
use crate::config::{self, HttpUrl};

/// Members beyond these are not looked at.
pub(super) const MAX_MEMBERS: usize = 64;

/// What Patroni says of its cluster.
#[derive(Debug, PartialEq)]
pub(super) struct Cluster {
    /// Those whose PostgreSQL has an address.
    pub members: Vec<config::Node>,
    /// Host and port of the leader; None while there is none, or it is a standby cluster's.
    pub leader: Option<(String, u16)>,
    /// Automatic failover is off.
    pub is_paused: bool,
    /// Where else this can be asked.
    pub apis: Vec<HttpUrl>,
}

#[derive(Deserialize)]
struct Answer {
    members: Vec<Member>,
    #[serde(default)]
    pause: bool,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    #[serde(default)]
    role: String,
    host: Option<String>,
    port: Option<u16>,
    api_url: Option<String>,
}

/// Asks one member.
///
/// # Errors
/// It cannot be reached in time, answers with another status than 200, or with something else than a cluster.
pub(super) async fn ask(url: &HttpUrl) -> io::Result<Cluster> {
    let request = Request::get("/cluster").body(Body::empty());
    let answer = http::ask(url, request.map_err(io::Error::other)?).await?;
    parse(&answer)?.with_members()
}

impl Cluster {
    /// # Errors
    /// It has none: a new cluster, or another thing altogether.
    pub fn with_members(self) -> io::Result<Cluster> {
        match self.members.is_empty() {
            true => Err(io::Error::other("it names no member with an address")),
            false => Ok(self),
        }
    }
}

fn parse(body: &[u8]) -> io::Result<Cluster> {
    let answer: Answer = serde_json::from_slice(body)?;
    let members: Vec<Member> = answer.members.into_iter().take(MAX_MEMBERS).collect();
    let leader = members.iter().find(|member| member.role == "leader");
    let apis = members.iter().filter_map(|member| member.api_url.as_ref());
    Ok(Cluster {
        leader: leader.and_then(Member::place),
        is_paused: answer.pause,
        // It ends with a path of its own.
        apis: apis.filter_map(|url| HttpUrl::base(url)).collect(),
        members: members.iter().filter_map(Member::node).collect(),
    })
}

impl Member {
    fn place(&self) -> Option<(String, u16)> {
        self.host.clone().zip(self.port)
    }

    fn node(&self) -> Option<config::Node> {
        let (host, port) = self.place()?;
        Some(config::Node::at(self.name.clone(), host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_leader_and_pause_are_read() {
        let body = br#"{"members": [
            {"name": "a", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
             "host": "10.0.0.1", "port": 5432, "timeline": 2, "tags": {"x": 1}},
            {"name": "b", "role": "replica", "state": "streaming", "api_url": "http://[::2]:8009/patroni",
             "host": "::2", "port": 5433, "timeline": 2, "lag": "unknown"},
            {"name": "c", "role": "replica", "state": "start failed", "api_url": "ftp://c/"}
        ], "pause": true, "scope": "s"}"#;
        let cluster = parse(body).unwrap();
        let names: Vec<_> = cluster.members.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["a", "b"], "c has no address yet");
        assert_eq!(cluster.leader, Some(("10.0.0.1".into(), 5432)));
        assert!(cluster.is_paused);
        let apis: Vec<_> = cluster.apis.iter().map(http::authority).collect();
        assert_eq!(apis, ["10.0.0.1:8008", "[::2]:8009"]);
    }

    #[test]
    fn a_standby_cluster_has_no_leader_for_writes() {
        let body =
            br#"{"members": [{"name": "a", "role": "standby_leader", "host": "h", "port": 1}]}"#;
        let cluster = parse(body).unwrap();
        assert_eq!((cluster.leader, cluster.is_paused), (None, false));
    }

    #[test]
    fn what_is_no_cluster_is_an_error() {
        for body in ["", "{}", "[]", "{\"members\": 1}", "<html>"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
