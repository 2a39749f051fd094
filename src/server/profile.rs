//! What servers of one pool have in common beside their node.

use std::hash::{Hash, Hasher};

use crate::credentials::Credentials;

/// Who a pool's servers are logged in as, and with which startup parameters. Two sessions share servers only if all of
/// it is equal: identity, because a pooled server carries the rights of its login; parameters, because they are what
/// RESET goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub database: Box<str>,
    pub user: Box<str>,
    /// Startup parameters in the order given, without user, database and replication.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    pub access: Access,
    pub credentials: Credentials,
}

/// What servers of the pool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// What the role may do.
    Full,
    /// `default_transaction_read_only = on` by force: a primary that serves a replica listener.
    ReadOnly,
}

impl Hash for Profile {
    /// Without the credentials: secrets are compared, never hashed by a hash that is not made for them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.database.hash(state);
        self.user.hash(state);
        self.parameters.hash(state);
        self.access.hash(state);
    }
}
