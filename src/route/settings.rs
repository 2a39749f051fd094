//! Which setting a SET or RESET names, and which settings matter to a proxy by name.

use super::{
    Context, Encoding,
    keyword::Keyword,
    lexer::{Lexer, Token, TokenKind},
};

/// For how long a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// SET and SET SESSION: until the session ends, if the transaction commits.
    Session,
    /// SET LOCAL: until the transaction ends.
    Local,
    /// RESET: back to what the session was started with.
    Reset,
}

/// What a SET or RESET is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'t> {
    /// A setting by its name as written: perhaps quoted, dotted, in any case.
    Named(&'t [u8]),
    /// A setting by a form of its own: TIME ZONE, NAMES, SCHEMA, ROLE, SESSION AUTHORIZATION, XML OPTION.
    Special(&'static str),
    /// SET TRANSACTION, RESET TRANSACTION ISOLATION LEVEL.
    Transaction,
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    Characteristics,
    /// SET CONSTRAINTS.
    Constraints,
    /// RESET ALL.
    All,
}

/// One SET or RESET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<'t> {
    pub scope: Scope,
    pub target: Target<'t>,
    /// Asks for leave to write; see [`super::effects::Effects::read_write_request`].
    pub read_write: bool,
    /// Its value mentions pg_temp: as a search_path that makes the next table temporary.
    pub(super) pg_temp: bool,
    /// A value that is one word or plain literal.
    value: Option<&'t [u8]>,
}

impl Setting<'_> {
    /// Whether it is about the setting `name` (in lower case).
    pub fn is(&self, name: &str) -> bool {
        match self.target {
            Target::Named(written) => is_named(written, name),
            Target::Special(known) => known.eq_ignore_ascii_case(name),
            _ => false,
        }
    }

    pub(super) fn changes_reading(&self) -> bool {
        match self.target {
            Target::Named(name) => changes_reading(name),
            Target::Special(name) => name == "client_encoding",
            _ => false,
        }
    }

    /// Whether texts are read as before, where they are read so now.
    pub(super) fn reads_as(&self, standard_conforming_strings: bool, encoding: Encoding) -> bool {
        let Some(value) = self.value else {
            return false;
        };
        let safe = Encoding::AsciiSafe;
        match self.is("client_encoding") {
            true => encoding == safe && Encoding::of(value) == safe,
            false => {
                self.is("standard_conforming_strings")
                    && standard_conforming_strings
                    && is_truth(value)
            }
        }
    }
}

/// What SET SESSION CHARACTERISTICS AS TRANSACTION may change.
pub(super) const CHARACTERISTICS: [&str; 3] = [
    "default_transaction_isolation",
    "default_transaction_read_only",
    "default_transaction_deferrable",
];

/// Belongs to a transaction and ends with it, whatever the SET says.
pub(super) fn is_of_transaction(name: &[u8]) -> bool {
    [
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
    ]
    .iter()
    .any(|known| is_named(name, known))
}

pub(super) fn is_seed(name: &[u8]) -> bool {
    is_named(name, "seed")
}

/// Whether the setting could be set on any server at any time: `temp_buffers` cannot once temporary tables were used.
pub(super) fn can_be_carried(name: &[u8]) -> bool {
    !is_named(name, "temp_buffers")
}

/// The SET or RESET that a text begins with; None if it begins with anything else.
pub fn setting<'t>(text: &'t [u8], context: &Context) -> Option<Setting<'t>> {
    let mut lexer = Lexer::new(text, context.standard_conforming_strings);
    let verb = lexer.next_token().filter(|t| t.kind == TokenKind::Word)?;
    match Keyword::of(verb.text(text))? {
        Keyword::Set => after_set(lexer, text),
        Keyword::Reset => after_reset(lexer, text),
        _ => None,
    }
}

/// What follows SET. None: not a SET that is known.
pub(super) fn after_set<'t>(lexer: Lexer<'t>, text: &'t [u8]) -> Option<Setting<'t>> {
    let mut tokens = Tokens::new(lexer, text);
    let scope = tokens.scope();
    let target = tokens.target(scope)?;
    Some(Setting {
        scope: scope.unwrap_or(Scope::Session),
        target,
        read_write: tokens.asks_to_write(target),
        pg_temp: tokens.mentions_pg_temp(),
        value: tokens.plain_value(),
    })
}

/// What follows RESET.
pub(super) fn after_reset<'t>(lexer: Lexer<'t>, text: &'t [u8]) -> Option<Setting<'t>> {
    let mut tokens = Tokens::new(lexer, text);
    let target = match tokens.keywords() {
        (Some(Keyword::All), _) => Target::All,
        (Some(Keyword::Session), Some(Keyword::Authorization)) => {
            Target::Special("session_authorization")
        }
        (Some(Keyword::Time), Some(Keyword::Zone)) => Target::Special("timezone"),
        (Some(Keyword::Transaction), Some(Keyword::Isolation)) => Target::Transaction,
        _ => tokens.named()?,
    };
    let read_write = matches!(target, Target::Named(name) if is_read_only_setting(name));
    Some(Setting {
        scope: Scope::Reset,
        target,
        read_write,
        pg_temp: false,
        value: None,
    })
}

/// Whether a transaction may write is decided by this setting.
pub fn is_read_only_setting(name: &[u8]) -> bool {
    is_named(name, "default_transaction_read_only") || is_named(name, "transaction_read_only")
}

/// Changes how the texts of the same transaction are to be read, before the server can say so; or, for `seed`, stays
/// behind even if it is set for a transaction only.
pub(super) fn changes_reading(name: &[u8]) -> bool {
    ["standard_conforming_strings", "client_encoding", "seed"]
        .iter()
        .any(|known| is_named(name, known))
}

pub(super) fn is_search_path(name: &[u8]) -> bool {
    is_named(name, "search_path")
}

pub(super) fn mentions_pg_temp(value: &[u8]) -> bool {
    value
        .windows(7)
        .any(|part| part.eq_ignore_ascii_case(b"pg_temp"))
}

/// A value that is on, quoted or not.
fn is_truth(value: &[u8]) -> bool {
    let truth: [&[u8]; 6] = [b"on", b"true", b"yes", b"1", b"'on'", b"'true'"];
    truth.iter().any(|t| t.eq_ignore_ascii_case(value))
}

/// Names of settings are compared without regard to case, in quotes too.
fn is_named(written: &[u8], name: &str) -> bool {
    let bare = written
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(written);
    bare.eq_ignore_ascii_case(name.as_bytes())
}

/// The tokens of one SET, up to its semicolon.
#[derive(Clone, Copy)]
struct Tokens<'t> {
    lexer: Lexer<'t>,
    text: &'t [u8],
}

impl<'t> Tokens<'t> {
    fn new(lexer: Lexer<'t>, text: &'t [u8]) -> Self {
        Tokens { lexer, text }
    }

    fn next(&mut self) -> Option<Token> {
        let mut ahead = self.lexer;
        let token = ahead
            .next_token()
            .filter(|t| t.kind != TokenKind::Semicolon)?;
        self.lexer = ahead;
        Some(token)
    }

    fn keyword_of(&self, token: Option<Token>) -> Option<Keyword> {
        let word = token.filter(|t| t.kind == TokenKind::Word)?;
        Keyword::of(word.text(self.text))
    }

    /// The next two tokens as key words, without taking them.
    fn keywords(&self) -> (Option<Keyword>, Option<Keyword>) {
        let mut ahead = *self;
        let first = ahead.next();
        let second = ahead.next();
        (self.keyword_of(first), self.keyword_of(second))
    }

    /// Whether the token after the next begins a value or name: `SET local.x = 1` is about a setting of that name.
    fn is_prefix(&self) -> bool {
        let mut ahead = *self;
        ahead.next();
        let second = ahead.next();
        second.is_some_and(|t| {
            matches!(
                t.kind,
                TokenKind::Word | TokenKind::QuotedIdent | TokenKind::UnicodeIdent
            )
        }) && self.keyword_of(second) != Some(Keyword::To)
    }

    /// Takes LOCAL or SESSION.
    fn scope(&mut self) -> Option<Scope> {
        let scope = match self.keywords() {
            (Some(Keyword::Local), _) => Scope::Local,
            // SESSION AUTHORIZATION and SESSION CHARACTERISTICS are understood without their SESSION.
            (Some(Keyword::Session), _) => Scope::Session,
            _ => return None,
        };
        if !self.is_prefix() {
            return None;
        }
        self.next();
        Some(scope)
    }

    fn target(&mut self, scope: Option<Scope>) -> Option<Target<'t>> {
        use Keyword as K;
        let (first, second) = self.keywords();
        Some(match (first, second) {
            (
                Some(K::Transaction),
                Some(K::Isolation | K::Read | K::Not | K::Deferrable | K::Snapshot),
            ) => Target::Transaction,
            (Some(K::Session), Some(K::Characteristics))
            | (Some(K::Characteristics), Some(K::As)) => Target::Characteristics,
            (Some(K::Session), Some(K::Authorization)) | (Some(K::Authorization), _) => {
                Target::Special("session_authorization")
            }
            (Some(K::Time), Some(K::Zone)) => Target::Special("timezone"),
            (Some(K::Xml), Some(K::Option)) => Target::Special("xmloption"),
            (Some(K::Constraints), _) if scope.is_none() && self.is_prefix() => Target::Constraints,
            (Some(K::Names), _) if !self.assigns() => Target::Special("client_encoding"),
            (Some(K::Schema), _) if !self.assigns() => Target::Special("search_path"),
            (Some(K::Role), _) if !self.assigns() => Target::Special("role"),
            _ => return self.named(),
        })
    }

    /// Whether the next token is a setting's name, by what stands behind it.
    fn assigns(&self) -> bool {
        let mut ahead = *self;
        ahead.next();
        let second = ahead.next();
        self.keyword_of(second) == Some(Keyword::To)
            || second.is_some_and(|t| {
                t.kind == TokenKind::Dot || (t.kind == TokenKind::Op && t.text(self.text) == b"=")
            })
    }

    /// Takes `name` or `prefix.name`.
    fn named(&mut self) -> Option<Target<'t>> {
        let is_name = |t: &Token| matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdent);
        let first = self.next().filter(is_name)?;
        let mut end = first.end;
        loop {
            let mut ahead = *self;
            if !ahead.next().is_some_and(|t| t.kind == TokenKind::Dot) {
                break;
            }
            end = ahead.next().filter(is_name)?.end;
            *self = ahead;
        }
        self.text.get(first.start..end).map(Target::Named)
    }

    fn asks_to_write(&self, target: Target<'t>) -> bool {
        match target {
            Target::Transaction | Target::Characteristics => self.says_read_write(),
            Target::Named(name) if is_read_only_setting(name) => !self.is_true(),
            _ => false,
        }
    }

    fn says_read_write(mut self) -> bool {
        let mut before = None;
        while let Some(token) = self.next() {
            let keyword = self.keyword_of(Some(token));
            if (before, keyword) == (Some(Keyword::Read), Some(Keyword::Write)) {
                return true;
            }
            before = keyword;
        }
        false
    }

    /// `= on` or the like, and nothing more.
    fn is_true(self) -> bool {
        self.plain_value().is_some_and(is_truth)
    }

    /// The value behind `=`, TO or NAMES, if it is one word, number or literal without escapes.
    fn plain_value(mut self) -> Option<&'t [u8]> {
        self.next();
        let token = self.next()?;
        let text = token.text(self.text);
        let plain = !text.iter().any(|b| matches!(b, b'\\'));
        let is_value = matches!(
            token.kind,
            TokenKind::Word | TokenKind::Number | TokenKind::Str
        );
        (plain && is_value && self.next().is_none()).then_some(text)
    }

    fn mentions_pg_temp(mut self) -> bool {
        while let Some(token) = self.next() {
            if mentions_pg_temp(token.text(self.text)) {
                return true;
            }
        }
        false
    }
}

/// Reads the modes behind BEGIN or START TRANSACTION, up to the semicolon.
pub(super) fn transaction_modes(lexer: Lexer<'_>, text: &[u8]) -> super::effects::TxControl {
    use super::effects::{Access, TxControl};
    let mut tokens = Tokens::new(lexer, text);
    let mut before = None;
    let mut access = Access::Default;
    let mut serializable = false;
    while let Some(token) = tokens.next() {
        let keyword = tokens.keyword_of(Some(token));
        match (before, keyword) {
            (Some(Keyword::Read), Some(Keyword::Only)) => access = Access::ReadOnly,
            (Some(Keyword::Read), Some(Keyword::Write)) => access = Access::ReadWrite,
            (_, Some(Keyword::Serializable)) => serializable = true,
            _ => {}
        }
        before = keyword;
    }
    TxControl::Begin {
        access,
        serializable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Setting<'_> {
        setting(text.as_bytes(), &Context::default()).expect(text)
    }

    #[test]
    fn set_and_reset_name_their_setting() {
        for (text, name, scope) in [
            ("SET search_path = a", "search_path", Scope::Session),
            ("set session Work_Mem to 1", "work_mem", Scope::Session),
            ("SET LOCAL \"Work_Mem\" = 1", "work_mem", Scope::Local),
            ("SET app.tenant = 'x'", "app.tenant", Scope::Session),
            ("SET local.x = 1", "local.x", Scope::Session),
            ("SET local = 1", "local", Scope::Session),
            ("SET LOCAL TO 1", "local", Scope::Session),
            ("SET session.x = 1", "session.x", Scope::Session),
            ("SET transaction.x = 1", "transaction.x", Scope::Session),
            ("SET constraints.x = 1", "constraints.x", Scope::Session),
            ("SET names.x = 1", "names.x", Scope::Session),
            ("SET role.x = 1", "role.x", Scope::Session),
            ("SET TIME ZONE 'UTC'", "timezone", Scope::Session),
            ("SET LOCAL TIME ZONE 'UTC'", "timezone", Scope::Local),
            ("SET NAMES 'utf8'", "client_encoding", Scope::Session),
            ("SET ROLE x", "role", Scope::Session),
            ("SET role TO x", "role", Scope::Session),
            (
                "SET SESSION AUTHORIZATION x",
                "session_authorization",
                Scope::Session,
            ),
            (
                "SET LOCAL SESSION AUTHORIZATION x",
                "session_authorization",
                Scope::Local,
            ),
            ("SET SCHEMA 'x'", "search_path", Scope::Session),
            ("SET XML OPTION DOCUMENT", "xmloption", Scope::Session),
            ("RESET search_path", "search_path", Scope::Reset),
            ("RESET TIME ZONE", "timezone", Scope::Reset),
            ("RESET /* x */ app . tenant", "app . tenant", Scope::Reset),
        ] {
            let setting = read(text);
            assert!(setting.is(name), "{text}: {setting:?}");
            assert_eq!(setting.scope, scope, "{text}");
        }
    }

    #[test]
    fn forms_without_a_setting_are_told_apart() {
        assert_eq!(
            read("SET TRANSACTION READ ONLY").target,
            Target::Transaction
        );
        assert_eq!(
            read("SET LOCAL TRANSACTION ISOLATION LEVEL SERIALIZABLE").target,
            Target::Transaction
        );
        assert_eq!(
            read("SET CONSTRAINTS ALL DEFERRED").target,
            Target::Constraints
        );
        assert_eq!(read("RESET ALL").target, Target::All);
        let characteristics = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE";
        assert_eq!(read(characteristics).target, Target::Characteristics);
        assert_eq!(setting(b"SELECT 1", &Context::default()), None);
        assert_eq!(setting(b"SET 'x' = 1", &Context::default()), None);
        assert_eq!(setting(b"", &Context::default()), None);
    }

    #[test]
    fn only_leave_to_write_is_a_read_write_request() {
        for (text, asks) in [
            ("SET default_transaction_read_only = off", true),
            ("SET LOCAL transaction_read_only TO 'f'", true),
            ("SET \"Transaction_Read_Only\" = 0", true),
            ("SET default_transaction_read_only TO DEFAULT", true),
            ("RESET default_transaction_read_only", true),
            (
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
                true,
            ),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                true,
            ),
            ("SET default_transaction_read_only = on", false),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                false,
            ),
            ("SET x = read, write", false),
            ("RESET ALL", false),
        ] {
            assert_eq!(read(text).read_write, asks, "{text}");
        }
    }
}
