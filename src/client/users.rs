//! Who may log in, and what is known of their passwords: `[[user]]`, and what the cluster says.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::context::Rules;
use crate::{
    config::{Allow, Secret, User},
    credentials::{Credentials, Password},
    error::{Error, Kind, Result},
    wire::{
        md5,
        scram::{DEFAULT_ITERATIONS, Verifier},
    },
};

/// As PostgreSQL's.
const SALT_BYTES: usize = 16;

/// What is known of a user's password.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    Plain(Arc<Plain>),
    Scram(Arc<Verifier>),
    Md5(Secret),
    /// The user has none, or it has expired: every password is wrong.
    Nothing,
}

/// A plain password and the verifier that clients prove theirs against: PBKDF2 is paid once, not at each login.
#[derive(Debug)]
pub(super) struct Plain {
    pub password: Arc<Password>,
    salt: [u8; SALT_BYTES],
    verifier: OnceLock<Arc<Verifier>>,
}

impl Plain {
    pub(super) fn known_verifier(&self) -> Option<Arc<Verifier>> {
        self.verifier.get().cloned()
    }

    /// Slow the first time: call it off the runtime's thread.
    pub(super) fn derive_verifier(&self) -> Arc<Verifier> {
        let derive = || {
            let password = self.password.secret().reveal();
            Arc::new(Verifier::derive(password, &self.salt, DEFAULT_ITERATIONS))
        };
        self.verifier.get_or_init(derive).clone()
    }
}

impl Stored {
    /// A verifier's or password's text, as in `[[user]]` or pg_authid.
    pub(super) fn verifier(text: &str) -> Option<Self> {
        match Verifier::parse(text) {
            Some(verifier) => Some(Stored::Scram(Arc::new(verifier))),
            None => md5::is_hash(text).then(|| Stored::Md5(Secret::new(text))),
        }
    }

    /// What logs in to servers where the client itself proved no password (trust, cert).
    pub(super) fn credentials(&self) -> Credentials {
        match self {
            Stored::Plain(plain) => Credentials::Password(plain.password.clone()),
            Stored::Md5(hash) => Credentials::Md5(hash.clone()),
            Stored::Scram(_) | Stored::Nothing => Credentials::None,
        }
    }
}

/// What the cluster says of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub can_login: bool,
    pub superuser: bool,
    pub replication: bool,
}

/// A user that exists.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub stored: Stored,
    /// None: named in `[[user]]`, which is the operator's own word.
    pub attributes: Option<Attributes>,
}

/// The users of the configuration.
pub(super) struct Users {
    named: HashMap<Box<str>, Stored>,
    salts: Salts,
}

impl Users {
    pub(super) fn new(rules: &Rules<'_>) -> Self {
        let salts = Salts::new(rules);
        let stored = |user: &User| {
            let text = user.password.reveal();
            Stored::verifier(text).unwrap_or_else(|| {
                Stored::Plain(Arc::new(Plain {
                    password: Arc::new(Password::new(user.password.clone())),
                    salt: salts.salt(&user.name),
                    verifier: OnceLock::new(),
                }))
            })
        };
        let named = rules
            .users
            .iter()
            .map(|user| (user.name.as_str().into(), stored(user)));
        Users {
            named: named.collect(),
            salts,
        }
    }

    pub(super) fn find(&self, user: &str) -> Option<Account> {
        self.named.get(user).map(|stored| Account {
            stored: stored.clone(),
            attributes: None,
        })
    }

    /// What a user without a usable verifier is examined with: looks real, is the same after a restart and on every
    /// proxy with the same secrets, and fits no password.
    pub(super) fn mock(&self, user: &str, iterations: u32) -> Result<Verifier> {
        let mut random = [0; 32];
        fill(&mut random)?;
        Ok(Verifier::mock(&self.salts.salt(user), iterations, random))
    }
}

/// Random bytes from the kernel.
pub(super) fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| {
        Error::proxy(Kind::Internal, "no random numbers available").detail(e.to_string())
    })
}

/// Salts made from user names, with a key made from the configuration's secrets.
struct Salts([u8; 32]);

impl Salts {
    fn new(rules: &Rules<'_>) -> Self {
        let own = rules.auth.password.iter().chain(rules.probe_password);
        let users = rules.users.iter().map(|user| &user.password);
        // Users' passwords change more often than ours: taken only where there is nothing else.
        let secrets: Vec<&Secret> = match own.collect::<Vec<_>>() {
            own if own.is_empty() => users.collect(),
            own => own,
        };
        let mut key = [0; 32];
        if secrets.is_empty() && fill(&mut key).is_ok() {
            // Without any secret, a key that others could compute would tell which users are real.
            return Salts(key);
        }
        for secret in secrets {
            key = hmac(&key, secret.reveal().as_bytes());
        }
        Salts(hmac(&key, b"pgsluice SCRAM salts"))
    }

    fn salt(&self, user: &str) -> [u8; SALT_BYTES] {
        let hash = hmac(&self.0, user.as_bytes());
        std::array::from_fn(|i| hash[i])
    }
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(message),
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    mac.finalize().into_bytes().into()
}

/// Whether `allow` names this login.
pub(super) fn is_allowed(allow: &[Allow], user: &str, database: &str, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    allow.iter().any(|entry| {
        entry.user == user
            && entry.database.as_deref().is_none_or(|d| d == database)
            && entry.net.is_none_or(|net| net.contains(&peer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_entry_must_fit_in_all_it_names() {
        let allow = [Allow {
            user: "postgres".into(),
            database: Some("app".into()),
            net: Some("10.0.0.0/8".parse().unwrap()),
        }];
        for (user, database, peer, allowed) in [
            ("postgres", "app", "10.1.2.3", true),
            ("postgres", "app", "::ffff:10.1.2.3", true),
            ("postgres", "app", "11.0.0.1", false),
            ("postgres", "other", "10.1.2.3", false),
            ("Postgres", "app", "10.1.2.3", false),
        ] {
            let is = is_allowed(&allow, user, database, peer.parse().unwrap());
            assert_eq!(is, allowed, "{user} {database} {peer}");
        }
        assert!(!is_allowed(
            &[],
            "postgres",
            "app",
            "10.1.2.3".parse().unwrap()
        ));
    }

    #[test]
    fn verifiers_are_told_from_plain_passwords() {
        let scram = Verifier::derive("a", b"salt", 1).to_text();
        assert!(matches!(Stored::verifier(&scram), Some(Stored::Scram(_))));
        let hash = md5::hash("u", "p");
        assert!(matches!(Stored::verifier(&hash), Some(Stored::Md5(_))));
        assert!(Stored::verifier("SCRAM-SHA-256$nonsense").is_none());
    }
}
