//! The SQL of lookups.

/// The operator's query as a subquery whose columns we name, so that types and the comparison with the server's clock
/// are ours. `$1` is the user's name.
///
/// Columns: verifier text, can_login, seconds until it expires (null: never; negative: it has), superuser, replication.
pub(super) fn wrap(query: &str) -> String {
    let query = query.trim().trim_end_matches(';');
    format!(
        "SELECT v.verifier::pg_catalog.text, v.can_login::pg_catalog.bool, \
         CASE WHEN pg_catalog.isfinite(v.valid_until) THEN \
         pg_catalog.date_part('epoch', v.valid_until - pg_catalog.clock_timestamp())::pg_catalog.float8 \
         WHEN v.valid_until < pg_catalog.clock_timestamp() THEN -1 END, \
         v.superuser::pg_catalog.bool, v.replication::pg_catalog.bool \
         FROM ({query}) AS v(verifier, can_login, valid_until, superuser, replication)"
    )
}

/// SQL that creates the SECURITY DEFINER function which the default `auth.query` calls, and lets `role` (not quoted yet)
/// run it and nothing else. Run it as superuser in `auth.database`; it may be run again. The role itself is not created.
///
/// Whoever may run it reads every role's verifier, which is no password, but can be guessed at: give `role` to the
/// proxy alone.
pub fn lookup_sql(role: &str) -> String {
    let role = quote_identifier(role);
    format!(
        "BEGIN;
CREATE SCHEMA IF NOT EXISTS pgsluice;
REVOKE ALL ON SCHEMA pgsluice FROM PUBLIC;
CREATE OR REPLACE FUNCTION pgsluice.lookup(name text,
    OUT verifier text, OUT can_login boolean, OUT valid_until timestamptz, OUT superuser boolean, OUT replication boolean)
  RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$SELECT rolpassword, rolcanlogin, rolvaliduntil, rolsuper, rolreplication
       FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1$$;
REVOKE ALL ON FUNCTION pgsluice.lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgsluice TO {role};
GRANT EXECUTE ON FUNCTION pgsluice.lookup(text) TO {role};
COMMIT;
"
    )
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_are_quoted() {
        assert!(lookup_sql("a\"b; DROP").contains("TO \"a\"\"b; DROP\";"));
    }

    #[test]
    fn a_trailing_semicolon_does_not_end_the_subquery() {
        assert!(wrap("SELECT 1 ; ").contains("FROM (SELECT 1 ) AS v"));
    }
}
