//! What a login leaves behind for the proxy's own logins to servers.
//!
//! Lives below `client` and `server`, which do not know each other: the first makes credentials, the second spends
//! them. Whoever holds a value of this type can log in as that user, so every variant is a password: never shown by
//! Debug, zeroed when dropped.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{config::Secret, wire::scram::Keys};

/// What the proxy can show a server on behalf of one user.
///
/// Held by the session of a logged-in client and by the pools that dial for it; never written anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: the server must trust the proxy (trust, peer, or the proxy's client certificate).
    None,
    /// A plain password, from `[[user]]`. Answers every method that a server may ask for.
    Password(Arc<Password>),
    /// What a client's SCRAM exchange gave (ClientKey) and its verifier (ServerKey). Good only on servers whose
    /// verifier is byte for byte the one the client logged in against. No plaintext exists.
    Scram(Arc<Keys>),
    /// The `md5…` verifier itself: it answers AuthenticationMD5Password, nothing else.
    Md5(Secret),
}

/// A plain password, and the SCRAM keys it last led to: PBKDF2 is paid once per salt, not once per dial.
pub struct Password {
    secret: Secret,
    derived: Mutex<Option<Derived>>,
}

struct Derived {
    salt: Box<[u8]>,
    iterations: u32,
    keys: Arc<Keys>,
}

impl Credentials {
    pub fn password(secret: Secret) -> Self {
        Credentials::Password(Arc::new(Password::new(secret)))
    }
}

impl Password {
    pub fn new(secret: Secret) -> Self {
        Password {
            secret,
            derived: Mutex::new(None),
        }
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The keys for this salt and iteration count, if they were derived before.
    pub fn known_keys(&self, salt: &[u8], iterations: u32) -> Option<Arc<Keys>> {
        let derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        derived
            .as_ref()
            .filter(|d| *d.salt == *salt && d.iterations == iterations)
            .map(|d| d.keys.clone())
    }

    /// Derives the keys and remembers them. Costs `iterations` × 2 SHA-256: call it off the runtime's thread.
    pub fn derive_keys(&self, salt: &[u8], iterations: u32) -> Arc<Keys> {
        let keys = Arc::new(Keys::derive(self.secret.reveal(), salt, iterations));
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        *derived = Some(Derived {
            salt: salt.into(),
            iterations,
            keys: keys.clone(),
        });
        keys
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
