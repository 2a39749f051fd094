//! Patroni's store, through etcd's HTTP gateway to its version 3 API (etcd 3.4 and newer).
//!
//! Under `namespace/scope/` members describe themselves (`members/NAME`), `leader` has the name of the one that holds
//! the lock, and `config` what patronictl sets. Reads are linearizable, as by default: a part of the store that has lost
//! its majority does not answer.

use std::io;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, header::AUTHORIZATION};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    http,
    patroni::{Cluster, MAX_MEMBERS},
};
use crate::config::{self, Etcd, HttpUrl, Secret};

/// One of its servers, how to ask it, and the token of the last login.
pub(super) struct Store {
    pub url: HttpUrl,
    prefix: String,
    login: Option<(String, Secret)>,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// In base64 both.
#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize, Default)]
struct Dynamic {
    #[serde(default)]
    pause: Option<bool>,
    #[serde(default)]
    standby_cluster: Option<Value>,
}

#[derive(Deserialize)]
struct Member {
    conn_url: Option<String>,
}

impl Store {
    /// Each of them.
    pub fn all(settings: &Etcd) -> impl Iterator<Item = Store> {
        let namespace = settings.namespace.trim_matches('/');
        let prefix = format!("/{namespace}/{}/", settings.scope);
        settings.urls.iter().map(move |url| Store {
            url: url.clone(),
            prefix: prefix.clone(),
            login: settings.login.clone(),
            token: None,
        })
    }

    /// # Errors
    /// It cannot be reached in time, has no majority, wants another login, or knows no member with an address.
    pub async fn ask(&mut self) -> io::Result<Cluster> {
        if self.token.is_none() {
            self.token = self.log_in().await?;
        }
        // The first key that no longer has the prefix: its last byte is a slash.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        let range =
            json!({"key": STANDARD.encode(&self.prefix), "range_end": STANDARD.encode(end)});
        let request = post("/v3/kv/range", &range, self.token.as_deref())?;
        let answer = http::ask(&self.url, request).await;
        if answer.is_err() {
            // It may have run out.
            self.token = None;
        }
        read(&self.prefix, &answer?)
    }

    async fn log_in(&self) -> io::Result<Option<String>> {
        let Some((user, password)) = &self.login else {
            return Ok(None);
        };
        let login = json!({"name": user, "password": password.reveal()});
        let request = post("/v3/auth/authenticate", &login, None)?;
        let token: Token = serde_json::from_slice(&http::ask(&self.url, request).await?)?;
        Ok(Some(token.token))
    }
}

fn post(path: &str, body: &Value, token: Option<&str>) -> io::Result<Request<Body>> {
    let request = Request::post(path).header("Content-Type", "application/json");
    let request = match token {
        Some(token) => request.header(AUTHORIZATION, token),
        None => request,
    };
    let body = Body::from(body.to_string());
    request.body(body).map_err(io::Error::other)
}

fn read(prefix: &str, answer: &[u8]) -> io::Result<Cluster> {
    let range: Range = serde_json::from_slice(answer)?;
    let (mut members, mut leader, mut dynamic) = (Vec::new(), None, Dynamic::default());
    for pair in &range.kvs {
        let (key, value) = (decode(&pair.key)?, decode(&pair.value)?);
        let Some(key) = key.strip_prefix(prefix) else {
            continue;
        };
        match (key, key.strip_prefix("members/")) {
            ("leader", _) => leader = Some(value),
            ("config", _) => dynamic = serde_json::from_str(&value)?,
            (_, Some(name)) if members.len() < MAX_MEMBERS => members.extend(member(name, &value)),
            _ => {}
        }
    }
    // The leader of a standby cluster takes no writes.
    let leader = leader.filter(|_| dynamic.standby_cluster.is_none());
    let at = |node: &&config::Node| Some(&node.name) == leader.as_ref();
    let leader = members.iter().find(at);
    Cluster {
        leader: leader.map(|node| (node.host.clone(), node.port)),
        is_paused: dynamic.pause.unwrap_or(false),
        apis: Vec::new(),
        members,
    }
    .with_members()
}

fn decode(text: &str) -> io::Result<String> {
    let bytes = STANDARD.decode(text).map_err(io::Error::other)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// None for one whose PostgreSQL has no address yet.
fn member(name: &str, described: &str) -> Option<config::Node> {
    let member: Member = serde_json::from_str(described).ok()?;
    let (host, port) = config::first_host(&member.conn_url?)?;
    Some(config::Node::at(name, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/service/main/";

    fn said(pairs: &[(&str, &str)]) -> io::Result<Cluster> {
        let pair = |(key, value): &(&str, &str)| {
            let key = STANDARD.encode(format!("{PREFIX}{key}"));
            json!({"key": key, "value": STANDARD.encode(value), "mod_revision": "7"})
        };
        let kvs: Vec<_> = pairs.iter().map(pair).collect();
        read(
            PREFIX,
            json!({"header": {}, "kvs": kvs}).to_string().as_bytes(),
        )
    }

    const A: (&str, &str) = (
        "members/a",
        r#"{"conn_url": "postgres://10.0.0.1:5432/postgres", "api_url": "http://10.0.0.1:8008/patroni",
            "state": "running", "role": "master", "version": "3.0.2", "timeline": 2}"#,
    );
    const B: (&str, &str) = (
        "members/b",
        r#"{"conn_url": "postgres://[fd00::1]:5433/postgres", "role": "replica"}"#,
    );

    #[test]
    fn members_leader_and_pause_are_read() {
        let young = ("members/c", r#"{"state": "starting"}"#);
        let config = ("config", r#"{"ttl": 20, "pause": true}"#);
        let cluster = said(&[config, ("leader", "b"), A, B, young, ("sync", "{}")]).unwrap();
        let expected = [("a", "10.0.0.1", 5432), ("b", "fd00::1", 5433)];
        let members = cluster
            .members
            .iter()
            .map(|it| (&*it.name, &*it.host, it.port));
        assert_eq!(members.collect::<Vec<_>>(), expected);
        assert_eq!(cluster.leader, Some(("fd00::1".to_owned(), 5433)));
        assert!(cluster.is_paused);
    }

    #[test]
    fn nobody_is_leader_without_the_lock_or_as_a_member_that_is_gone_or_of_a_standby_cluster() {
        let standby = (
            "config",
            r#"{"standby_cluster": {"host": "h"}, "pause": null}"#,
        );
        for pairs in [
            &[A][..],
            &[A, ("leader", "b")],
            &[standby, A, ("leader", "a")],
        ] {
            let cluster = said(pairs).unwrap();
            assert_eq!(
                (cluster.leader, cluster.is_paused),
                (None, false),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn what_is_no_cluster_is_an_error() {
        for pairs in [&[][..], &[("leader", "a")], &[A, ("config", "{")]] {
            assert!(said(pairs).is_err(), "{pairs:?}");
        }
        for text in ["", "[]", r#"{"kvs": [{"key": "?"}]}"#, r#"{"error": "x"}"#] {
            assert!(read(PREFIX, text.as_bytes()).is_err(), "{text}");
        }
    }
}
