//! What a text says, as far as it decides where its statements may run. See the header of [`super`].

use std::collections::BTreeSet;

/// What a whole text says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// One for each statement; an empty text has none.
    pub statements: Vec<Statement>,
}

/// What one statement says. Beyond `kind` nothing is said of what is not a query, INSERT, UPDATE, DELETE or MERGE, or one
/// of these behind EXPLAIN, DECLARE or COPY; a view or a prepared statement runs later, or on the primary anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub kind: Kind,
    /// Tables and views that are read or written, at any depth, and nothing that is the name of a WITH query.
    pub relations: BTreeSet<Name>,
    /// What is called by name, by syntax of its own (`EXTRACT`, `LIKE … ESCAPE`, `CURRENT_USER`) or in FROM, aggregates and window functions
    /// too. A name that is no function is a type, and the call a cast. COALESCE, GREATEST, LEAST, GROUPING and ROW
    /// are the grammar's own, and not here.
    pub functions: BTreeSet<Name>,
    /// Named operators, those of LIKE, IN, BETWEEN, NULLIF, CASE x WHEN, IS DISTINCT FROM, USING too, and `=` for NATURAL. What sorts,
    /// groups and compares without an operator being named is not here.
    pub operators: BTreeSet<Name>,
    /// Types in casts, typed literals and column definitions, without their brackets and modifiers.
    pub types: BTreeSet<Name>,
    pub collations: BTreeSet<Name>,
    /// The methods of TABLESAMPLE, which are functions.
    pub samples: BTreeSet<Name>,
    /// Names behind a dot, as in `t.x` or `(r).x`: where there is no such column, a call of the function `x`.
    pub attributes: BTreeSet<Box<str>>,
    /// What WITH queries do beside reading: INSERT, UPDATE, DELETE, MERGE, at any depth.
    pub writes: BTreeSet<Verb>,
    /// FOR UPDATE, FOR SHARE and their like, at any depth.
    pub locks: bool,
    /// SELECT … INTO: makes a table.
    pub into: bool,
}

impl Statement {
    /// Of which nothing but its kind is known, or to be known.
    pub fn of(kind: Kind) -> Self {
        Statement {
            kind,
            relations: BTreeSet::new(),
            functions: BTreeSet::new(),
            operators: BTreeSet::new(),
            types: BTreeSet::new(),
            collations: BTreeSet::new(),
            samples: BTreeSet::new(),
            attributes: BTreeSet::new(),
            writes: BTreeSet::new(),
            locks: false,
            into: false,
        }
    }
}

/// A name as the catalogue has it: folded, without quotes, cut to 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// None: to be looked for along the search_path. What the grammar itself means is in `pg_catalog`.
    pub schema: Option<Box<str>>,
    pub name: Box<str>,
}

impl Name {
    pub fn plain(name: impl Into<Box<str>>) -> Self {
        Name {
            schema: None,
            name: name.into(),
        }
    }

    /// Of a schema.
    pub fn within(schema: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Name {
            schema: Some(schema.into()),
            name: name.into(),
        }
    }

    /// What the grammar means whatever the search_path is.
    pub fn built_in(name: impl Into<Box<str>>) -> Self {
        Name::within("pg_catalog", name)
    }
}

/// What reads or writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// `TABLE t` too.
    Select,
    Values,
    Insert,
    Update,
    Delete,
    Merge,
}

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Plain(Verb),
    /// EXPLAIN of one of these; with ANALYZE it is run.
    Explain {
        analyze: bool,
        of: Verb,
    },
    /// EXPLAIN of anything else: EXECUTE, CREATE TABLE AS, DECLARE, REFRESH.
    ExplainOther,
    /// DECLARE CURSOR of a query.
    Declare {
        hold: bool,
    },
    /// COPY of a table or of a query, whose own verb may write.
    CopyTo {
        to: CopyTo,
        of: Option<Verb>,
    },
    CopyFrom,
    /// The setting's name, folded: `all`, and `timezone`, `transaction_isolation`, `session_authorization` where they are
    /// spelt in words of their own.
    Show(Box<str>),
    /// SET, RESET, DISCARD.
    Set,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, PREPARE TRANSACTION and their like.
    Transaction,
    /// LISTEN, UNLISTEN, NOTIFY.
    Notify,
    /// PREPARE, EXECUTE, DEALLOCATE.
    Prepared,
    /// FETCH, MOVE, CLOSE.
    Cursor,
    Call,
    Do,
    Lock,
    /// CREATE, ALTER, DROP, GRANT, COMMENT, TRUNCATE and everything else: VACUUM, LOAD, CHECKPOINT.
    Other,
}

/// Where COPY … TO goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyTo {
    Stdout,
    File,
    Program,
}
