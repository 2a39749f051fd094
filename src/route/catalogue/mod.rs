//! What the catalogue of one database proves: which functions leave nothing behind, and what runs without being named.
//!
//! [`Facts`] are what was read from the catalogue; [`judge`] makes a [`Catalogue`] of them once, which sessions then only
//! look names up in. It judges names, not functions: the `search_path` is not trusted, so a name is harmless only if every
//! function that bears it is, in all schemas and with all arguments.
//!
//! A function is harmless if its whole closure is: everything that it calls by name, that its triggers, views, policies
//! and defaults call, and so on. Bodies in SQL and PL/pgSQL are read ([`plpgsql`] cuts the latter into SQL); of C code
//! only that of the extensions in [`extensions`] is trusted. What cannot be read pins. Recursion is fine: what can only
//! call itself does nothing else.
//!
//! [`reads`] proves another thing of the same facts: what may run on a replica.
//!
//! # What is taken on trust
//! C code behind an operator, cast, type or index is taken to leave nothing behind: extensions bring hundreds of these,
//! and no text names them. A setting of an extension's or application's own that is set for a transaction leaves its name
//! behind, as an empty string.

mod body;
mod extensions;
mod graph;
mod judge;
pub(super) mod plpgsql;
pub(super) mod reads;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::{effects::PinReason, lexer::Token};
pub use body::Notes;
pub use judge::{Rules, judge};
pub use reads::Reads;

/// The longest name that PostgreSQL keeps; what is written longer is cut.
const MAX_NAME: usize = 63;

/// What was read of one database. Only objects that users made, temporary ones left out.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub functions: Vec<Function>,
    /// The first function runs the second one without its body saying so: aggregates, defaults of arguments. None: a
    /// built-in one that is not harmless.
    pub parts: Vec<(u32, Option<u32>)>,
    pub reached: Vec<Reached>,
    /// Whoever names the first relation reaches what naming the second reaches: a view and what it reads, a parent and
    /// its partitions, a referenced table and those that refer to it.
    pub relations: Vec<(String, String)>,
    /// What FROM may name, built-in ones too.
    pub tables: Vec<Table>,
    /// Tables and what inherits from them or is a partition of them.
    pub children: Vec<(String, String)>,
    pub stored: Vec<Stored>,
    pub uses: Vec<Use>,
}

/// A table, view or sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    pub is_built_in: bool,
}

/// As far as it matters to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Its rows, or those that it is made of, are replicated: a table, a materialised view, a view.
    Replicated,
    Unlogged,
    Foreign,
    Sequence,
}

/// An expression or query that is run where an object is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A view's.
    Query { relation: String, sql: String },
    /// A policy's, a virtual column's.
    Expression { relation: String, sql: String },
    /// A domain's check.
    Check { domain: String, sql: String },
}

/// A function that is used through something else, unless it is in C.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub by: Through,
    pub function: String,
}

/// Through what a function is used, and `Argument` the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Through {
    Operator(String),
    /// A cast that must be written, to this type.
    Cast(String),
    /// A cast that need not be written; what sorts and groups a user's type.
    Implicit,
    /// What the function is given, or gives, must pass this domain's checks.
    Argument(String),
}

/// A function, procedure or aggregate.
#[derive(Debug, Clone, Default)]
pub struct Function {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `sql`, `plpgsql`, `c`, `internal`, …
    pub language: String,
    pub body: Body,
    /// Its SET clauses, as `name=value`.
    pub settings: Vec<String>,
    pub extension: Option<String>,
    /// It may be called with one argument, and so as `x.name`.
    pub takes_argument: bool,
    /// Its arguments' defaults, as expressions.
    pub defaults: Option<String>,
}

impl Function {
    /// Machine code of the server or of a library.
    fn is_in_c(&self) -> bool {
        matches!(self.language.as_str(), "c" | "internal")
    }
}

/// How a function is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Body {
    /// As it was given.
    Text(String),
    /// Of standard SQL: `BEGIN ATOMIC … END` or `RETURN …`.
    Standard(String),
    /// An aggregate: its parts say all.
    Aggregate,
    /// Too long, or stored in a way that cannot be read.
    #[default]
    Unknown,
}

/// A function that is run without being named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub by: By,
    /// None: a built-in one that is not harmless.
    pub function: Option<u32>,
}

/// What a statement must do to reach a function that it does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Name the relation: views, rules, policies.
    Naming(String),
    /// Name the relation, which has the function in an index.
    Index(String),
    /// Name the relation, and write: triggers, defaults, checks.
    Writing(String),
    /// Anything at all: operators, casts, types.
    Anything,
    /// Define something: event triggers.
    Defining,
}

/// A function's name as judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Why it is not harmless.
    pub pin: Option<PinReason>,
    /// It may call nextval, itself or through a column's default.
    pub advances_sequence: bool,
    /// It defines something, which may change what the catalogue proves.
    pub changes_catalogue: bool,
}

/// What naming a relation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Harm {
    /// However it is named.
    pub naming: bool,
    /// In a statement that writes.
    pub writing: bool,
}

/// What is proven of one database; immutable. See the module's header.
#[derive(Debug, Default)]
pub struct Catalogue {
    functions: HashMap<Box<[u8]>, Known>,
    /// Names that reach something harmful.
    relations: HashMap<Box<[u8]>, Harm>,
    relation_filter: Filter,
    /// Harmful functions that may be called as `x.name`.
    attributes: HashSet<Box<[u8]>>,
    attribute_filter: Filter,
    /// Over all names that a client may spell in another encoding.
    elsewhere: Harm,
    /// A harmful function has a built-in name.
    shadows: bool,
    /// Why every statement may reach something harmful.
    pub(super) anything: Option<PinReason>,
    /// Why every definition may.
    pub(super) defining: Option<PinReason>,
    pub(super) reads: Reads,
}

/// How much was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Names of functions.
    pub functions: usize,
    /// Those of them that are harmless.
    pub harmless: usize,
    /// Relations whose naming reaches something harmful.
    pub harmful_relations: usize,
    /// Relations that may be read on a replica, and the names of functions that may be called there.
    pub readable_relations: usize,
    pub readable_functions: usize,
}

impl Catalogue {
    /// What is known of the function that is called by this name; None if there is none.
    pub fn function(&self, name: &[u8]) -> Option<Known> {
        self.functions.get(name).copied()
    }

    pub fn size(&self) -> Size {
        let harmless = self.functions.values().filter(|f| f.pin.is_none());
        Size {
            functions: self.functions.len(),
            harmless: harmless.count(),
            harmful_relations: self.relations.len(),
            readable_relations: self.reads.readable_relations(),
            readable_functions: self
                .functions
                .len()
                .saturating_sub(self.reads.unfit_functions()),
        }
    }

    /// Whether statements of every kind may reach something harmful.
    pub fn is_harmful_anywhere(&self) -> bool {
        self.anything.is_some()
    }

    pub(super) fn called(&self, token: Token, text: &[u8]) -> Option<Known> {
        with_name(token.text(text), |name| self.function(name))
    }

    /// Whether one of the functions with this built-in name is harmful.
    #[inline]
    pub(super) fn is_shadowed(&self, token: Token, text: &[u8]) -> bool {
        self.shadows && self.called(token, text).is_some_and(|f| f.pin.is_some())
    }

    /// Whether `x.name` may call a harmful function.
    #[inline]
    pub(super) fn is_harmful_attribute(&self, name: &[u8]) -> bool {
        self.attribute_filter.may_hold(name)
            && (!name.is_ascii() || with_name(name, |name| self.attributes.contains(name)))
    }

    #[inline]
    pub(super) fn named(&self, name: &[u8]) -> Harm {
        if !self.relation_filter.may_hold(name) {
            return Harm::default();
        }
        if !name.is_ascii() {
            return self.elsewhere;
        }
        with_name(name, |name| self.relations.get(name).copied()).unwrap_or_default()
    }
}

/// Tells most names that are not in a set by length and first letter, without hashing them. The empty set holds none.
#[derive(Debug, Default, Clone, Copy)]
struct Filter(u64);

impl Filter {
    fn of<'n>(names: impl Iterator<Item = &'n Box<[u8]>>) -> Self {
        let mut filter = Filter::default();
        for name in names {
            // A client may spell it in an encoding of other lengths, or longer than it is kept.
            filter.0 |= match name.is_ascii() && name.len() < MAX_NAME {
                true => Filter::bit(name),
                false => u64::MAX,
            };
        }
        filter
    }

    #[inline]
    fn may_hold(self, written: &[u8]) -> bool {
        let bare = written.strip_prefix(b"\"");
        let bare = bare.and_then(|name| name.strip_suffix(b"\""));
        self.0 & Filter::bit(bare.unwrap_or(written)) != 0
    }

    #[inline]
    fn bit(name: &[u8]) -> u64 {
        let first = name.first().copied().unwrap_or_default() | 0x20;
        1 << ((usize::from(first) * 7 + name.len()) % 64)
    }
}

/// The name that a word or quoted identifier stands for: folded, or without its quotes, and cut.
pub(super) fn with_name<T>(written: &[u8], then: impl FnOnce(&[u8]) -> T) -> T {
    let quoted = written
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let name = quoted.unwrap_or(written);
    let name = name.get(..MAX_NAME).unwrap_or(name);
    if quoted.is_some() {
        return then(name);
    }
    let mut folded = [0; MAX_NAME];
    let folded = &mut folded[..name.len()];
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    then(folded)
}

/// A name as it stands between quotes.
fn written(name: &str) -> Box<[u8]> {
    name.replace('"', "\"\"").into_bytes().into_boxed_slice()
}
