//! `[auth] allow` entries: `user[@database] [from CIDR]`.

use ipnet::IpNet;

use super::{Allow, value::FromText};

impl FromText for Allow {
    const EXPECTED: &'static str =
        "\"user\", \"user@database\", or either with \" from 10.0.0.0/8\" behind it";

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let who = words.next()?;
        let net = match (words.next(), words.next(), words.next()) {
            (None, None, None) => None,
            (Some("from"), Some(net), None) => Some(network(net)?),
            _ => return None,
        };
        let (user, database) = match who.rsplit_once('@') {
            Some((user, database)) => (user, Some(database)),
            None => (who, None),
        };
        let named = !user.is_empty() && database != Some("");
        named.then(|| Allow {
            user: user.to_owned(),
            database: database.map(str::to_owned),
            net,
        })
    }
}

/// A CIDR, or one address. Bits behind the prefix must be zero: `10.1.2.3/8` is more likely a slip than a wish.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(addr) = text.parse::<std::net::IpAddr>() {
        return Some(IpNet::from(addr));
    }
    text.parse::<IpNet>().ok().filter(|net| *net == net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_user_database_and_network() {
        let allow = |user: &str, database: Option<&str>, net: Option<&str>| Allow {
            user: user.to_owned(),
            database: database.map(str::to_owned),
            net: net.map(|net| net.parse().unwrap()),
        };
        let cases = [
            ("postgres", Some(allow("postgres", None, None))),
            ("app@shop", Some(allow("app", Some("shop"), None))),
            (
                "app@shop from 10.0.0.0/8",
                Some(allow("app", Some("shop"), Some("10.0.0.0/8"))),
            ),
            (
                "a@b@c from ::1",
                Some(allow("a@b", Some("c"), Some("::1/128"))),
            ),
            (
                "postgres from 127.0.0.1",
                Some(allow("postgres", None, Some("127.0.0.1/32"))),
            ),
            ("", None),
            ("@shop", None),
            ("app@", None),
            ("app from", None),
            ("app in 10.0.0.0/8", None),
            ("app from 10.0.0.0/33", None),
            ("app from 10.1.0.0/8", None),
            ("app from 10.0.0.0/8 11.0.0.0/8", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Allow::from_text(text), expected, "{text:?}");
        }
    }
}
