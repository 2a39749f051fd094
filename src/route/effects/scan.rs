//! The walk over a text: cuts it into statements, follows the grammar as far as needed to see calls.
//!
//! One token at a time, with the two tokens before it and one bit per open parenthesis; no stack, no tree. What a verb
//! decides is in [`super::verb`], what makes a `name(` a call in [`super::call`].

use super::{Count, Effects, Kind, Names, PinReason, call::Chain};
use crate::route::{
    Context,
    catalogue::plpgsql::Piece,
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
};

/// What the token before was, as far as the next one's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prev {
    /// An operator, an opening parenthesis, the start of a statement: an expression may follow.
    Other,
    /// A name or literal: an operand has ended, no expression can follow.
    Operand,
    /// A `)` after which no expression can follow.
    CloseParen,
    Comma,
    Dot,
    Typecast,
    Semicolon,
    /// A key word of any version: it may also be a name.
    Keyword(Keyword),
}

/// How the tokens of the current statement are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its verb comes next.
    Start,
    /// What it calls is run, so calls are looked at.
    Calls,
    /// It runs no expression.
    Quiet,
    /// CREATE TABLE: the columns' expressions are not run, but a query or partition bounds may follow.
    Columns,
    /// CREATE RULE: quiet, with statements in parentheses.
    Rule,
    /// CREATE FUNCTION or PROCEDURE: quiet, a body may follow.
    Routine,
    /// Within BEGIN ATOMIC … END.
    Body,
}

/// What has been seen in the current statement: a set of the bits below.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen(u8);

impl Seen {
    pub const JOIN: u8 = 1;
    pub const INSERT: u8 = 2;
    pub const CASE: u8 = 4;
    pub const UPDATE: u8 = 8;
    pub const PG_SETTINGS: u8 = 16;
    pub const MERGE: u8 = 32;

    pub fn add(&mut self, bit: u8) {
        self.0 |= bit;
    }

    pub fn all(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

pub(super) struct Scan<'t> {
    pub text: &'t [u8],
    pub lexer: Lexer<'t>,
    pub effects: Effects,
    pub context: Context,
    pub mode: Mode,
    /// The current statement's verb (that behind EXPLAIN), and for CREATE and ALTER the kind of object.
    pub verb: Option<Keyword>,
    pub object: Option<Keyword>,
    pub prev: Prev,
    pub prev2: Prev,
    /// The name that ends with the previous token.
    pub chain: Option<Chain>,
    pub depth: usize,
    /// Bit n: after the `)` that closes depth n an expression may follow.
    reopening: u64,
    pub seen: Seen,
    pub names: Names<'t>,
    /// DO blocks around this text.
    pub nesting: u8,
    /// A name reaches something harmful, if the statement writes.
    pub harms_by_writing: bool,
}

impl<'t> Scan<'t> {
    pub fn new(text: &'t [u8], context: &Context, names: Names<'t>) -> Self {
        Scan {
            text,
            lexer: Lexer::new(text, context.standard_conforming_strings),
            effects: Effects::default(),
            context: *context,
            mode: Mode::Start,
            verb: None,
            object: None,
            prev: Prev::Other,
            prev2: Prev::Other,
            chain: None,
            depth: 0,
            reopening: 0,
            seen: Seen::default(),
            names,
            nesting: 0,
            harms_by_writing: false,
        }
    }

    pub fn of_piece(piece: Piece<'t>, context: &Context, names: Names<'t>, nesting: u8) -> Self {
        let (Piece::Expression(text) | Piece::Statement(text)) = piece;
        let mut scan = Scan::new(text, context, names);
        scan.nesting = nesting;
        if let Piece::Expression(_) = piece {
            scan.effects.statements = Count::One;
            scan.begin(Some(Keyword::Select));
        }
        scan
    }

    pub fn run(mut self) -> Effects {
        while let Some(token) = self.lexer.next_token() {
            match self.mode {
                Mode::Start => self.start(token),
                _ => self.token(token),
            }
        }
        self.reach();
        self.effects
    }

    /// The first token of a statement.
    fn start(&mut self, token: Token) {
        if token.kind == TokenKind::Semicolon {
            return;
        }
        self.effects.statements = match self.effects.statements {
            Count::Zero => Count::One,
            Count::One | Count::Many => Count::Many,
        };
        match token.kind {
            TokenKind::Word => self.begin(Keyword::of(token.text(self.text))),
            TokenKind::OpenParen => {
                self.enter(Kind::Read, Mode::Calls);
                self.token(token);
            }
            _ => self.unknown(),
        }
    }

    /// What follows the verb is read so.
    pub fn enter(&mut self, kind: Kind, mode: Mode) {
        self.effects.raise(kind);
        self.mode = mode;
    }

    /// Not a statement that is known.
    pub fn unknown(&mut self) {
        self.effects.changes_catalogue = true;
        self.effects.pin(PinReason::OpaqueStatement);
        self.enter(Kind::Unknown, Mode::Quiet);
    }

    fn token(&mut self, token: Token) {
        let next = match token.kind {
            TokenKind::Word => return self.word(token),
            TokenKind::QuotedIdent => {
                return self.name(token, Prev::Operand);
            }
            TokenKind::OpenParen => return self.open(),
            TokenKind::CloseParen => self.close(),
            TokenKind::Dot => {
                self.dot();
                return self.shift(Prev::Dot);
            }
            TokenKind::Semicolon => return self.semicolon(),
            TokenKind::Comma => Prev::Comma,
            TokenKind::Typecast => Prev::Typecast,
            TokenKind::Str => {
                self.language(token);
                Prev::Operand
            }
            TokenKind::EscapeStr
            | TokenKind::UnicodeStr
            | TokenKind::BitStr
            | TokenKind::DollarStr
            | TokenKind::Number
            | TokenKind::Param
            | TokenKind::CloseBracket => Prev::Operand,
            TokenKind::Op
            | TokenKind::ColonEquals
            | TokenKind::DotDot
            | TokenKind::OpenBracket
            | TokenKind::Colon => Prev::Other,
            // An identifier with escapes could spell any name.
            TokenKind::UnicodeIdent | TokenKind::Unterminated | TokenKind::Junk => {
                self.effects.pin(PinReason::OpaqueStatement);
                Prev::Other
            }
        };
        self.chain = None;
        self.shift(next);
    }

    fn shift(&mut self, next: Prev) {
        self.prev2 = self.prev;
        self.prev = next;
    }

    fn word(&mut self, token: Token) {
        // Behind a dot every word is a name.
        if self.prev == Prev::Dot {
            return self.name(token, Prev::Operand);
        }
        match Keyword::of(token.text(self.text)) {
            Some(keyword) => {
                self.keyword(keyword);
                self.name(token, Prev::Keyword(keyword));
            }
            None => {
                self.language(token);
                self.name(token, Prev::Operand);
            }
        }
    }

    /// Adds a word or quoted identifier to the name that is being read, or begins a new one.
    fn name(&mut self, token: Token, next: Prev) {
        self.chain = Some(match self.chain {
            Some(chain) if self.prev == Prev::Dot => chain.extended(token),
            _ => Chain::new(token, self.prev, self.prev2),
        });
        self.reached_by_name(token);
        if self.mode == Mode::Calls && self.prev == Prev::Dot {
            self.attribute(token);
        }
        if is_pg_settings(token.text(self.text)) {
            self.settings_view(Seen::PG_SETTINGS);
        }
        self.shift(next);
    }

    /// pg_settings is a view whose UPDATE is a `set_config`.
    fn settings_view(&mut self, bit: u8) {
        self.seen.add(bit);
        if self.seen.all(Seen::UPDATE | Seen::PG_SETTINGS) {
            self.effects.pin(PinReason::Set);
            self.effects.read_write_request = true;
        }
    }

    /// `pg_temp.x` creates, or uses, a temporary object.
    fn dot(&mut self) {
        let first = self.chain.map(|chain| chain.first.text(self.text));
        if first.is_some_and(is_pg_temp) {
            self.effects.pin(PinReason::TempTable);
        }
    }

    /// `LANGUAGE c`: the server loads a library to look at the function.
    fn language(&mut self, token: Token) {
        if self.mode == Mode::Routine && self.prev == Prev::Keyword(Keyword::Language) {
            let name = token.text(self.text);
            if name.eq_ignore_ascii_case(b"c") || name.eq_ignore_ascii_case(b"'c'") {
                self.effects.pin(PinReason::Load);
            }
        }
    }

    /// A key word that means something wherever it stands.
    fn keyword(&mut self, keyword: Keyword) {
        match self.mode {
            Mode::Calls => self.keyword_in_query(keyword),
            Mode::Columns if self.depth == 0 => self.keyword_in_table(keyword),
            Mode::Routine
                if self.depth == 0
                    && keyword == Keyword::Atomic
                    && self.prev == Prev::Keyword(Keyword::Begin) =>
            {
                self.mode = Mode::Body;
            }
            // No other END comes right behind a semicolon or ATOMIC: a CASE has neither before its END.
            Mode::Body
                if keyword == Keyword::End
                    && matches!(self.prev, Prev::Semicolon | Prev::Keyword(Keyword::Atomic)) =>
            {
                self.mode = Mode::Quiet;
            }
            _ => {}
        }
    }

    fn keyword_in_query(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::Into => self.into(),
            Keyword::Update => {
                self.settings_view(Seen::UPDATE);
                self.effects.raise(Kind::Write { insert: false });
            }
            // Not `column AS delete FROM`.
            Keyword::From
                if self.prev == Prev::Keyword(Keyword::Delete)
                    && self.prev2 != Prev::Keyword(Keyword::As) =>
            {
                self.effects.raise(Kind::Write { insert: false });
            }
            Keyword::Share if matches!(self.prev, Prev::Keyword(Keyword::For | Keyword::Key)) => {
                self.effects.raise(Kind::Write { insert: false });
            }
            Keyword::Join => self.seen.add(Seen::JOIN),
            Keyword::Case => self.seen.add(Seen::CASE),
            Keyword::From | Keyword::Program if self.verb == Some(Keyword::Copy) => {
                self.copy(keyword);
            }
            Keyword::Execute if self.prev == Prev::Keyword(Keyword::As) => {
                self.effects.pin(PinReason::Prepare);
            }
            Keyword::Hold
                if self.prev == Prev::Keyword(Keyword::With)
                    && self.verb == Some(Keyword::Declare) =>
            {
                self.effects.pin(PinReason::HoldCursor);
            }
            Keyword::Concurrently if self.verb == Some(Keyword::Alter) => {
                self.effects.raise(Kind::OutsideTransaction);
            }
            _ => {}
        }
    }

    /// INSERT INTO, MERGE INTO, or SELECT … INTO, which makes a table.
    fn into(&mut self) {
        if let Prev::Keyword(Keyword::Insert | Keyword::Merge) = self.prev {
            if self.prev == Prev::Keyword(Keyword::Merge) {
                self.seen.add(Seen::MERGE);
            }
            self.seen.add(Seen::INSERT);
            return self.effects.raise(Kind::Write { insert: true });
        }
        self.effects.raise(Kind::Ddl);
        let mut ahead = self.lexer;
        let word = ahead.next_token().map(|token| token.text(self.text));
        if let Some(Keyword::Temp | Keyword::Temporary | Keyword::Local | Keyword::Global) =
            word.and_then(Keyword::of)
        {
            self.effects.pin(PinReason::TempTable);
        } else {
            self.effects.changes_catalogue = true;
        }
    }

    fn copy(&mut self, keyword: Keyword) {
        if self.depth > 0 {
            return;
        }
        match keyword {
            Keyword::From => self.effects.raise(Kind::CopyFrom),
            _ => self.effects.pin(PinReason::OpaqueStatement),
        }
    }

    /// `CREATE TABLE … AS query` and `… FOR VALUES …` run what they hold.
    fn keyword_in_table(&mut self, keyword: Keyword) {
        if let Keyword::As | Keyword::Values = keyword {
            self.mode = Mode::Calls;
        }
    }

    fn open(&mut self) {
        match (self.mode, self.chain) {
            (Mode::Calls, Some(chain)) => self.call(chain),
            (_, Some(chain)) if self.object == Some(Keyword::Trigger) => self.trigger(chain),
            _ => {}
        }
        self.chain = None;
        self.depth += 1;
        // DISTINCT ON (…) x, a OPERATOR(…) b, RETURNING WITH (…) x.
        let reopens = matches!(
            self.prev,
            Prev::Keyword(Keyword::On | Keyword::Operator | Keyword::With)
        );
        if let Some(bit) = self.bit() {
            self.reopening = (self.reopening & !bit) | if reopens { bit } else { 0 };
        }
        self.shift(Prev::Other);
    }

    fn close(&mut self) -> Prev {
        // Deeper than there are bits nothing is known, and an expression may follow.
        let reopens = self.bit().is_none_or(|bit| self.reopening & bit != 0);
        self.depth = self.depth.saturating_sub(1);
        if reopens {
            Prev::Other
        } else {
            Prev::CloseParen
        }
    }

    fn bit(&self) -> Option<u64> {
        1u64.checked_shl(u32::try_from(self.depth).ok()?)
    }

    fn semicolon(&mut self) {
        self.chain = None;
        let inside = self.mode == Mode::Body || (self.mode == Mode::Rule && self.depth > 0);
        if inside {
            return self.shift(Prev::Semicolon);
        }
        self.mode = Mode::Start;
        self.verb = None;
        self.object = None;
        self.prev = Prev::Other;
        self.prev2 = Prev::Other;
        self.depth = 0;
        self.reopening = 0;
        self.seen = Seen::default();
    }
}

fn is_pg_settings(name: &[u8]) -> bool {
    name.len() >= 11 && unquoted(name).eq_ignore_ascii_case(b"pg_settings")
}

/// pg_temp, and the pg_temp_3 behind it.
pub(super) fn is_pg_temp(name: &[u8]) -> bool {
    let prefix = unquoted(name).get(..7);
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"pg_temp"))
}

/// Without the quotes of a quoted identifier; doubled quotes inside stay as they are.
pub(super) fn unquoted(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(name)
}
