//! What a text says: which statements it has, what they name, what they would do besides reading. Pure.
//!
//! A text is cut by [`super::lexer`]; what decides by its first words is read here, and queries, INSERT, UPDATE, DELETE and
//! MERGE are read by `sqlparser`, from *our* tokens, so that both agree where a literal ends. Its tree is then walked node by node
//! and field by field: what PostgreSQL's grammar does not have, or means otherwise, ends the walk. Nobody outside sees the tree.
//!
//! With the feature `pg-grammar` PostgreSQL's own grammar reads what the parser cannot (`grammar`); with it the tests hold
//! the parser's facts to the grammar's.
//!
//! Everything here errs in one direction: what is not understood is None, and goes to the primary.
//!
//! Bounded before anything recursive runs: the text's length, its parentheses, and how deep its tree can become. The
//! parser's frames are large all the same, so the stack is looked at, too.

mod facts;
#[cfg(feature = "pg-grammar")]
mod grammar;
mod head;
mod names;
mod tokens;
mod walk;

pub use facts::{CopyTo, Facts, Kind, Name, Statement, Verb};

use super::{Context, Encoding, lexer::Token};

/// What the deepest text that is read may take of the stack, in bytes; without optimization frames are ten times as large.
const STACK: usize = match cfg!(debug_assertions) {
    true => 32 * 1024 * 1024,
    false => 1536 * 1024,
};

/// Reads a text; None for what cannot be read for certain.
pub fn read(text: &[u8], context: &Context) -> Option<Facts> {
    by_parser(text, context).or_else(|| second(text, context))
}

#[cfg(feature = "pg-grammar")]
fn second(text: &[u8], context: &Context) -> Option<Facts> {
    by_grammar(text, context)
}

#[cfg(not(feature = "pg-grammar"))]
fn second(_: &[u8], _: &Context) -> Option<Facts> {
    None
}

/// As the first reader has it, which is there always.
pub fn by_parser(text: &[u8], context: &Context) -> Option<Facts> {
    let tokens = bounded(text, context)?;
    stacker::maybe_grow(STACK, STACK, || statements(text, &tokens, context))
}

/// As PostgreSQL's own grammar has it: of the version that was built in, whatever the server's.
#[cfg(feature = "pg-grammar")]
pub fn by_grammar(text: &[u8], context: &Context) -> Option<Facts> {
    bounded(text, context)?;
    let text = str::from_utf8(text).ok()?;
    stacker::maybe_grow(STACK, STACK, || grammar::read(text))
}

/// The tokens of a text whose bytes mean what they seem to, and whose depth is bounded.
fn bounded(text: &[u8], context: &Context) -> Option<Vec<Token>> {
    let readable = context.standard_conforming_strings
        && (context.encoding == Encoding::AsciiSafe || text.is_ascii());
    readable.then(|| tokens::cut(text))?
}

fn statements(text: &[u8], tokens: &[Token], context: &Context) -> Option<Facts> {
    let mut facts = Facts::default();
    for tokens in tokens::statements(tokens) {
        let piece = Piece { text, tokens };
        facts.statements.push(head::statement(piece, context)?);
    }
    Some(facts)
}

/// For property tests and fuzzing: reads a text, whatever the server.
///
/// # Panics
/// If reading does, or gives other facts a second time.
pub fn assert_readable(text: &[u8]) {
    for server_major in [15, 18] {
        let context = Context {
            server_major,
            ..Context::default()
        };
        assert_eq!(read(text, &context), read(text, &context));
    }
}

/// Some tokens of a text.
#[derive(Debug, Clone, Copy)]
struct Piece<'t> {
    text: &'t [u8],
    tokens: &'t [Token],
}

#[cfg(test)]
mod tests;
