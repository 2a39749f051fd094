//! The texts of prepared statements: one copy on a worker, however many sessions have prepared the same.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
};

use sha2::{Digest, Sha256};

use super::statement::Statement;
use crate::server::statements::ContentId;

/// Texts that nobody holds any more are looked for when there are twice as many as after the last look, and not before
/// there are so many.
const MIN_SWEEP: usize = 64;

/// What a client has prepared.
#[derive(Debug)]
pub(super) struct Text {
    pub id: ContentId,
    /// The Parse message behind its name: text and parameter types.
    pub rest: Box<[u8]>,
    /// As it was judged last, by whichever session.
    pub statement: RefCell<Statement>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Texts {
    known: RefCell<HashMap<ContentId, Weak<Text>>>,
    sweep_at: Cell<usize>,
}

impl Default for Texts {
    fn default() -> Self {
        Texts {
            known: RefCell::default(),
            sweep_at: Cell::new(MIN_SWEEP),
        }
    }
}

/// Equal for what servers may share: the same bytes under the same settings.
pub(super) fn content(profile: u64, rest: &[u8]) -> ContentId {
    let mut hash = Sha256::new_with_prefix(b"shared");
    hash.update(profile.to_be_bytes());
    hash.update(rest);
    id(hash)
}

/// Nobody else's: the `serial`th of `session`.
pub(super) fn unique(session: u64, serial: u32) -> ContentId {
    let mut hash = Sha256::new_with_prefix(b"unique");
    hash.update(session.to_be_bytes());
    hash.update(serial.to_be_bytes());
    id(hash)
}

fn id(hash: Sha256) -> ContentId {
    let digest = hash.finalize();
    let first = digest.first_chunk::<16>().copied();
    ContentId::from_be_bytes(first.unwrap_or_default())
}

impl Texts {
    pub(super) fn intern(&self, id: ContentId, rest: Box<[u8]>, statement: Statement) -> Rc<Text> {
        let mut known = self.known.borrow_mut();
        if let Some(text) = known.get(&id).and_then(Weak::upgrade) {
            return text;
        }
        if known.len() >= self.sweep_at.get() {
            known.retain(|_, text| text.strong_count() > 0);
            self.sweep_at.set((known.len() * 2).max(MIN_SWEEP));
        }
        let text = Rc::new(Text {
            id,
            rest,
            statement: RefCell::new(statement),
        });
        known.insert(id, Rc::downgrade(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_kept_once_and_as_long_as_someone_holds_them() {
        let texts = Texts::default();
        let intern = |rest: &[u8]| texts.intern(content(1, rest), rest.into(), Statement::TOO_LONG);
        let first = intern(b"select 1\0\0\0");
        assert!(Rc::ptr_eq(&first, &intern(b"select 1\0\0\0")));
        for n in 0..1000_u32 {
            intern(&n.to_be_bytes());
        }
        assert!(texts.known.borrow().len() <= 2 * MIN_SWEEP);
        assert!(Rc::ptr_eq(&first, &intern(b"select 1\0\0\0")));
    }

    #[test]
    fn content_is_text_types_and_settings() {
        assert_ne!(content(1, b"a\0\0\0"), content(2, b"a\0\0\0"));
        assert_ne!(content(1, b"a\0\0\0"), content(1, b"a\0\0\x01\0\0\0\x17"));
        assert_ne!(unique(1, 2), unique(2, 1));
    }
}
