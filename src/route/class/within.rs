//! What may run in a transaction that was opened read-only on a replica.
//!
//! Nothing in it can be run again elsewhere, and a replica grants silently what only counts on the primary (advisory
//! locks, resets of statistics). So beside proven reads there is a list of what moves the transaction, of cursors over
//! proven reads, and of the session's own settings; everything else is refused before the replica is asked.

use super::{Context, Place, class_of};
use crate::route::{
    effects::{Count, Effects, Names, TxControl, effects_among},
    keyword::Keyword,
    lexer::{Lexer, TokenKind},
    settings::{self, Target},
};

/// Settings that a session shows as it has set them, wherever it is.
const SHOWN_ALIKE: [&str; 12] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_isolation",
    "transaction_read_only",
];

/// Whether a text that is no proven read may run there all the same.
pub fn may_run_within(text: &[u8], effects: &Effects, context: &Context, names: Names) -> bool {
    if effects.statements != Count::One || effects.pin.is_some() || effects.read_write_request {
        return false;
    }
    match effects.control {
        TxControl::Commit
        | TxControl::CommitAndChain
        | TxControl::Rollback
        | TxControl::RollbackAndChain
        | TxControl::Savepoint
        | TxControl::Release
        | TxControl::RollbackTo => return true,
        TxControl::None => {}
        _ => return false,
    }
    match super::scan::first_word(text, context) {
        Some(Keyword::Declare) => declares_read(text, context, names),
        Some(Keyword::Fetch | Keyword::Move | Keyword::Close) => true,
        Some(Keyword::Show) => shows_alike(text, context),
        Some(Keyword::Set | Keyword::Reset) => sets_own(text, context),
        _ => false,
    }
}

/// DECLARE … FOR a proven read.
fn declares_read(text: &[u8], context: &Context, names: Names) -> bool {
    let mut tokens = Lexer::new(text, context.standard_conforming_strings);
    let is_for = |word: &[u8]| word.eq_ignore_ascii_case(b"for");
    let word = tokens.find(|token| token.kind == TokenKind::Word && is_for(token.text(text)));
    let Some(query) = word.and_then(|word| text.get(word.end..)) else {
        return false;
    };
    let effects = effects_among(query, context, names);
    class_of(query, &effects, context, names).place == Place::Anywhere && effects.pin.is_none()
}

fn shows_alike(text: &[u8], context: &Context) -> bool {
    let mut tokens = Lexer::new(text, context.standard_conforming_strings).skip(1);
    let words = |token: crate::route::lexer::Token| {
        let word = token.text(text).to_ascii_lowercase();
        String::from_utf8(word).unwrap_or_default()
    };
    let shown: Vec<_> = tokens.by_ref().take(4).map(words).collect();
    match shown.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name] | [name, ";"] => SHOWN_ALIKE.contains(&name),
        ["transaction", "isolation", "level"] | ["time", "zone"] => true,
        _ => false,
    }
}

/// Nothing of the transaction's own, and nothing of ours.
fn sets_own(text: &[u8], context: &Context) -> bool {
    const OTHERS: [&str; 4] = [
        "transaction",
        "default_transaction",
        "session_authorization",
        "pgsluice",
    ];
    let Some(setting) = settings::setting(text, context) else {
        return false;
    };
    let is_own = |name: &str| !OTHERS.iter().any(|prefix| name.starts_with(prefix));
    match setting.target {
        Target::Named(written) => {
            let plain = written
                .iter()
                .filter(|b| !b.is_ascii_whitespace() && **b != b'"');
            let plain: Vec<u8> = plain.map(u8::to_ascii_lowercase).collect();
            std::str::from_utf8(&plain).is_ok_and(is_own)
        }
        Target::Special(known) => is_own(known),
        _ => false,
    }
}
