//! The walk over a text whose verbs all read: the first name that needs the primary ends it.

use std::collections::HashSet;

use super::{Class, Reason, within};
use crate::route::{
    Context,
    catalogue::{Reads, plpgsql::Piece, reads::Role, with_name},
    functions::{self, Verdict},
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
    primary,
};

/// What is known of names that are not built in.
pub(super) enum Known<'t> {
    /// Nothing.
    BuiltIn,
    Read(&'t Reads),
    /// They are noted down, to be judged later.
    Noted {
        note: &'t mut dyn FnMut(Token, &[u8], Role),
        /// Built-in functions that the configuration lets run anywhere.
        allowed: &'t HashSet<Box<[u8]>>,
    },
}

pub(super) struct Scan<'t> {
    text: &'t [u8],
    lexer: Lexer<'t>,
    server_major: u8,
    known: Known<'t>,
    previous: Option<Token>,
    /// The current statement's verb.
    verb: Option<Keyword>,
    age: Age,
    /// A statement's first token was read.
    is_started: bool,
    /// A parser tells which words are names of relations: the others need not be asked.
    relations_are_known: bool,
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
            relations_are_known: false,
            previous: None,
            verb: None,
            age: Age::default(),
        }
    }

    /// Of a text whose relations are judged elsewhere.
    pub fn beside_facts(text: &'t [u8], context: &Context, known: Known<'t>) -> Self {
        Scan {
            relations_are_known: true,
            ..Scan::new(text, context, known)
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
            return Class::by(cause.reason, &cause.object);
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
        self.verb = self.keyword(token);
        match (token.kind, self.verb) {
            (TokenKind::Semicolon, _) => None,
            (TokenKind::OpenParen, _) => self.token(token),
            (_, Some(Keyword::Select | Keyword::Values | Keyword::With | Keyword::Table)) => None,
            (_, Some(Keyword::Explain)) => {
                self.skip_options();
                None
            }
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
                    return None;
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
            _ => self.name(token),
        }
    }

    fn operator(&mut self, token: Token) -> Option<Class> {
        match &mut self.known {
            Known::BuiltIn => None,
            Known::Read(reads) => {
                let symbol = token.text(self.text);
                let cause = reads.against_operator(symbol)?;
                Some(Class {
                    reason: Reason::Operator,
                    ..within(symbol, cause)
                })
            }
            Known::Noted { note, .. } => {
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
            Known::BuiltIn => None,
            Known::Read(reads) => with_name(token.text(self.text), |name| {
                let relation = match self.relations_are_known {
                    true => None,
                    false => reads.against_relation(name),
                };
                let cause = relation.or_else(|| reads.against(name, role))?;
                Some(within(name, cause))
            }),
            Known::Noted { note, .. } => {
                note(token, self.text, role);
                None
            }
        }
    }

    /// Why a built-in function of this name needs the primary.
    fn built_in(&mut self, name: &[u8], is_call: bool) -> Option<Reason> {
        let is_allowed = match &self.known {
            Known::BuiltIn => false,
            Known::Read(reads) => reads.allows(name),
            Known::Noted { allowed, .. } => allowed.contains(name),
        };
        match name {
            _ if is_allowed => None,
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

/// Its key words; None for whatever else there is.
pub(super) fn words<'t>(
    text: &'t [u8],
    context: &Context,
) -> impl Iterator<Item = Option<Keyword>> + 't {
    let lexer = Lexer::new(text, context.standard_conforming_strings);
    lexer.map(|token| match token.kind {
        TokenKind::Word => Keyword::of(token.text(text)),
        _ => None,
    })
}
