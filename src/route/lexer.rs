//! PostgreSQL's lexer: one pass over the bytes of a text, no allocation, no recursion, linear time.
//!
//! Follows the flex rules of the server's `parser/scan.l`, not a grammar: a text that the server would refuse gives
//! tokens too, and what cannot be a token becomes [`TokenKind::Junk`] or, to the end of the text,
//! [`TokenKind::Unterminated`]. Where versions differ (digits with `_`, `0x1F`, junk after a number) the tokens are
//! those of the newest; on an older server the same bytes are an error or the same bytes in two tokens.
//!
//! Invariants: tokens come in order, do not overlap, are never empty, and between them lies nothing but white space
//! and comments. Bytes at or above 0x80 belong to identifiers, so the text must be in an ASCII-safe encoding.

use memchr::{memchr, memchr2};

/// What a token is. Its text is `&text[token.start..token.end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A word: key word or identifier, as written.
    Word,
    /// `"…"`, quotes included.
    QuotedIdent,
    /// `U&"…"`.
    UnicodeIdent,
    /// `'…'` or `N'…'`; continued over lines where SQL says so, as are all strings but the dollar-quoted.
    Str,
    /// `E'…'`.
    EscapeStr,
    /// `U&'…'`.
    UnicodeStr,
    /// `B'…'` or `X'…'`.
    BitStr,
    /// `$tag$…$tag$`.
    DollarStr,
    Number,
    /// `$1`.
    Param,
    /// One operator, `=>` included.
    Op,
    /// `::`
    Typecast,
    /// `:=`
    ColonEquals,
    /// `..`
    DotDot,
    Comma,
    OpenParen,
    CloseParen,
    OpenBracket,
    CloseBracket,
    Dot,
    Semicolon,
    Colon,
    /// A string, identifier or comment without an end: the server refuses the whole text.
    Unterminated,
    /// A byte that begins no token.
    Junk,
}

/// A token and where it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// The token's bytes in the text that it was cut from.
    pub fn text(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Cuts a text into tokens. Copying it is looking ahead.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'t> {
    text: &'t [u8],
    pos: usize,
    /// Up to here the bytes are `+` and `-` which PostgreSQL's operator rules leave to stand alone.
    signs_until: usize,
    standard_conforming_strings: bool,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t [u8], standard_conforming_strings: bool) -> Self {
        Lexer {
            text,
            pos: 0,
            signs_until: 0,
            standard_conforming_strings,
        }
    }

    /// The next token, or None at the end of the text.
    #[inline]
    pub fn next_token(&mut self) -> Option<Token> {
        let start = match skip_trivia(self.text, self.pos) {
            Ok(start) => start,
            Err(start) => return Some(self.cut(TokenKind::Unterminated, start, self.text.len())),
        };
        let first = *self.text.get(start)?;
        let (kind, end) = match CLASS[first as usize] {
            Class::Word => self.word(start, first),
            Class::Digit => (TokenKind::Number, self.number(start)),
            Class::Op => (TokenKind::Op, self.operator(start)),
            Class::Self_(kind) => (kind, start + 1),
            Class::Dot => self.dot(start),
            Class::Colon => self.colon(start),
            Class::Quote => self.string(start),
            Class::DoubleQuote => self.quoted(TokenKind::QuotedIdent, start + 1),
            Class::Dollar => self.dollar(start),
            Class::Junk => (TokenKind::Junk, start + 1),
        };
        Some(self.cut(kind, start, end))
    }

    fn cut(&mut self, kind: TokenKind, start: usize, end: usize) -> Token {
        self.pos = end;
        Token { kind, start, end }
    }

    #[inline]
    fn at(&self, pos: usize) -> u8 {
        // NUL stands for "no byte": no rule of the lexer begins or goes on with it.
        self.text.get(pos).copied().unwrap_or(0)
    }

    /// A word, or the literal whose prefix it looks like.
    #[inline]
    fn word(&self, start: usize, first: u8) -> (TokenKind, usize) {
        match self.at(start + 1) {
            b'\'' => match first | 0x20 {
                b'e' => return self.escaped(TokenKind::EscapeStr, start + 2),
                b'b' | b'x' => return self.bits(start + 2),
                b'n' => return self.string(start + 1),
                _ => {}
            },
            b'&' if first | 0x20 == b'u' => match self.at(start + 2) {
                b'\'' => return self.plain(TokenKind::UnicodeStr, start + 3),
                b'"' => return self.quoted(TokenKind::UnicodeIdent, start + 3),
                _ => {}
            },
            _ => {}
        }
        (TokenKind::Word, self.skip(start + 1, is_word_byte))
    }

    #[inline]
    fn skip(&self, mut pos: usize, within: impl Fn(u8) -> bool) -> usize {
        while let Some(&byte) = self.text.get(pos) {
            if !within(byte) {
                break;
            }
            pos += 1;
        }
        pos
    }

    fn number(&self, start: usize) -> usize {
        if let Some(end) = self.radix_number(start) {
            return end;
        }
        let mut end = self.digits(start);
        if self.at(end) == b'.' && self.at(end + 1) != b'.' {
            end = self.digits(end + 1);
        }
        self.exponent(end)
    }

    /// `0x1F`, `0o17`, `0b1`.
    fn radix_number(&self, start: usize) -> Option<usize> {
        let within: fn(u8) -> bool = match (self.at(start), self.at(start + 1) | 0x20) {
            (b'0', b'x') => |b| b.is_ascii_hexdigit(),
            (b'0', b'o') => |b| matches!(b, b'0'..=b'7'),
            (b'0', b'b') => |b| matches!(b, b'0' | b'1'),
            _ => return None,
        };
        let end = self.underscored(start + 2, within);
        (end > start + 2).then_some(end)
    }

    fn digits(&self, pos: usize) -> usize {
        let digit: fn(u8) -> bool = |b| b.is_ascii_digit();
        let end = self.skip(pos, digit);
        if end > pos && self.at(end) == b'_' {
            return self.underscored(end, digit);
        }
        end
    }

    /// Any number of digits, each with at most one `_` before it.
    fn underscored(&self, mut pos: usize, within: fn(u8) -> bool) -> usize {
        loop {
            let digit = pos + usize::from(self.at(pos) == b'_');
            if !within(self.at(digit)) {
                return pos;
            }
            pos = digit + 1;
        }
    }

    fn exponent(&self, pos: usize) -> usize {
        if self.at(pos) | 0x20 != b'e' {
            return pos;
        }
        let digits = pos + 1 + usize::from(matches!(self.at(pos + 1), b'+' | b'-'));
        match self.at(digits).is_ascii_digit() {
            true => self.digits(digits),
            false => pos,
        }
    }

    /// An operator ends before a comment, and ends in `+` or `-` only if it holds a byte that no operator of standard
    /// SQL does; see "Lexical Structure" in the manual.
    fn operator(&mut self, start: usize) -> usize {
        if start < self.signs_until {
            return start + 1;
        }
        let end = self.operator_run(start);
        let run = &self.text[start..end];
        if run.iter().any(|b| b"~!@#^&|`?%".contains(b)) {
            return end;
        }
        let kept = run.iter().rposition(|b| !matches!(b, b'+' | b'-'));
        self.signs_until = end;
        start + kept.map_or(1, |last| last + 1)
    }

    fn operator_run(&self, start: usize) -> usize {
        let mut end = start + 1;
        while is_op_byte(self.at(end)) {
            if matches!(
                (self.at(end), self.at(end + 1)),
                (b'-', b'-') | (b'/', b'*')
            ) {
                break;
            }
            end += 1;
        }
        end
    }

    fn dot(&self, start: usize) -> (TokenKind, usize) {
        match self.at(start + 1) {
            b'.' => (TokenKind::DotDot, start + 2),
            b'0'..=b'9' => (TokenKind::Number, self.exponent(self.digits(start + 1))),
            _ => (TokenKind::Dot, start + 1),
        }
    }

    fn colon(&self, start: usize) -> (TokenKind, usize) {
        match self.at(start + 1) {
            b':' => (TokenKind::Typecast, start + 2),
            b'=' => (TokenKind::ColonEquals, start + 2),
            _ => (TokenKind::Colon, start + 1),
        }
    }

    /// `'…'`, the opening quote being at `quote`.
    fn string(&self, quote: usize) -> (TokenKind, usize) {
        match self.standard_conforming_strings {
            true => self.plain(TokenKind::Str, quote + 1),
            false => self.escaped(TokenKind::Str, quote + 1),
        }
    }

    /// A string in which only a doubled quote is special; `pos` is behind the opening quote.
    fn plain(&self, kind: TokenKind, mut pos: usize) -> (TokenKind, usize) {
        while let Some(quote) = self.find(pos, b'\'') {
            pos = match self.at(quote + 1) {
                b'\'' => quote + 2,
                _ => match self.continued(quote + 1) {
                    Some(more) => more,
                    None => return (kind, quote + 1),
                },
            };
        }
        (TokenKind::Unterminated, self.text.len())
    }

    /// A string in which a backslash takes the byte after it along.
    fn escaped(&self, kind: TokenKind, mut pos: usize) -> (TokenKind, usize) {
        while let Some(found) = self.rest(pos).and_then(|rest| memchr2(b'\'', b'\\', rest)) {
            let special = pos + found;
            pos = match (self.at(special), self.at(special + 1)) {
                (b'\\', _) | (_, b'\'') => special + 2,
                _ => match self.continued(special + 1) {
                    Some(more) => more,
                    None => return (kind, special + 1),
                },
            };
        }
        (TokenKind::Unterminated, self.text.len())
    }

    /// A bit string: a doubled quote ends one and begins a string of another kind.
    fn bits(&self, mut pos: usize) -> (TokenKind, usize) {
        while let Some(quote) = self.find(pos, b'\'') {
            match self.continued(quote + 1) {
                Some(more) => pos = more,
                None => return (TokenKind::BitStr, quote + 1),
            }
        }
        (TokenKind::Unterminated, self.text.len())
    }

    /// Behind the quote that goes on with a string which ended just before `pos`: a newline must lie in between.
    fn continued(&self, mut pos: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match self.at(pos) {
                b'\n' | b'\r' => newline = true,
                b' ' | b'\t' | 0x0b | 0x0c => {}
                b'-' if self.at(pos + 1) == b'-' => {
                    pos = line_end(self.text, pos + 2);
                    continue;
                }
                b'\'' if newline => return Some(pos + 1),
                _ => return None,
            }
            pos += 1;
        }
    }

    /// `"…"`; `pos` is behind the opening quote.
    fn quoted(&self, kind: TokenKind, mut pos: usize) -> (TokenKind, usize) {
        while let Some(quote) = self.find(pos, b'"') {
            if self.at(quote + 1) != b'"' {
                return (kind, quote + 1);
            }
            pos = quote + 2;
        }
        (TokenKind::Unterminated, self.text.len())
    }

    /// A parameter, or a dollar-quoted string, or a lone `$`.
    fn dollar(&self, start: usize) -> (TokenKind, usize) {
        if self.at(start + 1).is_ascii_digit() {
            return (
                TokenKind::Param,
                self.skip(start + 1, |b| b.is_ascii_digit()),
            );
        }
        let tag_end = self.skip(start + 1, |b| is_word_byte(b) && b != b'$');
        if self.at(tag_end) != b'$' {
            return (TokenKind::Junk, start + 1);
        }
        let delimiter = &self.text[start..=tag_end];
        match self.dollar_end(tag_end + 1, delimiter) {
            Some(end) => (TokenKind::DollarStr, end),
            None => (TokenKind::Unterminated, self.text.len()),
        }
    }

    /// Linear: a delimiter has a `$` at its ends only, so no byte is compared twice.
    fn dollar_end(&self, mut pos: usize, delimiter: &[u8]) -> Option<usize> {
        loop {
            let dollar = self.find(pos, b'$')?;
            if self.rest(dollar)?.starts_with(delimiter) {
                return Some(dollar + delimiter.len());
            }
            pos = dollar + 1;
        }
    }

    fn find(&self, pos: usize, byte: u8) -> Option<usize> {
        memchr(byte, self.rest(pos)?).map(|found| pos + found)
    }

    fn rest(&self, pos: usize) -> Option<&'t [u8]> {
        self.text.get(pos..)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.next_token()
    }
}

/// The first byte at or after `pos` that is neither white space nor comment. Err: where a comment begins that never ends.
#[inline]
fn skip_trivia(text: &[u8], mut pos: usize) -> Result<usize, usize> {
    while let Some(&byte) = text.get(pos) {
        match byte {
            b' ' | b'\t'..=b'\r' => pos += 1,
            b'-' if text.get(pos + 1) == Some(&b'-') => pos = line_end(text, pos + 2),
            b'/' if text.get(pos + 1) == Some(&b'*') => {
                pos = comment_end(text, pos + 2).ok_or(pos)?;
            }
            _ => break,
        }
    }
    Ok(pos)
}

/// For property tests and fuzzing.
///
/// # Panics
/// If the lexer breaks one of its promises on this text.
pub fn assert_tokens_cover(text: &[u8]) {
    for standard_conforming_strings in [true, false] {
        let mut end = 0;
        for token in Lexer::new(text, standard_conforming_strings) {
            let start = skip_trivia(text, end).unwrap_or_else(|comment| comment);
            assert_eq!(start, token.start);
            assert!(token.start < token.end && token.end <= text.len());
            end = token.end;
        }
        assert_eq!(skip_trivia(text, end), Ok(text.len()));
    }
}

/// The newline that ends a `--` comment, or the end of the text.
fn line_end(text: &[u8], pos: usize) -> usize {
    let rest = text.get(pos..).unwrap_or_default();
    memchr2(b'\n', b'\r', rest).map_or(text.len(), |found| pos + found)
}

/// Behind the `*/` that closes a comment whose `/*` ended at `pos`; comments nest.
fn comment_end(text: &[u8], mut pos: usize) -> Option<usize> {
    let mut depth = 1usize;
    loop {
        pos += memchr2(b'*', b'/', text.get(pos..)?)?;
        match (text.get(pos), text.get(pos + 1)) {
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                pos += 2;
                if depth == 0 {
                    return Some(pos);
                }
            }
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                pos += 2;
            }
            _ => pos += 1,
        }
    }
}

/// What a byte begins.
#[derive(Clone, Copy)]
enum Class {
    Word,
    Digit,
    Op,
    Self_(TokenKind),
    Dot,
    Colon,
    Quote,
    DoubleQuote,
    Dollar,
    Junk,
}

static CLASS: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Junk; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
}

const fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
        b'0'..=b'9' => Class::Digit,
        b',' => Class::Self_(TokenKind::Comma),
        b'(' => Class::Self_(TokenKind::OpenParen),
        b')' => Class::Self_(TokenKind::CloseParen),
        b'[' => Class::Self_(TokenKind::OpenBracket),
        b']' => Class::Self_(TokenKind::CloseBracket),
        b';' => Class::Self_(TokenKind::Semicolon),
        b'.' => Class::Dot,
        b':' => Class::Colon,
        b'\'' => Class::Quote,
        b'"' => Class::DoubleQuote,
        b'$' => Class::Dollar,
        _ if is_op_byte(byte) => Class::Op,
        _ => Class::Junk,
    }
}

const fn is_op_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

#[inline]
fn is_word_byte(byte: u8) -> bool {
    WORD_BYTE[byte as usize]
}

/// One look per byte: most of a text is words.
static WORD_BYTE: [bool; 256] = word_bytes();

const fn word_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | 0x80..);
        byte += 1;
    }
    table
}
