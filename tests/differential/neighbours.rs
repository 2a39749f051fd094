//! Sessions of the same user and database that come and go, hold servers in transactions, and leave on them all that a
//! session can leave: other settings, other statements under the same names, errors.
//!
//! They touch no table of the scripts, since locks are no leak. They are driven from the script's own thread, between its messages, so that a seed decides who had which server before.

use std::net::SocketAddr;

use crate::{
    generate::STATEMENTS,
    message::Message,
    random::Random,
    session::{Seen, Session},
};

pub const COUNT: usize = 3;

/// Statements of a neighbour's life; a new connection now and then makes that servers change hands.
const LIFE: usize = 9;

/// What the log says where a neighbour's connection ended, or hangs: no script may do that to another session.
pub const LOST: &str = "lost is neighbour ";

/// What a neighbour does outside a transaction, or in one.
#[rustfmt::skip]
const NOISE: &[&str] = &[
    "SET search_path = noise", "SET search_path = noise, s2", "SET DateStyle = 'SQL, DMY'", "SET TimeZone = 'Asia/Kolkata'",
    "SET app.tenant = '3'", "SET my.x = 'noise'", "SELECT set_config('my.z', 'noise', false)", "SET work_mem = '9MB'", "SET ROLE r2",
    "SET bytea_output = 'escape'", "SET IntervalStyle = 'sql_standard'", "SET extra_float_digits = -7", "SET application_name = 'noise'",
    "SET client_encoding = 'LATIN9'", "SET standard_conforming_strings = off", "SET default_transaction_read_only = on",
    "SET my.only_noise = '1'", "SET plan_cache_mode = force_generic_plan", "SET client_min_messages = error",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "RESET ALL", "DISCARD ALL", "RESET ROLE", "SET LOCAL work_mem = '10MB'", "SET LOCAL my.x = 'local noise'",
    "PREPARE a AS SELECT 'noise'", "PREPARE b(text, text) AS SELECT $1, $2, 'noise'", "PREPARE \"C d\" AS SELECT * FROM noise.t",
    "EXECUTE a", "EXECUTE b('1', '2')", "DEALLOCATE a", "DEALLOCATE ALL",
    "SELECT * FROM noise.t", "INSERT INTO noise.acc(v) VALUES ('noise') RETURNING id", "SELECT nextval('noise.acc_id_seq')",
    "CREATE TEMP TABLE tmp (noise text)", "CREATE TEMP TABLE t (noise text)", "DECLARE c0 CURSOR WITH HOLD FOR SELECT 'noise'",
    "LISTEN noise", "LISTEN e", "UNLISTEN *", "SELECT pg_advisory_lock(77)", "SELECT 1/0", "SELEC", "SELECT nothing", "SELECT 1", "SELECT 1",
    "DO $$ BEGIN PERFORM set_config('my.x', 'hidden noise', false); END $$",
];

pub struct Neighbours {
    addr: SocketAddr,
    parameters: Vec<(String, String)>,
    random: Random,
    sessions: [Option<Neighbour>; COUNT],
}

struct Neighbour {
    session: Session,
    /// In a transaction, as ReadyForQuery said.
    open: bool,
    left: usize,
}

impl Neighbours {
    pub fn new(addr: SocketAddr, parameters: &[(&str, &str)], seed: u64) -> Neighbours {
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Neighbours {
            addr,
            parameters: parameters.iter().map(own).collect(),
            random: Random(!seed),
            sessions: [const { None }; COUNT],
        }
    }

    /// A few things happen; they are told to `log`.
    pub fn disturb(&mut self, log: &mut Vec<String>) {
        for _ in 0..self.random.below(4) {
            let place = self.random.below(COUNT);
            match self.sessions[place].take() {
                None => {
                    let session = self.connect();
                    log.push(format!("neighbour {place} comes"));
                    let mut neighbour = Neighbour {
                        session,
                        open: false,
                        left: 1 + self.random.below(LIFE),
                    };
                    neighbour.act(&mut self.random, place, log);
                    self.sessions[place] = Some(neighbour);
                }
                Some(neighbour) if neighbour.left == 0 && !neighbour.open => {
                    log.push(format!("neighbour {place} goes"));
                    neighbour.session.terminate();
                }
                Some(mut neighbour) => {
                    neighbour.act(&mut self.random, place, log);
                    self.sessions[place] = Some(neighbour);
                }
            }
        }
    }

    fn connect(&self) -> Session {
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        Session::connect(self.addr, &parameters, &mut Vec::new())
    }
}

impl Neighbour {
    fn act(&mut self, random: &mut Random, place: usize, log: &mut Vec<String>) {
        self.left = self.left.saturating_sub(1);
        let messages = match (self.open, random.below(10)) {
            (false, 0..4) => vec![Message::Query("BEGIN".into())],
            (true, 0..4) => vec![Message::Query(
                random.choose(&["COMMIT", "ROLLBACK"]).to_string(),
            )],
            (_, 4..7) => extended(random),
            _ => vec![Message::Query(random.choose(NOISE).to_string())],
        };
        log.push(format!("neighbour {place}: {messages:?}"));
        let seen = self.session.run(&messages);
        match seen.last() {
            Some(Seen::Frame(frame)) if frame.tag == b'Z' => self.open = frame.body != b"I",
            _ => {
                self.left = 0;
                self.open = false;
                log.push(format!("{LOST}{place} by {seen:?}"));
            }
        }
    }
}

/// Statements of the scripts' names with other texts.
fn extended(random: &mut Random) -> Vec<Message> {
    let name = *random.choose(&["", STATEMENTS[0], STATEMENTS[1], "C d"]);
    let sql = *random.choose(&[
        "SELECT 'noise', $1::text",
        "SELECT $1 + 1000",
        "SELECT * FROM noise.t",
        "SELECT nothing",
        "SET work_mem = '11MB'",
        "SELECT set_config('my.x', 'extended noise', false)",
    ]);
    let mut messages = vec![Message::Parse {
        name: name.to_string(),
        sql: sql.to_string(),
        types: Vec::new(),
    }];
    if random.chance(70) {
        let count = usize::from(sql.contains("$1"));
        messages.push(Message::Bind {
            portal: String::new(),
            statement: name.to_string(),
            formats: Vec::new(),
            values: vec![Some(b"1".to_vec()); count],
            results: Vec::new(),
        });
        messages.push(Message::Execute(String::new(), 0));
    }
    messages.push(Message::Sync);
    messages
}
