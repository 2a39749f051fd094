//! What a script finds: a database, made anew before each run, and a proxy with a small pool before it.

use std::sync::{Arc, Mutex};

use pgsluice::config::{Consistency, Route, Sequences};

use crate::{
    bed::{self, Bed, USER, wait_until},
    generate::Script,
    neighbours::Neighbours,
    nodes::Server,
    raw::Client,
    session::{Seen, Session},
};

/// Servers of the pool: one more than the neighbours can hold, so that nobody ever waits for long.
const POOL: usize = crate::neighbours::COUNT + 1;

/// Made once for each database. What scripts cannot change, and the neighbours' own.
const ONCE: &str = "
    CREATE SCHEMA noise AUTHORIZATION app;
    GRANT USAGE ON SCHEMA noise TO PUBLIC;
    CREATE TABLE noise.t (noise text, n int); INSERT INTO noise.t VALUES ('noise', 1);
    CREATE TABLE noise.acc (id serial, v text); GRANT ALL ON ALL TABLES IN SCHEMA noise TO PUBLIC;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA noise TO PUBLIC";

/// Custom settings that every session begins with.
const CUSTOM: &[&str] = &["my.x", "my.y", "my.z", "my.long_name$1", "\"My\".\"Odd\""];

/// Made before each run.
const ANEW: &str = "
    DROP SCHEMA IF EXISTS public, s1, s2 CASCADE;
    SET ROLE app;
    CREATE SCHEMA public; CREATE SCHEMA s1; CREATE SCHEMA s2;
    GRANT ALL ON SCHEMA public TO PUBLIC; GRANT USAGE ON SCHEMA s1, s2 TO r1; GRANT USAGE ON SCHEMA s2 TO r2;
    CREATE TABLE public.t (id int, p text); INSERT INTO public.t VALUES (1, 'public');
    CREATE TABLE s1.t (id int, a text); INSERT INTO s1.t VALUES (1, 'one'), (2, 'two');
    CREATE TABLE s2.t (id int, b date, c text); INSERT INTO s2.t VALUES (1, '2024-01-02', 'three');
    GRANT SELECT ON s1.t, s2.t TO r1; GRANT SELECT ON s2.t TO r2;
    CREATE TABLE tenants (tenant int, v text); INSERT INTO tenants VALUES (1, 'of one'), (2, 'of two'), (3, 'of three');
    ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON tenants USING (tenant::text = current_setting('app.tenant', true));
    GRANT SELECT ON tenants TO r1, r2;
    CREATE TABLE acc (id serial PRIMARY KEY, v text, parent int REFERENCES acc DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO acc(v) VALUES ('a'), ('b'), ('c'), ('d');
    CREATE SEQUENCE sq;
    CREATE FUNCTION f_set(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN set_config($1, $2, false); END';
    CREATE FUNCTION f_local(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN set_config($1, $2, true); END';
    CREATE FUNCTION f_clause() RETURNS text LANGUAGE sql SET work_mem = '8MB' AS $$ SELECT current_setting('work_mem') $$;
    CREATE FUNCTION f_path() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT string_agg(x::text, ''|'') FROM t x); END';
    CREATE FUNCTION f_temp() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE tmp (made_by_f int); END';
    CREATE FUNCTION f_run(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END';
    CREATE FUNCTION f_lock(int) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock($1); END';
    CREATE FUNCTION f_error() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = 'P9999', HINT = 'none'; END $$;
    CREATE FUNCTION f_notice() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'noted'; RAISE WARNING 'warned'; RETURN 1; END $$;
    CREATE FUNCTION f_pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
    CREATE PROCEDURE p_commit() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO acc(v) VALUES ('p'); COMMIT; PERFORM set_config('my.x', 'p', false); END $$;
    RESET ROLE";

/// Nobody but us has anything open here.
const QUIET: &str = "
    SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                         AND backend_type = 'client backend' AND (xact_start IS NOT NULL OR state <> 'idle'))
       AND NOT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                        WHERE d.datname = current_database() AND l.locktype = 'advisory')";

/// The primary of all worlds; it ends with the last of them.
fn primary() -> Arc<Server> {
    static SHARED: Mutex<std::sync::Weak<Server>> = Mutex::new(std::sync::Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = bed::primary();
    for sql in [
        "ALTER SYSTEM SET max_prepared_transactions = 20",
        // A script that locks itself out (a prepared transaction holds locks) gets an error soon.
        "ALTER SYSTEM SET lock_timeout = '300ms'",
        "CREATE ROLE r1",
        "CREATE ROLE r2",
        "GRANT r1, r2 TO app",
    ] {
        server.sql(sql);
    }
    server.ctl(&["stop", "-m", "fast"]);
    server.start();
    let server = Arc::new(server);
    *shared = Arc::downgrade(&server);
    server
}

/// What the session talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Everything goes to the primary.
    Primary,
    /// Proven reads go to replicas.
    Split,
}

/// Two replicas of the primary, the second of which is always late; they end with the last world that has them.
fn replicas() -> Arc<[Server; 2]> {
    static SHARED: Mutex<std::sync::Weak<[Server; 2]>> = Mutex::new(std::sync::Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(replicas) = shared.upgrade() {
        return replicas;
    }
    let primary = primary();
    let replicas = Arc::new([primary.replica(), primary.replica()]);
    replicas[1].sql("ALTER SYSTEM SET recovery_min_apply_delay = '50ms'");
    replicas[1].sql("SELECT pg_reload_conf()");
    *shared = Arc::downgrade(&replicas);
    replicas
}

/// A database, and a proxy whose pool only this world uses.
pub struct World {
    pub bed: Bed,
    admin: Client,
    /// Of the port that splits.
    replicas: Vec<Replica>,
    _servers: Option<Arc<[Server; 2]>>,
}

/// A session on a replica, to see how far it is.
struct Replica(Client);

impl Replica {
    fn wait(&mut self, lsn: &str) {
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        wait_until("the replica has it all", || self.0.value(&replayed) == "t");
    }

    /// Transactions in `database` that were not ours.
    fn transactions(&mut self, database: &str) -> u64 {
        let sql = format!(
            "SELECT coalesce(max(xact_commit), 0) FROM pg_stat_database WHERE datname = '{database}'"
        );
        self.0.value(&sql).parse().unwrap()
    }
}

impl World {
    pub fn new(workers: usize, port: Port) -> World {
        let server = primary();
        let servers = (port == Port::Split).then(replicas);
        let mut nodes = vec![server.node("pg1")];
        for (number, replica) in servers.iter().flat_map(|s| s.iter()).enumerate() {
            nodes.push(replica.node(&format!("pg{}", number + 2)));
        }
        let mut config = bed::config(nodes, POOL);
        if port == Port::Split {
            config.listeners[0].route = Route::Split;
            // Scripts hardly pause: under `session` they would seldom leave the primary.
            config.reads.consistency = Consistency::OwnWrites;
        }
        config.workers = workers;
        config.pool.sequences = Sequences::Pin;
        let bed = Bed::start(server, config);
        let mut admin = Client::connect(bed.server_addr(), &bed.database, "postgres");
        admin.ok("SET client_min_messages = warning");
        admin.ok("SET lock_timeout = '20s'");
        admin.ok(ONCE);
        for name in CUSTOM {
            admin.ok(&format!("ALTER DATABASE {} SET {name} = ''", bed.database));
        }
        let session = |server: &Server| {
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], server.port));
            Replica(Client::connect(addr, "postgres", "postgres"))
        };
        World {
            replicas: servers.iter().flat_map(|s| s.iter()).map(session).collect(),
            _servers: servers,
            bed,
            admin,
        }
    }

    /// How much was read on replicas so far.
    pub fn replicas_transactions(&mut self) -> u64 {
        let database = &self.bed.database;
        let each = self.replicas.iter_mut().map(|r| r.transactions(database));
        each.sum()
    }

    /// Makes everything anew, once nobody uses the old.
    fn clean(&mut self) {
        let admin = &mut self.admin;
        let prepared = "SELECT coalesce(string_agg(gid, ' '), '') FROM pg_prepared_xacts WHERE database = current_database()";
        for gid in admin.value(prepared).split_whitespace() {
            admin.ok(&format!("ROLLBACK PREPARED '{gid}'"));
        }
        wait_until(
            "the sessions of the last run have left nothing open",
            || admin.value(QUIET) == "t",
        );
        admin.ok(ANEW);
        // The session is a new one: what others did before it need not be seen by it.
        let lsn = admin.value("SELECT pg_current_wal_insert_lsn()");
        self.replicas
            .iter_mut()
            .for_each(|replica| replica.wait(&lsn));
    }

    /// What the session of `script` sees on the server itself.
    pub fn direct(&mut self, script: &Script) -> Vec<Vec<Seen>> {
        self.clean();
        let mut nobody = |_: &mut Vec<String>| ();
        let (seen, session) = self.run(self.bed.server_addr(), script, &mut nobody);
        let pid = session.pid;
        session.terminate();
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("the session is gone", || self.admin.value(&gone) == "0");
        seen
    }

    /// What it sees through the proxy, among neighbours that `seed` decides, and what those did.
    pub fn proxied(&mut self, script: &Script, seed: u64) -> (Vec<Vec<Seen>>, Vec<String>) {
        self.clean();
        let parameters = self.login(script);
        let mut neighbours = Neighbours::new(self.bed.addr, &parameters, seed);
        let mut disturb = |log: &mut Vec<String>| neighbours.disturb(log);
        let mut log = Vec::new();
        let (seen, session) = self.run_logged(self.bed.addr, script, &mut disturb, &mut log);
        session.terminate();
        (seen, log)
    }

    fn login<'a>(&'a self, script: &Script) -> Vec<(&'a str, &'a str)> {
        let mut parameters = vec![("user", USER), ("database", &self.bed.database)];
        parameters.extend(&script.parameters);
        parameters
    }

    fn run(
        &self,
        addr: std::net::SocketAddr,
        script: &Script,
        disturb: &mut dyn FnMut(&mut Vec<String>),
    ) -> (Vec<Vec<Seen>>, Session) {
        self.run_logged(addr, script, disturb, &mut Vec::new())
    }

    /// The login's answer, then one for each step.
    fn run_logged(
        &self,
        addr: std::net::SocketAddr,
        script: &Script,
        disturb: &mut dyn FnMut(&mut Vec<String>),
        log: &mut Vec<String>,
    ) -> (Vec<Vec<Seen>>, Session) {
        let mut login = Vec::new();
        let mut session = Session::connect(addr, &self.login(script), &mut login);
        let mut all = vec![login];
        for (number, step) in script.steps.iter().enumerate() {
            let mut seen = Vec::new();
            for chunk in step {
                log.push(format!("-- step {number}"));
                disturb(log);
                seen.extend(session.run(chunk));
            }
            all.push(seen);
            if session.is_over() {
                break;
            }
        }
        (all, session)
    }
}
