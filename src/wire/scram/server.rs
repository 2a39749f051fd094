//! The server's side: the proxy towards its clients.

use zeroize::Zeroizing;

use super::{
    Failure, Keys, MAX_NONCE, PLAIN, PLUS, Verifier,
    keys::{equal, hmac, sha256, xor},
    malformed,
    message::{Attributes, decode, encode, is_nonce, text},
};

/// The mechanisms to offer, best first; `end_point` is the hash of our certificate, if the connection has TLS and the
/// certificate allows PLUS.
pub fn mechanisms(end_point: Option<&[u8]>) -> &'static [&'static str] {
    match end_point {
        Some(_) => &[PLUS, PLAIN],
        None => &[PLAIN],
    }
}

/// Expects client-first.
pub struct Start<'a> {
    verifier: &'a Verifier,
    end_point: Option<&'a [u8]>,
    /// What the client chose of [`mechanisms`].
    plus: bool,
}

/// Expects client-final.
pub struct AwaitFinal {
    verifier: Verifier,
    /// What `c=` must hold.
    binding: Vec<u8>,
    nonce: String,
    /// client-first-bare and server-first, joined by a comma: the head of AuthMessage.
    transcript: String,
}

/// The client knows the password.
pub struct Proven {
    /// Good for logging in wherever the same verifier is stored.
    pub keys: Keys,
    /// server-final: proves to the client that we know its verifier.
    pub server_final: Vec<u8>,
}

impl<'a> Start<'a> {
    /// `mechanism` as the client named it.
    ///
    /// # Errors
    /// It was not offered.
    pub fn new(
        verifier: &'a Verifier,
        end_point: Option<&'a [u8]>,
        mechanism: &[u8],
    ) -> Result<Self, Failure> {
        let known = mechanisms(end_point)
            .iter()
            .find(|m| m.as_bytes() == mechanism)
            .ok_or(malformed(
                "client selected an invalid SASL authentication mechanism",
            ))?;
        Ok(Start {
            verifier,
            end_point,
            plus: *known == PLUS,
        })
    }

    /// Takes client-first, gives server-first. `nonce` is ours, fresh.
    pub fn client_first(
        self,
        message: &[u8],
        nonce: &str,
    ) -> Result<(Vec<u8>, AwaitFinal), Failure> {
        let message = text(message)?;
        let (gs2, bare) = split_gs2(message)?;
        let binding = self.binding(gs2)?;
        let mut attributes = Attributes::new(bare);
        attributes.expect("n")?;
        let theirs = attributes.expect("r")?;
        attributes.extensions()?;
        if !is_nonce(theirs) || theirs.len() > MAX_NONCE {
            return Err(malformed("non-printable characters in SCRAM nonce"));
        }
        let nonce = format!("{theirs}{nonce}");
        let salt = encode(&self.verifier.salt);
        let first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let next = AwaitFinal {
            verifier: self.verifier.clone(),
            binding,
            nonce,
            transcript: format!("{bare},{first}"),
        };
        Ok((first.into_bytes(), next))
    }

    /// Checks the client's word about channel binding, and says what its `c=` must repeat.
    fn binding(&self, gs2: &str) -> Result<Vec<u8>, Failure> {
        let flag = gs2.split(',').next().unwrap_or_default();
        let end_point = match (flag, self.end_point, self.plus) {
            ("n", _, false) => &[][..],
            ("y", None, false) => &[][..],
            ("y", Some(_), false) => {
                // The client saw no PLUS among the mechanisms, though we offered it: someone took it out.
                return Err(Failure::ChannelBinding(
                    "The client supports SCRAM channel binding but thinks the server does not. \
                     However, this server does support channel binding.",
                ));
            }
            ("n" | "y", _, true) => {
                return Err(malformed(
                    "the client selected SCRAM-SHA-256-PLUS without channel binding data",
                ));
            }
            ("p=tls-server-end-point", Some(end_point), true) => end_point,
            (flag, _, true) if flag.starts_with("p=") => {
                return Err(Failure::ChannelBinding(
                    "unsupported SCRAM channel-binding type",
                ));
            }
            (flag, _, false) if flag.starts_with("p=") => {
                return Err(malformed(
                    "the client selected SCRAM-SHA-256 with channel binding data",
                ));
            }
            _ => return Err(malformed("unexpected channel-binding flag")),
        };
        Ok([gs2.as_bytes(), end_point].concat())
    }
}

/// The GS2 header with its second comma, and client-first-bare.
fn split_gs2(message: &str) -> Result<(&str, &str), Failure> {
    let bad = malformed("malformed SCRAM message");
    let (_, after_flag) = message.split_once(',').ok_or(bad)?;
    let (authzid, bare) = after_flag.split_once(',').ok_or(bad)?;
    if !authzid.is_empty() {
        return Err(malformed(
            "client uses authorization identity, but it is not supported",
        ));
    }
    let header = message.strip_suffix(bare).ok_or(bad)?;
    Ok((header, bare))
}

impl AwaitFinal {
    /// Takes client-final.
    ///
    /// # Errors
    /// `WrongProof` for a wrong password; everything is checked in constant time with respect to secrets.
    pub fn client_final(self, message: &[u8]) -> Result<Proven, Failure> {
        let message = text(message)?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or(malformed("malformed SCRAM message"))?;
        let mut attributes = Attributes::new(without_proof);
        let binding =
            decode(attributes.expect("c")?).ok_or(malformed("malformed SCRAM message"))?;
        let nonce = attributes.expect("r")?;
        attributes.extensions()?;
        if !equal(&binding, &self.binding) {
            return Err(Failure::ChannelBinding(
                "SCRAM channel binding check failed",
            ));
        }
        if nonce != self.nonce {
            return Err(malformed("invalid SCRAM response: nonce does not match"));
        }
        let proof = decode(proof)
            .and_then(|p| p.try_into().ok())
            .ok_or(malformed("malformed SCRAM message"))?;
        let auth_message = format!("{},{without_proof}", self.transcript);
        self.prove(&Zeroizing::new(proof), auth_message.as_bytes())
    }

    fn prove(self, proof: &[u8; 32], auth_message: &[u8]) -> Result<Proven, Failure> {
        let signature = hmac(&self.verifier.stored_key, &[auth_message]);
        let client_key = Zeroizing::new(xor(proof, &signature));
        if !equal(&sha256(&*client_key), &self.verifier.stored_key) {
            return Err(Failure::WrongProof);
        }
        let server_signature = hmac(&self.verifier.server_key, &[auth_message]);
        Ok(Proven {
            keys: Keys::new(*client_key, self.verifier.server_key),
            server_final: format!("v={}", encode(&server_signature)).into_bytes(),
        })
    }
}
