//! What a text means for prepared statements, beyond what it leaves behind: a second, shorter look at it. Pure.

use memchr::memchr_iter;

use super::parsing::decides_reading;
use crate::{
    route::{
        Context,
        effects::{Count, Effects, Kind, PinReason},
        lexer::{Lexer, TokenKind},
        settings::{Target, setting},
    },
    server::settings::normalised,
};

/// Whether a text speaks of prepared statements by the names that the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    None,
    /// DEALLOCATE ALL or DISCARD ALL, and nothing else.
    All,
    /// DEALLOCATE of one statement, and nothing else.
    One,
    /// PREPARE, EXECUTE, DEALLOCATE, or a look at pg_prepared_statements.
    Some,
}

/// See the module's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub naming: Naming,
    /// What was parsed before may mean something else afterwards.
    pub changes_schema: bool,
    /// SET, RESET or set_config, of whatever scope: what is parsed afterwards may mean something else.
    pub sets: Sets,
}

/// Which settings a text changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Sets {
    #[default]
    None,
    /// Only such that texts are read the same under all of them.
    Others,
    /// Perhaps some that decide how texts are read.
    Reading,
}

impl Marks {
    /// Of a text that was not looked at.
    pub const UNKNOWN: Marks = Marks {
        naming: Naming::Some,
        changes_schema: true,
        sets: Sets::Reading,
    };

    pub fn of(text: &[u8], effects: &Effects, context: &Context) -> Self {
        let mut marks = Marks {
            naming: Naming::None,
            changes_schema: effects.kind >= Kind::Ddl,
            sets: Sets::None,
        };
        // What nobody has read may prepare, execute and deallocate.
        if matches!(
            effects.pin,
            Some(PinReason::OpaqueFunction | PinReason::OpaqueStatement)
        ) {
            marks.naming = Naming::Some;
        }
        marks.find_names(text);
        let runs_rows = matches!(
            effects.kind,
            Kind::Empty | Kind::Read | Kind::Write { .. } | Kind::CopyTo | Kind::CopyFrom
        );
        if !runs_rows {
            marks.find_verbs(text, context);
            let alone = effects.statements == Count::One;
            if alone && marks.naming == Naming::Some {
                marks.naming = match is_all(text, context) {
                    true => Naming::All,
                    false if deallocated(text, context).is_some() => Naming::One,
                    false => Naming::Some,
                };
            }
        }
        marks
    }

    /// Functions and views, by their names anywhere in the text.
    fn find_names(&mut self, text: &[u8]) {
        for at in memchr_iter(b'_', text) {
            let (before, after) = text.split_at(at);
            if ends(before, b"pg") && begins(after, b"_prepared_statement") {
                self.naming = Naming::Some;
            }
            if ends(before, b"set") && begins(after, b"_config") {
                self.sets = self.sets.max(sets_by_function(after));
            }
        }
    }

    /// Key words: verbs at the start of statements, and EXECUTE behind AS and EXPLAIN.
    fn find_verbs(&mut self, text: &[u8], context: &Context) {
        let mut previous = Word::Start;
        for token in Lexer::new(text, context.standard_conforming_strings) {
            let word = match token.kind {
                TokenKind::Semicolon => Word::Start,
                TokenKind::Word => Word::of(token.text(text)),
                _ => Word::Other,
            };
            match (previous, word) {
                (Word::Start, Word::Prepares) if prepares_transaction(text, token.end) => {}
                (Word::Start | Word::Explain | Word::As, Word::Prepares) => {
                    self.naming = Naming::Some;
                }
                (Word::Start, Word::Sets) => {
                    let rest = text.get(token.start..).unwrap_or_default();
                    self.sets = self.sets.max(sets_by_statement(rest, context));
                }
                _ => {}
            }
            previous = match (previous, word) {
                // Its options stand between.
                (Word::Explain, Word::Other) => Word::Explain,
                _ => word,
            };
        }
    }
}

/// A word, as far as the next one's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Start,
    Explain,
    As,
    Prepares,
    Sets,
    Other,
}

impl Word {
    fn of(word: &[u8]) -> Self {
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        if is("explain") {
            Word::Explain
        } else if is("as") {
            Word::As
        } else if is("prepare") || is("execute") || is("deallocate") || is("discard") {
            Word::Prepares
        } else if is("set") || is("reset") {
            Word::Sets
        } else {
            Word::Other
        }
    }
}

fn ends(text: &[u8], end: &[u8]) -> bool {
    let start = text.len().checked_sub(end.len());
    start.is_some_and(|start| text[start..].eq_ignore_ascii_case(end))
}

fn begins(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(start))
}

/// `TRANSACTION 'name'` stands behind a PREPARE that ends at `at`.
fn prepares_transaction(text: &[u8], at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    let mut tokens = Lexer::new(rest, true);
    let word = tokens.next_token().map(|token| token.text(rest));
    let name = tokens.next_token().map(|token| token.kind);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"transaction"))
        && !matches!(name, Some(TokenKind::Word | TokenKind::Semicolon) | None)
}

/// By the SET or RESET that `text` begins with.
fn sets_by_statement(text: &[u8], context: &Context) -> Sets {
    match setting(text, context).map(|setting| setting.target) {
        Some(Target::Named(name)) => sets_of(name),
        Some(Target::Transaction | Target::Characteristics | Target::Constraints) => Sets::Others,
        Some(Target::Special(_) | Target::All) | None => Sets::Reading,
    }
}

/// By a call of `set_config`, of whose name `rest` is the end with all that follows. Only what is named by a plain
/// literal is known.
fn sets_by_function(rest: &[u8]) -> Sets {
    let behind = rest.get(b"_config".len()..).unwrap_or_default();
    let argument = behind.trim_ascii_start().strip_prefix(b"(");
    let literal = argument.and_then(|rest| rest.trim_ascii_start().strip_prefix(b"'"));
    let name = literal.and_then(|rest| rest.split(|byte| *byte == b'\'').next());
    name.map_or(Sets::Reading, sets_of)
}

fn sets_of(name: &[u8]) -> Sets {
    match normalised(name) {
        Some(name) if !decides_reading(&name) => Sets::Others,
        _ => Sets::Reading,
    }
}

/// `DEALLOCATE [PREPARE] ALL` or `DISCARD ALL`.
fn is_all(text: &[u8], context: &Context) -> bool {
    let mut words = Lexer::new(text, context.standard_conforming_strings)
        .filter(|token| token.kind != TokenKind::Semicolon)
        .map(|token| token.text(text));
    let is = |word: Option<&[u8]>, known: &str| {
        word.is_some_and(|word| word.eq_ignore_ascii_case(known.as_bytes()))
    };
    let verb = words.next();
    let mut object = words.next();
    if is(verb, "deallocate") && is(object, "prepare") {
        object = words.next();
    }
    let drops = is(verb, "deallocate") || is(verb, "discard");
    drops && is(object, "all") && words.next().is_none()
}

/// The name in `DEALLOCATE [PREPARE] name`, as the server knows it.
pub fn deallocated(text: &[u8], context: &Context) -> Option<Vec<u8>> {
    let mut tokens = Lexer::new(text, context.standard_conforming_strings)
        .filter(|token| token.kind != TokenKind::Semicolon);
    let is = |word: &[u8], known: &str| word.eq_ignore_ascii_case(known.as_bytes());
    let verb = tokens.next()?;
    let mut name = tokens.next()?;
    let mut after = tokens.next();
    if let Some(second) = after.filter(|_| is(name.text(text), "prepare")) {
        name = second;
        after = tokens.next();
    }
    if !is(verb.text(text), "deallocate") || after.is_some() {
        return None;
    }
    match (name.kind, name.text(text)) {
        (TokenKind::Word, word) if !is(word, "all") => Some(word.to_ascii_lowercase()),
        (TokenKind::QuotedIdent, quoted) => {
            let inside = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            (!inside.contains(&b'"')).then(|| inside.to_vec())
        }
        _ => None,
    }
}

/// Whether a string in the text may mean another time whenever it is parsed: `'now'`, `'today'` and their like.
pub fn tells_time(text: &[u8], context: &Context) -> bool {
    let mut strings = Lexer::new(text, context.standard_conforming_strings).filter(|token| {
        use TokenKind::{DollarStr, EscapeStr, Str, UnicodeStr};
        matches!(token.kind, Str | EscapeStr | UnicodeStr | DollarStr)
    });
    strings.any(|token| {
        let string = token.text(text);
        let hides = !matches!(token.kind, TokenKind::Str | TokenKind::DollarStr);
        has_time(string) || (hides && string.contains(&b'\\'))
    })
}

fn has_time(string: &[u8]) -> bool {
    ["now", "today", "tomorrow", "yesterday"]
        .iter()
        .any(|word| {
            let mut windows = string.windows(word.len());
            windows.any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::effects::effects;

    fn marks(text: &str) -> Marks {
        let context = Context::default();
        let text = text.as_bytes();
        Marks::of(text, &effects(text, &context), &context)
    }

    #[test]
    fn texts_that_name_prepared_statements_are_seen() {
        for text in [
            "EXECUTE s",
            "prepare s as select 1",
            "EXPLAIN EXECUTE s",
            "EXPLAIN (ANALYZE, COSTS OFF) EXECUTE s",
            "explain analyze verbose execute s",
            "create temp table t as execute s",
            "prepare transaction as select 1",
            "select 1; deallocate all",
            "SELECT * FROM \"pg_prepared_statements\"",
            "select count(*) from PG_Prepared_Statement()",
            "select a_function_of_unknown_make()",
            "do $$begin execute 'prepare a as select 1'; end$$",
        ] {
            assert_eq!(marks(text).naming, Naming::Some, "{text}");
        }
        for text in ["DEALLOCATE ALL", "deallocate prepare all;", "discard all"] {
            assert_eq!(marks(text).naming, Naming::All, "{text}");
        }
        for (text, name) in [
            ("DEALLOCATE pdo_stmt_00000001", "pdo_stmt_00000001"),
            ("/* x */ deallocate PREPARE S;", "s"),
            ("deallocate \"S\"", "S"),
            ("deallocate prepare", "prepare"),
        ] {
            assert_eq!(marks(text).naming, Naming::One, "{text}");
            let found = deallocated(text.as_bytes(), &Context::default());
            assert_eq!(found.as_deref(), Some(name.as_bytes()), "{text}");
        }
        for text in [
            "select 'execute s'",
            "prepare transaction 't'",
            "grant execute on function f() to r",
            "create trigger g before insert on t for each row execute function f()",
            "select execute from prepare",
            "update t set a = 1",
        ] {
            assert_eq!(marks(text).naming, Naming::None, "{text}");
        }
    }

    #[test]
    fn changes_of_settings_and_schema_are_seen() {
        for text in [
            "set local search_path to a",
            "begin; SET LOCAL a.b = 1; set time zone utc",
            "select set_config('a.b', '1', true), set_config('DateStyle', 'SQL', true)",
            "select set_config(a, b, true) from t",
            "select set_config('work'||'_mem', b, true)",
            "set role r",
            "reset all",
        ] {
            assert_eq!(marks(text).sets, Sets::Reading, "{text}");
        }
        for text in [
            "set local work_mem to a",
            "begin; SET LOCAL a.b = 1",
            "select set_config('a.b', '1', true), SET_CONFIG ( 'Work_Mem', '1', true)",
            "set transaction read only",
            "reset statement_timeout",
        ] {
            assert_eq!(marks(text).sets, Sets::Others, "{text}");
        }
        assert_eq!(marks("update t set a = 1").sets, Sets::None);
        assert!(marks("alter table t add c int").changes_schema);
        assert!(marks("do $$begin end$$").changes_schema);
        assert!(!marks("insert into t values (1)").changes_schema);
        assert!(!marks("begin").changes_schema);
    }

    #[test]
    fn strings_that_mean_the_time_of_their_parse_are_seen() {
        let tells = |text: &str| tells_time(text.as_bytes(), &Context::default());
        for text in [
            "select 'now'::timestamptz",
            "select date 'Yesterday 12:00'",
            "select $$today$$::date",
            "select E'n\\157w'::timestamp",
            "select U&'\\006eow'::timestamp",
        ] {
            assert!(tells(text), "{text}");
        }
        for text in [
            "select now()",
            "select today from t",
            "select 'later', E'x'",
        ] {
            assert!(!tells(text), "{text}");
        }
    }
}
