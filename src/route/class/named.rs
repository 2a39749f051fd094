//! What a parser found in a text, held to what is known: a second reading of the same, by other means.
//!
//! Here every name has its role. Relations must be known, and what has a syntax of its own counts as what it calls.

use super::{Class, Known, Reason, within};
use crate::route::{
    catalogue::reads::{Reads, Role},
    parse::{CopyTo, Facts, Kind, Name, Statement, Verb},
    primary,
};

/// The first that is against a proven read.
pub(super) fn against(facts: &Facts, known: &Known) -> Option<Class> {
    facts
        .statements
        .iter()
        .find_map(|statement| against_statement(statement, known))
}

fn against_statement(statement: &Statement, known: &Known) -> Option<Class> {
    let reads = match &statement.kind {
        Kind::Plain(verb) | Kind::Explain { of: verb, .. } => is_read(*verb),
        Kind::CopyTo {
            to: CopyTo::Stdout,
            of,
        } => of.is_none_or(is_read),
        _ => false,
    };
    if !reads || !statement.writes.is_empty() || statement.locks || statement.into {
        return Some(Class::primary(Reason::Unknown));
    }
    let built_in = statement.functions.iter().find(|function| {
        let is_built_in = function.schema.as_deref().is_none_or(|s| s == "pg_catalog");
        // By hand, in the scan: these depend on their arguments.
        let is_judged = matches!(&*function.name, "age" | "current_setting");
        let is_allowed =
            matches!(known, Known::Read(reads) if reads.allows(function.name.as_bytes()));
        is_built_in && !is_judged && !is_allowed && primary::needs_primary(function.name.as_bytes())
    });
    if let Some(function) = built_in {
        return Some(Class::by(Reason::Function, function.name.as_bytes()));
    }
    let method = statement.samples.iter().find(|name| !is_known_sample(name));
    if let Some(method) = method {
        return Some(Class::by(Reason::Function, method.name.as_bytes()));
    }
    match known {
        Known::Read(reads) => against_names(statement, reads),
        Known::BuiltIn | Known::Noted { .. } => unknown(statement),
    }
}

fn is_read(verb: Verb) -> bool {
    matches!(verb, Verb::Select | Verb::Values)
}

/// Methods of TABLESAMPLE, built in or of the server's own extensions.
fn is_known_sample(name: &Name) -> bool {
    let known = ["system", "bernoulli", "system_rows", "system_time"];
    known.contains(&&*name.name)
}

fn against_names(statement: &Statement, reads: &Reads) -> Option<Class> {
    for relation in &statement.relations {
        let name = spelt(&relation.name);
        if let Some(cause) = reads.against_relation(&name) {
            return Some(within(&name, cause));
        }
        if !reads.has_relation(&name) {
            return Some(Class::by(Reason::Unknown, &name));
        }
    }
    let called = statement.functions.iter().map(|name| &*name.name);
    let called = called.chain(statement.attributes.iter().map(|name| &**name));
    let named = statement.types.iter().map(|name| &*name.name);
    let roles = called
        .map(|name| (name, Role::Called))
        .chain(named.map(|name| (name, Role::Plain)));
    for (name, role) in roles {
        let name = spelt(name);
        if let Some(cause) = reads.against(&name, role) {
            return Some(within(&name, cause));
        }
    }
    let mut operators = statement.operators.iter();
    operators.find_map(|operator| {
        let symbol = operator.name.as_bytes();
        let cause = reads.against_operator(symbol)?;
        Some(Class {
            reason: Reason::Operator,
            ..within(symbol, cause)
        })
    })
}

/// Without a catalogue only what is built in is known.
fn unknown(statement: &Statement) -> Option<Class> {
    let relation = statement.relations.iter().next();
    let foreign = |name: &&Name| {
        let is_built_in = name.schema.as_deref().is_none_or(|s| s == "pg_catalog");
        !is_built_in || (name.schema.is_none() && !TYPES.contains(&&*name.name))
    };
    let unknown = relation.or_else(|| statement.types.iter().find(foreign))?;
    Some(Class::by(Reason::NoCatalogue, unknown.name.as_bytes()))
}

/// Built-in types that no key word names, as far as they are written every day.
const TYPES: [&str; 22] = [
    "bool",
    "bytea",
    "cidr",
    "date",
    "float4",
    "float8",
    "inet",
    "int2",
    "int4",
    "int8",
    "json",
    "jsonb",
    "jsonpath",
    "name",
    "oid",
    "regclass",
    "regtype",
    "text",
    "timestamptz",
    "timetz",
    "uuid",
    "xid",
];

/// As the catalogue's names are kept: as between quotes.
fn spelt(name: &str) -> Vec<u8> {
    name.replace('"', "\"\"").into_bytes()
}
