//! Names as PostgreSQL reads them: folding, quotes, length, and which words are names at all.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::Name;
use crate::route::keyword::{Class, Keyword};

/// NAMEDATALEN - 1, in bytes.
const MAX_NAME: usize = 63;

/// What the server makes of an identifier. None for one in other letters than ASCII: what it is in the database depends on two
/// encodings; and for the quotes of other dialects.
pub(super) fn folded(ident: &Ident) -> Option<Box<str>> {
    if !ident.value.is_ascii() || ident.value.is_empty() {
        return None;
    }
    let cut = &ident.value[..ident.value.len().min(MAX_NAME)];
    match ident.quote_style {
        None => Some(cut.to_ascii_lowercase().into()),
        Some('"') => Some(cut.into()),
        Some(_) => None,
    }
}

/// What kind of key word an identifier would be to a server of this version; None for a plain name.
pub(super) fn class(ident: &Ident, major: u8) -> Option<Class> {
    match ident.quote_style {
        None => Keyword::of(ident.value.as_bytes())?.class(major),
        Some(_) => None,
    }
}

/// It may be the name of a column, a table or a schema.
pub(super) fn is_column_name(ident: &Ident, major: u8) -> bool {
    matches!(
        class(ident, major),
        None | Some(Class::Unreserved | Class::ColName)
    )
}

/// It may be the name of a function or a type.
pub(super) fn is_function_name(ident: &Ident, major: u8) -> bool {
    matches!(
        class(ident, major),
        None | Some(Class::Unreserved | Class::TypeFunc)
    )
}

/// The parts of a name, if it is one of plain identifiers.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<&Ident>> {
    let parts = name.0.iter().map(|part| match part {
        ObjectNamePart::Identifier(ident) => Some(ident),
        ObjectNamePart::Function(_) => None,
    });
    parts.collect()
}

/// A name with a schema or none; `first` says whether a word may be its beginning when it stands alone.
pub(super) fn qualified(
    name: &ObjectName,
    major: u8,
    alone: fn(&Ident, u8) -> bool,
) -> Option<Name> {
    match parts(name)?.as_slice() {
        [name] if alone(name, major) => Some(Name::plain(folded(name)?)),
        [schema, name] if is_column_name(schema, major) => {
            Some(Name::within(folded(schema)?, folded(name)?))
        }
        _ => None,
    }
}
