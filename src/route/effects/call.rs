//! Is this `name(` a call, and of what.
//!
//! A name on the list of harmless functions needs no more. For any other the question is whether the grammar could take
//! it for a function there; only where it cannot, in any version, is it something else: a table, an alias, a type, a
//! clause. Each rule below says why. Where it is open, it is a call.

use super::{
    PinReason,
    scan::{Prev, Scan, Seen, unquoted},
};
use crate::route::{
    functions::{self, Verdict},
    keyword::{Class, Keyword},
    lexer::{Lexer, Token, TokenKind},
    settings,
};

/// A name of one or more parts, and what stood before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub first: Token,
    pub last: Token,
    parts: usize,
    pub before: Prev,
    before2: Prev,
}

/// How far set_config's arguments are looked at: bounds what nested calls can cost.
const MAX_ARGUMENT_TOKENS: usize = 64;

impl Chain {
    pub fn new(token: Token, before: Prev, before2: Prev) -> Self {
        Chain {
            first: token,
            last: token,
            parts: 1,
            before,
            before2,
        }
    }

    pub fn extended(self, token: Token) -> Self {
        Chain {
            last: token,
            parts: self.parts + 1,
            ..self
        }
    }

    /// The key word that the name is, if it is one word without quotes.
    fn keyword(&self, scan: &Scan) -> Option<Keyword> {
        match (self.parts, scan.prev) {
            (1, Prev::Keyword(keyword)) => Some(keyword),
            _ => None,
        }
    }
}

impl<'t> Scan<'t> {
    /// A name stands before the parenthesis that was just read.
    pub(super) fn call(&mut self, chain: Chain) {
        // `schema. (`: no name at all.
        if self.prev == Prev::Dot {
            return self.effects.pin(PinReason::OpaqueFunction);
        }
        let class = chain
            .keyword(self)
            .and_then(|keyword| keyword.class(self.context.server_major));
        if let Some(Class::Reserved | Class::ColName) = class {
            return;
        }
        let verdict = self.verdict(chain);
        if verdict != Verdict::Unknown && self.is_shadowed(chain) {
            self.effects.pin(PinReason::OpaqueFunction);
        }
        match verdict {
            Verdict::Harmless => {}
            Verdict::AdvancesSequence => self.effects.advances_sequence = true,
            Verdict::SetConfig => self.set_config(),
            Verdict::EndsState => self.effects.ends_state = true,
            Verdict::Pins(reason) => self.effects.pin(reason),
            Verdict::Unknown if self.is_no_call(chain) => {}
            Verdict::Unknown => self.user_function(chain),
        }
    }

    fn verdict(&self, chain: Chain) -> Verdict {
        let verdict = by_name(chain.last, self.text, self.context.server_major);
        let built_in = match chain.parts {
            1 => true,
            2 => is_pg_catalog(chain.first, self.text),
            _ => false,
        };
        match verdict {
            Verdict::Pins(PinReason::Dblink) => verdict,
            _ if built_in => verdict,
            _ => Verdict::Unknown,
        }
    }

    fn is_no_call(&mut self, chain: Chain) -> bool {
        let keyword = chain.keyword(self);
        if keyword == Some(Keyword::Operator) && self.is_operator() {
            return true;
        }
        if self.follows_what_no_call_can(chain) || self.holds_a_query() {
            return true;
        }
        match keyword {
            Some(keyword) => self.is_clause(chain, keyword),
            None => self.is_named_list(chain),
        }
    }

    /// Right behind an operand no expression can begin: an alias with columns, a column's type with a modifier, OVER,
    /// FILTER. The key words here are followed by the name of a table, a column or a type, never by an expression.
    fn follows_what_no_call_can(&self, chain: Chain) -> bool {
        match chain.before {
            Prev::Operand | Prev::CloseParen | Prev::Typecast => true,
            Prev::Keyword(keyword) => matches!(
                keyword,
                Keyword::As
                    | Keyword::Into
                    | Keyword::References
                    | Keyword::Table
                    | Keyword::Exists
                    | Keyword::With
            ),
            _ => false,
        }
    }

    /// `(SELECT`: a function's arguments cannot begin with a bare query.
    fn holds_a_query(&self) -> bool {
        let mut ahead = Ahead::new(self);
        match ahead.keyword() {
            Some(Keyword::Select | Keyword::With | Keyword::Table) => true,
            // A column may be called values, but nothing called values has arguments.
            Some(Keyword::Values) => ahead.is(TokenKind::OpenParen),
            _ => false,
        }
    }

    /// A key word that is the grammar's own behind the one before it.
    fn is_clause(&self, chain: Chain, keyword: Keyword) -> bool {
        let Prev::Keyword(before) = chain.before else {
            return self.is_named_list(chain);
        };
        match keyword {
            Keyword::By => matches!(before, Keyword::Order | Keyword::Group | Keyword::Partition),
            Keyword::Zone => before == Keyword::Time,
            Keyword::Set => before == Keyword::Update,
            Keyword::Key => matches!(before, Keyword::Primary | Keyword::Foreign),
            Keyword::Sets => before == Keyword::Grouping,
            Keyword::Varying => matches!(
                before,
                Keyword::Character | Keyword::Char | Keyword::Nchar | Keyword::Bit
            ),
            Keyword::Rollup | Keyword::Cube => {
                before == Keyword::By && chain.before2 == Prev::Keyword(Keyword::Group)
            }
            Keyword::Join => matches!(
                before,
                Keyword::Left
                    | Keyword::Right
                    | Keyword::Full
                    | Keyword::Inner
                    | Keyword::Outer
                    | Keyword::Cross
                    | Keyword::Natural
            ),
            Keyword::Conflict => before == Keyword::On && self.is_on_conflict(),
            // CASE has a THEN as well, and behind that a call may stand.
            Keyword::Insert => {
                before == Keyword::Then && self.seen.all(Seen::MERGE) && !self.seen.all(Seen::CASE)
            }
            Keyword::Stdin | Keyword::Stdout => {
                self.verb == Some(Keyword::Copy)
                    && self.depth == 0
                    && matches!(before, Keyword::From | Keyword::To)
            }
            _ => self.is_named_list(chain),
        }
    }

    /// `ON CONFLICT (…)`, unless it is a join's condition.
    fn is_on_conflict(&self) -> bool {
        let mut ahead = Ahead::new(self);
        self.seen.all(Seen::INSERT)
            && (!self.seen.all(Seen::JOIN)
                || (ahead.skip_columns() && ahead.keyword() == Some(Keyword::Do)))
    }

    /// `OPERATOR(schema.+)`: the operator's function is called, so its schema must be the built-in one.
    fn is_operator(&mut self) -> bool {
        let mut ahead = Ahead::new(self);
        let mut token = ahead.token();
        let mut foreign = false;
        while let Some(name) = token.filter(|t| is_name(t.kind)) {
            foreign |= !is_pg_catalog(name, self.text);
            if !ahead.is(TokenKind::Dot) {
                return false;
            }
            token = ahead.token();
        }
        let shaped =
            token.is_some_and(|t| t.kind == TokenKind::Op) && ahead.is(TokenKind::CloseParen);
        if shaped && foreign {
            self.foreign_operator();
        }
        shaped
    }

    /// A name with a list that is not of arguments.
    fn is_named_list(&self, chain: Chain) -> bool {
        match (chain.before, chain.before2) {
            (Prev::Keyword(Keyword::Recursive), Prev::Keyword(Keyword::With)) => true,
            // The next of ALTER TABLE's commands.
            (Prev::Comma, _) if self.verb == Some(Keyword::Alter) && self.depth == 0 => true,
            // The next of a WITH list; a function in FROM looks alike but for what its AS ( holds.
            (Prev::Comma, Prev::CloseParen) => self.is_common_table(),
            (Prev::Keyword(Keyword::Copy | Keyword::Binary), _) => {
                self.verb == Some(Keyword::Copy) && self.depth == 0
            }
            (Prev::Keyword(Keyword::Tablesample), _) => {
                self.is_one_of(chain, &[b"system", b"bernoulli"])
            }
            (Prev::Keyword(Keyword::On | Keyword::Only), _) => {
                self.object == Some(Keyword::Index) && self.depth == 0
            }
            (Prev::Keyword(Keyword::By), Prev::Keyword(Keyword::Partition)) => {
                self.object == Some(Keyword::Table) && self.depth == 0
            }
            (Prev::Keyword(Keyword::Using), _) => {
                matches!(self.object, Some(Keyword::Index | Keyword::Table))
                    && self.is_one_of(
                        chain,
                        &[b"btree", b"hash", b"gist", b"spgist", b"gin", b"brin"],
                    )
            }
            _ => false,
        }
    }

    fn is_one_of(&self, chain: Chain, names: &[&[u8]]) -> bool {
        let name = chain.last.text(self.text);
        names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// `(a, b) AS [NOT MATERIALIZED] (` and then a query, not a list of columns with types.
    fn is_common_table(&self) -> bool {
        let mut ahead = Ahead::new(self);
        if !ahead.skip_columns() || ahead.keyword() != Some(Keyword::As) {
            return false;
        }
        let mut token = ahead.token();
        for _ in 0..2 {
            if token.is_some_and(|t| t.kind == TokenKind::Word) {
                token = ahead.token();
            }
        }
        token.is_some_and(|t| t.kind == TokenKind::OpenParen) && ahead.is_query()
    }

    /// `set_config('name', …, true)` leaves nothing; without the `true` it changes a setting that is known by name.
    fn set_config(&mut self) {
        let mut ahead = Ahead::new(self);
        let name = ahead.literal().filter(|_| ahead.is(TokenKind::Comma));
        self.effects.read_write_request |= name.is_none_or(settings::is_read_only_setting);
        match name {
            Some(name) if settings::is_seed(name) => self.effects.pin(PinReason::Setseed),
            Some(name) if settings::changes_reading(name) => self.effects.pin(PinReason::Reading),
            Some(name) if ahead.plain_value(settings::is_search_path(name)) => {
                if !ahead.is_true() {
                    self.change_named(name);
                }
            }
            _ => self.effects.pin(PinReason::Set),
        }
    }
}

/// Looks ahead without moving the scan.
struct Ahead<'t> {
    lexer: Lexer<'t>,
    text: &'t [u8],
}

impl<'t> Ahead<'t> {
    fn new(scan: &Scan<'t>) -> Self {
        Ahead {
            lexer: scan.lexer,
            text: scan.text,
        }
    }

    fn token(&mut self) -> Option<Token> {
        self.lexer.next_token()
    }

    fn is(&mut self, kind: TokenKind) -> bool {
        self.token().is_some_and(|token| token.kind == kind)
    }

    fn keyword(&mut self) -> Option<Keyword> {
        let token = self.token().filter(|t| t.kind == TokenKind::Word)?;
        Keyword::of(token.text(self.text))
    }

    /// Over a list of plain names and its `)`. Stops at the first other token, so that no byte is read often.
    fn skip_columns(&mut self) -> bool {
        loop {
            match self.token().map(|t| t.kind) {
                Some(TokenKind::Comma) => {}
                Some(TokenKind::CloseParen) => return true,
                Some(kind) if is_name(kind) => {}
                _ => return false,
            }
        }
    }

    /// What no list of columns with types can begin with.
    fn is_query(&mut self) -> bool {
        let Some(token) = self.token() else {
            return false;
        };
        if token.kind == TokenKind::OpenParen {
            return true;
        }
        let word = Some(token).filter(|t| t.kind == TokenKind::Word);
        match word.and_then(|t| Keyword::of(t.text(self.text))) {
            Some(Keyword::Select | Keyword::With | Keyword::Table) => true,
            Some(Keyword::Values) => self.is(TokenKind::OpenParen),
            Some(Keyword::Insert | Keyword::Merge) => self.keyword() == Some(Keyword::Into),
            Some(Keyword::Delete) => self.keyword() == Some(Keyword::From),
            _ => false,
        }
    }

    /// The inside of a string literal that says what it is: no escapes, no doubled quotes, not continued.
    fn literal(&mut self) -> Option<&'t [u8]> {
        let token = self.token().filter(|t| t.kind == TokenKind::Str)?;
        let inside = token
            .text(self.text)
            .strip_prefix(b"'")?
            .strip_suffix(b"'")?;
        (!inside.iter().any(|b| matches!(b, b'\'' | b'\\'))).then_some(inside)
    }

    /// Over set_config's second argument and the comma behind it. A search_path must be a literal without pg_temp.
    fn plain_value(&mut self, search_path: bool) -> bool {
        if search_path {
            let value = self.literal();
            return value.is_some_and(|v| !settings::mentions_pg_temp(v))
                && self.is(TokenKind::Comma);
        }
        let mut depth = 0usize;
        for _ in 0..MAX_ARGUMENT_TOKENS {
            match self.token().map(|t| t.kind) {
                Some(TokenKind::OpenParen | TokenKind::OpenBracket) => depth += 1,
                Some(TokenKind::CloseParen | TokenKind::CloseBracket) if depth > 0 => depth -= 1,
                Some(TokenKind::CloseParen | TokenKind::Semicolon) | None => return false,
                Some(TokenKind::Comma) if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }

    /// `true)`, as a key word or a literal.
    fn is_true(&mut self) -> bool {
        let word = self
            .token()
            .map(|token| token.text(self.text))
            .unwrap_or_default();
        let truth: [&[u8]; 3] = [b"true", b"'true'", b"'t'"];
        truth.iter().any(|t| t.eq_ignore_ascii_case(word)) && self.is(TokenKind::CloseParen)
    }
}

fn is_name(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Word | TokenKind::QuotedIdent)
}

fn is_pg_catalog(token: Token, text: &[u8]) -> bool {
    match token.kind {
        TokenKind::QuotedIdent => token.text(text) == b"\"pg_catalog\"",
        _ => token.text(text).eq_ignore_ascii_case(b"pg_catalog"),
    }
}

pub(super) fn by_name(token: Token, text: &[u8], server_major: u8) -> Verdict {
    match token.kind {
        TokenKind::QuotedIdent => functions::verdict(unquoted(token.text(text)), server_major),
        _ => functions::verdict_folded(token.text(text), server_major),
    }
}
