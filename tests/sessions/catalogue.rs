//! What the catalogue proves of functions, blocks and triggers: who keeps a server, and who leaves nothing behind.

use crate::{
    bed::{Bed, USER, shared, wait_until},
    raw::{Client, bind, execute, parse, sync},
};

/// What all tests here call.
const FUNCTIONS: &str = "
    CREATE FUNCTION good(i int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN i + 1; END$$;
    CREATE FUNCTION good_sql(i int) RETURNS int LANGUAGE sql AS 'SELECT good(i)';
    CREATE FUNCTION tenant(t text) RETURNS void LANGUAGE plpgsql
        AS $$BEGIN PERFORM set_config('app.tenant', t, false); END$$;
    CREATE FUNCTION dynamic(sql text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; END$$;
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$BEGIN INSERT INTO t VALUES (1); COMMIT; END$$;
    CREATE TABLE t (i int);
    CREATE TABLE audited (i int);
    CREATE FUNCTION on_audited() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN PERFORM tenant('leaked'); RETURN NEW; END$$;
    CREATE TRIGGER audit BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION on_audited();
    CREATE VIEW sets AS SELECT set_config('app.tenant', 'viewed', false);
    CREATE VIEW over_sets AS SELECT * FROM sets;
    CREATE FUNCTION standard(i int) RETURNS int LANGUAGE sql RETURN good(i);
    CREATE FUNCTION defaulted(i int DEFAULT length(set_config('app.tenant', 'x', false))) RETURNS int
        LANGUAGE sql AS 'SELECT i';
    CREATE AGGREGATE sums(int) (SFUNC = int4pl, STYPE = int);
";

const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), '')";
const PID: &str = "SELECT pg_backend_pid()";

fn bed(definitions: &str) -> Bed {
    let bed = Bed::with(ALL, |config| config.workers = 1);
    bed.sql(FUNCTIONS);
    bed.sql(definitions);
    bed.sql(&format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {USER}"
    ));
    let mut client = bed.client();
    client.ok("SELECT 1");
    wait_until("the catalogue is read", || is_free(&bed, "SELECT good(1)"));
    bed
}

/// Whether a session that runs `sql` gives its server back.
fn is_free(bed: &Bed, sql: &str) -> bool {
    let (mut one, mut other) = (bed.client(), bed.client());
    one.ok(sql);
    let pid = one.value(PID);
    other.value(PID) == pid
}

/// Of four servers.
const ALL: usize = 4;
/// One is pinned.
const OTHERS: usize = 3;

/// No session sees what another one set.
fn assert_unset(bed: &Bed, servers: usize, after: &str) {
    let mut clients: Vec<Client> = (0..servers).map(|_| bed.client()).collect();
    // Each holds its own server, so that all are seen.
    for client in &mut clients {
        client.ok("BEGIN");
        assert_eq!(client.value(TENANT), "", "after {after}");
    }
}

#[test]
fn harmless_functions_blocks_and_procedures_leave_the_server_to_others() {
    // PostgreSQL comes without its extensions here and there.
    let has_extensions =
        "SELECT count(*) FROM pg_available_extensions WHERE name IN ('citext', 'pgcrypto')";
    let has_extensions = shared().sql(has_extensions) == "2";
    let bed = bed(match has_extensions {
        true => "CREATE EXTENSION citext; CREATE EXTENSION pgcrypto",
        false => "",
    });
    let of_extensions = match has_extensions {
        true => "SELECT digest('a', 'sha256'), 'A'::citext = 'a'",
        false => "SELECT 1",
    };
    for sql in [
        of_extensions,
        "SELECT good(1)",
        "SELECT good_sql(1), public.good(2)",
        "SELECT standard(1)",
        "SELECT sums(i) FROM t",
        "CALL commits()",
        "DO $$BEGIN PERFORM good(1); INSERT INTO t VALUES (2); END$$",
        "SELECT * FROM audited",
        "INSERT INTO t VALUES (good(1))",
        "BEGIN; SELECT good(1); COMMIT",
    ] {
        assert!(is_free(&bed, sql), "{sql}");
    }
    assert_eq!(bed.sql("SELECT count(*) FROM t WHERE i = 1"), "1");
}

#[test]
fn what_may_leave_something_behind_keeps_its_server_and_nobody_else_sees_it() {
    let bed = bed("");
    for sql in [
        "SELECT tenant('42')",
        "SELECT dynamic('SET app.tenant = 42')",
        "DO $$BEGIN PERFORM tenant('42'); END$$",
        "DO $$BEGIN EXECUTE 'SET app.tenant = 42'; END$$",
        "INSERT INTO audited VALUES (1)",
        "COPY (SELECT 1) TO STDOUT; INSERT INTO public.\"audited\" VALUES (1)",
        "SELECT * FROM sets",
        "SELECT * FROM over_sets",
        "SELECT defaulted()",
        "SELECT ('42'::text).tenant",
    ] {
        assert!(!is_free(&bed, sql), "{sql}");
        assert_unset(&bed, ALL, sql);
        let mut client = bed.client();
        client.ok(sql);
        assert_ne!(
            client.value(TENANT),
            "",
            "its own session still has it: {sql}"
        );
        drop(client);
        assert_unset(&bed, ALL, sql);
    }
}

#[test]
fn a_function_that_becomes_harmful_is_not_trusted_from_its_definition_on() {
    let bed = bed("ALTER FUNCTION good(int) OWNER TO app");
    for round in 0..20 {
        let (mut caller, mut definer) = (bed.client(), bed.client());
        wait_until("good is trusted", || is_free(&bed, "SELECT good(1)"));
        definer.ok(
            "CREATE OR REPLACE FUNCTION good(i int) RETURNS int LANGUAGE plpgsql \
             AS $$BEGIN PERFORM set_config('app.tenant', 'leaked', false); RETURN i; END$$",
        );
        caller.ok("SELECT good(1)");
        assert_unset(&bed, OTHERS, &format!("round {round}"));
        drop(caller);
        assert_unset(&bed, ALL, &format!("round {round}"));
        definer.ok(
            "CREATE OR REPLACE FUNCTION good(i int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN i; END$$",
        );
    }
}

#[test]
fn a_definition_between_the_call_and_the_end_of_its_transaction_pins() {
    let bed = bed("ALTER FUNCTION good(int) OWNER TO app");
    let (mut caller, mut definer, mut other) = (bed.client(), bed.client(), bed.client());
    caller.ok("BEGIN");
    caller.ok("SELECT good(1)");
    definer.ok(
        "CREATE OR REPLACE FUNCTION good(i int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN i; END$$",
    );
    drop(definer);
    caller.ok("COMMIT");
    let pid = caller.value(PID);
    assert_ne!(other.value(PID), pid);
}

#[test]
fn an_unnamed_statement_that_was_parsed_before_a_definition_is_judged_anew() {
    let bed = bed("ALTER FUNCTION good(int) OWNER TO app");
    let (mut caller, mut definer) = (bed.client(), bed.client());
    caller.word(&[parse("", "SELECT good(1)"), sync()].concat());
    definer.ok(
        "CREATE OR REPLACE FUNCTION good(i int) RETURNS int LANGUAGE plpgsql \
         AS $$BEGIN PERFORM set_config('app.tenant', 'leaked', false); RETURN i; END$$",
    );
    caller.word(&[bind("", ""), execute("", 0), sync()].concat());
    assert_unset(&bed, OTHERS, "a Bind");
}

#[test]
fn a_trigger_of_the_same_transaction_leaks_nothing() {
    let bed = bed("ALTER TABLE t OWNER TO app");
    let mut client = bed.client();
    client.ok("BEGIN");
    client.ok("CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION on_audited()");
    client.ok("INSERT INTO t VALUES (1)");
    client.ok("COMMIT");
    drop(client);
    assert_unset(&bed, ALL, "the transaction");
}

#[test]
fn the_first_session_of_a_database_has_its_catalogue() {
    let bed = Bed::with(ALL, |config| config.workers = 1);
    bed.sql(FUNCTIONS);
    assert!(is_free(&bed, "SELECT good(1)"));
}

#[test]
fn functions_that_the_configuration_names_are_taken_for_harmless() {
    let bed = Bed::with(ALL, |config| {
        config.workers = 1;
        config.pool.harmless_functions = vec!["public.dynamic".into()];
    });
    bed.sql(FUNCTIONS);
    wait_until("the catalogue is read", || {
        is_free(&bed, "SELECT dynamic('SELECT 1')")
    });
}

#[test]
fn without_a_catalogue_functions_of_users_pin() {
    let server = shared();
    server.sql("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN IN ROLE pg_monitor");
    let bed = Bed::with(ALL, |config| {
        config.workers = 1;
        config.probe.user = "stranger".into();
    });
    let database = &bed.database;
    bed.sql(&format!(
        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"
    ));
    bed.sql(FUNCTIONS);
    for _ in 0..3 {
        assert!(!is_free(&bed, "SELECT good(1)"));
        assert!(!is_free(&bed, "DO $$BEGIN NULL; END$$"));
        assert!(is_free(&bed, "SELECT 1"));
    }
}
