//! Which prepared statements a server has, and under which of our names.
//!
//! Sessions of one login share them: a statement is known by its content, whoever had it parsed, and named by a number
//! that is never given twice on one server. What the books say is what the server will have once it has read all that
//! was sent; a session whose messages were thrown away takes its entries back.
//!
//! Invariant: a name on the server that is not in the books is in `leftover`, and closed before anybody could meet it.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::Write,
};

/// A statement's content: a digest of text, parameter types and the settings under which it is parsed.
pub type ContentId = u128;

/// Statements that a server keeps for its sessions; one more, and the one used longest ago is closed.
pub const MAX_STATEMENTS: usize = 500;

/// What we call a statement on servers begins so; no client's own name may reach a server that does.
pub const PREFIX: &[u8] = b"pgsluice_";

/// A statement's name on a server. Number 0 names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerName {
    bytes: [u8; PREFIX.len() + 20],
    len: usize,
}

impl ServerName {
    pub fn of(number: u64) -> Self {
        let mut bytes = [0; PREFIX.len() + 20];
        let (prefix, digits) = bytes.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        let mut rest = digits;
        // The longest number has 20 digits.
        let _ = write!(rest, "{number}");
        let left = rest.len();
        ServerName {
            len: bytes.len() - left,
            bytes,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    number: u64,
    /// The schema epoch in which it was parsed.
    epoch: u64,
    /// The turn in which it was used last.
    used: u64,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Statements {
    known: HashMap<ContentId, Known>,
    leftover: Vec<Box<[u8]>>,
    last_number: u64,
    turn: u64,
}

impl Statements {
    /// The number of a statement that was parsed in `epoch` or later.
    #[inline]
    pub fn find(&mut self, content: ContentId, epoch: u64) -> Option<u64> {
        let known = self.known.get_mut(&content)?;
        if known.epoch < epoch {
            return None;
        }
        self.turn += 1;
        known.used = self.turn;
        Some(known.number)
    }

    /// In which epoch the server's copy was parsed, if it has one.
    #[inline]
    pub fn epoch_of(&self, content: ContentId) -> Option<u64> {
        Some(self.known.get(&content)?.epoch)
    }

    /// What the server has under one of our names. Slow: for errors.
    pub fn content_of(&self, name: &[u8]) -> Option<ContentId> {
        let mut known = self.known.iter();
        let is_it = |known: &Known| ServerName::of(known.number).as_bytes() == name;
        Some(*known.find(|(_, known)| is_it(known))?.0)
    }

    /// A Parse of this content is about to be sent: under this number. What must make way is left over.
    pub fn add(&mut self, content: ContentId, epoch: u64) -> u64 {
        self.turn += 1;
        self.last_number += 1;
        let known = Known {
            number: self.last_number,
            epoch,
            used: self.turn,
        };
        if let Some(old) = self.known.insert(content, known) {
            self.leave(old.number);
        }
        self.last_number
    }

    /// A name that no statement has.
    pub fn fresh_name(&mut self) -> ServerName {
        self.last_number += 1;
        ServerName::of(self.last_number)
    }

    /// Makes place for one more, if there is none: true if a statement was evicted.
    pub fn evict(&mut self) -> bool {
        if self.known.len() < MAX_STATEMENTS {
            return false;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.used);
        let Some((&content, &Known { number, .. })) = oldest else {
            return false;
        };
        self.known.remove(&content);
        self.leave(number);
        true
    }

    /// The Parse under this number was thrown away.
    pub fn remove(&mut self, content: ContentId, number: u64) {
        if let Entry::Occupied(known) = self.known.entry(content)
            && known.get().number == number
        {
            known.remove();
        }
    }

    fn leave(&mut self, number: u64) {
        self.leftover.push(ServerName::of(number).as_bytes().into());
    }

    /// A statement of that name is on the server, or may be, and must not stay.
    pub fn leave_name(&mut self, name: Box<[u8]>) {
        self.leftover.push(name);
    }

    /// Whether what must be closed has a name that a client may use.
    pub fn leaves_clients_name(&self) -> bool {
        self.leftover.iter().any(|name| !name.starts_with(PREFIX))
    }

    /// What must be closed, if there is something; the caller closes it.
    pub fn take_leftover(&mut self) -> Option<Box<[u8]>> {
        self.leftover.pop()
    }

    /// None of them is to be used again.
    pub fn leave_all(&mut self) {
        let known = std::mem::take(&mut self.known);
        for known in known.into_values() {
            self.leave(known.number);
        }
    }

    /// The server has dropped all statements.
    pub fn clear(&mut self) {
        self.known.clear();
        self.leftover.clear();
    }

    /// Neither a statement nor a leftover is on the server.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.leftover.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftovers(statements: &mut Statements) -> Vec<String> {
        std::iter::from_fn(|| statements.take_leftover())
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .collect()
    }

    #[test]
    fn names_are_the_prefix_and_the_number() {
        assert_eq!(ServerName::of(0).as_bytes(), b"pgsluice_0");
        assert_eq!(
            ServerName::of(u64::MAX).as_bytes(),
            b"pgsluice_18446744073709551615"
        );
    }

    #[test]
    fn a_statement_older_than_the_epoch_is_parsed_under_a_new_name_and_the_old_one_left_over() {
        let mut s = Statements::default();
        let first = s.add(7, 1);
        assert_eq!(s.find(7, 1), Some(first));
        assert_eq!(s.find(7, 2), None);
        let second = s.add(7, 2);
        assert_ne!(first, second);
        assert_eq!(s.find(7, 1), Some(second));
        assert_eq!(leftovers(&mut s), ["pgsluice_1"]);
    }

    #[test]
    fn the_one_used_longest_ago_makes_way() {
        let mut s = Statements::default();
        for content in 0..MAX_STATEMENTS as u128 {
            assert!(!s.evict());
            s.add(content, 0);
        }
        assert_eq!(s.find(0, 0), Some(1));
        assert!(s.evict());
        assert_eq!(s.find(0, 0), Some(1));
        assert_eq!(s.find(1, 0), None);
        assert_eq!(leftovers(&mut s), ["pgsluice_2"]);
    }

    #[test]
    fn only_the_parse_that_was_thrown_away_is_taken_back() {
        let mut s = Statements::default();
        let first = s.add(7, 0);
        let second = s.add(7, 0);
        s.remove(7, first);
        assert_eq!(s.find(7, 0), Some(second));
        s.remove(7, second);
        assert_eq!(s.find(7, 0), None);
        s.add(8, 0);
        s.leave_all();
        assert_eq!(leftovers(&mut s), ["pgsluice_3", "pgsluice_1"]);
        assert!(s.is_empty());
    }
}
