//! Texts that differ in their literals and comments only have one fingerprint, and what is known of one is true of all.
//!
//! One pass of [`super::lexer`], no allocation: what is no literal is hashed as it stands, white space included, since
//! an application writes a statement alike every time. A hit must be certain, so a text has no fingerprint if one of its
//! literals, or a comment, may decide anything: see [`Fingerprints::of`]. 128 bits under a key of this process: nobody
//! outside can make two texts meet.

use std::{fmt, hash::Hasher as _};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{
    Context, Encoding,
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
};

mod plain;

/// Longer texts are mostly bulk loads, which come once.
const MAX_TEXT: usize = 16 * 1024;

/// What stands in the place of a literal. Outside quotes these bytes are in no text that has a fingerprint.
const NUMBER: u8 = 1;
const STRING: u8 = 2;
const ESCAPE_STRING: u8 = 3;
const BIT_STRING: u8 = 4;
/// `N'…'` is a cast, too.
const NATIONAL_STRING: u8 = 5;
/// Added to a string's that tells the time.
const TIME: u8 = 16;

/// Functions whose meaning hangs on a literal.
const READS_LITERAL: [&[u8]; 2] = [b"set_config", b"current_setting"];

/// Names that count wherever they stand, in literals and comments too: of what a text is looked through for as bytes.
const READ_AS_BYTES: [&[u8]; 2] = [b"set_config", b"pg_prepared_statement"];

/// A hint stands in a comment.
const HINT: &[u8] = b"pgsluice";

/// See the module's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Half of it, which is as random.
    pub fn half(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The number that is displayed.
impl From<u128> for Fingerprint {
    fn from(number: u128) -> Self {
        Fingerprint(number)
    }
}

/// The fingerprint that people see and write into configurations: the same in every process, for every version of
/// PostgreSQL. Of texts that have none, None.
pub fn lasting(text: &[u8], context: &Context) -> Option<Fingerprint> {
    let context = Context {
        server_major: 0,
        ..*context
    };
    Fingerprints::new(&[0; 16]).of(text, &context)
}

/// Puts the shape of a plain text behind `shape`, in a fifth of the time that a fingerprint takes: see [`plain`]. It does not say
/// whether the text may be known by its shape: that is asked of [`Fingerprints::of`], once for all texts of this shape.
/// None if the text is not plain; then what was put says nothing.
#[inline]
pub fn put_plain(text: &[u8], context: &Context, shape: &mut Vec<u8>) -> Option<()> {
    if !is_readable(text, context) {
        return None;
    }
    shape.push(context.server_major);
    plain::put(text, shape)
}

/// Takes fingerprints under one key.
#[derive(Clone)]
pub struct Fingerprints(SipHasher13);

impl Fingerprints {
    /// `key`: random bytes, drawn once in a process.
    pub fn new(key: &[u8; 16]) -> Self {
        Fingerprints(SipHasher13::new_with_key(key))
    }

    /// None for all but SELECT, INSERT, UPDATE, DELETE, VALUES, TABLE, WITH and the plain control of transactions; for dollar
    /// quotes and escapes, calls that read a literal, comments with hints, encodings that hide quotes, long texts, and what
    /// the server would not read. A literal with `now`, `today` and their like gives another fingerprint than one without.
    pub fn of(&self, text: &[u8], context: &Context) -> Option<Fingerprint> {
        if !is_readable(text, context) {
            return None;
        }
        let mut pass = Pass {
            text,
            hasher: self.0,
            unhashed: 0,
            end: 0,
        };
        pass.hasher.write_u8(context.server_major);
        let mut starts = true;
        for token in Lexer::new(text, true) {
            pass.gap(token.start)?;
            if starts && token.kind != TokenKind::Semicolon {
                only_if(is_verb(token, text))?;
            }
            starts = token.kind == TokenKind::Semicolon;
            pass.token(token)?;
        }
        pass.finish()
    }
}

#[inline]
fn is_readable(text: &[u8], context: &Context) -> bool {
    context.standard_conforming_strings
        && text.len() <= MAX_TEXT
        && (context.encoding == Encoding::AsciiSafe || text.is_ascii())
}

/// One look at a text.
struct Pass<'t> {
    text: &'t [u8],
    hasher: SipHasher13,
    /// From here to `end` bytes are to be hashed.
    unhashed: usize,
    /// Of the token before.
    end: usize,
}

impl Pass<'_> {
    /// What lies before a token that starts at `start`: white space stays, a comment is as good as a space, and what comes
    /// before the first token is nothing.
    #[inline]
    fn gap(&mut self, start: usize) -> Option<()> {
        let has_comment = self.has_comment(start)?;
        if has_comment || self.end == 0 {
            self.flush();
            if self.end > 0 {
                self.hasher.write_u8(b' ');
            }
            self.unhashed = start;
        }
        Some(())
    }

    /// Whether a comment lies between the last token and `start`; None if it may decide something.
    #[inline]
    fn has_comment(&self, start: usize) -> Option<bool> {
        let gap = self.text.get(self.end..start)?;
        if gap.len() < 2 || !gap.iter().any(|b| matches!(b, b'-' | b'/')) {
            return Some(false);
        }
        let mut parts = gap.windows(HINT.len());
        let hints = parts.any(|part| part.eq_ignore_ascii_case(HINT));
        (!hints && !is_read_as_bytes(gap)).then_some(true)
    }

    fn flush(&mut self) {
        let run = self.text.get(self.unhashed..self.end).unwrap_or_default();
        self.hasher.write(run);
    }

    #[inline]
    fn token(&mut self, token: Token) -> Option<()> {
        let text = token.text(self.text);
        match token.kind {
            TokenKind::Word => only_if(!reads_literal(text))?,
            TokenKind::QuotedIdent => {
                let inside = text.get(1..text.len() - 1).unwrap_or_default();
                only_if(!reads_literal(inside))?;
            }
            TokenKind::Number => self.literal(token, NUMBER),
            TokenKind::BitStr => self.literal(token, BIT_STRING),
            TokenKind::Str => {
                only_if(!is_read_as_bytes(text))?;
                let kind = match text.first() {
                    Some(b'\'') => STRING,
                    _ => NATIONAL_STRING,
                };
                self.literal(token, kind + time(text));
            }
            TokenKind::EscapeStr => {
                only_if(!text.contains(&b'\\') && !is_read_as_bytes(text))?;
                self.literal(token, ESCAPE_STRING + time(text));
            }
            TokenKind::UnicodeIdent
            | TokenKind::UnicodeStr
            | TokenKind::DollarStr
            | TokenKind::Unterminated
            | TokenKind::Junk => return None,
            _ => {}
        }
        self.end = token.end;
        Some(())
    }

    #[inline]
    fn literal(&mut self, token: Token, stands_for: u8) {
        self.end = token.start;
        self.flush();
        self.hasher.write_u8(stands_for);
        self.unhashed = token.end;
    }

    /// What lies behind the last token is nothing.
    fn finish(mut self) -> Option<Fingerprint> {
        only_if(self.end > 0)?;
        self.has_comment(self.text.len())?;
        self.flush();
        Some(Fingerprint(self.hasher.finish128().as_u128()))
    }
}

fn only_if(holds: bool) -> Option<()> {
    holds.then_some(())
}

#[inline]
fn is_verb(token: Token, text: &[u8]) -> bool {
    token.kind == TokenKind::Word
        && matches!(
            Keyword::of(token.text(text)),
            Some(
                Keyword::Select
                    | Keyword::Insert
                    | Keyword::Update
                    | Keyword::Delete
                    | Keyword::With
                    | Keyword::Values
                    | Keyword::Table
                    | Keyword::Begin
                    | Keyword::Commit
                    | Keyword::End
                    | Keyword::Rollback
            )
        )
}

#[inline]
fn reads_literal(word: &[u8]) -> bool {
    READS_LITERAL
        .iter()
        .any(|name| word.len() == name.len() && word.eq_ignore_ascii_case(name))
}

fn is_read_as_bytes(text: &[u8]) -> bool {
    let has_underscore = memchr::memchr(b'_', text).is_some();
    has_underscore
        && READ_AS_BYTES.iter().any(|name| {
            let mut parts = text.windows(name.len());
            parts.any(|part| part.eq_ignore_ascii_case(name))
        })
}

/// [`TIME`] for a string with now, tomorrow, today or yesterday in it. Each has a `w`, or a `d` before its `ay`.
fn time(string: &[u8]) -> u8 {
    let ends = |at: usize, word: &[u8]| {
        let start = (at + 1).checked_sub(word.len());
        start.is_some_and(|start| string[start..=at].eq_ignore_ascii_case(word))
    };
    let tells = string
        .iter()
        .enumerate()
        .any(|(at, byte)| match byte | 0x20 {
            b'w' => ends(at, b"now") || ends(at, b"tomorrow"),
            b'y' => ends(at, b"today") || ends(at, b"yesterday"),
            _ => false,
        });
    if tells { TIME } else { 0 }
}

/// For property tests and fuzzing: takes a text's fingerprint.
///
/// # Panics
/// If white space and a comment around the text, or a second look, give it another one.
pub fn assert_stable(text: &[u8]) {
    let fingerprints = Fingerprints::new(b"0123456789abcdef");
    let of = |text: &[u8]| fingerprints.of(text, &Context::default());
    let first = of(text);
    assert_eq!(first, of(text));
    let mut wrapped = b"/* x */ ".to_vec();
    wrapped.extend_from_slice(text);
    // A string that is not closed must not swallow the comment behind it.
    if first.is_some() {
        wrapped.extend_from_slice(b" -- y");
        if wrapped.len() <= MAX_TEXT {
            assert_eq!(first, of(&wrapped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Fingerprint> {
        Fingerprints::new(&[7; 16]).of(text.as_bytes(), &Context::default())
    }

    #[test]
    fn literals_and_comments_make_no_difference() {
        for (one, other) in [
            ("select 1", "select 2.5e3"),
            (
                "select a from t where b = 'x'",
                "select a from t where b = 'y''z'",
            ),
            ("select 1 -- a", "select 1"),
            ("/* a */select 1", "select 2"),
            ("select/* a */a from t", "select a from t"),
            ("select a /* b */ from t", "select a -- c\nfrom t"),
            ("select x'1f', 3;", "select x'', 4;  "),
        ] {
            assert!(of(one).is_some(), "{one}");
            assert_eq!(of(one), of(other), "{one} | {other}");
        }
    }

    #[test]
    fn everything_else_makes_one() {
        let texts = [
            "select 1",
            "select '1'",
            "select b'1'",
            "select e'1'",
            "select n'1'",
            "select $1",
            "select $2",
            "select a",
            "select A",
            "select 1, 1",
            "select 1;",
            "select 1; select 1",
            "select 'now'",
            "select 'x' 'y'",
            "select a b",
            "select ab",
            "select \"a\u{1}\"",
            "select \"a",
            "select a+-1",
            "select a + -1",
        ];
        let mut seen = std::collections::HashMap::new();
        for text in texts {
            if let Some(fingerprint) = of(text) {
                assert_eq!(seen.insert(fingerprint, text), None, "{text}");
            }
        }
        assert_eq!(seen.len(), texts.len() - 1);
        assert_eq!(of("select 'now'"), of("select 'x TODAY y'"));
    }

    #[test]
    fn texts_in_which_a_literal_may_decide_have_none() {
        for text in [
            "",
            "  -- x",
            "set a = 1",
            "show all",
            "explain select 1",
            "create table t (a int)",
            "do 'x'",
            "copy t to stdout",
            "prepare transaction 'x'",
            "select set_config('a', 'b', true)",
            "select \"set_config\"('a', 'b', true)",
            "select pg_catalog.CURRENT_SETTING('a')",
            "select 'pg_prepared_statements'",
            "select 1 /* set_config */",
            "select $$x$$",
            "select e'\\156ow'",
            "select u&'x'",
            "select u&\"x\"",
            "/* PgSluice: primary */ select 1",
            "select 1 -- pgsluice: replica",
            "select 1; listen x",
            "(select 1)",
            "select 'x",
            "select \u{1}",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        let long = format!("select {}", "1,".repeat(MAX_TEXT));
        assert_eq!(of(&long), None);
        let off = Context {
            standard_conforming_strings: false,
            ..Context::default()
        };
        assert_eq!(Fingerprints::new(&[7; 16]).of(b"select 1", &off), None);
    }

    #[test]
    fn keys_and_versions_tell_fingerprints_apart() {
        let newer = Context {
            server_major: 18,
            ..Context::default()
        };
        let one = Fingerprints::new(&[1; 16]);
        let first = one.of(b"select 1", &newer);
        assert_ne!(first, one.of(b"select 1", &Context::default()));
        assert_ne!(first, Fingerprints::new(&[2; 16]).of(b"select 1", &newer));
    }

    fn plain(text: &str) -> Option<Vec<u8>> {
        let mut shape = Vec::new();
        put_plain(text.as_bytes(), &Context::default(), &mut shape)?;
        Some(shape)
    }

    #[test]
    fn what_applications_send_is_plain() {
        for (one, other) in [
            (
                "SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
                "SELECT abalance FROM pgbench_accounts WHERE aid = 99821;",
            ),
            (
                "insert into \"T\" (\"a b\", c) values ('x', 1.5, -3, $1::int4)",
                "insert into \"T\" (\"a b\", c) values ('\\ü\n', 22., -0, $1::int4)",
            ),
            (
                "update t1 set a2 = a2/2+1 where b->>'x' <> ''",
                "update t1 set a2 = a2/34+0.1 where b->>'' <> 'abc'",
            ),
        ] {
            assert!(plain(one).is_some(), "{one}");
            assert_eq!(plain(one), plain(other), "{one} | {other}");
        }
    }

    #[test]
    fn what_needs_a_lexer_is_not_plain() {
        for text in [
            "select 1 -- x",
            "select 1 /* x */",
            "select $$x$$",
            "select $1a",
            "select a.5",
            "select 1.2.3",
            "select 1..2",
            "select 1e5",
            "select 0x1f",
            "select 1_000",
            "select e'x'",
            "select b'1'",
            "select u&'x'",
            "select u&\"x\"",
            "select 'now'",
            "select 'a_b'",
            "select 'x",
            "select \"x",
            "select \\",
            "select \u{1}",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
        assert_eq!(plain(&format!("select {}", "1,".repeat(512))), None);
    }

    /// What stands side by side in texts; the first of a line is swapped for others of it.
    const PIECES: [&[&str]; 14] = [
        &[
            "'a'",
            "'now'",
            "'to'",
            "'to_day'",
            "'x''y'",
            "'\\'",
            "'set_config'",
        ],
        &["1", "2.5", "33.", "1e5", "4"],
        &["'", "\""],
        &["e'a'", "e'\\'", "e'\\''"],
        &["u&'a'", "u&'\\'", "u&'now'"],
        &["e", "u&", "n", "b", "&", "a"],
        &["\"q\"", "\"set_config\""],
        &["$1", "$2", "$", "$a$"],
        &[".", ".."],
        &["--", "/*", "*/", "-", "/"],
        &["set_config(", "current_setting(", "f("],
        &["\n"],
        &[" "],
        &[";"],
    ];

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]

        /// What is equal at a glance is equal to the lexer, too.
        #[test]
        fn texts_of_one_plain_shape_have_one_fingerprint_or_none(
            verb in proptest::sample::select(vec!["select ", "select 'a' ", "insert into t values (", "set "]),
            picks in proptest::collection::vec((0..PIECES.len(), 0..7_usize, 0..7_usize), 0..8),
        ) {
            let build = |pick: fn(&(usize, usize, usize)) -> (usize, usize)| {
                let pieces = picks.iter().map(|picked| {
                    let (line, at) = pick(picked);
                    PIECES[line][at % PIECES[line].len()]
                });
                std::iter::once(verb).chain(pieces).collect::<String>()
            };
            let (one, other) = (build(|p| (p.0, p.1)), build(|p| (p.0, p.2)));
            if plain(&one).is_some() && plain(&one) == plain(&other) {
                proptest::prop_assert_eq!(of(&one), of(&other), "{} | {}", one, other);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_have_one_fingerprint_or_none(text: Vec<u8>, soup in "[-a-c'\"$/*; \n0-2\\\\eExX&uU()]{0,40}") {
            assert_stable(&text);
            assert_stable(format!("select {soup}").as_bytes());
        }
    }
}
