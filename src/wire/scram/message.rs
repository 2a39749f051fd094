//! The attributes of SCRAM messages: `r=…,s=…,i=…`, in fixed order.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Failure, malformed};

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The rest of a message, attribute by attribute.
pub(super) struct Attributes<'a> {
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a str) -> Self {
        Attributes {
            rest: Some(message),
        }
    }

    /// The next attribute's value, whatever its name.
    pub(super) fn any(&mut self) -> Option<(&'a str, &'a str)> {
        let rest = self.rest?;
        let (attribute, after) = match rest.split_once(',') {
            Some((attribute, after)) => (attribute, Some(after)),
            None => (rest, None),
        };
        self.rest = after;
        attribute.split_once('=')
    }

    /// The next attribute must be `name`.
    pub(super) fn expect(&mut self, name: &str) -> Result<&'a str, Failure> {
        match self.any() {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(malformed("malformed SCRAM message")),
        }
    }

    /// Further attributes are extensions, which may be ignored; `m` ones may not.
    pub(super) fn extensions(mut self) -> Result<(), Failure> {
        while self.rest.is_some() {
            match self.any() {
                Some((name, _)) if name != "m" => {}
                _ => return Err(malformed("malformed SCRAM message")),
            }
        }
        Ok(())
    }
}

pub(super) fn text(message: &[u8]) -> Result<&str, Failure> {
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(malformed("malformed SCRAM message")),
    }
}

/// Printable ASCII without comma.
pub(super) fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}
