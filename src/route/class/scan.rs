//! The walk over a text whose verbs all read: the first name that needs the primary ends it.

use super::{Class, Reason};
use crate::route::{
    Context,
    catalogue::{
        Reads,
        plpgsql::Piece,
        reads::{Cause, Role},
        with_name,
    },
    functions::{self, Verdict},
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
    primary,
};

/// Built-in types that no key word names, as far as they are written every day.
const TYPES: [&str; 22] = [
    "bool",
    "bytea",
    "cidr",
    "date",
    "float4",
    "float8",
    "inet",
    "int2",
    "int4",
    "int8",
    "json",
    "jsonb",
    "jsonpath",
    "name",
    "oid",
    "regclass",
    "regtype",
    "text",
    "timestamptz",
    "timetz",
    "uuid",
    "xid",
];

/// What is known of names that are not built in.
pub(super) enum Known<'t> {
    /// Nothing.
    BuiltIn,
    Read(&'t Reads),
    /// They are noted down, to be judged later.
    Noted(&'t mut dyn FnMut(Token, &[u8], Role)),
}

pub(super) struct Scan<'t> {
    text: &'t [u8],
    lexer: Lexer<'t>,
    server_major: u8,
    known: Known<'t>,
    previous: Option<Token>,
    depth: usize,
    /// The current statement's verb.
    verb: Option<Keyword>,
    age: Age,
    /// A statement's first token was read.
    is_started: bool,
}

/// `age(timestamp)` is the same everywhere, `age(xid)` is not.
#[derive(Default)]
struct Age {
    is_called: bool,
    of_transaction: bool,
}

impl<'t> Scan<'t> {
    pub fn new(text: &'t [u8], context: &Context, known: Known<'t>) -> Self {
        Scan {
            text,
            lexer: Lexer::new(text, context.standard_conforming_strings),
            server_major: context.server_major,
            known,
            is_started: false,
            previous: None,
            depth: 0,
            verb: None,
            age: Age::default(),
        }
    }

    /// Of a piece of a function's body.
    pub fn of_piece(piece: Piece<'t>, context: &Context, known: Known<'t>) -> Self {
        let (Piece::Expression(text) | Piece::Statement(text)) = piece;
        Scan {
            is_started: matches!(piece, Piece::Expression(_)),
            ..Scan::new(text, context, known)
        }
    }

    pub fn run(mut self) -> Class {
        if let Known::Read(reads) = self.known
            && let Some(cause) = reads.against_all()
        {
            return blame(cause);
        }
        while let Some(token) = self.lexer.next_token() {
            let found = match self.is_started {
                true => self.token(token),
                false => self.start(token),
            };
            if let Some(class) = found {
                return class;
            }
            self.is_started = token.kind != TokenKind::Semicolon;
            self.previous = self.is_started.then_some(token);
        }
        match self.age.is_called && self.age.of_transaction {
            true => Class::by(Reason::Function, b"age"),
            false => Class::READ,
        }
    }

    /// A statement's first token.
    fn start(&mut self, token: Token) -> Option<Class> {
        self.depth = 0;
        self.verb = self.keyword(token);
        match (token.kind, self.verb) {
            (TokenKind::Semicolon, _) => None,
            (TokenKind::OpenParen, _) => self.token(token),
            (_, Some(Keyword::Select | Keyword::Values | Keyword::With)) => None,
            (_, Some(Keyword::Explain)) => {
                self.skip_options();
                None
            }
            (_, Some(Keyword::Table)) => self.word(token),
            (_, Some(Keyword::Copy)) => self.copy(),
            (_, Some(Keyword::Show)) => Some(Class::by(Reason::Setting, b"show")),
            (_, verb) => {
                let verb = verb.map_or("", Keyword::as_str);
                Some(Class::by(Reason::Utility, verb.as_bytes()))
            }
        }
    }

    /// `EXPLAIN (costs off)`, but not `EXPLAIN (SELECT …)`.
    fn skip_options(&mut self) {
        let mut ahead = self.lexer;
        if ahead.next_token().map(|t| t.kind) != Some(TokenKind::OpenParen) {
            return;
        }
        let first = ahead.next_token();
        let is_query = first.is_none_or(|token| {
            let query = [
                Keyword::Select,
                Keyword::With,
                Keyword::Values,
                Keyword::Table,
            ];
            token.kind != TokenKind::Word || self.keyword(token).is_some_and(|k| query.contains(&k))
        });
        if !is_query && ahead.any(|token| token.kind == TokenKind::CloseParen) {
            self.lexer = ahead;
        }
    }

    /// To the client, not to a file of the node's.
    fn copy(&mut self) -> Option<Class> {
        let mut ahead = self.lexer;
        let mut depth = 0usize;
        let mut before = None;
        while let Some(token) = ahead.next_token() {
            match (token.kind, self.keyword(token)) {
                (TokenKind::OpenParen, _) => depth += 1,
                (TokenKind::CloseParen, _) => depth = depth.saturating_sub(1),
                (TokenKind::Semicolon, _) => break,
                (_, Some(Keyword::Stdout)) if depth == 0 && before == Some(Keyword::To) => {
                    let mut first = self.lexer;
                    let is_query = first.next_token().map(|t| t.kind) == Some(TokenKind::OpenParen);
                    return match is_query {
                        true => None,
                        false => self.relations(),
                    };
                }
                _ => {}
            }
            before = self.keyword(token);
        }
        Some(Class::by(Reason::Utility, b"copy"))
    }

    fn token(&mut self, token: Token) -> Option<Class> {
        match token.kind {
            TokenKind::Word => self.word(token),
            TokenKind::QuotedIdent => self.name(token),
            TokenKind::OpenParen => {
                self.depth += 1;
                None
            }
            TokenKind::CloseParen => {
                self.depth = self.depth.saturating_sub(1);
                None
            }
            TokenKind::Op => self.operator(token),
            TokenKind::UnicodeIdent | TokenKind::Unterminated | TokenKind::Junk => {
                Some(Class::primary(Reason::Unknown))
            }
            _ => None,
        }
    }

    fn word(&mut self, token: Token) -> Option<Class> {
        if self.follows(TokenKind::Dot) {
            return self.name(token);
        }
        match self.keyword(token) {
            Some(Keyword::SystemUser) if self.server_major >= 16 => {
                Some(Class::by(Reason::Function, b"system_user"))
            }
            Some(Keyword::From) if self.before() == Some(Keyword::Distinct) => None,
            Some(Keyword::From | Keyword::Table) => self.relations(),
            _ => self.name(token),
        }
    }

    /// Relations are named from here on.
    fn relations(&self) -> Option<Class> {
        matches!(self.known, Known::BuiltIn).then(|| Class::primary(Reason::NoCatalogue))
    }

    fn operator(&mut self, token: Token) -> Option<Class> {
        match &mut self.known {
            Known::BuiltIn => None,
            Known::Read(reads) => {
                let symbol = token.text(self.text);
                let cause = reads.against_operator(symbol)?;
                Some(Class::by(Reason::Operator, &within(symbol, cause)))
            }
            Known::Noted(note) => {
                note(token, self.text, Role::Plain);
                None
            }
        }
    }

    /// A word or name that may stand for an object.
    fn name(&mut self, token: Token) -> Option<Class> {
        let is_call = self.is_call();
        let is_attribute = self.follows(TokenKind::Dot);
        let built_in = with_name(token.text(self.text), |name| {
            if name.ends_with(b"xid") || matches!(name, b"xmin" | b"xmax") {
                self.age.of_transaction = true;
            }
            if primary::is_view_of_primary(name) && !is_call {
                return Some(Class::by(Reason::Relation, name));
            }
            match is_call || is_attribute {
                true => self.built_in(name, is_call).map(|why| Class::by(why, name)),
                false => None,
            }
        });
        if built_in.is_some() {
            return built_in;
        }
        let role = match is_call || is_attribute {
            true => Role::Called,
            false => Role::Plain,
        };
        match &mut self.known {
            Known::BuiltIn => self.unknown_name(token, is_call),
            Known::Read(reads) => with_name(token.text(self.text), |name| {
                let cause = reads.against(name, role)?;
                Some(Class::by(cause.reason, &within(name, cause)))
            }),
            Known::Noted(note) => {
                note(token, self.text, role);
                None
            }
        }
    }

    /// Why a built-in function of this name needs the primary.
    fn built_in(&mut self, name: &[u8], is_call: bool) -> Option<Reason> {
        match name {
            b"age" => {
                self.age.is_called = true;
                None
            }
            // Without an argument it cannot be called as `x.version`.
            b"version" => is_call.then_some(Reason::Function),
            b"current_setting" => {
                let is_carried = self.names_a_setting_of_applications();
                (!is_carried).then_some(Reason::Setting)
            }
            b"set_config" => Some(Reason::Setting),
            b"nextval" | b"setval" | b"currval" | b"lastval" => Some(Reason::Sequence),
            _ => {
                let is_harmless = matches!(
                    functions::verdict(name, self.server_major),
                    Verdict::Harmless | Verdict::Unknown
                );
                let differs = primary::needs_primary(name) || functions::runs_sql(name);
                (differs || !is_harmless).then_some(Reason::Function)
            }
        }
    }

    /// Behind a name: `('app.tenant'`. Such a setting has the value that its session gave it.
    fn names_a_setting_of_applications(&self) -> bool {
        let mut ahead = self.lexer;
        ahead.next_token();
        let Some(name) = ahead.next_token().filter(|t| t.kind == TokenKind::Str) else {
            return false;
        };
        let mut end = ahead.next_token().map(|t| t.kind);
        // As the server writes it: `'app.tenant'::text`.
        if end == Some(TokenKind::Typecast) {
            ahead.next_token();
            end = ahead.next_token().map(|t| t.kind);
        }
        let name = name.text(self.text);
        name.contains(&b'.')
            && !name.contains(&b'\\')
            && matches!(end, Some(TokenKind::Comma | TokenKind::CloseParen))
    }

    /// With no catalogue only what is built in is known.
    fn unknown_name(&self, token: Token, is_call: bool) -> Option<Class> {
        let word = token.text(self.text);
        let is_plain = match token.kind {
            TokenKind::Word => match self.keyword(token) {
                Some(word) => word.class(self.server_major).is_some(),
                None if is_call => self.is_built_in(word),
                None => self.is_label() || self.is_built_in_type(word),
            },
            _ => self.is_label(),
        };
        (!is_plain).then(|| with_name(word, |name| Class::by(Reason::NoCatalogue, name)))
    }

    fn is_built_in(&self, word: &[u8]) -> bool {
        functions::verdict_folded(word, self.server_major) == Verdict::Harmless
    }

    /// `::text`, or the first half of `pg_catalog.lower`.
    fn is_built_in_type(&self, word: &[u8]) -> bool {
        let is_type = self.follows(TokenKind::Typecast)
            && TYPES
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(word));
        is_type || word.eq_ignore_ascii_case(b"pg_catalog")
    }

    /// `… AS name`, outside parentheses: a column's, not a type.
    fn is_label(&self) -> bool {
        let mut ahead = self.lexer;
        let next = ahead.next_token().map(|t| t.kind);
        self.depth == 0
            && self.before() == Some(Keyword::As)
            && matches!(next, None | Some(TokenKind::Comma | TokenKind::Semicolon))
    }

    fn is_call(&self) -> bool {
        let mut ahead = self.lexer;
        ahead
            .next_token()
            .is_some_and(|next| next.kind == TokenKind::OpenParen)
    }

    fn follows(&self, kind: TokenKind) -> bool {
        self.previous.is_some_and(|token| token.kind == kind)
    }

    fn keyword(&self, token: Token) -> Option<Keyword> {
        match token.kind {
            TokenKind::Word => Keyword::of(token.text(self.text)),
            _ => None,
        }
    }

    /// The key word before the current token.
    fn before(&self) -> Option<Keyword> {
        self.previous.and_then(|token| self.keyword(token))
    }
}

fn blame(cause: &Cause) -> Class {
    Class::by(cause.reason, &cause.object)
}

/// A name, and what it reaches if that is something else.
fn within(name: &[u8], cause: &Cause) -> Vec<u8> {
    if *name == *cause.object {
        return name.to_vec();
    }
    [name, b" (", &cause.object, b")"].concat()
}

/// Says more of a text that writes, if its verb is one that reads.
pub(super) fn kind_of_write(text: &[u8], context: &Context) -> Reason {
    let reads = matches!(
        first_word(text, context),
        Some(
            Keyword::Select
                | Keyword::With
                | Keyword::Values
                | Keyword::Table
                | Keyword::Explain
                | Keyword::Copy
        )
    );
    if !reads {
        return Reason::Write;
    }
    let mut before = None;
    for this in words(text, context) {
        match (before, this) {
            (
                Some(Keyword::For),
                Some(Keyword::Update | Keyword::No | Keyword::Share | Keyword::Key),
            ) => return Reason::Locking,
            (Some(Keyword::Insert | Keyword::Merge), Some(Keyword::Into)) => return Reason::Write,
            (_, Some(Keyword::Into)) => return Reason::Into,
            _ => before = this,
        }
    }
    Reason::Write
}

/// The first key word, parentheses left out.
pub(super) fn first_word(text: &[u8], context: &Context) -> Option<Keyword> {
    let mut lexer = Lexer::new(text, context.standard_conforming_strings);
    let first = lexer.find(|token| token.kind != TokenKind::OpenParen)?;
    Keyword::of(first.text(text))
}

fn words<'t>(text: &'t [u8], context: &Context) -> impl Iterator<Item = Option<Keyword>> + 't {
    let lexer = Lexer::new(text, context.standard_conforming_strings);
    lexer.map(|token| match token.kind {
        TokenKind::Word => Keyword::of(token.text(text)),
        _ => None,
    })
}
