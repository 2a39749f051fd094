//! What a function's body does, as far as it says so itself; what it calls is noted down.

use std::cell::RefCell;

use super::{
    Body, Function, Known, extensions,
    graph::Numbers,
    plpgsql::{self, Piece},
    with_name,
};
use crate::route::{
    Context, Encoding,
    effects::{self, Effects, Names, PinReason},
    lexer::{Lexer, Token, TokenKind},
};

/// Where names are noted down while a body is read.
#[derive(Debug)]
pub struct Notes<'n> {
    /// All users' functions by name.
    functions: &'n Numbers,
    /// Relations whose naming may reach a function.
    relations: &'n Numbers,
    called: RefCell<Vec<u32>>,
    named: RefCell<Vec<u32>>,
}

impl Notes<'_> {
    /// A call of a user's function; None if there is none of this name.
    pub(in crate::route) fn call(&self, written: &[u8]) -> Option<Known> {
        let number = with_name(written, |name| self.functions.get(name))?;
        self.called.borrow_mut().push(number);
        Some(Known::default())
    }

    /// `x.name`, which may call a function of this name.
    pub(in crate::route) fn attribute(&self, written: &[u8]) {
        self.call(written);
    }

    pub(in crate::route) fn name(&self, written: &[u8]) {
        if self.relations.len() > 0
            && let Some(number) = with_name(written, |name| self.relations.get(name))
        {
            self.named.borrow_mut().push(number);
        }
    }
}

/// One function, without what it calls.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub pin: Option<PinReason>,
    pub advances_sequence: bool,
    pub changes_catalogue: bool,
    pub writes: bool,
    pub called: Vec<u32>,
    pub named: Vec<u32>,
}

impl Own {
    pub fn harmful(reason: PinReason) -> Self {
        Own {
            pin: Some(reason),
            ..Own::default()
        }
    }

    fn add(&mut self, effects: &Effects) {
        if self.pin.is_none() {
            self.pin = effects.stays_behind();
        }
        self.advances_sequence |= effects.may_advance_sequence();
        self.changes_catalogue |= effects.changes_catalogue;
        self.writes |= effects.writes();
    }
}

/// Reads one function.
pub(super) fn read(
    function: &Function,
    functions: &Numbers,
    relations: &Numbers,
    server_major: u8,
) -> Own {
    if let Some(reason) = by_settings(function) {
        return Own::harmful(reason);
    }
    let (text, language) = match &function.body {
        Body::Aggregate => return Own::default(),
        Body::Unknown => return Own::harmful(PinReason::OpaqueFunction),
        Body::Standard(text) => (text, Language::Standard),
        Body::Text(text) => match function.language.as_str() {
            "sql" => (text, Language::Sql),
            "plpgsql" => (text, Language::PlPgSql),
            _ if is_trusted(function) => return Own::default(),
            "c" => return Own::harmful(PinReason::Load),
            _ => return Own::harmful(PinReason::OpaqueFunction),
        },
    };
    let notes = Notes {
        functions,
        relations,
        called: RefCell::default(),
        named: RefCell::default(),
    };
    let mut own = Own::default();
    // Which it will be read with is the caller's setting: where it matters, both must do.
    let readings: &[bool] = match text.contains('\\') {
        true => &[true, false],
        false => &[true],
    };
    for &standard_conforming_strings in readings {
        let context = Context {
            standard_conforming_strings,
            encoding: Encoding::AsciiSafe,
            server_major,
        };
        read_as(language, text.as_bytes(), &context, &notes, &mut own);
    }
    if own.changes_catalogue && mentions_pg_temp(function) {
        own.pin.get_or_insert(PinReason::TempTable);
    }
    own.called = unique(notes.called);
    own.named = unique(notes.named);
    own
}

#[derive(Clone, Copy)]
enum Language {
    Sql,
    Standard,
    PlPgSql,
}

fn read_as(language: Language, text: &[u8], context: &Context, notes: &Notes, own: &mut Own) {
    let mut add = |piece| own.add(&effects::piece(piece, context, Names::Noted(notes)));
    let read = match language {
        Language::Sql => {
            add(Piece::Statement(text));
            Some(())
        }
        Language::Standard => standard(text).map(add),
        Language::PlPgSql => plpgsql::split(text, context.standard_conforming_strings, &mut add),
    };
    if read.is_none() {
        own.pin.get_or_insert(PinReason::OpaqueFunction);
    }
}

/// Inside `BEGIN ATOMIC … END`, or behind RETURN.
pub(super) fn standard(text: &[u8]) -> Option<Piece<'_>> {
    let mut lexer = Lexer::new(text, true);
    let is = |token: Token, word: &str| {
        let written = token.text(text);
        token.kind == TokenKind::Word && written.eq_ignore_ascii_case(word.as_bytes())
    };
    let first = lexer.next_token()?;
    if is(first, "return") {
        return Some(Piece::Expression(&text[first.end..]));
    }
    let atomic = lexer.next_token()?;
    let last = lexer.last()?;
    let known = is(first, "begin") && is(atomic, "atomic") && is(last, "end");
    known.then(|| Piece::Statement(&text[atomic.end..last.start]))
}

pub(super) fn is_trusted(function: &Function) -> bool {
    let extension = function.extension.as_deref().filter(|_| function.is_in_c());
    extension.is_some_and(|name| extensions::is_harmless(name, &function.name))
}

/// A SET clause holds until the function ends; but a seed is used up.
fn by_settings(function: &Function) -> Option<PinReason> {
    let seeds = |setting: &String| {
        let name = setting.split('=').next().unwrap_or_default();
        name.eq_ignore_ascii_case("seed")
    };
    function
        .settings
        .iter()
        .any(seeds)
        .then_some(PinReason::Setseed)
}

/// What it creates might be temporary.
fn mentions_pg_temp(function: &Function) -> bool {
    let temporary = |setting: &String| setting.to_ascii_lowercase().contains("pg_temp");
    function.settings.iter().any(temporary)
}

fn unique(numbers: RefCell<Vec<u32>>) -> Vec<u32> {
    let mut numbers = numbers.into_inner();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
