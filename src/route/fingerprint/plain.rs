//! The shape of a plain text, taken without the lexer: one look at each byte.
//!
//! Most texts that applications send are words, quoted names, numbers, strings and operators with nothing between them that
//! needs a grammar: no comment, no dollar quote, no string with a prefix. What stands for a literal is one byte; all
//! else is taken as it is, so two texts of one shape are read alike by the lexer, token by token. Whether they may
//! be known by their shape at all is not asked here: it is true of both or of neither.

/// Longer texts are for the lexer.
const MAX: usize = 1024;

/// No byte of a plain text.
const NUMBER: u8 = 1;
const STRING: u8 = 2;

/// What a byte begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing that is plain.
    Other,
    /// White space and operators that begin no comment.
    Itself,
    Word,
    Digit,
    Dollar,
    Quote,
    QuotedName,
    /// A comment, if there are two.
    Dash,
    /// A comment, if a star follows.
    Slash,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Itself,
            b'0'..=b'9' => Class::Digit,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
            b'$' => Class::Dollar,
            b'\'' => Class::Quote,
            b'"' => Class::QuotedName,
            b'-' => Class::Dash,
            b'/' => Class::Slash,
            b'\\' => Class::Other,
            b'!'..=b'~' => Class::Itself,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// Whether a byte goes on a word.
static IN_WORD: [bool; 256] = {
    let mut classes = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = matches!(CLASSES[byte], Class::Word | Class::Digit | Class::Dollar);
        byte += 1;
    }
    classes
};

/// Whether a string with this byte says nothing, whatever it is joined with: the names that are looked for in strings have an
/// underscore, and what tells the time ([`super::time`]) a `w` or a `y`.
static IS_MUTE: [bool; 256] = {
    let mut classes = [true; 256];
    let loud = *b"'_wWyY";
    let mut at = 0;
    while at < loud.len() {
        classes[loud[at] as usize] = false;
        at += 1;
    }
    classes
};

/// Puts the shape of `text` behind `shape`: what it is but for its literals. None if it is not plain; then what was
/// put says nothing.
#[inline]
pub(super) fn put(text: &[u8], shape: &mut Vec<u8>) -> Option<()> {
    if text.len() > MAX {
        return None;
    }
    // From `start` on it is not put yet.
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let (end, stands_for) = match CLASSES[usize::from(text[at])] {
            Class::Other => return None,
            Class::Itself => (at + 1, None),
            Class::Word => (word(text, at)?, None),
            Class::Dollar => (parameter(text, at)?, None),
            Class::QuotedName => (quoted_name(text, at)?, None),
            Class::Dash if text.get(at + 1) == Some(&b'-') => return None,
            Class::Slash if text.get(at + 1) == Some(&b'*') => return None,
            Class::Dash | Class::Slash => (at + 1, None),
            Class::Digit => (number(text, at)?, Some(NUMBER)),
            Class::Quote => (string(text, at)?, Some(STRING)),
        };
        if let Some(byte) = stands_for {
            shape.extend_from_slice(&text[start..at]);
            shape.push(byte);
            start = end;
        }
        at = end;
    }
    shape.extend_from_slice(&text[start..]);
    Some(())
}

/// Whether the byte at `at` goes on a word.
#[inline]
fn is_in_word(text: &[u8], at: usize) -> bool {
    at < text.len() && IN_WORD[usize::from(text[at])]
}

#[inline]
fn is_digit(text: &[u8], at: usize) -> bool {
    at < text.len() && text[at].is_ascii_digit()
}

/// Where the word at `at` ends. A quote behind it is a string of another kind.
#[inline]
fn word(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while is_in_word(text, end) {
        end += 1;
    }
    let is_prefix = matches!(text.get(end), Some(b'\'' | b'"'));
    (!is_prefix).then_some(end)
}

/// `$1`.
#[inline]
fn parameter(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while is_digit(text, end) {
        end += 1;
    }
    (end > at + 1 && !is_in_word(text, end)).then_some(end)
}

/// Digits, and digits behind a point. A point before or a second one makes it something else.
#[inline]
fn number(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while is_digit(text, end) {
        end += 1;
    }
    if text.get(end) == Some(&b'.') {
        end += 1;
        while is_digit(text, end) {
            end += 1;
        }
    }
    let has_point_before = at > 0 && text[at - 1] == b'.';
    let goes_on = is_in_word(text, end) || text.get(end) == Some(&b'.');
    (!has_point_before && !goes_on).then_some(end)
}

/// A string, or a half of one with a quote inside. `U&'…'` is for the lexer.
#[inline]
fn string(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while IS_MUTE[usize::from(*text.get(end)?)] {
        end += 1;
    }
    (text[end] == b'\'' && !is_behind_ampersand(text, at)).then_some(end + 1)
}

/// A quoted name, or a half of one with a quote inside.
#[inline]
fn quoted_name(text: &[u8], at: usize) -> Option<usize> {
    let inside = &text[at + 1..];
    let len = inside.iter().position(|byte| *byte == b'"')?;
    let is_plain = inside[..len].iter().all(|byte| *byte >= b' ');
    (is_plain && !is_behind_ampersand(text, at)).then_some(at + len + 2)
}

fn is_behind_ampersand(text: &[u8], at: usize) -> bool {
    at > 0 && text[at - 1] == b'&'
}
