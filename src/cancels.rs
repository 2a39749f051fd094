//! Which session a CancelRequest is for, over all workers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::wire::cancel_key::CancelKey;

/// Bytes of a key for protocol 3.0, which has room for no more.
const SHORT_KEY: usize = 4;
/// Bytes of a key since protocol 3.2, as PostgreSQL's own.
const LONG_KEY: usize = 32;

/// Where a session lives: (worker, session).
pub type Owner = (usize, u64);

/// All keys in use. Locked at logins, logouts and cancels only.
#[derive(Debug, Default)]
pub struct Cancels {
    by_pid: Mutex<HashMap<i32, Vec<(CancelKey, Owner)>>>,
}

impl Cancels {
    /// A new random key for a session that its client knows by `pid`.
    pub fn issue(&self, pid: i32, minor: u16, owner: Owner) -> CancelKey {
        let mut bytes = [0; LONG_KEY];
        // Without random numbers nothing could be kept secret: keys would be guessable, so there must be none.
        getrandom::fill(&mut bytes).expect("the kernel has random numbers");
        let len = if minor >= 2 { LONG_KEY } else { SHORT_KEY };
        // Both lengths are within a key's limits.
        let key = CancelKey::new(&bytes[..len]).expect("4 and 32 are lengths of a key");
        let mut by_pid = self.lock();
        let keys = by_pid.entry(pid).or_insert_with(|| Vec::with_capacity(1));
        keys.push((key.clone(), owner));
        key
    }

    pub fn revoke(&self, pid: i32, key: &CancelKey) {
        let mut by_pid = self.lock();
        if let Some(keys) = by_pid.get_mut(&pid) {
            keys.retain(|(known, _)| known != key);
            if keys.is_empty() {
                by_pid.remove(&pid);
            }
        }
    }

    /// The session that was given this pid and key.
    pub fn find(&self, pid: i32, key: &CancelKey) -> Option<Owner> {
        let by_pid = self.lock();
        let keys = by_pid.get(&pid)?;
        keys.iter()
            .find(|(known, _)| known == key)
            .map(|(_, owner)| *owner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Vec<(CancelKey, Owner)>>> {
        self.by_pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_session_until_it_is_revoked() {
        let cancels = Cancels::default();
        let a = cancels.issue(7, 0, (0, 1));
        let b = cancels.issue(7, 2, (1, 2));
        assert_eq!((a.as_bytes().len(), b.as_bytes().len()), (4, 32));
        assert_eq!(cancels.find(7, &a), Some((0, 1)));
        assert_eq!(cancels.find(7, &b), Some((1, 2)));
        assert_eq!(cancels.find(8, &a), None);
        cancels.revoke(7, &a);
        assert_eq!(cancels.find(7, &a), None);
        assert_eq!(cancels.find(7, &b), Some((1, 2)));
    }
}
