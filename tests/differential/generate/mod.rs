//! Scripts from a seed: what a session may do, in an order that mostly makes sense and often does not.

mod extended;
mod objects;
mod settings;
mod statements;

use crate::{message::Message, random::Random};

/// Messages that are written at once, up to the last of which all answers are awaited.
pub type Chunk = Vec<Message>;
/// What belongs together: only its last chunk leaves the server waiting for nothing.
pub type Step = Vec<Chunk>;

#[derive(Clone)]
pub struct Script {
    /// What the login asks for beside user and database.
    pub parameters: Vec<(&'static str, &'static str)>,
    pub steps: Vec<Step>,
}

/// Shortest and longest scripts, in steps.
const LENGTH: std::ops::Range<usize> = 8..50;

/// Startup parameters of some sessions: what RESET goes back to, and a pool of its own.
const PARAMETERS: &[&[(&str, &str)]] = &[
    &[],
    &[],
    &[],
    &[("application_name", "script"), ("DateStyle", "German")],
    &[("options", "-c search_path=s1,public -c work_mem=3MB")],
    &[("client_encoding", "latin1"), ("TimeZone", "Europe/Paris")],
];

impl Script {
    pub fn new(seed: u64, database: &str) -> Script {
        let mut random = Random(seed);
        let parameters = random.choose(PARAMETERS).to_vec();
        let count = LENGTH.start + random.below(LENGTH.len());
        let mut generator = Generator {
            random,
            database: database.to_owned(),
        };
        let steps = (0..count).map(|_| generator.step()).collect();
        Script { parameters, steps }
    }
}

struct Generator {
    random: Random,
    /// Names of prepared transactions are the whole cluster's.
    database: String,
}

impl Generator {
    fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..24 => self.plain(Generator::setting),
            24..38 => self.plain(Generator::probe),
            38..52 => self.plain(Generator::transaction),
            52..58 => self.plain(Generator::data),
            58..66 => self.plain(Generator::prepared),
            66..80 => self.extended(),
            80..83 => self.copy(),
            83..87 => self.plain(Generator::cursor),
            87..91 => self.plain(Generator::definition),
            91..95 => self.plain(Generator::function),
            95..97 => self.plain(Generator::session_wide),
            97 => self.two_phases(),
            98 => vec![vec![self.call()]],
            _ => self.plain(Generator::several),
        }
    }

    /// One statement, as a simple Query or as a batch.
    fn plain(&mut self, make: fn(&mut Generator) -> String) -> Step {
        let sql = make(self);
        if self.random.chance(70) {
            return vec![vec![Message::Query(sql)]];
        }
        let mut chunk = self.once("", "", sql);
        chunk.push(Message::Sync);
        vec![chunk]
    }

    fn word(&mut self, from: &'static [&'static str]) -> &'static str {
        from[self.random.below(from.len())]
    }

    /// `text` with its marks replaced by what fits; see the lists that use them.
    fn pick(&mut self, from: &[&str]) -> String {
        let text = *self.random.choose(from);
        self.fill(text)
    }

    fn fill(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let mark = rest.as_bytes()[at + 1];
            match mark {
                b's' => out.push_str(self.word(STATEMENTS)),
                b'c' => out.push_str(self.word(CURSORS)),
                b't' => out.push_str(self.word(TABLES)),
                b'm' => out.push_str(self.word(MADE)),
                b'n' => out.push_str(&self.random.below(5).to_string()),
                b'g' => out.push_str(&format!("'{}_{}'", self.database, self.random.below(2))),
                other => panic!("%{} in {text:?}", other as char),
            }
            rest = &rest[at + 2..];
        }
        out + rest
    }
}

/// Names of prepared statements: the neighbours use them too.
pub const STATEMENTS: &[&str] = &["a", "b", "\"C d\""];
const CURSORS: &[&str] = &["c0", "c1"];
/// Tables that are there, of other columns in each schema.
const TABLES: &[&str] = &["t", "t", "s1.t", "s2.t", "public.t", "tenants", "acc"];
/// Tables that a script makes.
const MADE: &[&str] = &["made", "made2"];
