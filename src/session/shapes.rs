//! What a worker knows of statements that it has met before: the digest of each shape of text, bounded.
//!
//! A digest hangs on the text's shape ([`crate::route::fingerprint`]: the plain one, if it has one) and on what the catalogue showed. Both are the key, so what was learned in
//! another state is never met again, and goes when its turn comes: of two generations the older is thrown away when
//! the younger is full, and what is met in it is young again.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    mem,
};

use super::{catalogue::Judged, statement::Statement};
use crate::{
    catalogues::State,
    route::{
        Context,
        effects::Names,
        fingerprint::{self, Fingerprint, Fingerprints},
    },
};

/// Shapes in one generation.
const MAX_SHAPES: usize = 2048;

/// See the module's header.
pub struct Shapes {
    fingerprints: Fingerprints,
    known: RefCell<Generations<Key, BuildHasherDefault<Half>>>,
    /// Those of plain texts, by all that the digest hangs on: most of what applications send.
    plain: RefCell<Generations<Box<[u8]>, foldhash::fast::RandomState>>,
    /// Where such a key is built.
    key: RefCell<Vec<u8>>,
}

struct Generations<K, S> {
    young: HashMap<K, Statement, S>,
    old: HashMap<K, Statement, S>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    fingerprint: Fingerprint,
    /// None: nothing was known of the database.
    state: Option<State>,
    purpose: Purpose,
}

/// What a digest is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What the text leaves behind.
    Pooling,
    /// Where it may run, too.
    Routing,
}

impl Purpose {
    pub fn read(self, text: &[u8], context: &Context, names: Names, judged: Judged) -> Statement {
        match self {
            Purpose::Pooling => Statement::of(text, context, names, judged),
            Purpose::Routing => Statement::classed(text, context, names, judged),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.fingerprint.half());
    }
}

/// A fingerprint is hashed enough.
#[derive(Default)]
struct Half(u64);

impl Hasher for Half {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for Shapes {
    /// With a key of its own.
    fn default() -> Self {
        let mut key = [0; 16];
        // It does not fail on Linux: a process that cannot draw random bytes could log nobody in either.
        getrandom::fill(&mut key).expect("the kernel has random numbers");
        Shapes {
            fingerprints: Fingerprints::new(&key),
            known: RefCell::default(),
            plain: RefCell::default(),
            key: RefCell::default(),
        }
    }
}

impl Shapes {
    /// The digest of a text, read by `read` if its shape was not met in this state.
    #[inline]
    pub(super) fn digest(
        &self,
        text: &[u8],
        context: &Context,
        state: Option<State>,
        purpose: Purpose,
        read: impl FnOnce() -> Statement,
    ) -> Statement {
        let mut built = self.key.borrow_mut();
        if put_key(&mut built, text, context, state, purpose).is_some() {
            if let Some(known) = self.plain.borrow().young.get(&built[..]) {
                return known.clone();
            }
            let key: Box<[u8]> = built[..].into();
            drop(built);
            let may_be_known = || self.fingerprints.of(text, context).is_some();
            return meet(&self.plain, key, may_be_known, read);
        }
        drop(built);
        let Some(fingerprint) = self.fingerprints.of(text, context) else {
            return read();
        };
        let key = Key {
            fingerprint,
            state,
            purpose,
        };
        if let Some(known) = self.known.borrow().young.get(&key) {
            return known.clone();
        }
        meet(&self.known, key, || true, read)
    }

    /// Whether a text leaves nothing behind, by built-in names only. For benches.
    pub fn is_free(&self, text: &[u8], context: &Context) -> bool {
        let read = || Statement::of(text, context, Names::BuiltIn, Judged::NOT);
        self.digest(text, context, None, Purpose::Pooling, read)
            .pin
            .is_none()
    }
}

/// The key of a plain text: its shape behind all else that counts. None if it is not plain.
#[inline]
fn put_key(
    key: &mut Vec<u8>,
    text: &[u8],
    context: &Context,
    state: Option<State>,
    purpose: Purpose,
) -> Option<()> {
    key.clear();
    match state {
        Some(state) => key.extend_from_slice(&state.to_bytes()),
        // No state ends so.
        None => key.extend_from_slice(&[u8::MAX; 17]),
    }
    key.push(purpose as u8);
    fingerprint::put_plain(text, context, key)
}

/// The digest of a text that is not in the young generation.
fn meet<K: Hash + Eq, S: BuildHasher>(
    known: &RefCell<Generations<K, S>>,
    key: K,
    may_be_known: impl FnOnce() -> bool,
    read: impl FnOnce() -> Statement,
) -> Statement {
    let old = known.borrow_mut().old.remove(&key);
    let (statement, stays) = match old {
        Some(old) => (old, true),
        None => (read(), may_be_known()),
    };
    // What names settings does so by its own literals.
    if stays && statement.changes.is_none() {
        known.borrow_mut().add(key, statement.clone());
    }
    statement
}

impl<K: Hash + Eq, S: BuildHasher> Generations<K, S> {
    fn add(&mut self, key: K, statement: Statement) {
        if self.young.len() >= MAX_SHAPES {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, statement);
    }
}

impl<K, S: Default> Default for Generations<K, S> {
    fn default() -> Self {
        Generations {
            young: HashMap::default(),
            old: HashMap::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn of(text: &[u8]) -> Statement {
        Purpose::Routing.read(text, &Context::default(), Names::BuiltIn, Judged::NOT)
    }

    /// Whether `text` had to be read.
    fn is_read(shapes: &Shapes, text: &str, state: Option<State>) -> bool {
        let read = Cell::new(false);
        let digest = shapes.digest(
            text.as_bytes(),
            &Context::default(),
            state,
            Purpose::Routing,
            || {
                read.set(true);
                of(text.as_bytes())
            },
        );
        assert_eq!(digest, of(text.as_bytes()), "{text}");
        read.get()
    }

    #[test]
    fn a_shape_is_read_once_in_each_state_of_the_catalogue() {
        let shapes = Shapes::default();
        assert!(is_read(&shapes, "select a from t where b = 1", None));
        assert!(!is_read(&shapes, "select a from t where b = 2", None));
        // With a comment it is not plain.
        assert!(is_read(&shapes, "select a from t where b = 2 -- x", None));
        assert!(!is_read(&shapes, "select a from t where b = 3 -- y", None));
        let state = |epoch| Some(State::new(epoch, 1, true));
        assert!(is_read(&shapes, "select a from t where b = 3", state(1)));
        assert!(is_read(&shapes, "select a from t where b = 3", state(2)));
        assert!(!is_read(&shapes, "select a from t where b = 4", state(1)));
    }

    #[test]
    fn what_changes_settings_is_read_every_time() {
        let shapes = Shapes::default();
        for _ in 0..2 {
            assert!(is_read(
                &shapes,
                "select set_config('a.b', '1', false)",
                None
            ));
            assert!(is_read(&shapes, "set a.b = 1", None));
        }
    }

    #[test]
    fn shapes_that_are_met_stay_and_others_go() {
        let shapes = Shapes::default();
        assert!(is_read(&shapes, "select kept", None));
        for n in 0..5 * MAX_SHAPES {
            assert!(is_read(&shapes, &format!("select other{n}"), None));
            if n % 100 == 0 {
                assert!(!is_read(&shapes, "select kept", None));
            }
        }
        let known = shapes.plain.borrow();
        assert!(known.young.len() <= MAX_SHAPES && known.old.len() <= MAX_SHAPES);
        drop(known);
        assert!(is_read(&shapes, "select other0", None));
    }

    /// Pieces of texts, with literals that say something to whoever reads them.
    const PIECES: &[&str] = &[
        "1",
        "2.5",
        "'a'",
        "'set_config'",
        "'it''s'",
        "'now'",
        "e'x'",
        "n'x'",
        "b'1'",
        "$1",
        "true",
        "t",
        "pg_settings",
        "set",
        "update",
        "insert into",
        "select",
        "with x as (",
        ")",
        "(",
        ",",
        ";",
        "from",
        "f",
        "now()",
        "nextval('s')",
        "currval('s')",
        "set_config('a', 'b', true)",
        "set_config('a', 'b', false)",
        "current_setting('a.b')",
        "pg_temp.t",
        "into temp",
        "for update",
        "case when",
        "end",
        "as",
        "\"q\"",
        "commit",
        "begin",
        "rollback",
        "delete from",
        "values",
        "table",
        "'pg_prepared_statements'",
        "::regclass",
        "/* c */",
        "-- c\n",
        "=",
        "prepare",
        "advisory_lock(1)",
        "pg_advisory_lock(2)",
        "to x",
        "prepared 'y'",
        "and chain",
        "language",
        "'c'",
        ".",
        "x",
    ];

    proptest::proptest! {
        /// One fingerprint, one digest: every text is met by a cache that knows another with other literals.
        #[test]
        fn texts_of_one_shape_have_one_digest(
            picks in proptest::collection::vec((0..PIECES.len(), 0..6_usize), 0..14),
            verb in proptest::sample::select(vec!["select ", "begin; insert into ", "with ", "rollback ", "commit;"]),
        ) {
            const OTHERS: [&str; 6] = ["'b'", "'SET_CONFIG'", "'c'", "'true'", "3", "'pg_prepared_statement'"];
            let build = |swapped: bool| {
                let mut text = verb.to_owned();
                for (piece, other) in &picks {
                    let piece = PIECES[*piece];
                    let is_string = piece.ends_with('\'');
                    text.push_str(if swapped && is_string { OTHERS[*other] } else { piece });
                    text.push(' ');
                }
                text
            };
            let shapes = Shapes::default();
            is_read(&shapes, &build(false), None);
            is_read(&shapes, &build(true), None);
        }
    }
}
