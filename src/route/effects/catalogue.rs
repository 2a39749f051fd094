//! Where a text meets the catalogue: functions that are not built in, what runs without being named, DO and CALL, and
//! what is defined.

use super::{
    Kind, Names, PinReason,
    call::{Chain, by_name},
    scan::{Mode, Prev, Scan},
    verb::Ahead,
};
use crate::route::{
    catalogue::plpgsql,
    functions::{self, Verdict},
    keyword::Keyword,
    lexer::{Token, TokenKind},
};

/// DO blocks in DO blocks are read down to this depth.
const MAX_NESTING: u8 = 4;

impl<'t> Scan<'t> {
    /// What is run without being named.
    pub(super) fn reach(&mut self) {
        if self.harms_by_writing && self.effects.writes() {
            self.effects.pin(PinReason::OpaqueFunction);
        }
        let Some(catalogue) = self.names.catalogue() else {
            return;
        };
        let everywhere = catalogue
            .anything
            .filter(|_| !matches!(self.effects.kind, Kind::Empty | Kind::Utility));
        let defining = catalogue
            .defining
            .filter(|_| self.effects.changes_catalogue);
        if everywhere.or(defining).is_some() {
            self.effects.pin(PinReason::OpaqueFunction);
        }
    }

    /// A relation may reach functions that no text names.
    #[inline]
    pub(super) fn reached_by_name(&mut self, token: Token) {
        let name = token.text(self.text);
        match self.names {
            Names::BuiltIn => {}
            Names::Read { catalogue, .. } => {
                let harm = catalogue.named(name);
                self.harms_by_writing |= harm.writing;
                if harm.naming {
                    self.effects.pin(PinReason::OpaqueFunction);
                }
            }
            Names::Noted(notes) => notes.name(name),
        }
    }

    /// `x.f` calls `f(x)`, whatever x is, if x has no column `f`.
    #[inline]
    pub(super) fn attribute(&mut self, token: Token) {
        let name = token.text(self.text);
        if functions::may_leave_something(name) {
            match by_name(token, self.text, self.context.server_major) {
                Verdict::AdvancesSequence => self.effects.advances_sequence = true,
                // Names of views hold the same words, and a slot that is made so is not temporary.
                Verdict::Pins(PinReason::ReplicationSlot) => {}
                Verdict::Pins(reason) => self.effects.pin(reason),
                Verdict::Unknown if functions::runs_sql(name) => {
                    self.effects.pin(PinReason::OpaqueFunction);
                }
                _ => {}
            }
        }
        match self.names {
            Names::BuiltIn => {}
            Names::Read { catalogue, .. } if catalogue.is_harmful_attribute(name) => {
                self.effects.pin(PinReason::OpaqueFunction);
            }
            Names::Read { .. } => {}
            Names::Noted(notes) => notes.attribute(name),
        }
    }

    /// Whether a user's function with this built-in name does harm.
    pub(super) fn is_shadowed(&self, chain: Chain) -> bool {
        match self.names {
            Names::BuiltIn => false,
            Names::Read { catalogue, .. } => catalogue.is_shadowed(chain.last, self.text),
            Names::Noted(notes) => {
                notes.call(chain.last.text(self.text));
                false
            }
        }
    }

    /// A function on no list: harmless if the catalogue proves it.
    pub(super) fn user_function(&mut self, chain: Chain) {
        let known = match self.names {
            Names::BuiltIn => None,
            Names::Read { catalogue, current } => {
                catalogue.called(chain.last, self.text).filter(|_| current)
            }
            Names::Noted(notes) => notes.call(chain.last.text(self.text)),
        };
        match known.filter(|function| function.pin.is_none()) {
            Some(function) => self.effects.call(function),
            None => self.effects.pin(PinReason::OpaqueFunction),
        }
    }

    /// `OPERATOR(schema.+)`: what the catalogue says against any operator counts for every statement.
    pub(super) fn foreign_operator(&mut self) {
        match self.names {
            Names::BuiltIn | Names::Read { current: false, .. } => {
                self.effects.pin(PinReason::OpaqueFunction);
            }
            Names::Read { .. } => self.effects.relies_on_catalogue = true,
            Names::Noted(_) => {}
        }
    }

    /// CREATE TRIGGER … EXECUTE FUNCTION: the catalogue cannot know of the trigger before its transaction has ended.
    pub(super) fn trigger(&mut self, chain: Chain) {
        let names_function = matches!(
            chain.before,
            Prev::Keyword(Keyword::Function | Keyword::Procedure)
        );
        if names_function && !matches!(self.names, Names::BuiltIn) {
            self.user_function(chain);
        }
    }

    /// DO and CALL, whose functions can be looked up.
    pub(super) fn run_procedure(&mut self, verb: Keyword) {
        if verb == Keyword::Call {
            return self.enter(Kind::Call, Mode::Calls);
        }
        match self.ahead().block() {
            Some(body) => self.block(body),
            None => self.effects.pin(PinReason::OpaqueStatement),
        }
        self.enter(Kind::Do, Mode::Quiet);
    }

    /// The pieces of a DO block.
    pub(super) fn block(&mut self, body: &'t [u8]) {
        if self.nesting == MAX_NESTING {
            return self.effects.pin(PinReason::OpaqueStatement);
        }
        let (context, names, nesting) = (self.context, self.names, self.nesting + 1);
        let effects = &mut self.effects;
        let read = plpgsql::split(body, context.standard_conforming_strings, &mut |piece| {
            effects.absorb(&Scan::of_piece(piece, &context, names, nesting).run());
        });
        if read.is_none() {
            self.effects.pin(PinReason::OpaqueStatement);
        }
    }

    /// The object is one that a read may name, and that a replica may lack.
    pub(super) fn makes_relation(&self) -> bool {
        matches!(self.object, Some(Keyword::Table | Keyword::Sequence))
    }

    /// Whether what is created or altered may make a statement run a function that it did not run before.
    pub(super) fn may_run_functions(&self) -> bool {
        use Keyword as K;
        match self.object {
            Some(
                K::Database
                | K::Role
                | K::User
                | K::Group
                | K::Tablespace
                | K::Subscription
                | K::Publication
                | K::Server
                | K::Sequence
                | K::System
                | K::Statistics
                | K::Large,
            ) => false,
            Some(K::Table) if self.verb == Some(K::Create) => {
                self.ahead().gives_a_table_functions()
            }
            _ => true,
        }
    }
}

impl<'t> Ahead<'t> {
    /// The body of a DO block in PL/pgSQL; None if it is in another language, or its literal does not say what it is.
    fn block(mut self) -> Option<&'t [u8]> {
        let mut body = None;
        while let Some(token) = self.token() {
            match token.kind {
                TokenKind::Word if self.keyword_of(token) == Some(Keyword::Language) => {
                    let language = self.token()?.text(self.text);
                    let known: [&[u8]; 3] = [b"plpgsql", b"'plpgsql'", b"\"plpgsql\""];
                    let is_known = known.iter().any(|name| name.eq_ignore_ascii_case(language));
                    is_known.then_some(())?;
                }
                TokenKind::Str | TokenKind::DollarStr if body.is_none() => {
                    body = Some(inside(token.text(self.text))?);
                }
                _ => return None,
            }
        }
        body
    }

    /// The columns' defaults and checks, or those of another table.
    fn gives_a_table_functions(mut self) -> bool {
        while let Some(token) = self.token() {
            if let Some(
                Keyword::Default
                | Keyword::Check
                | Keyword::Generated
                | Keyword::Exclude
                | Keyword::Like
                | Keyword::Inherits
                | Keyword::Partition
                | Keyword::Of
                | Keyword::References,
            ) = self.keyword_of(token)
            {
                return true;
            }
        }
        false
    }
}

/// What is between a literal's quotes or dollars, if that is what it means.
fn inside(literal: &[u8]) -> Option<&[u8]> {
    if let Some(tag) = literal.strip_prefix(b"$") {
        let tag = tag.iter().position(|b| *b == b'$')? + 2;
        return literal.get(tag..literal.len().checked_sub(tag)?);
    }
    let inside = literal.strip_prefix(b"'")?.strip_suffix(b"'")?;
    (!inside.iter().any(|b| matches!(b, b'\'' | b'\\'))).then_some(inside)
}
