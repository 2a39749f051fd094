//! What servers of one pool have in common beside their node.

use std::hash::{Hash, Hasher};

use super::settings::{APPLICATION_NAME, POOLED, Settings};
use crate::credentials::Credentials;

/// A longer `application_name` tells pools apart.
const MAX_APPLICATION: usize = 1000;

/// Who a pool's servers are logged in as, and with which startup parameters. Two sessions share servers only if all of
/// it is equal: identity, because a pooled server carries the rights of its login; parameters, because they are what
/// RESET goes back to. The application's name is none of them ([`Profile::take_application`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub database: Box<str>,
    pub user: Box<str>,
    /// Startup parameters in the order given, without user, database and replication.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    pub access: Access,
    pub credentials: Credentials,
}

/// What servers of the pool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// What the role may do.
    Full,
    /// `default_transaction_read_only = on` by force: a primary that serves a replica listener.
    ReadOnly,
}

impl Profile {
    /// Puts [`POOLED`] in the place of the application's name, whatever that is, and returns it: as the settings that a session
    /// of such a login begins with. Sessions that have none have servers of their own, and so has a name that a server would
    /// write otherwise.
    pub fn take_application(&mut self) -> Settings {
        let is_it = |(name, _): &&(Box<str>, Box<str>)| is_application(name);
        let last = self.parameters.iter().rfind(is_it);
        let application = last.map_or("", |(_, value)| value);
        let is_plain = application.bytes().all(|b| (b' '..=b'~').contains(&b));
        if application.is_empty() || !is_plain || application.len() > MAX_APPLICATION {
            return Settings::default();
        }
        let home = [(APPLICATION_NAME, Some(application.as_bytes()))];
        // One short value is never too much.
        let home = Settings::default()
            .with(home.into_iter())
            .unwrap_or_default();
        self.parameters.retain(|(name, _)| !is_application(name));
        self.parameters
            .push((APPLICATION_NAME.into(), POOLED.into()));
        home
    }
}

fn is_application(name: &str) -> bool {
    name.eq_ignore_ascii_case(APPLICATION_NAME)
}

impl Hash for Profile {
    /// Without the credentials: secrets are compared, never hashed by a hash that is not made for them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.database.hash(state);
        self.user.hash(state);
        self.parameters.hash(state);
        self.access.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(parameters: &[(&str, &str)]) -> Profile {
        let parameters = parameters.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        Profile {
            database: "d".into(),
            user: "u".into(),
            parameters: parameters.collect(),
            access: Access::Full,
            credentials: Credentials::None,
        }
    }

    fn application(of: &Settings) -> Option<&[u8]> {
        of.value(APPLICATION_NAME)
    }

    #[test]
    fn the_name_of_the_application_tells_no_pools_apart() {
        let mut a = profile(&[
            ("Application_Name", "x"),
            ("work_mem", "1MB"),
            ("application_name", "a"),
        ]);
        let mut b = profile(&[("work_mem", "1MB"), ("application_name", "b")]);
        assert_eq!(application(&a.take_application()), Some(&b"a"[..]));
        assert_eq!(application(&b.take_application()), Some(&b"b"[..]));
        assert_eq!(a, b);
    }

    #[test]
    fn a_name_that_servers_would_write_otherwise_stays_where_it_is() {
        let long = "x".repeat(MAX_APPLICATION + 1);
        for name in ["", "Zo\u{eb}", "a\tb", &long] {
            let mut odd = profile(&[("application_name", name)]);
            let before = odd.clone();
            assert!(odd.take_application().is_empty(), "{name}");
            assert_eq!(odd, before);
        }
    }
}
