//! Sessions of several users, databases and settings on few servers: each reads back what is its own, and nobody's else.

use crate::{
    bed::{self, Bed, USER},
    random::Random,
    raw::{Client, bind, execute, parse, query, sync},
};

/// Servers of each of the four pools.
const POOL: usize = 2;
const SESSIONS: usize = 24;
/// Transactions of each session.
const ROUNDS: usize = 120;
const USERS: [&str; 2] = [USER, "leaker"];

const SETTINGS: &[(&str, &[&str])] = &[
    ("TimeZone", &["UTC", "Asia/Tokyo", "America/New_York"]),
    ("DateStyle", &["ISO, DMY", "German, DMY", "SQL, MDY"]),
    ("work_mem", &["1MB", "2MB", "3MB", "5MB"]),
    ("search_path", &["s1", "s2", "s1, s2", "public"]),
    ("role", &["leak_a", "leak_b", "none"]),
    ("app.colour", &["red", "green", "blue"]),
];
/// What a session has of each before it sets any.
const BEFORE: &[&str] = &["", "ISO, MDY", "4MB", "\"$user\", public", "none", ""];

fn prepare(bed: &Bed, database: &str) {
    let port = bed.server.port.to_string();
    let sql = "
        CREATE SCHEMA s1; CREATE SCHEMA s2; GRANT USAGE ON SCHEMA s1, s2, public TO PUBLIC;
        CREATE TABLE tenants (tenant text); INSERT INTO tenants SELECT g::text FROM generate_series(0, 40) g;
        ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON tenants USING (tenant = current_setting('app.tenant', true));
        GRANT SELECT ON tenants TO PUBLIC";
    let args = ["-h", "127.0.0.1", "-U", "postgres", "-XAtqc", sql];
    let args = [&args[..], &["-p", &port, "-d", database]].concat();
    bed.server.run_ok("psql", &args);
}

/// A session, and what it must find.
struct Own {
    client: Client,
    random: Random,
    user: &'static str,
    database: String,
    number: usize,
    values: Vec<String>,
}

impl Own {
    fn run(mut self) {
        let zone = self.client.value("SHOW TimeZone");
        self.values[0] = zone;
        self.client
            .ok(&format!("SET app.tenant = '{}'", self.number));
        let name = "same";
        let text = format!("SELECT 'statement of {}'", self.number);
        let parsed = [parse(name, &text), sync()].concat();
        assert_eq!(self.client.word(&parsed), "1ZI");
        for _ in 0..ROUNDS {
            match self.random.below(4) {
                0 => self.change(),
                1 => self.change_and_undo(),
                2 => self.look(),
                _ => self.execute(name),
            }
        }
        self.look();
    }

    fn set(&mut self) -> (usize, String) {
        let at = self.random.below(SETTINGS.len());
        let (name, values) = SETTINGS[at];
        let value = self.random.choose(values).to_string();
        let list = matches!(name, "search_path");
        let quoted = if list {
            value.clone()
        } else {
            format!("'{value}'")
        };
        self.client.ok(&format!("SET {name} = {quoted}"));
        (at, value)
    }

    fn change(&mut self) {
        let (at, value) = self.set();
        self.values[at] = value;
    }

    fn change_and_undo(&mut self) {
        self.client.ok("BEGIN");
        self.set();
        self.client.ok("ROLLBACK");
    }

    fn look(&mut self) {
        let names = SETTINGS
            .iter()
            .map(|(name, _)| format!("coalesce(current_setting('{name}', true), '')"));
        let names = names.collect::<Vec<_>>().join(" || '|' || ");
        let sql = format!(
            "SELECT session_user || '|' || current_database() || '|' || (SELECT string_agg(tenant, ',') FROM public.tenants) \
             || '|' || {names}"
        );
        let (user, database, number) = (self.user, &self.database, self.number);
        let expected = format!("{user}|{database}|{number}|{}", self.values.join("|"));
        assert_eq!(self.client.value(&sql), expected);
    }

    fn execute(&mut self, name: &str) {
        self.client
            .send(&[bind("", name), execute("", 0), sync()].concat());
        let frames = self.client.until_ready();
        let expected = format!("statement of {}", self.number);
        assert_eq!(frames[1].value(), expected, "{frames:?}");
    }
}

#[test]
fn thousands_of_checkouts_show_no_session_what_is_anothers() {
    let bed = Bed::with(POOL, |config| {
        let mut second = config.users[0].clone();
        second.name = USERS[1].into();
        config.users.push(second);
    });
    let other = bed::database(&bed.server);
    for sql in [
        "DO $$ BEGIN CREATE ROLE leaker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "CREATE ROLE leak_a",
        "CREATE ROLE leak_b",
        "GRANT leak_a, leak_b TO app, leaker",
    ] {
        bed.server.sql(sql);
    }
    let databases = [bed.database.clone(), other];
    databases.iter().for_each(|d| prepare(&bed, d));
    let threads: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let (user, database) = (USERS[number % 2], databases[number / 2 % 2].clone());
            let own = Own {
                client: Client::connect(bed.addr, &database, user),
                random: Random(number as u64),
                user,
                database,
                number,
                values: BEFORE.iter().map(|v| v.to_string()).collect(),
            };
            std::thread::spawn(move || own.run())
        })
        .collect();
    let failed = threads.into_iter().filter_map(|t| t.join().err()).count();
    assert_eq!(failed, 0, "sessions saw what was not theirs");
    let mut last = bed.client();
    assert_eq!(last.value("SHOW work_mem"), "4MB");
    let _ = last.word(&query("SELECT 1"));
}
