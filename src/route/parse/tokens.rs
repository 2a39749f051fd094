//! Our tokens: cutting a text into statements, and the same tokens as the parser wants them.

use sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token as Parsed, Tokenizer},
};

use super::Piece;
use crate::route::{
    keyword::{Class, Keyword},
    lexer::{Lexer, Token, TokenKind},
};

/// Longest text that is read, in bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Deepest nesting of parentheses and brackets.
const MAX_NESTING: usize = 40;
/// Most operators and key words that may lie on one way down the tree.
const MAX_CHAIN: usize = 400;
/// Most JOINs: without their ON, one lies in the other.
const MAX_JOINS: usize = 64;

/// The tokens of a text, or None if it is malformed or beyond what is read.
pub(super) fn cut(text: &[u8]) -> Option<Vec<Token>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut bounds = Bounds {
        chains: [0; MAX_NESTING],
        open: [0; MAX_NESTING],
        depth: 0,
        chain: 0,
        joins: 0,
    };
    let mut tokens = Vec::with_capacity(text.len() / 4);
    for token in Lexer::new(text, true) {
        bounds.admit(token, text)?;
        tokens.push(token);
    }
    bounds.is_balanced().then_some(tokens)
}

/// How deep the tree of what was seen can be.
struct Bounds {
    /// For each open parenthesis what was seen since the last comma in it: a tree grows deeper by infix operators, too.
    chains: [u16; MAX_NESTING],
    open: [u8; MAX_NESTING],
    depth: usize,
    /// The sum of `chains`.
    chain: usize,
    joins: usize,
}

impl Bounds {
    fn admit(&mut self, token: Token, text: &[u8]) -> Option<()> {
        match token.kind {
            TokenKind::Unterminated | TokenKind::Junk | TokenKind::DotDot => return None,
            TokenKind::OpenParen => self.enter(b')')?,
            TokenKind::OpenBracket => {
                self.grow()?;
                self.enter(b']')?;
            }
            TokenKind::CloseParen => self.leave(b')')?,
            TokenKind::CloseBracket => self.leave(b']')?,
            TokenKind::Comma | TokenKind::Semicolon => self.restart(),
            TokenKind::Op | TokenKind::Typecast => self.grow()?,
            TokenKind::Word => self.word(token.text(text))?,
            _ => {}
        }
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let Some(keyword) = Keyword::of(word) else {
            return Some(());
        };
        // A function's body in SQL has semicolons of its own.
        if keyword == Keyword::Atomic {
            return None;
        }
        if keyword == Keyword::Join {
            self.joins += 1;
        }
        let is_name = matches!(
            keyword.class(u8::MAX),
            Some(Class::Unreserved | Class::ColName)
        );
        if !is_name || matches!(keyword, Keyword::At | Keyword::Overlaps | Keyword::Between) {
            self.grow()?;
        }
        (self.joins <= MAX_JOINS).then_some(())
    }

    fn grow(&mut self) -> Option<()> {
        *self.chains.get_mut(self.depth)? += 1;
        self.chain += 1;
        (self.chain <= MAX_CHAIN).then_some(())
    }

    fn restart(&mut self) {
        self.chain -= usize::from(self.chains[self.depth]);
        self.chains[self.depth] = 0;
    }

    fn enter(&mut self, close: u8) -> Option<()> {
        self.open[self.depth] = close;
        self.depth += 1;
        (self.depth < MAX_NESTING).then_some(())
    }

    fn leave(&mut self, close: u8) -> Option<()> {
        self.restart();
        self.depth = self.depth.checked_sub(1)?;
        (self.open[self.depth] == close).then_some(())
    }

    fn is_balanced(&self) -> bool {
        self.depth == 0
    }
}

/// The tokens between the semicolons that stand in no parentheses; nothing for what is empty.
pub(super) fn statements(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0usize;
    tokens
        .split(move |token| {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == TokenKind::Semicolon
        })
        .filter(|statement| !statement.is_empty())
}

impl<'t> Piece<'t> {
    pub fn kind(self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    pub fn text_of(self, at: usize) -> &'t [u8] {
        let token = self.tokens.get(at);
        token.map_or(&[], |token| token.text(self.text))
    }

    /// The key word at this place, if it stands there as a plain word.
    pub fn keyword(self, at: usize) -> Option<Keyword> {
        match self.kind(at)? {
            TokenKind::Word => Keyword::of(self.text_of(at)),
            _ => None,
        }
    }

    pub fn from(self, at: usize) -> Piece<'t> {
        Piece {
            text: self.text,
            tokens: self.tokens.get(at..).unwrap_or_default(),
        }
    }

    /// The pieces inside and behind the parentheses that open at `at`.
    pub fn parenthesised(self, at: usize) -> Option<(Piece<'t>, Piece<'t>)> {
        let mut depth = 0usize;
        let rest = self.tokens.get(at..)?;
        let end = rest.iter().position(|token| {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        let inside = Piece {
            text: self.text,
            tokens: rest.get(1..end)?,
        };
        Some((inside, self.from(at + end + 1)))
    }

    /// The same tokens for the parser. What it lacks words for is said in others of the same meaning.
    pub fn parsed(self) -> Option<Vec<Parsed>> {
        let mut parsed = Vec::with_capacity(self.tokens.len() + 4);
        let mut at = 0;
        while at < self.tokens.len() {
            at += match self.reworded(at, &mut parsed) {
                0 => {
                    parsed.push(self.token(at)?);
                    1
                }
                taken => taken,
            };
        }
        Some(parsed)
    }

    /// Says what begins at `at` otherwise, and how many tokens that was.
    fn reworded(self, at: usize, parsed: &mut Vec<Parsed>) -> usize {
        let Some(keyword) = self.keyword(at) else {
            return 0;
        };
        let before = at.checked_sub(1).and_then(|at| self.keyword(at));
        let is_label = at > 0 && self.kind(at - 1) == Some(TokenKind::Dot);
        if is_label || before == Some(Keyword::As) {
            return 0;
        }
        match keyword {
            // TABLE t is SELECT * FROM t; after INTO it is a noise word.
            Keyword::Table if !before.is_some_and(is_target) => {
                let words = ["SELECT", "*", "FROM"].map(|word| match word {
                    "*" => Parsed::Mul,
                    word => Parsed::make_word(word, None),
                });
                parsed.extend(words);
                1
            }
            // Whether descendants are read too: they are the table's own.
            Keyword::Only if !matches!(before, Some(Keyword::Row | Keyword::Rows)) => {
                usize::from(self.kind(at + 1) != Some(TokenKind::OpenParen))
            }
            // How an array is handed over.
            Keyword::Variadic => 1,
            // FOR NO KEY UPDATE and FOR KEY SHARE: one lock is as good as another here.
            Keyword::No if before == Some(Keyword::For) => {
                2 * usize::from(
                    self.keyword(at + 1) == Some(Keyword::Key)
                        && self.keyword(at + 2) == Some(Keyword::Update),
                )
            }
            Keyword::Key if before == Some(Keyword::For) => {
                usize::from(self.keyword(at + 1) == Some(Keyword::Share))
            }
            _ => 0,
        }
    }

    fn token(self, at: usize) -> Option<Parsed> {
        let text = str::from_utf8(self.text_of(at)).ok()?;
        Some(match self.kind(at)? {
            TokenKind::Word => Parsed::make_word(text, None),
            TokenKind::QuotedIdent => {
                let inside = text.strip_prefix('"')?.strip_suffix('"')?;
                Parsed::make_word(&inside.replace("\"\"", "\""), Some('"'))
            }
            // N'…' is a cast, too.
            TokenKind::Str if !text.starts_with('\'') => return None,
            // What a literal says decides nothing here.
            TokenKind::Str
            | TokenKind::UnicodeStr
            | TokenKind::BitStr
            | TokenKind::EscapeStr
            | TokenKind::DollarStr => Parsed::SingleQuotedString(String::new()),
            TokenKind::Number => Parsed::Number(text.to_owned(), false),
            TokenKind::Param => Parsed::Placeholder(text.to_owned()),
            TokenKind::Op => operator(text)?,
            TokenKind::Typecast => Parsed::DoubleColon,
            TokenKind::ColonEquals => Parsed::Assignment,
            TokenKind::Comma => Parsed::Comma,
            TokenKind::OpenParen => Parsed::LParen,
            TokenKind::CloseParen => Parsed::RParen,
            TokenKind::OpenBracket => Parsed::LBracket,
            TokenKind::CloseBracket => Parsed::RBracket,
            TokenKind::Dot => Parsed::Period,
            TokenKind::Colon => Parsed::Colon,
            // With an escape it could spell any name.
            TokenKind::UnicodeIdent
            | TokenKind::Semicolon
            | TokenKind::DotDot
            | TokenKind::Unterminated
            | TokenKind::Junk => return None,
        })
    }
}

/// What may stand between SELECT … INTO and the noise word TABLE.
fn is_target(before: Keyword) -> bool {
    matches!(
        before,
        Keyword::Into
            | Keyword::Temp
            | Keyword::Temporary
            | Keyword::Unlogged
            | Keyword::Local
            | Keyword::Global
    )
}

/// One operator, as the parser's own lexer calls it.
fn operator(text: &str) -> Option<Parsed> {
    let mut found = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize()
        .ok()?;
    match (found.pop()?, found.pop()) {
        (Parsed::Whitespace(_) | Parsed::Placeholder(_), _) => None,
        (one, None) => Some(one),
        _ => Some(Parsed::CustomBinaryOperator(text.to_owned())),
    }
}
