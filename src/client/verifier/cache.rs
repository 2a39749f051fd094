//! What the cluster said last, for the time when it says nothing.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{link::Row, unavailable};
use crate::error::Result;

/// Users remembered; more are asked for each time.
const MAX_USERS: usize = 10_000;

pub(super) struct Cache {
    ttl: Duration,
    rows: HashMap<Box<str>, (Instant, Row)>,
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Self {
        Cache {
            ttl,
            rows: HashMap::new(),
        }
    }

    /// A role that is gone is forgotten; that there is none is never remembered.
    pub(super) fn put(&mut self, user: &str, row: Option<Row>, now: Instant) {
        let Some(row) = row else {
            self.rows.remove(user);
            return;
        };
        if self.rows.len() >= MAX_USERS && !self.rows.contains_key(user) {
            let ttl = self.ttl;
            self.rows.retain(|_, (seen, _)| now - *seen < ttl);
        }
        if self.rows.len() < MAX_USERS || self.rows.contains_key(user) {
            self.rows.insert(user.into(), (now, row));
        }
    }

    /// # Errors
    /// Nothing young enough is known.
    pub(super) fn get(&self, user: &str, now: Instant) -> Result<Option<Row>> {
        match self.rows.get(user) {
            Some((seen, row)) if now - *seen < self.ttl => Ok(Some(row.clone())),
            _ => Err(unavailable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_row_is_served_for_its_ttl_and_forgotten_when_the_role_goes() {
        let (mut cache, now) = (Cache::new(TTL), Instant::now());
        cache.put("a", Some(Row::default()), now);
        assert!(cache.get("a", now + TTL / 2).is_ok());
        assert!(cache.get("a", now + TTL).is_err());
        cache.put("a", Some(Row::default()), now);
        cache.put("a", None, now);
        assert!(cache.get("a", now).is_err());
        assert!(cache.get("never seen", now).is_err());
    }

    #[test]
    fn a_full_cache_takes_no_more_until_rows_are_old() {
        let (mut cache, now) = (Cache::new(TTL), Instant::now());
        for n in 0..MAX_USERS + 5 {
            cache.put(&n.to_string(), Some(Row::default()), now);
        }
        assert_eq!(cache.rows.len(), MAX_USERS);
        cache.put("late", Some(Row::default()), now + TTL);
        assert_eq!(cache.rows.len(), 1);
    }
}
