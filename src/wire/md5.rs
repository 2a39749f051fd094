//! PostgreSQL's md5 passwords. Weak, and only spoken where both ends are told to.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// `md5` and 32 hex digits.
const HASH_LEN: usize = 35;

/// The verifier as in pg_authid: `md5` + hex(md5(password + user)).
pub fn hash(user: &str, password: &str) -> String {
    salted(password.as_bytes(), user.as_bytes())
}

/// The answer to AuthenticationMD5Password, from a verifier: `md5` + hex(md5(hex + salt)). None if `verifier` is none.
pub fn answer(verifier: &str, salt: [u8; 4]) -> Option<String> {
    let hex = verifier.strip_prefix("md5").filter(|_| is_hash(verifier))?;
    Some(salted(hex.as_bytes(), &salt))
}

/// Whether a text is an md5 verifier, not a plain password.
pub fn is_hash(verifier: &str) -> bool {
    verifier.len() == HASH_LEN
        && verifier
            .strip_prefix("md5")
            .is_some_and(|hex| hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Compares in constant time.
pub fn matches(expected: &str, given: &[u8]) -> bool {
    expected.as_bytes().ct_eq(given).into()
}

fn salted(secret: &[u8], salt: &[u8]) -> String {
    let digest = Md5::new()
        .chain_update(secret)
        .chain_update(salt)
        .finalize();
    let mut text = String::with_capacity(HASH_LEN);
    text.push_str("md5");
    for byte in digest {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(nibble.into(), 16));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_and_answer_are_postgresqls() {
        // SELECT 'md5' || md5('secret' || 'alice'), and once more with the salt 01020304.
        let verifier = hash("alice", "secret");
        assert_eq!(verifier, "md54a0a68b43b6cd5cf266fa02f196e2371");
        assert!(is_hash(&verifier));
        let answer = answer(&verifier, [1, 2, 3, 4]).unwrap();
        assert_eq!(answer, "md598a0412b9c31436fc53776e863350083");
    }

    #[test]
    fn other_texts_are_not_hashes() {
        for text in ["", "md5", "secret", "md5ABCDEFABCDEFABCDEFABCDEFABCDEFAB"] {
            assert!(!is_hash(text), "{text}");
            assert_eq!(answer(text, [0; 4]), None);
        }
    }
}
