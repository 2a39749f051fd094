-- The function by which pgsluice looks users up (as `pgsluice check` prints it).
BEGIN;
CREATE SCHEMA IF NOT EXISTS pgsluice;
REVOKE ALL ON SCHEMA pgsluice FROM PUBLIC;
CREATE OR REPLACE FUNCTION pgsluice.lookup(name text,
    OUT verifier text, OUT can_login boolean, OUT valid_until timestamptz, OUT superuser boolean, OUT replication boolean)
  RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$SELECT rolpassword, rolcanlogin, rolvaliduntil, rolsuper, rolreplication
       FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1$$;
REVOKE ALL ON FUNCTION pgsluice.lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgsluice TO "pgsluice_auth";
GRANT EXECUTE ON FUNCTION pgsluice.lookup(text) TO "pgsluice_auth";
COMMIT;
