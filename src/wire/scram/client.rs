//! The client's side: the proxy towards servers, which are not trusted either.

use super::{
    Failure, Keys, MAX_ITERATIONS, MAX_NONCE, MAX_SALT, PLAIN, PLUS,
    keys::{equal, hmac, xor},
    message::{Attributes, decode, encode, is_nonce, text},
};

/// What we say about channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding<'a> {
    /// 'n': we cannot (no TLS, or a certificate without usable hash).
    Unable,
    /// 'y': we could, but the server did not offer it. A server that did offer it then knows that someone took its
    /// offer out, and refuses.
    NotOffered,
    /// 'p': bound to this end point.
    EndPoint(&'a [u8]),
}

/// Chooses the mechanism; gives client-first.
pub struct Start<'a> {
    binding: Binding<'a>,
    nonce: String,
}

/// Expects server-first.
pub struct AwaitFirst {
    /// GS2 header and binding data: what `c=` repeats.
    binding: Vec<u8>,
    nonce: String,
    bare: String,
}

/// What the server wants proven. Derive or fetch the keys for it, then [`Challenge::answer`].
pub struct Challenge {
    pub salt: Box<[u8]>,
    /// 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
    without_proof: String,
    auth_message: String,
}

/// Expects server-final.
#[derive(Debug)]
pub struct AwaitFinal {
    server_signature: [u8; 32],
}

impl<'a> Start<'a> {
    /// `offered`: the server's mechanisms. `end_point`: the hash of the server's certificate, where there is TLS and
    /// one is defined. `nonce`: fresh.
    ///
    /// # Errors
    /// No mechanism in common.
    pub fn new(
        offered: &[&[u8]],
        end_point: Option<&'a [u8]>,
        nonce: String,
    ) -> Result<Self, Failure> {
        let has = |mechanism: &str| offered.contains(&mechanism.as_bytes());
        let binding = match end_point {
            Some(end_point) if has(PLUS) => Binding::EndPoint(end_point),
            _ if !has(PLAIN) => {
                return Err(Failure::Server(
                    "none of the server's SASL mechanisms is supported",
                ));
            }
            Some(_) => Binding::NotOffered,
            None => Binding::Unable,
        };
        Ok(Start { binding, nonce })
    }

    pub fn mechanism(&self) -> &'static str {
        match self.binding {
            Binding::EndPoint(_) => PLUS,
            Binding::NotOffered | Binding::Unable => PLAIN,
        }
    }

    /// client-first.
    pub fn first(self) -> (Vec<u8>, AwaitFirst) {
        let (gs2, end_point) = match self.binding {
            Binding::Unable => ("n,,", &[][..]),
            Binding::NotOffered => ("y,,", &[][..]),
            Binding::EndPoint(end_point) => ("p=tls-server-end-point,,", end_point),
        };
        let bare = format!("n=,r={}", self.nonce);
        let message = format!("{gs2}{bare}").into_bytes();
        let next = AwaitFirst {
            binding: [gs2.as_bytes(), end_point].concat(),
            nonce: self.nonce,
            bare,
        };
        (message, next)
    }
}

impl AwaitFirst {
    /// Takes server-first. Nothing is computed before nonce, salt and iteration count are within limits.
    pub fn server_first(self, message: &[u8]) -> Result<Challenge, Failure> {
        let message = text(message)?;
        let mut attributes = Attributes::new(message);
        let nonce = attributes.expect("r")?;
        let salt = attributes.expect("s")?;
        let iterations = attributes.expect("i")?;
        attributes.extensions()?;
        let theirs = nonce.strip_prefix(&*self.nonce).ok_or(Failure::Server(
            "the server's SCRAM nonce does not extend ours",
        ))?;
        if !is_nonce(theirs) || nonce.len() > MAX_NONCE {
            return Err(Failure::Server(
                "the server's SCRAM nonce is invalid or too long",
            ));
        }
        let salt = decode(salt)
            .filter(|salt| (1..=MAX_SALT).contains(&salt.len()))
            .ok_or(Failure::Server("the server's SCRAM salt is invalid"))?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|n| (1..=MAX_ITERATIONS).contains(n))
            .ok_or(Failure::Server(
                "the server's SCRAM iteration count is out of range",
            ))?;
        let without_proof = format!("c={},r={nonce}", encode(&self.binding));
        Ok(Challenge {
            salt: salt.into(),
            iterations,
            auth_message: format!("{},{message},{without_proof}", self.bare),
            without_proof,
        })
    }
}

impl Challenge {
    /// client-final.
    pub fn answer(self, keys: &Keys) -> (Vec<u8>, AwaitFinal) {
        let auth_message = self.auth_message.as_bytes();
        let signature = hmac(&keys.stored_key(), &[auth_message]);
        let proof = xor(keys.client_key(), &signature);
        let message = format!("{},p={}", self.without_proof, encode(&proof));
        let next = AwaitFinal {
            server_signature: hmac(keys.server_key(), &[auth_message]),
        };
        (message.into_bytes(), next)
    }
}

impl AwaitFinal {
    /// Takes server-final: the server must know the verifier too.
    pub fn server_final(self, message: &[u8]) -> Result<(), Failure> {
        let mut attributes = Attributes::new(text(message)?);
        match attributes.any() {
            Some(("v", signature)) => {
                attributes.extensions()?;
                let signature = decode(signature).unwrap_or_default();
                equal(&signature, &self.server_signature)
                    .then_some(())
                    .ok_or(Failure::Server("the server's SCRAM signature is wrong"))
            }
            _ => Err(Failure::Server(
                "the server ended the SCRAM exchange with an error",
            )),
        }
    }
}
