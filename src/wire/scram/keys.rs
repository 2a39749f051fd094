//! Keys and verifiers: what is derived from a password, and what a server stores of it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::message::{decode, encode};

/// A SHA-256 output.
pub type Key = [u8; 32];

/// Enough to log in as a SCRAM client, and to know the server: a password in all but name.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    client_key: Key,
    server_key: Key,
}

impl Keys {
    pub fn new(client_key: Key, server_key: Key) -> Self {
        Keys {
            client_key,
            server_key,
        }
    }

    /// From a plain password: PBKDF2, so `iterations` × 2 SHA-256 of work.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let prepared = prepare(password);
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut *salted);
        Keys {
            client_key: hmac(&*salted, &[b"Client Key"]),
            server_key: hmac(&*salted, &[b"Server Key"]),
        }
    }

    pub fn client_key(&self) -> &Key {
        &self.client_key
    }

    pub fn server_key(&self) -> &Key {
        &self.server_key
    }

    /// What a server keeps of the ClientKey.
    pub fn stored_key(&self) -> Key {
        sha256(&self.client_key)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// SASLprep, or the password as it is where that is impossible: PostgreSQL does the same.
fn prepare(password: &str) -> Zeroizing<String> {
    let prepared = stringprep::saslprep(password).map(|p| p.into_owned());
    Zeroizing::new(prepared.unwrap_or_else(|_| password.to_owned()))
}

/// What a server stores: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
///
/// Not enough to log in elsewhere, but enough to guess passwords offline and to play the server: never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// As in pg_authid.rolpassword. None if it is not a SCRAM verifier.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("SCRAM-SHA-256$")?.split('$');
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored_key, server_key) = parts.next()?.split_once(':')?;
        if parts.next().is_some() {
            return None;
        }
        Some(Verifier {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: decode(salt)?.into(),
            stored_key: decode(stored_key)?.try_into().ok()?,
            server_key: decode(server_key)?.try_into().ok()?,
        })
    }

    /// For a plain password. Costs `iterations` × 2 SHA-256.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let keys = Keys::derive(password, salt, iterations);
        Verifier {
            iterations,
            salt: salt.into(),
            stored_key: keys.stored_key(),
            server_key: *keys.server_key(),
        }
    }

    /// A verifier that no password fits, for users that do not exist. `random` must be fresh.
    pub fn mock(salt: &[u8], iterations: u32, random: Key) -> Self {
        Verifier {
            iterations,
            salt: salt.into(),
            stored_key: random,
            server_key: sha256(&random),
        }
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    pub fn stored_key(&self) -> &Key {
        &self.stored_key
    }

    /// The text for pg_authid.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        ))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

pub(super) fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        // HMAC takes keys of any length: the error type exists for other MACs.
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

pub(super) fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_survives_its_text_and_debug_shows_nothing() {
        let verifier = Verifier::derive("pencil", b"salt", 10);
        let text = verifier.to_text();
        assert_eq!(Verifier::parse(&text), Some(verifier.clone()));
        assert_eq!(
            format!("{verifier:?}{:?}", Keys::derive("a", b"b", 1)),
            "******"
        );
    }

    #[test]
    fn broken_verifiers_are_refused() {
        let good = Verifier::derive("pencil", b"salt", 10).to_text();
        let mut table = vec![
            String::new(),
            "SCRAM-SHA-256$".into(),
            "SCRAM-SHA-256$0:c2FsdA==$:".into(),
            good.replace("$10:", "$0:"),
            good.replace("$10:", "$-1:"),
            good.replace("$10:", "$99999999999:"),
            format!("{}$x", *good),
        ];
        table.extend((0..good.len()).map(|len| good[..len].to_owned()));
        for text in table {
            assert_eq!(Verifier::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn passwords_are_prepared_and_hopeless_ones_taken_raw() {
        // U+00AD is dropped, U+2168 becomes IX (RFC 4013, section 3).
        assert_eq!(*prepare("I\u{ad}X"), "IX");
        assert_eq!(*prepare("\u{2168}"), "IX");
        assert_eq!(*prepare("\u{7}"), "\u{7}");
    }
}
