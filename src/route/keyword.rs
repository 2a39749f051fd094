//! PostgreSQL's key words: what a word means to the grammar, whatever its case.
//!
//! A word is looked up in a hash table that the compiler builds; a miss costs one comparison or none.

use super::keyword_table::with_keywords;

/// How far a word may be used as a name, as in `pg_get_keywords()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Never a name, but after a dot or AS.
    Reserved,
    /// Not a function or type: what follows in parentheses is the grammar's own.
    ColName,
    /// A function or type, but no column or table.
    TypeFunc,
    /// Any name.
    Unreserved,
}

macro_rules! define {
    ($($variant:ident $word:literal $class:ident $since:literal;)*) => {
        /// A key word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Keyword { $($variant),* }

        static WORDS: &[Entry] = &[
            $(Entry { keyword: Keyword::$variant, word: $word, class: Class::$class, since: $since }),*
        ];
    };
}
with_keywords!(define);

struct Entry {
    keyword: Keyword,
    word: &'static str,
    class: Class,
    since: u8,
}

/// More than twice as many slots as words; a power of two.
const SLOTS: usize = 2048;
const EMPTY: u16 = u16::MAX;
static SLOT: [u16; SLOTS] = slots();

const fn slots() -> [u16; SLOTS] {
    let mut table = [EMPTY; SLOTS];
    let mut index = 0;
    while index < WORDS.len() {
        let mut slot = hash(WORDS[index].word.as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = index as u16;
        index += 1;
    }
    table
}

/// Of a word that is not empty, whatever the case of its letters.
const fn hash(word: &[u8]) -> usize {
    let len = word.len();
    let mut hash = len as u32;
    let picks = [word[0], word[len / 2], word[len - 1], word[len / 3]];
    let mut pick = 0;
    while pick < picks.len() {
        hash = (hash ^ (picks[pick] | 0x20) as u32).wrapping_mul(0x9E37_79B1);
        pick += 1;
    }
    (hash >> 16) as usize % SLOTS
}

impl Keyword {
    /// The key word that `word` is, in any version.
    #[inline]
    pub fn of(word: &[u8]) -> Option<Keyword> {
        if word.len() < 2 {
            return None;
        }
        let mut slot = hash(word);
        while SLOT[slot] != EMPTY {
            let entry = &WORDS[SLOT[slot] as usize];
            if entry.word.as_bytes().eq_ignore_ascii_case(word) {
                return Some(entry.keyword);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// Its class in a server of this major version; None where it is no key word yet.
    pub fn class(self, server_major: u8) -> Option<Class> {
        let entry = &WORDS[self as usize];
        (entry.since <= server_major).then_some(entry.class)
    }

    /// In lower case.
    pub fn as_str(self) -> &'static str {
        WORDS[self as usize].word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_case_and_stands_for_itself() {
        for (index, entry) in WORDS.iter().enumerate() {
            assert_eq!(entry.keyword as usize, index);
            assert_eq!(Keyword::of(entry.word.as_bytes()), Some(entry.keyword));
            let upper = entry.word.to_ascii_uppercase();
            assert_eq!(Keyword::of(upper.as_bytes()), Some(entry.keyword));
            let longer = format!("{}x", entry.word);
            assert!(Keyword::of(longer.as_bytes()).is_none_or(|k| k.as_str() == longer));
        }
        for word in ["", "a", "selec", "selects", "set_config", "\u{17f}elect"] {
            assert_eq!(Keyword::of(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn a_word_that_came_later_has_no_class_in_an_older_server() {
        assert_eq!(Keyword::JsonTable.class(16), None);
        assert_eq!(Keyword::JsonTable.class(17), Some(Class::ColName));
        assert_eq!(Keyword::Select.class(13), Some(Class::Reserved));
    }

    #[test]
    fn no_lookup_walks_far() {
        let full = |slot: usize| SLOT[slot % SLOTS] != EMPTY;
        let longest = (0..SLOTS)
            .map(|start| (start..).take_while(|&s| full(s)).count())
            .max();
        assert!(longest.unwrap_or(0) < 12, "{longest:?}");
    }
}
