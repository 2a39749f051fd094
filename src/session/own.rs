//! What a session on a split listener may ask of the proxy itself, in words that PostgreSQL does not know or only carries.
//!
//! - `SHOW pgsluice.lsn`: a token for what has been written so far;
//! - `SET pgsluice.min_lsn = 'token'`: reads from now on see that, whoever wrote it;
//! - `SET pgsluice.route = 'primary'`: reads stay there; anything else ends that, whatever the configuration says;
//! - `SET pgsluice.explain = on`: a NOTICE says of each batch where it runs, and why;
//! - `EXPLAIN ROUTE statement`: where it would run, and why.
//!
//! Answers are rows of statements that the server runs in the place of these; the settings are the server's own, of a
//! made-up name, and follow the session like all others. Only the simple protocol: drivers send such words so, or can.

use super::{
    Session,
    aim::{CONFIGURED, SETTING, STALE},
};
use crate::{
    config::RulePlace,
    route::{class::Place, fingerprint},
    server::settings::literal,
    topology::{Lsn, NodeView, Role, Topology},
};

/// See the module's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    ShowLsn,
    /// The value, as it is written.
    MinLsn(String),
    ExplainRoute(String),
}

impl Command {
    /// A replica can answer it as well.
    pub fn is_anywhere(&self) -> bool {
        matches!(self, Command::ExplainRoute(_))
    }
}

/// A point in the history of a cluster: `system identifier/timeline/LSN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    system_id: u64,
    timeline: u32,
    lsn: Lsn,
}

const ROUTE: &str = "pgsluice.route";
const EXPLAIN: &str = "pgsluice.explain";

impl Session {
    /// What the server is to run in the command's place. None: the text as it is.
    pub(super) fn answer_for_proxy(&mut self, command: &Command) -> Option<Vec<u8>> {
        match command {
            Command::ShowLsn => Some(show_lsn()),
            Command::MinLsn(value) => self.demand_token(value),
            Command::ExplainRoute(statement) => Some(self.explain_route(statement)),
        }
    }

    /// None: the setting may be set as it is.
    fn demand_token(&mut self, value: &str) -> Option<Vec<u8>> {
        let Some(token) = Token::parse(value) else {
            return Some(raise("22023", "a token is what SHOW pgsluice.lsn answers"));
        };
        let known = self.context.with_topology(|topology| token.is_of(topology));
        if !known {
            let text = "the write of this token may have been lost in a failover";
            return Some(raise("40001", text));
        }
        self.must_see(token.lsn);
        None
    }

    fn explain_route(&self, statement: &str) -> Vec<u8> {
        let shape = fingerprint::lasting(statement.as_bytes(), &self.reading);
        let shape = shape.map(|shape| shape.to_string());
        let statement = self.statement(statement.as_bytes());
        let (place, reason, object) = match &statement.class {
            Some(class) => (class.place, class.reason.as_str(), class.object.as_deref()),
            None => (Place::Primary, "unknown", None),
        };
        let (node, reason) = match place {
            Place::Primary => (None, reason),
            Place::Anywhere => match self.reads_stay(statement.wants_replica) {
                Some(reason) => (None, reason),
                None => match self.fresh_node() {
                    Some(name) => (Some(name), reason),
                    None => (None, STALE),
                },
            },
        };
        let place = if node.is_some() { "replica" } else { "primary" };
        let mut sql = b"SELECT ".to_vec();
        let columns = [
            ("place", Some(place)),
            ("node", node.as_deref()),
            ("reason", Some(reason)),
            ("object", object),
            ("fingerprint", shape.as_deref()),
        ];
        for (number, (name, value)) in columns.into_iter().enumerate() {
            sql.extend_from_slice(if number > 0 { b", " } else { b"" });
            match value {
                Some(value) => literal(&mut sql, value.as_bytes()),
                None => sql.extend_from_slice(b"NULL"),
            }
            sql.extend_from_slice(b"::pg_catalog.text AS ");
            sql.extend_from_slice(name.as_bytes());
        }
        sql
    }

    /// Why the session's reads stay on the primary, if they do. Its own word wins over a hint, and a hint over the
    /// configuration.
    pub(super) fn reads_stay(&self, wants_replica: bool) -> Option<&'static str> {
        match self.settings.value(ROUTE) {
            Some(b"primary") => Some(SETTING),
            // A setting of a made-up name that was reset is empty.
            None | Some(b"") => {
                let is_configured = self.reads().place == RulePlace::Primary;
                (is_configured && !wants_replica).then_some(CONFIGURED)
            }
            Some(_) => None,
        }
    }

    /// It wants to be told where its statements run.
    pub(super) fn wants_explanations(&self) -> bool {
        matches!(self.settings.value(EXPLAIN), Some(b"on" | b"true" | b"1"))
    }
}

/// What to tell of a batch that runs on `node`.
pub(super) fn explanation(node: &NodeView, reason: &str) -> String {
    let role = match node.role {
        Role::Replica => "replica",
        _ => "primary",
    };
    format!("pgsluice: {role} {} ({reason})", node.config.name)
}

/// The command in a Query's text.
pub(super) fn command(text: &[u8]) -> Option<Command> {
    // All begin so: others are told by one look.
    let first = text.trim_ascii_start().first()?;
    if !matches!(first.to_ascii_lowercase(), b's' | b'e') {
        return None;
    }
    let text = std::str::from_utf8(text)
        .ok()?
        .trim()
        .trim_end_matches(';')
        .trim_end();
    let (verb, rest) = split_word(text);
    if verb.eq_ignore_ascii_case("show") {
        let is_lsn = rest.eq_ignore_ascii_case("pgsluice.lsn");
        return is_lsn.then_some(Command::ShowLsn);
    }
    if verb.eq_ignore_ascii_case("explain") {
        let (word, statement) = split_word(rest);
        let is_route = word.eq_ignore_ascii_case("route") && !statement.is_empty();
        return is_route.then(|| Command::ExplainRoute(statement.to_owned()));
    }
    if !verb.eq_ignore_ascii_case("set") {
        return None;
    }
    let (word, after) = split_word(rest);
    let rest = if word.eq_ignore_ascii_case("session") {
        after
    } else {
        rest
    };
    let name = rest.get(..MIN_LSN.len())?;
    let value = rest[MIN_LSN.len()..].trim_start();
    let value = value.strip_prefix('=').or_else(|| {
        let (word, value) = split_word(value);
        word.eq_ignore_ascii_case("to").then_some(value)
    })?;
    name.eq_ignore_ascii_case(MIN_LSN)
        .then(|| Command::MinLsn(value.trim().to_owned()))
}

const MIN_LSN: &str = "pgsluice.min_lsn";

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_ascii_whitespace());
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

fn show_lsn() -> Vec<u8> {
    b"SELECT pg_catalog.concat(c.system_identifier, '/', \
      pg_catalog.substr(pg_catalog.pg_walfile_name(x.l), 1, 8), '/', x.l) AS \"pgsluice.lsn\" \
      FROM pg_catalog.pg_control_system() c, \
      (SELECT pg_catalog.pg_current_wal_insert_lsn() AS l OFFSET 0) x"
        .to_vec()
}

/// Raises the error on the server, just where the statement stood.
fn raise(sqlstate: &str, message: &str) -> Vec<u8> {
    let body = format!(
        "DO $pgsluice$BEGIN RAISE SQLSTATE '{sqlstate}' USING MESSAGE = '{message}'; END$pgsluice$"
    );
    body.into_bytes()
}

impl Token {
    fn parse(value: &str) -> Option<Token> {
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
        let mut parts = value.split('/');
        let hex = |parts: &mut std::str::Split<char>| u64::from_str_radix(parts.next()?, 16).ok();
        let system_id = parts.next()?.parse().ok()?;
        let timeline = u32::try_from(hex(&mut parts)?).ok()?;
        let (high, low) = (hex(&mut parts)?, hex(&mut parts)?);
        let is_lsn = high <= u64::from(u32::MAX) && low <= u64::from(u32::MAX);
        (is_lsn && parts.next().is_none()).then_some(Token {
            system_id,
            timeline,
            lsn: Lsn(high << 32 | low),
        })
    }

    /// Whether it is of the line that the present primary writes. What an older line had, a failover may have lost.
    fn is_of(&self, topology: &Topology) -> bool {
        topology.primary().is_some_and(|primary| {
            primary.system_id == Some(self.system_id) && primary.timeline == Some(self.timeline)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_proxy_are_told_from_all_others() {
        for (text, expected) in [
            ("SHOW pgsluice.lsn;", Some(Command::ShowLsn)),
            ("show  PGSLUICE.LSN", Some(Command::ShowLsn)),
            ("show pgsluice.route", None),
            (
                "explain route select 1",
                Some(Command::ExplainRoute("select 1".into())),
            ),
            ("explain route", None),
            ("explain select 1", None),
            (
                "set pgsluice.min_lsn = 'a'",
                Some(Command::MinLsn("'a'".into())),
            ),
            (
                "SET SESSION pgsluice.min_lsn TO 'a' ;",
                Some(Command::MinLsn("'a'".into())),
            ),
            (
                "set pgsluice.min_lsn='a'",
                Some(Command::MinLsn("'a'".into())),
            ),
            ("set pgsluice.min_lsns = 'a'", None),
            ("set work_mem = 1", None),
            ("select 'show pgsluice.lsn'", None),
            ("", None),
        ] {
            assert_eq!(command(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn tokens_are_read_as_they_are_shown() {
        let token = Token::parse("'7234567890123456789/0000000A/16/B374D848'").unwrap();
        assert_eq!(
            (token.system_id, token.timeline),
            (7_234_567_890_123_456_789, 10)
        );
        assert_eq!(token.lsn.to_string(), "16/B374D848");
        for bad in [
            "",
            "7/1/0/0",
            "'7/1/0'",
            "'7/1/0/0/0'",
            "'x/1/0/0'",
            "'7/1/0/100000000'",
        ] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
