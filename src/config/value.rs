//! Values of a configuration file that parse themselves: durations, whole numbers, addresses.
//!
//! Each says what it expects in the words that a user reads; serde's own message (which repeats the value) is never
//! shown, see [`super::read`].

use std::{fmt, marker::PhantomData, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use toml::Spanned;

use super::{HttpUrl, defaults::PATRONI_PORT};

/// A key that may be absent, and where its value stands in the file.
pub type Given<T> = Option<Spanned<T>>;

/// A value written as a TOML string.
pub trait FromText: Sized {
    /// Continues "expected …".
    const EXPECTED: &'static str;

    fn from_text(text: &str) -> Option<Self>;
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::custom(format_args!("expected {}", T::EXPECTED)))
    }
}

/// A length of time, such as `"50ms"`, `"10s"`, `"1h 30m"`; `"0s"` is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromText for Time {
    const EXPECTED: &'static str = "a duration such as \"50ms\", \"10s\" or \"1h 30m\"";

    fn from_text(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().map(Time)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// An address to listen on: `"127.0.0.1:5000"`, `"[::1]:5000"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromText for Address {
    const EXPECTED: &'static str =
        "an IP address and a port such as \"127.0.0.1:5000\" or \"[::1]:5000\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Address)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// An [`Address`], or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<SocketAddr>);

impl FromText for OptionalAddress {
    const EXPECTED: &'static str =
        "an IP address and a port such as \"127.0.0.1:7000\", or \"off\"";

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(OptionalAddress(None));
        }
        text.parse().ok().map(|addr| OptionalAddress(Some(addr)))
    }
}

impl<'de> Deserialize<'de> for OptionalAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// A whole number; its range is the business of the key that it is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub i64);

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
        Ok(Whole(number))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(WholeVisitor)
    }
}

/// Where a node is: `host`, `host:port`, `192.0.2.1:5432`, `[2001:db8::1]:5432`, a bare IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    pub port: Option<u16>,
}

impl FromText for HostPort {
    const EXPECTED: &'static str = "a host such as \"10.0.0.1:5432\", \"db1\" or \"[::1]:5432\"";

    fn from_text(text: &str) -> Option<Self> {
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Some(HostPort {
                host: text.to_owned(),
                port: None,
            });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            return HostPort::with_port(
                host,
                rest.strip_prefix(':').or(rest.is_empty().then_some(""))?,
            );
        }
        match text.split_once(':') {
            Some((_, "")) => None,
            Some((host, port)) => HostPort::with_port(host, port),
            None => HostPort::with_port(text, ""),
        }
    }
}

impl HostPort {
    fn with_port(host: &str, port: &str) -> Option<Self> {
        let port = match port {
            "" => None,
            digits => Some(digits.parse().ok().filter(|port| *port != 0)?),
        };
        is_host(host).then(|| HostPort {
            host: host.to_owned(),
            port,
        })
    }
}

impl FromText for HttpUrl {
    const EXPECTED: &'static str = "a URL such as \"http://10.0.0.1:8008\"";

    fn from_text(text: &str) -> Option<Self> {
        HttpUrl::or_port(text, PATRONI_PORT)
    }
}

impl HttpUrl {
    /// With `port` where the URL names none.
    pub fn or_port(text: &str, port: u16) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let at = HostPort::from_text(rest.strip_suffix('/').unwrap_or(rest))?;
        Some(HttpUrl {
            host: at.host,
            port: at.port.unwrap_or(port),
        })
    }

    /// Of a URL with any path: where its server is.
    pub fn base(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        HttpUrl::from_text(&format!("http://{authority}"))
    }
}

/// A host name or address: no spaces, slashes, user names or ports.
pub fn is_host(host: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    host.parse::<std::net::IpAddr>().is_ok()
        || (!host.is_empty() && host.len() <= 253 && host.chars().all(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_and_without_ports() {
        let cases = [
            ("http://db1", Some(("db1", 8008))),
            ("http://db1:80/", Some(("db1", 80))),
            ("http://[::1]:8009", Some(("::1", 8009))),
            ("http://db1:80/patroni", None),
            ("https://db1", None),
            ("http://app:secret@db1", None),
            ("http://", None),
            ("db1", None),
        ];
        for (text, expected) in cases {
            let read = HttpUrl::from_text(text);
            let read = read.as_ref().map(|at| (at.host.as_str(), at.port));
            assert_eq!(read, expected, "{text:?}");
        }
        assert_eq!(
            HttpUrl::base("http://db1/patroni"),
            HttpUrl::from_text("http://db1")
        );
    }

    #[test]
    fn hosts_are_read_with_and_without_ports() {
        let cases = [
            ("db1", Some(("db1", None))),
            ("db1:5432", Some(("db1", Some(5432)))),
            ("192.0.2.7:1", Some(("192.0.2.7", Some(1)))),
            ("::1", Some(("::1", None))),
            ("[::1]", Some(("::1", None))),
            ("[::1]:6000", Some(("::1", Some(6000)))),
            ("", None),
            ("db1:", None),
            (":5432", None),
            ("db1:0", None),
            ("db1:65536", None),
            ("[::1]:x", None),
            ("[::1]5432", None),
            ("[db1]:5432", None),
            ("user@db1", None),
            ("/var/run/postgresql", None),
            ("postgres://db1", None),
        ];
        for (text, expected) in cases {
            let read = HostPort::from_text(text);
            let read = read.as_ref().map(|at| (at.host.as_str(), at.port));
            assert_eq!(read, expected, "{text:?}");
        }
    }
}
