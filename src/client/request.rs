//! What a startup packet asks for, in our terms.

use std::net::SocketAddr;

use super::report;
use crate::{
    error::{Error, Kind, Result},
    wire::{
        options::{self, Unusable},
        startup::Session,
    },
};

/// Names longer than this are cut, as PostgreSQL does (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;

#[derive(Debug)]
pub(super) struct Request {
    pub user: Box<str>,
    pub database: Box<str>,
    pub parameters: Vec<(Box<str>, Box<str>)>,
    pub replication: Option<Box<str>>,
    pub peer: SocketAddr,
}

impl Request {
    pub(super) fn new(session: Session, peer: SocketAddr) -> Result<Self> {
        let user = session.parameter("user").filter(|user| !user.is_empty());
        let user = cut(user.ok_or(Error::client(
            Kind::NotAllowed,
            "no PostgreSQL user name specified in startup packet",
        ))?);
        let replication = replication(session.parameter("replication"))?;
        let database = match (session.parameter("database"), &replication) {
            // Physical replication belongs to no database, whatever is named.
            (_, Some(kind)) if **kind != *"database" => "".into(),
            (Some(database), _) if !database.is_empty() => cut(database),
            _ => user.clone(),
        };
        let options = session.parameter("options").unwrap_or_default();
        let mut parameters = options::settings(options).map_err(unusable)?;
        parameters.extend(
            session
                .parameters
                .into_iter()
                .filter(|(name, _)| is_setting(name)),
        );
        Ok(Request {
            user,
            database,
            parameters,
            replication,
            peer,
        })
    }
}

fn is_setting(name: &str) -> bool {
    !matches!(name, "user" | "database" | "options" | "replication")
}

fn cut(name: &str) -> Box<str> {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].into()
}

/// `database`, or a boolean; false is as if it were not there.
fn replication(value: Option<&str>) -> Result<Option<Box<str>>> {
    match value {
        None => Ok(None),
        Some("database") => Ok(Some("database".into())),
        Some(value) => match boolean(value) {
            Some(true) => Ok(Some(value.into())),
            Some(false) => Ok(None),
            None => Err(report::refusal(
                "22023",
                format!("invalid value for parameter \"replication\": \"{value}\""),
                Some("Valid values are: \"false\", 0, \"true\", 1, \"database\"."),
            )),
        },
    }
}

/// PostgreSQL's parse_bool: any case, any unique beginning.
fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    match () {
        () if value == "1" || begins("true", 1) || begins("yes", 1) || value == "on" => Some(true),
        () if value == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) => {
            Some(false)
        }
        () => None,
    }
}

fn unusable(unusable: Unusable) -> Error {
    let message = match unusable {
        Unusable::NoValue(argument) => format!("-c {argument} requires a value"),
        Unusable::Unknown(argument) => {
            format!("invalid command-line argument for server process: {argument}")
        }
        Unusable::TooMany => "too many settings in the startup packet's options".into(),
    };
    report::refusal("42601", message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, &str)]) -> Result<Request> {
        let parameters = parameters.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let session = Session {
            minor: 0,
            parameters: parameters.collect(),
            protocol_options: Vec::new(),
        };
        Request::new(session, "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn the_database_defaults_to_the_user_and_names_are_cut() {
        let long = "ä".repeat(40);
        let asked = request(&[("user", &long)]).unwrap();
        assert_eq!(&*asked.user, "ä".repeat(31));
        assert_eq!(asked.database, asked.user);
    }

    #[test]
    fn options_come_before_the_packets_own_settings() {
        let asked = request(&[
            ("user", "u"),
            ("work_mem", "2MB"),
            ("options", "-c work_mem=1MB --search-path=a"),
        ])
        .unwrap();
        let expected = [
            ("work_mem", "1MB"),
            ("search_path", "a"),
            ("work_mem", "2MB"),
        ];
        let expected: Vec<(Box<str>, Box<str>)> = expected
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        assert_eq!(asked.parameters, expected);
    }

    #[test]
    fn replication_is_parsed_as_postgresql_does() {
        for (value, kind, database) in [
            ("database", Some("database"), "d"),
            ("TRUE", Some("TRUE"), ""),
            ("1", Some("1"), ""),
            ("of", None, "d"),
            ("0", None, "d"),
        ] {
            let asked = request(&[("user", "u"), ("database", "d"), ("replication", value)]);
            let asked = asked.unwrap();
            assert_eq!(asked.replication.as_deref(), kind, "{value}");
            assert_eq!(&*asked.database, database, "{value}");
        }
        for value in ["o", "maybe", ""] {
            let error = request(&[("user", "u"), ("replication", value)]).unwrap_err();
            let frame = error.response.unwrap();
            assert!(frame.windows(6).any(|w| w == b"C22023"), "{value}");
        }
    }

    #[test]
    fn a_packet_without_user_is_refused() {
        for parameters in [&[][..], &[("user", "")], &[("database", "d")]] {
            assert_eq!(request(parameters).unwrap_err().kind, Kind::NotAllowed);
        }
    }
}
