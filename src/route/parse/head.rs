//! What a statement is by its first words, and where the query is that it explains, copies or opens.

use sqlparser::{
    ast,
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserOptions},
};

use super::{CopyTo, Kind, Name, Piece, Statement, Verb, names::folded, walk};
use crate::route::{Context, keyword::Keyword, lexer::TokenKind};

/// The parser's own bound on what it nests.
const MAX_RECURSION: usize = 50;

pub(super) fn statement(piece: Piece, context: &Context) -> Option<Statement> {
    if piece.kind(0)? == TokenKind::OpenParen {
        return plain(piece, context);
    }
    let simple = |kind| Some(Statement::of(kind));
    match piece.keyword(0)? {
        verb if is_plain(verb) => plain(piece, context),
        Keyword::Explain => explain(piece.from(1), context),
        Keyword::Declare => declare(piece, context),
        Keyword::Copy => copy(piece.from(1), context),
        Keyword::Show => show(piece),
        Keyword::Set | Keyword::Reset | Keyword::Discard => simple(Kind::Set),
        // `transaction` may be a statement's name, too.
        Keyword::Prepare
            if piece.keyword(1) == Some(Keyword::Transaction)
                && piece.kind(2) != Some(TokenKind::OpenParen)
                && piece.keyword(2) != Some(Keyword::As) =>
        {
            simple(Kind::Transaction)
        }
        Keyword::Prepare | Keyword::Execute | Keyword::Deallocate => simple(Kind::Prepared),
        Keyword::Begin
        | Keyword::Start
        | Keyword::Commit
        | Keyword::End
        | Keyword::Rollback
        | Keyword::Abort
        | Keyword::Savepoint
        | Keyword::Release => simple(Kind::Transaction),
        Keyword::Listen | Keyword::Unlisten | Keyword::Notify => simple(Kind::Notify),
        Keyword::Fetch | Keyword::Move | Keyword::Close => simple(Kind::Cursor),
        Keyword::Call => simple(Kind::Call),
        Keyword::Do => simple(Kind::Do),
        Keyword::Lock => simple(Kind::Lock),
        _ => simple(Kind::Other),
    }
}

fn is_plain(verb: Keyword) -> bool {
    matches!(
        verb,
        Keyword::Select
            | Keyword::Values
            | Keyword::Table
            | Keyword::With
            | Keyword::Insert
            | Keyword::Update
            | Keyword::Delete
            | Keyword::Merge
    )
}

/// A query, INSERT, UPDATE, DELETE or MERGE.
fn plain(piece: Piece, context: &Context) -> Option<Statement> {
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .with_options(ParserOptions::new().with_trailing_commas(false))
        .with_recursion_limit(MAX_RECURSION)
        .with_tokens(piece.parsed()?);
    let mut statements = parser.parse_statements().ok()?;
    let statement: ast::Statement = statements.pop()?;
    if !statements.is_empty() {
        return None;
    }
    walk::statement(&statement, context.server_major)
}

/// The verb of what was read by [`plain`].
fn verb(statement: &Statement) -> Option<Verb> {
    match statement.kind {
        Kind::Plain(verb) => Some(verb),
        _ => None,
    }
}

fn begins_plain(piece: Piece) -> bool {
    piece.kind(0) == Some(TokenKind::OpenParen) || piece.keyword(0).is_some_and(is_plain)
}

/// Behind EXPLAIN.
fn explain(piece: Piece, context: &Context) -> Option<Statement> {
    let (analyze, explained) = explain_options(piece)?;
    if !begins_plain(explained) {
        return Some(Statement::of(Kind::ExplainOther));
    }
    let mut statement = plain(explained, context)?;
    let of = verb(&statement)?;
    statement.kind = Kind::Explain { analyze, of };
    Some(statement)
}

/// Whether ANALYZE is among the options, and what comes behind them.
fn explain_options(piece: Piece) -> Option<(bool, Piece)> {
    if piece.kind(0) != Some(TokenKind::OpenParen) {
        let is_analyze = matches!(piece.keyword(0), Some(Keyword::Analyze | Keyword::Analyse));
        let mut rest = piece.from(usize::from(is_analyze));
        if rest.keyword(0) == Some(Keyword::Verbose) {
            rest = rest.from(1);
        }
        return Some((is_analyze, rest));
    }
    let (options, rest) = piece.parenthesised(0)?;
    match (options.kind(0)?, options.keyword(0)) {
        // A query in parentheses.
        (TokenKind::OpenParen, _) | (_, Some(Keyword::Select | Keyword::With | Keyword::Table)) => {
            Some((false, piece))
        }
        // An option of this name, or a query?
        (_, Some(Keyword::Values)) => None,
        // Whether it is turned off again is not looked at: at worst a query that reads stays on the primary.
        _ => Some((names_analyze(options), rest)),
    }
}

fn names_analyze(options: Piece) -> bool {
    (0..options.tokens.len()).any(|at| {
        let text = options.text_of(at);
        let word = text.strip_prefix(b"\"").unwrap_or(text);
        let word = word.strip_suffix(b"\"").unwrap_or(word);
        word.eq_ignore_ascii_case(b"analyze") || word.eq_ignore_ascii_case(b"analyse")
    })
}

/// DECLARE name … CURSOR [WITH HOLD | WITHOUT HOLD] FOR query.
fn declare(piece: Piece, context: &Context) -> Option<Statement> {
    let is_options_end = |&at: &usize| piece.keyword(at) == Some(Keyword::Cursor);
    let cursor = (2..piece.tokens.len()).find(is_options_end)?;
    let (hold, query) = match (piece.keyword(cursor + 1)?, piece.keyword(cursor + 2)) {
        (Keyword::For, _) => (false, cursor + 2),
        (Keyword::With, Some(Keyword::Hold)) => (true, cursor + 4),
        (Keyword::Without, Some(Keyword::Hold)) => (false, cursor + 4),
        _ => return None,
    };
    if piece.keyword(query - 1) != Some(Keyword::For) {
        return None;
    }
    let mut statement = plain(piece.from(query), context)?;
    if !matches!(verb(&statement)?, Verb::Select | Verb::Values) {
        return None;
    }
    statement.kind = Kind::Declare { hold };
    Some(statement)
}

/// Behind COPY.
fn copy(piece: Piece, context: &Context) -> Option<Statement> {
    if piece.kind(0)? == TokenKind::OpenParen {
        let (query, rest) = piece.parenthesised(0)?;
        let mut statement = plain(query, context)?;
        let of = Some(verb(&statement)?);
        let to = copy_to(rest)?;
        statement.kind = Kind::CopyTo { to, of };
        return Some(statement);
    }
    let is_binary = piece.keyword(0) == Some(Keyword::Binary);
    let (relation, mut rest) = relation(piece.from(usize::from(is_binary)), context)?;
    if rest.kind(0)? == TokenKind::OpenParen {
        rest = rest.parenthesised(0)?.1;
    }
    let kind = match rest.keyword(0)? {
        Keyword::From => Kind::CopyFrom,
        _ => Kind::CopyTo {
            to: copy_to(rest)?,
            of: None,
        },
    };
    let mut statement = Statement::of(kind);
    statement.relations.insert(relation);
    Some(statement)
}

fn copy_to(piece: Piece) -> Option<CopyTo> {
    if piece.keyword(0)? != Keyword::To {
        return None;
    }
    match piece.keyword(1) {
        Some(Keyword::Stdout | Keyword::Stdin) => Some(CopyTo::Stdout),
        Some(Keyword::Program) => Some(CopyTo::Program),
        Some(_) => None,
        None => Some(CopyTo::File),
    }
}

/// The name that a piece begins with, and what comes behind it.
fn relation<'t>(piece: Piece<'t>, context: &Context) -> Option<(Name, Piece<'t>)> {
    let first = name(piece, 0)?;
    if !super::names::is_column_name(&first, context.server_major) {
        return None;
    }
    if piece.kind(1) != Some(TokenKind::Dot) {
        return Some((Name::plain(folded(&first)?), piece.from(1)));
    }
    let second = name(piece, 2)?;
    let name = Name::within(folded(&first)?, folded(&second)?);
    Some((name, piece.from(3)))
}

fn name(piece: Piece, at: usize) -> Option<ast::Ident> {
    let text = str::from_utf8(piece.text_of(at)).ok()?;
    match piece.kind(at)? {
        TokenKind::Word => Some(ast::Ident::new(text)),
        TokenKind::QuotedIdent => {
            let inside = text.strip_prefix('"')?.strip_suffix('"')?;
            Some(ast::Ident::with_quote('"', inside.replace("\"\"", "\"")))
        }
        _ => None,
    }
}

fn show(piece: Piece) -> Option<Statement> {
    let first = folded(&name(piece, 1)?)?;
    let setting: Box<str> = match (piece.keyword(1), piece.tokens.len()) {
        (Some(Keyword::Time), 3) if piece.keyword(2) == Some(Keyword::Zone) => "timezone".into(),
        (Some(Keyword::Transaction), 4) => "transaction_isolation".into(),
        (Some(Keyword::Session), 3) => "session_authorization".into(),
        (_, 2) => first,
        (_, 4) if piece.kind(2) == Some(TokenKind::Dot) => {
            format!("{first}.{}", folded(&name(piece, 3)?)?).into()
        }
        _ => return None,
    };
    Some(Statement::of(Kind::Show(setting)))
}
