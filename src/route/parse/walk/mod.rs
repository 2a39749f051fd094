//! The parser's tree, walked whole: every node that PostgreSQL has is here with all its fields, and any other ends the walk.

mod call;
mod expr;
mod modify;
mod query;
mod table;
mod types;

use sqlparser::ast;

use super::{Kind, Name, Statement, Verb};

/// None as soon as something is met that is not understood.
type Walked = Option<()>;

/// Facts of one statement while they are collected.
struct Walk {
    major: u8,
    statement: Statement,
    /// Names of WITH queries that can be seen here.
    visible: Vec<Box<str>>,
}

/// The facts of a query, INSERT, UPDATE, DELETE or MERGE.
pub(super) fn statement(statement: &ast::Statement, major: u8) -> Option<Statement> {
    let mut walk = Walk {
        major,
        statement: Statement::of(Kind::Plain(Verb::Select)),
        visible: Vec::new(),
    };
    let verb = match statement {
        ast::Statement::Query(query) => walk.query(query)?,
        other => walk.modification(other)?,
    };
    walk.statement.kind = Kind::Plain(verb);
    Some(walk.statement)
}

/// Goes on only if this holds.
fn only_if(holds: bool) -> Walked {
    holds.then_some(())
}

impl Walk {
    fn operator(&mut self, name: &str) {
        self.statement.operators.insert(Name::plain(name));
    }

    fn built_in(&mut self, name: &str) {
        self.statement.functions.insert(Name::built_in(name));
    }
}
