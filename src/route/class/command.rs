//! What PostgreSQL calls a statement that surely writes, where it refuses it to a read-only transaction.
//!
//! These it refuses by what they are, whatever they would have done: a DELETE of no rows, a CREATE IF NOT EXISTS of what exists.
//! All others are the server's to judge: EXPLAIN and PREPARE run nothing, COPY looks at its file first, behind
//! WITH anything may stand.

use super::scan;
use crate::route::{
    Context,
    keyword::Keyword,
    lexer::{Lexer, TokenKind},
};

/// The command's name, of a text of one statement whose class is [`super::Reason::Write`]. None: it may not be refused so.
pub fn command_of_write(text: &[u8], context: &Context) -> Option<String> {
    let mut words = scan::words(text, context);
    let verb = match words.next()?? {
        Keyword::Insert => return Some("INSERT".to_owned()),
        Keyword::Update => return Some("UPDATE".to_owned()),
        Keyword::Delete => return Some("DELETE".to_owned()),
        Keyword::Merge => return Some("MERGE".to_owned()),
        Keyword::Truncate => return Some("TRUNCATE TABLE".to_owned()),
        Keyword::Create => "CREATE",
        Keyword::Alter => "ALTER",
        Keyword::Drop => "DROP",
        Keyword::Refresh => "REFRESH",
        _ => return None,
    };
    let object = object(&mut words)?;
    let filled = match (verb, object) {
        ("CREATE", "TABLE") if is_filled(text, context) => " AS",
        _ => "",
    };
    Some(format!("{verb} {object}{filled}"))
}

/// What is defined.
fn object(words: &mut impl Iterator<Item = Option<Keyword>>) -> Option<&'static str> {
    use Keyword as K;
    let is_modifier = |word: &K| {
        matches!(
            word,
            K::Or
                | K::Replace
                | K::Temp
                | K::Temporary
                | K::Local
                | K::Global
                | K::Unlogged
                | K::Unique
        )
    };
    let mut object = words.next()??;
    while is_modifier(&object) {
        object = words.next()??;
    }
    let name = match object {
        K::Table => "TABLE",
        K::Index => "INDEX",
        K::View => "VIEW",
        K::Materialized => "MATERIALIZED VIEW",
        K::Sequence => "SEQUENCE",
        K::Schema => "SCHEMA",
        K::Function => "FUNCTION",
        K::Procedure => "PROCEDURE",
        K::Type => "TYPE",
        K::Domain => "DOMAIN",
        _ => return None,
    };
    Some(name)
}

/// CREATE TABLE … AS. In parentheses it is a column's GENERATED … AS.
fn is_filled(text: &[u8], context: &Context) -> bool {
    let mut depth = 0_usize;
    Lexer::new(text, context.standard_conforming_strings).any(|token| {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_word = depth == 0 && token.kind == TokenKind::Word;
        is_word && Keyword::of(token.text(text)) == Some(Keyword::As)
    })
}
