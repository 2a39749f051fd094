//! What a statement's verb decides: its kind, its transaction control, how the rest is to be read.
//!
//! The list holds every statement of PostgreSQL 13 to 18; a verb that it lacks pins.

use super::{
    Access, Kind, Names, PinReason, TxControl,
    scan::{Mode, Scan},
};
use crate::route::{
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
    settings::{self, Scope, Target},
};

impl<'t> Scan<'t> {
    /// The statement's first word.
    pub(super) fn begin(&mut self, verb: Option<Keyword>) {
        let Some(verb) = verb else {
            return self.unknown();
        };
        self.verb = Some(verb);
        self.prev = super::scan::Prev::Keyword(verb);
        match verb {
            Keyword::Select | Keyword::Values | Keyword::Table | Keyword::With => {
                self.enter(Kind::Read, Mode::Calls);
            }
            Keyword::Insert | Keyword::Merge => {
                self.enter(Kind::Write { insert: true }, Mode::Calls)
            }
            Keyword::Update => {
                self.seen.add(super::scan::Seen::UPDATE);
                self.enter(Kind::Write { insert: false }, Mode::Calls);
            }
            Keyword::Delete => self.enter(Kind::Write { insert: false }, Mode::Calls),
            Keyword::Copy => self.enter(Kind::CopyTo, Mode::Calls),
            Keyword::Declare => self.enter(Kind::Utility, Mode::Calls),
            Keyword::Explain => self.explain(),
            _ if self.transaction(verb) || self.session(verb) || self.definition(verb) => {}
            _ => self.quiet(verb),
        }
    }

    /// Statements that run no expression of their text and leave nothing behind.
    fn quiet(&mut self, verb: Keyword) {
        use Keyword as K;
        let kind = match verb {
            K::Truncate => Kind::Write { insert: false },
            K::Close | K::Unlisten | K::Deallocate => {
                self.effects.ends_state = true;
                Kind::Utility
            }
            K::Fetch | K::Show => Kind::Read,
            K::Move | K::Lock | K::Notify | K::Checkpoint => Kind::Utility,
            K::Analyze | K::Analyse => Kind::Utility,
            K::Vacuum => Kind::OutsideTransaction,
            K::Cluster | K::Reindex => self.maintenance(),
            K::Grant | K::Revoke | K::Comment | K::Security | K::Reassign | K::Refresh => Kind::Ddl,
            _ => return self.unknown(),
        };
        self.enter(kind, Mode::Quiet);
    }

    /// CLUSTER of everything, REINDEX of more than a table, and CONCURRENTLY want no transaction block.
    fn maintenance(&self) -> Kind {
        let mut ahead = self.ahead();
        let mut names = 0;
        while let Some(token) = ahead.token() {
            match ahead.keyword_of(token) {
                Some(
                    Keyword::Concurrently | Keyword::Database | Keyword::System | Keyword::Schema,
                ) => {
                    return Kind::OutsideTransaction;
                }
                Some(Keyword::Verbose) => {}
                _ => names += 1,
            }
        }
        match names {
            0 => Kind::OutsideTransaction,
            _ => Kind::Ddl,
        }
    }

    /// Skips to the statement that is explained: it may run, or at least be planned.
    fn explain(&mut self) {
        let mut ahead = self.ahead();
        while let Some(token) = ahead.token() {
            match (token.kind, ahead.keyword_of(token)) {
                (_, Some(Keyword::Analyze | Keyword::Analyse | Keyword::Verbose)) => {}
                (TokenKind::OpenParen, _) if ahead.is_options() => ahead.skip_options(),
                (TokenKind::OpenParen, _) => break,
                // `EXPLAIN EXPLAIN …` is no statement, and must not go round.
                (_, Some(verb)) if verb != Keyword::Explain => {
                    self.lexer = ahead.lexer;
                    return self.begin(Some(verb));
                }
                _ => return self.unknown(),
            }
            self.lexer = ahead.lexer;
        }
        self.enter(Kind::Read, Mode::Calls);
    }

    /// Transaction control.
    fn transaction(&mut self, verb: Keyword) -> bool {
        let control = match verb {
            Keyword::Begin | Keyword::Start => settings::transaction_modes(self.lexer, self.text),
            Keyword::Commit | Keyword::End => self.commit(),
            Keyword::Rollback | Keyword::Abort => self.rollback(),
            Keyword::Savepoint => TxControl::Savepoint,
            Keyword::Release => TxControl::Release,
            Keyword::Prepare if self.is_prepare_transaction() => TxControl::PrepareTransaction,
            _ => return false,
        };
        self.effects.control = control;
        if let TxControl::Begin {
            access: Access::ReadWrite,
            ..
        } = control
        {
            self.effects.read_write_request = true;
        }
        let kind = match control {
            TxControl::CommitPrepared | TxControl::RollbackPrepared => Kind::OutsideTransaction,
            _ => Kind::Utility,
        };
        self.enter(kind, Mode::Quiet);
        true
    }

    fn commit(&self) -> TxControl {
        match self.ahead().ending() {
            Ending::Chain => TxControl::CommitAndChain,
            Ending::Prepared => TxControl::CommitPrepared,
            Ending::Plain | Ending::Savepoint => TxControl::Commit,
        }
    }

    fn rollback(&self) -> TxControl {
        match self.ahead().ending() {
            Ending::Chain => TxControl::RollbackAndChain,
            Ending::Prepared => TxControl::RollbackPrepared,
            Ending::Savepoint => TxControl::RollbackTo,
            Ending::Plain => TxControl::Rollback,
        }
    }

    /// `PREPARE TRANSACTION 'id'`, not `PREPARE transaction AS …`.
    fn is_prepare_transaction(&self) -> bool {
        let mut ahead = self.ahead();
        ahead.keyword() == Some(Keyword::Transaction)
            && ahead.token().is_some_and(|t| {
                matches!(
                    t.kind,
                    TokenKind::Str
                        | TokenKind::EscapeStr
                        | TokenKind::UnicodeStr
                        | TokenKind::DollarStr
                )
            })
    }

    /// Statements about the session.
    fn session(&mut self, verb: Keyword) -> bool {
        let (reason, kind) = match verb {
            Keyword::Set => {
                self.set();
                return true;
            }
            Keyword::Reset => {
                self.reset();
                return true;
            }
            Keyword::Prepare => (PinReason::Prepare, Kind::Utility),
            Keyword::Execute => (PinReason::Prepare, Kind::Execute),
            Keyword::Listen => (PinReason::Listen, Kind::Utility),
            Keyword::Load => (PinReason::Load, Kind::Utility),
            Keyword::Discard => {
                self.discard();
                (PinReason::Discard, Kind::Utility)
            }
            Keyword::Do | Keyword::Call if !matches!(self.names, Names::BuiltIn) => {
                self.run_procedure(verb);
                return true;
            }
            Keyword::Do => (PinReason::OpaqueStatement, Kind::Do),
            Keyword::Call => (PinReason::OpaqueStatement, Kind::Call),
            _ => return false,
        };
        self.effects.pin(reason);
        self.enter(kind, Mode::Quiet);
        true
    }

    fn set(&mut self) {
        self.enter(Kind::Utility, Mode::Quiet);
        let Some(setting) = settings::after_set(self.lexer, self.text) else {
            return self.effects.pin(PinReason::Set);
        };
        self.effects.read_write_request |= setting.read_write;
        match (setting.scope, setting.target) {
            (_, Target::Transaction | Target::Constraints) => {}
            (Scope::Local, target) if setting.changes_reading() => {
                self.change_reading(target);
            }
            (Scope::Local, _) if setting.pg_temp => self.effects.pin(PinReason::TempTable),
            (Scope::Local, _) => {}
            // The next table would be a temporary one, and nothing would say so.
            _ if setting.pg_temp => self.effects.pin(PinReason::Set),
            (_, target) if setting.changes_reading() && !self.keeps_reading(&setting) => {
                self.change_reading(target);
            }
            (_, target) => self.change(target),
        }
    }

    /// RESET: what a session that was not pinned has set did not change how texts are read, so going back does not.
    fn reset(&mut self) {
        self.enter(Kind::Utility, Mode::Quiet);
        let Some(reset) = settings::after_reset(self.lexer, self.text) else {
            return self.effects.pin(PinReason::Set);
        };
        self.effects.read_write_request |= reset.read_write;
        self.change(reset.target);
    }

    fn discard(&mut self) {
        self.effects.ends_state = true;
        if self.ahead().keyword() == Some(Keyword::All) {
            self.effects.changes.reset_all();
        }
    }

    fn keeps_reading(&self, setting: &settings::Setting) -> bool {
        let context = &self.context;
        setting.reads_as(context.standard_conforming_strings, context.encoding)
    }

    fn change_reading(&mut self, target: Target<'t>) {
        let is_seed = matches!(target, Target::Named(name) if settings::is_seed(name));
        self.effects.pin(match is_seed {
            true => PinReason::Setseed,
            false => PinReason::Reading,
        });
    }

    /// A setting that may be left changed.
    fn change(&mut self, target: Target<'t>) {
        let changes = &mut self.effects.changes;
        let noted = match target {
            Target::Transaction | Target::Constraints => true,
            Target::All => {
                changes.reset_all();
                true
            }
            Target::Characteristics => settings::CHARACTERISTICS
                .iter()
                .all(|name| changes.add_known(name)),
            Target::Special(name) => changes.add_known(name),
            Target::Named(name) if settings::is_of_transaction(name) => true,
            // It has no value that could be read.
            Target::Named(name) if settings::is_seed(name) => {
                return self.effects.pin(PinReason::Setseed);
            }
            Target::Named(name) => {
                settings::can_be_carried(name) && changes.add_written(name, self.text)
            }
        };
        if !noted {
            self.effects.pin(PinReason::Set);
        }
    }

    pub(super) fn change_named(&mut self, name: &'t [u8]) {
        self.change(Target::Named(name));
    }

    /// Statements about objects.
    fn definition(&mut self, verb: Keyword) -> bool {
        match verb {
            Keyword::Create => {
                let is_temp = self.create();
                self.effects.changes_catalogue |=
                    self.may_run_functions() || !is_temp && self.makes_relation();
            }
            Keyword::Alter => {
                self.alter();
                self.effects.changes_catalogue |= self.may_run_functions();
            }
            Keyword::Drop => self.drop_object(),
            // A foreign data wrapper makes up the statements.
            Keyword::Import => {
                self.effects.pin(PinReason::OpaqueStatement);
                self.effects.changes_catalogue = true;
                self.enter(Kind::Ddl, Mode::Quiet);
            }
            _ => return false,
        }
        true
    }

    /// Whether the object is temporary.
    fn create(&mut self) -> bool {
        let mut ahead = self.ahead();
        let mut object = ahead.keyword();
        let mut temp = false;
        while let Some(word) = object.filter(|word| is_modifier(*word)) {
            temp |= matches!(word, Keyword::Temp | Keyword::Temporary);
            object = ahead.keyword();
        }
        self.object = object;
        if temp && !(object == Some(Keyword::Table) && ahead.drops_on_commit()) {
            self.effects.pin(PinReason::TempTable);
        }
        self.create_object(object, ahead);
        temp
    }

    fn create_object(&mut self, object: Option<Keyword>, mut ahead: Ahead<'t>) {
        use Keyword as K;
        let (kind, mode) = match object {
            Some(K::Table) => (Kind::Ddl, Mode::Columns),
            Some(K::Index) if ahead.keyword() == Some(K::Concurrently) => {
                (Kind::OutsideTransaction, Mode::Calls)
            }
            // Both are filled at once.
            Some(K::Index) => (Kind::Ddl, Mode::Calls),
            Some(K::View) if self.is_materialized_view() => (Kind::Ddl, Mode::Calls),
            Some(K::Function | K::Procedure) => (Kind::Ddl, Mode::Routine),
            Some(K::Rule) => (Kind::Ddl, Mode::Rule),
            Some(K::Database | K::Tablespace | K::Subscription) => {
                (Kind::OutsideTransaction, Mode::Quiet)
            }
            Some(K::Schema) => {
                if ahead.mentions_temp() {
                    self.effects.pin(PinReason::TempTable);
                }
                (Kind::Ddl, Mode::Quiet)
            }
            Some(
                K::View
                | K::Aggregate
                | K::Trigger
                | K::Type
                | K::Cast
                | K::Operator
                | K::Policy
                | K::Role
                | K::User
                | K::Group
                | K::Publication
                | K::Server
                | K::Collation
                | K::Transform
                | K::Access
                | K::Data
                | K::Domain
                | K::Sequence
                | K::Statistics,
            ) => (Kind::Ddl, Mode::Quiet),
            // EXTENSION and LANGUAGE run scripts, CONVERSION and TEXT SEARCH call the functions they are given.
            Some(K::Extension | K::Language | K::Conversion | K::Text) => {
                self.effects.pin(PinReason::OpaqueStatement);
                (Kind::Ddl, Mode::Quiet)
            }
            _ => return self.unknown(),
        };
        self.enter(kind, mode);
    }

    fn is_materialized_view(&self) -> bool {
        self.ahead().keyword() == Some(Keyword::Materialized)
    }

    fn alter(&mut self) {
        use Keyword as K;
        self.object = self.ahead().keyword();
        let (kind, mode) = match self.object {
            // New columns are filled, constraints are checked.
            Some(K::Table | K::Foreign | K::Domain | K::Materialized | K::View) => {
                (Kind::Ddl, Mode::Calls)
            }
            Some(K::System) => (Kind::OutsideTransaction, Mode::Quiet),
            Some(
                K::Aggregate
                | K::Collation
                | K::Conversion
                | K::Database
                | K::Default
                | K::Event
                | K::Function
                | K::Group
                | K::Index
                | K::Language
                | K::Large
                | K::Operator
                | K::Policy
                | K::Procedural
                | K::Procedure
                | K::Publication
                | K::Role
                | K::Routine
                | K::Rule
                | K::Schema
                | K::Sequence
                | K::Server
                | K::Statistics
                | K::Subscription
                | K::Tablespace
                | K::Trigger
                | K::Type
                | K::User,
            ) => (Kind::Ddl, Mode::Quiet),
            Some(K::Extension | K::Text) => {
                self.effects.pin(PinReason::OpaqueStatement);
                (Kind::Ddl, Mode::Quiet)
            }
            _ => return self.unknown(),
        };
        self.enter(kind, mode);
    }

    fn drop_object(&mut self) {
        self.effects.ends_state = true;
        let mut ahead = self.ahead();
        let object = ahead.keyword();
        let outside = match object {
            Some(Keyword::Database | Keyword::Tablespace | Keyword::Subscription) => true,
            _ => ahead.keyword() == Some(Keyword::Concurrently),
        };
        let kind = match outside {
            true => Kind::OutsideTransaction,
            false => Kind::Ddl,
        };
        self.enter(kind, Mode::Quiet);
    }

    pub(super) fn ahead(&self) -> Ahead<'t> {
        Ahead {
            lexer: self.lexer,
            text: self.text,
        }
    }
}

/// What may stand between CREATE and the kind of object.
fn is_modifier(word: Keyword) -> bool {
    use Keyword as K;
    matches!(
        word,
        K::Or
            | K::Replace
            | K::Temp
            | K::Temporary
            | K::Local
            | K::Global
            | K::Unlogged
            | K::Recursive
            | K::Materialized
            | K::Unique
            | K::Trusted
            | K::Procedural
            | K::Constraint
            | K::Event
            | K::Foreign
            | K::Default
    )
}

/// How a COMMIT or ROLLBACK goes on.
enum Ending {
    Plain,
    Chain,
    Prepared,
    Savepoint,
}

/// Looks ahead within the statement, without moving the scan.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'t> {
    pub lexer: Lexer<'t>,
    pub text: &'t [u8],
}

impl<'t> Ahead<'t> {
    /// None at the statement's end, for good.
    pub fn token(&mut self) -> Option<Token> {
        let mut ahead = self.lexer;
        let token = ahead
            .next_token()
            .filter(|t| t.kind != TokenKind::Semicolon)?;
        self.lexer = ahead;
        Some(token)
    }

    fn keyword(&mut self) -> Option<Keyword> {
        let token = self.token()?;
        self.keyword_of(token)
    }

    pub fn keyword_of(&self, token: Token) -> Option<Keyword> {
        match token.kind {
            TokenKind::Word => Keyword::of(token.text(self.text)),
            _ => None,
        }
    }

    fn ending(mut self) -> Ending {
        let mut word = self.keyword();
        if let Some(Keyword::Work | Keyword::Transaction) = word {
            word = self.keyword();
        }
        match word {
            Some(Keyword::To) => Ending::Savepoint,
            Some(Keyword::Prepared) => Ending::Prepared,
            Some(Keyword::And) if self.keyword() == Some(Keyword::Chain) => Ending::Chain,
            _ => Ending::Plain,
        }
    }

    /// Behind EXPLAIN's parenthesis: options, not a query in parentheses.
    fn is_options(&self) -> bool {
        let mut ahead = *self;
        ahead.token().is_some_and(|token| {
            token.kind == TokenKind::Word
                && !matches!(
                    ahead.keyword_of(token),
                    Some(Keyword::Select | Keyword::Values | Keyword::Table | Keyword::With)
                )
        })
    }

    /// Options hold no parentheses.
    fn skip_options(&mut self) {
        while let Some(token) = self.token() {
            if token.kind == TokenKind::CloseParen {
                return;
            }
        }
    }

    /// ON COMMIT DROP of a CREATE TABLE: outside all parentheses, and before the AS of a query.
    fn drops_on_commit(mut self) -> bool {
        let mut depth = 0usize;
        let mut before = [None; 2];
        while let Some(token) = self.token() {
            let keyword = self.keyword_of(token);
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                _ if keyword == Some(Keyword::As) => return false,
                _ if keyword == Some(Keyword::Drop)
                    && before == [Some(Keyword::On), Some(Keyword::Commit)] =>
                {
                    return true;
                }
                _ => {}
            }
            before = [before[1], keyword];
        }
        false
    }

    /// A temporary object among a CREATE SCHEMA's elements.
    fn mentions_temp(mut self) -> bool {
        while let Some(token) = self.token() {
            if let Some(Keyword::Temp | Keyword::Temporary) = self.keyword_of(token) {
                return true;
            }
        }
        false
    }
}
