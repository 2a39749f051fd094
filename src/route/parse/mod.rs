//! What a text says: which statements it has, what they name, what they would do besides reading. Pure.
//!
//! A text is cut by [`super::lexer`]; what decides by its first words is read here, and queries, INSERT, UPDATE, DELETE and
//! MERGE are read by `sqlparser`, from *our* tokens, so that both agree where a literal ends. Its tree is then walked node by node
//! and field by field: what PostgreSQL's grammar does not have, or means otherwise, ends the walk. Nobody outside sees the tree.
//!
//! Everything here errs in one direction: what is not understood is None, and goes to the primary.
//!
//! Bounded before anything recursive runs: the text's length, its parentheses, and how deep its tree can become. The
//! parser's frames are large all the same, so the stack is looked at, too.

mod facts;
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
    let readable = context.standard_conforming_strings
        && (context.encoding == Encoding::AsciiSafe || text.is_ascii());
    if !readable {
        return None;
    }
    let tokens = tokens::cut(text)?;
    stacker::maybe_grow(STACK, STACK, || statements(text, &tokens, context))
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
