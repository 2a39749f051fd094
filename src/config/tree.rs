//! The parsed file as a tree with places: finds an entry by its place and takes it out.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// An entry that was taken out.
pub(super) struct Hit {
    /// The table it stood in, dotted; empty at the top.
    pub parent: String,
    pub key: String,
    /// Of the key, if the key was what was looked for; else of the value.
    pub span: Range<usize>,
}

impl Hit {
    pub fn path(&self) -> String {
        join(&self.parent, &self.key)
    }
}

/// `table.key`.
pub(super) fn join(parent: &str, key: &str) -> String {
    match parent {
        "" => key.to_owned(),
        parent => format!("{parent}.{key}"),
    }
}

/// Takes out the innermost entry whose key or value is at `span`.
pub(super) fn take(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<Hit> {
    take_below(table, "", span)
}

fn take_below(table: &mut DeTable<'_>, parent: &str, span: &Range<usize>) -> Option<Hit> {
    if let Some(hit) = take_inside(table, parent, span) {
        return Some(hit);
    }
    let found = table
        .iter()
        .find_map(|(key, value)| matches(key.span(), value, span).then(|| key.get_ref().clone()));
    let key = found?;
    let (name, value) = table.remove_entry(&*key)?;
    let at_key = name.span() == *span;
    Some(Hit {
        parent: parent.to_owned(),
        key: name.into_inner().into_owned(),
        span: if at_key { span.clone() } else { value.span() },
    })
}

fn take_inside(table: &mut DeTable<'_>, parent: &str, span: &Range<usize>) -> Option<Hit> {
    for (key, value) in table.iter_mut() {
        let path = join(parent, key.get_ref());
        let hit = match value.get_mut() {
            DeValue::Table(inner) => take_below(inner, &path, span),
            DeValue::Array(list) => take_listed(list, &path, span),
            _ => None,
        };
        if hit.is_some() {
            return hit;
        }
    }
    None
}

fn take_listed(list: &mut DeArray<'_>, path: &str, span: &Range<usize>) -> Option<Hit> {
    for (index, item) in list.iter_mut().enumerate() {
        if let DeValue::Table(inner) = item.get_mut()
            && let Some(hit) = take_below(inner, &format!("{path}[{index}]"), span)
        {
            return Some(hit);
        }
    }
    None
}

/// Whether `span` is this key, this value, or within a value that is no table.
fn matches(key: Range<usize>, value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let at = value.span();
    let within = at.start <= span.start && span.end <= at.end;
    key == *span || at == *span || (within && !value.get_ref().is_table())
}
