//! Extensions of PostgreSQL's own distribution whose functions in C keep nothing in a session.
//!
//! Reviewed against the sources of 15 and 18: none of them sets a setting, holds a connection or a session lock, or runs
//! SQL that it is given as text. Left out for these reasons: dblink, postgres_fdw, file_fdw, tablefunc and xml2 (run the
//! SQL that they are given), plpython, plperl, pltcl, isn's and pg_trgm's switches (below), lo's none.

use super::Function;

/// Sorted by name; with the functions that are not harmless all the same.
#[rustfmt::skip]
const HARMLESS: &[(&str, &[&str])] = &[
    ("bloom", &[]),
    ("btree_gin", &[]),
    ("btree_gist", &[]),
    ("citext", &[]),
    ("cube", &[]),
    ("earthdistance", &[]),
    ("fuzzystrmatch", &[]),
    ("hstore", &[]),
    ("insert_username", &[]),
    ("intarray", &[]),
    // isn_weak keeps its switch in the process.
    ("isn", &["isn_weak", "accept_weak_input"]),
    ("lo", &[]),
    ("ltree", &[]),
    ("moddatetime", &[]),
    ("pg_stat_statements", &[]),
    // set_limit changes pg_trgm.similarity_threshold.
    ("pg_trgm", &["set_limit"]),
    ("pgcrypto", &[]),
    ("pgstattuple", &[]),
    ("seg", &[]),
    ("tcn", &[]),
    ("tsm_system_rows", &[]),
    ("tsm_system_time", &[]),
    ("unaccent", &[]),
    ("uuid-ossp", &[]),
];

/// Whether a function in C of this extension leaves nothing behind.
pub(super) fn is_harmless(extension: &str, function: &str) -> bool {
    HARMLESS
        .binary_search_by(|(name, _)| (*name).cmp(extension))
        .is_ok_and(|at| !HARMLESS[at].1.contains(&function))
}

/// Extensions of [`HARMLESS`] whose functions ask the node about itself.
const OF_NODE: [&str; 2] = ["pg_stat_statements", "pgstattuple"];

/// Whether a harmless function in C answers otherwise on a replica.
pub(super) fn needs_primary(function: &Function) -> bool {
    let extension = function.extension.as_deref();
    extension.is_some_and(|name| OF_NODE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_found_and_their_switches_are_not_trusted() {
        assert!(HARMLESS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(is_harmless("pgcrypto", "digest"));
        assert!(is_harmless("uuid-ossp", "uuid_generate_v4"));
        assert!(is_harmless("pg_trgm", "similarity"));
        assert!(!is_harmless("pg_trgm", "set_limit"));
        assert!(!is_harmless("isn", "isn_weak"));
        for unknown in ["dblink", "postgres_fdw", "tablefunc", "xml2", "postgis", ""] {
            assert!(!is_harmless(unknown, "f"), "{unknown}");
        }
    }
}
