//! SET in all its forms, and what reads it back.

use super::Generator;

/// Names, with values as they stand in a SET: good, bad, and forbidden ones.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, &[&str])] = &[
    ("search_path", &["s1", "s2, public", "\"$user\", public", "'s2'", "''", "nowhere", "s1, s2"]),
    ("DateStyle", &["'ISO, DMY'", "'SQL, MDY'", "German", "'nonsense'", "ISO", "'Postgres, YMD'"]),
    ("TimeZone", &["'UTC'", "'America/New_York'", "'Nowhere/No'", "3", "'asia/tokyo'"]),
    ("intervalstyle", &["postgres", "iso_8601", "sql_standard"]),
    ("work_mem", &["'1MB'", "'2MB'", "1024", "'bad'", "1"]),
    ("extra_float_digits", &["0", "-5", "3", "99"]),
    ("bytea_output", &["escape", "hex"]),
    ("client_encoding", &["LATIN1", "'utf-8'", "UTF8", "SQL_ASCII", "'bogus'", "'iso-8859-1'"]),
    ("application_name", &["'one'", "'two'", "three"]),
    ("standard_conforming_strings", &["off", "on", "1"]),
    ("client_min_messages", &["warning", "notice", "error"]),
    ("default_transaction_read_only", &["on", "off"]),
    ("default_transaction_isolation", &["'repeatable read'", "'read committed'"]),
    ("default_transaction_deferrable", &["on", "off"]),
    ("transaction_read_only", &["on", "off"]),
    ("transaction_isolation", &["'repeatable read'", "'read committed'"]),
    ("statement_timeout", &["'1min'", "0", "61000"]),
    ("escape_string_warning", &["off", "on"]),
    ("xmloption", &["document", "content"]),
    ("plan_cache_mode", &["force_generic_plan", "auto", "force_custom_plan"]),
    ("enable_seqscan", &["off", "on", "tru"]),
    ("array_nulls", &["off", "on"]),
    ("transform_null_equals", &["off", "on"]),
    ("row_security", &["off", "on"]),
    ("lc_numeric", &["'C'", "'nowhere'"]),
    ("default_text_search_config", &["'simple'", "'english'"]),
    ("check_function_bodies", &["off", "on"]),
    ("session_replication_role", &["replica"]),
    ("temp_buffers", &["'1MB'", "'2MB'"]),
    ("role", &["r1", "r2", "none", "nobody", "'r1'"]),
    ("session_authorization", &["app", "postgres", "r1"]),
    ("app.tenant", &["'1'", "'2'", "''", "3"]),
    ("my.x", &["'x'", "'y'", "on"]),
    ("my.long_name$1", &["'x'"]),
    ("\"My\".\"Odd\"", &["'x'", "'it''s'"]),
    ("my.bad-name", &["1"]),
    ("log_min_duration_statement", &["1"]),
    ("fsync", &["off"]),
    ("port", &["1"]),
    ("no_such_setting", &["1"]),
    ("seed", &["0.5"]),
];

/// Other spellings.
#[rustfmt::skip]
const FORMS: &[&str] = &[
    "SET TIME ZONE 'UTC'", "SET TIME ZONE INTERVAL '-08:30' HOUR TO MINUTE", "SET TIME ZONE LOCAL",
    "SET LOCAL TIME ZONE 'Asia/Tokyo'", "RESET TIME ZONE", "SHOW TIME ZONE",
    "SET NAMES 'UTF8'", "SET NAMES latin1", "SET NAMES", "SET SCHEMA 's1'", "SET SCHEMA 's2'",
    "SET ROLE r1", "SET ROLE r2", "SET ROLE NONE", "SET LOCAL ROLE r1", "RESET ROLE", "SET SESSION ROLE r2",
    "SET SESSION AUTHORIZATION app", "SET SESSION AUTHORIZATION DEFAULT", "RESET SESSION AUTHORIZATION",
    "SET SESSION AUTHORIZATION postgres", "SET LOCAL SESSION AUTHORIZATION app", "SHOW SESSION AUTHORIZATION",
    "SET XML OPTION DOCUMENT", "SET XML OPTION CONTENT",
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE",
    "SET LOCAL TRANSACTION READ ONLY", "SHOW TRANSACTION ISOLATION LEVEL",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "RESET ALL", "RESET ALL", "reset all", "/* c */ RESET -- c\n ALL", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP",
    "DISCARD TEMPORARY", "DISCARD SEQUENCES", "discard all",
    "SET work_mem TO DEFAULT", "SET LOCAL work_mem = DEFAULT", "SET search_path = s1, s2, public",
    "SET search_path = \"S1\"", "SET datestyle TO SQL, DMY", "SET my.x = DEFAULT", "RESET my.y", "RESET nothing",
    "SELECT set_config('work_mem', '3MB', false)", "SELECT set_config('app.tenant', '2', false)",
    "SELECT set_config('app.tenant', '1', true)", "SELECT set_config('my.x', NULL, false)",
    "SELECT set_config('my.z', 'z', false), set_config('my.z', 'y', true)",
    "SELECT set_config(n, v, false) FROM (VALUES ('my.x', 'row'), ('work_mem', '5MB')) AS s(n, v)",
    "SELECT pg_catalog.set_config('search_path', 's2', false)", "SELECT set_config('work_mem', 'bad', false)",
    "SELECT set_config('DateStyle', 'SQL', false), '2024-05-06'::date",
    "SELECT set_config('role', 'r1', false)", "SELECT set_config('role', 'r2', true)",
    "UPDATE pg_settings SET setting = '6MB' WHERE name = 'work_mem'",
    "SELECT set_config('my.x', 'kept', false) FROM acc WHERE id = 1 / 0",
    "SET work_mem = '1MB' ; ", "  SET my.x = 'spaced'  ", "SET my.x = $$dollar$$", "SET my.x = E'e\\'x'", "SET my.x = U&'u'",
    "SET my.x = 1.5", "SET my.x = -1", "SET my.x = a, b, 'c d'", "SET work_mem = 1 MB", "SET = 1", "SET work_mem",
];

#[rustfmt::skip]
const PROBES: &[&str] = &[
    "SELECT nullif(current_setting('app.tenant', true), ''), current_setting('my.x', true), current_setting('my.z', true)",
    "SELECT current_user, session_user, current_setting('role'), current_setting('is_superuser')",
    "SELECT current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')",
    "SELECT '01/02/2024'::date, '2024-03-04 05:06:07+00'::timestamptz, '1 day 02:03'::interval, '\\xdeadbeef'::bytea, 1/3::float8",
    "SELECT 'a\\b' || E'c\\n', length('\\\\')",
    "SELECT current_setting('my.x'), 1",
    "SELECT * FROM %t ORDER BY 1", "SELECT * FROM t ORDER BY 1", "SELECT * FROM tenants ORDER BY 1", "SELECT count(*) FROM %t",
    "SELECT * FROM %m ORDER BY 1", "TABLE %m",
    "SELECT current_schemas(false)::text, current_schema()",
    "SELECT name, setting, reset_val FROM pg_settings WHERE name IN ('work_mem', 'DateStyle', 'search_path', 'TimeZone') ORDER BY 1",
    "SELECT name, statement, parameter_types::text, from_sql FROM pg_prepared_statements ORDER BY name",
    "SELECT name, statement, is_holdable, is_binary, is_scrollable FROM pg_cursors ORDER BY name",
    "SELECT objid, mode, granted FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1, 2",
    "SELECT * FROM pg_listening_channels() ORDER BY 1",
    "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
    "SELECT currval('sq'), 1", "SELECT lastval()",
    "SELECT NULL = NULL", "SELECT '{NULL}'::text[]", "SELECT 'caf\u{e9}'", "SELECT chr(233)", "SELECT xmlelement(name a)",
    "SELECT 1", "SELECT 'x' AS \"X\", NULL, 1.50", "SELECT generate_series(1, 40)", "SELECT", "", ";", "-- nothing", "SELECT 1;",
    "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation')",
    "SELECT f_path()", "SELECT now() = now(), txid_current_if_assigned() IS NULL",
    "SELECT pg_is_in_recovery(), inet_client_port() IS NULL, pg_backend_pid() > 0",
    "SELECT nothing FROM nowhere", "SELEC 1", "SELECT 1/0", "SELECT $1", "SELECT '", "SELECT 1::no_such_type",
    "SHOW ALL_", "SHOW no.such", "SHOW nothing",
];

impl Generator {
    pub fn setting(&mut self) -> String {
        if self.random.chance(40) {
            return self.pick(FORMS);
        }
        let (name, values) = *self.random.choose(SETTINGS);
        let value = *self.random.choose(values);
        match self.random.below(12) {
            0..4 => format!("SET {name} = {value}"),
            4 => format!("SET SESSION {name} TO {value}"),
            5 | 6 => format!("SET LOCAL {name} = {value}"),
            7 => format!("SET {name} TO DEFAULT"),
            8 | 9 => format!("RESET {name}"),
            _ => {
                let quoted = value.trim_matches('\'').replace('\'', "''");
                let local = self.random.chance(40);
                format!("SELECT set_config('{name}', '{quoted}', {local})")
            }
        }
    }

    pub fn probe(&mut self) -> String {
        if self.random.chance(60) {
            return self.pick(PROBES);
        }
        let (name, _) = *self.random.choose(SETTINGS);
        match name {
            // Where nothing was ever set, it is unknown on a server of its own only.
            "app.tenant" => "SELECT nullif(current_setting('app.tenant', true), '')".into(),
            _ => format!("SHOW {name}"),
        }
    }
}
