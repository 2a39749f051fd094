//! The secret of BackendKeyData: 4 bytes in protocol 3.0, up to 256 since 3.2.

use std::fmt;

use subtle::ConstantTimeEq;

/// Shortest key: protocol 3.0's, always.
pub const MIN_LEN: usize = 4;
/// Longest key that protocol 3.2 allows.
pub const MAX_LEN: usize = 256;

/// A cancel key. Whoever knows it can cancel that session's statements: Debug shows nothing, comparison takes the same
/// time wherever keys differ.
#[derive(Clone)]
pub struct CancelKey(Box<[u8]>);

impl CancelKey {
    /// None unless 4 to 256 bytes long.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (MIN_LEN..=MAX_LEN)
            .contains(&bytes.len())
            .then(|| CancelKey(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CancelKey {}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outside_4_to_256_bytes_are_refused() {
        for (len, fits) in [(0, false), (3, false), (4, true), (256, true), (257, false)] {
            assert_eq!(CancelKey::new(&vec![7; len]).is_some(), fits, "{len}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        let key = CancelKey::new(b"abcd").unwrap();
        assert_eq!(format!("{key:?}"), "***");
        assert_ne!(key, CancelKey::new(b"abcde").unwrap());
    }
}
