//! Settings of a session that differ from what it was started with, and how a server gets them. Pure.
//!
//! A server carries the settings of the session that had it last, and knows them; the next session's are set by one
//! statement that changes the difference. Values are what `current_setting` answered, never what a text said: SET
//! within a transaction, ROLLBACK TO and all else that PostgreSQL does with settings are then right by themselves.

use std::{collections::BTreeMap, rc::Rc};

/// Names that one session may have set; a session with more keeps its server.
const MAX_NAMES: usize = 64;
/// Bytes of one value; a session with a longer one keeps its server.
const MAX_VALUE: usize = 4 * 1024;
/// Who acts: they are set last, since they take rights away, and reset first.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];
/// Decides how the bytes of a query are read.
const ENCODING: &str = "client_encoding";

/// Tells applications apart for whoever looks at a server. Servers of a pool for several are not logged in under any one's
/// own, but as [`POOLED`], and set to their session's.
pub const APPLICATION_NAME: &str = "application_name";
/// What `application_name` goes back to on a server of a pool.
pub const POOLED: &str = "pgsluice";

/// Settings that sessions change by habit, and that any role may set at any time.
const ANYONES: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "role",
    "search_path",
    "session_authorization",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "timezone",
    "transaction_timeout",
    "work_mem",
];

/// Whether it is certain that the setting can be set by any role at any time: custom ones can.
pub fn is_anyones(name: &str) -> bool {
    name.contains('.') || name.starts_with("enable_") || ANYONES.contains(&name)
}

/// Names (in lower case) and values (in the session's encoding) of settings that a session has touched. Cheap to clone,
/// and to compare with what it was cloned from.
#[derive(Debug, Clone, Default, Hash)]
pub struct Settings(Option<Rc<Values>>);

type Values = BTreeMap<Box<str>, Box<[u8]>>;

impl Settings {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub fn is_same(&self, other: &Settings) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Rc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|map| map.keys()).map(|name| &**name)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.0.iter().flat_map(|map| map.iter());
        all.map(|(name, value)| (&**name, &**value))
    }

    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.as_ref()?.get(name).map(|value| &**value)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// These, but for what was answered: a name without a value does not exist.
    ///
    /// # Errors
    /// That is more than can be carried.
    pub fn with<'a>(
        &self,
        answers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Settings, TooMuch> {
        let mut map = self.0.as_deref().cloned().unwrap_or_default();
        for (name, value) in answers {
            match value {
                Some(value) if value.len() > MAX_VALUE => return Err(TooMuch),
                Some(value) => drop(map.insert(name.into(), value.into())),
                None => drop(map.remove(name)),
            }
        }
        match map.len() {
            0 => Ok(Settings(None)),
            n if n > MAX_NAMES => Err(TooMuch),
            _ => Ok(Settings(Some(Rc::new(map)))),
        }
    }

    /// What RESET ALL leaves: who acts, and what was set by a name that satisfies `set_since`.
    pub fn after_reset(&self, set_since: impl Fn(&str) -> bool) -> Settings {
        let stays = |name: &str| is_identity(name) || set_since(name);
        let left = self.iter().filter(|(name, _)| stays(name));
        let left = left.map(|(name, value)| (name, Some(value)));
        Settings(None).with(left).unwrap_or_default()
    }

    /// The texts of the queries that turn a server with settings `self` into one with `wanted`: each is to be sent by
    /// itself, within one transaction, which the last one ends.
    pub fn change_to(&self, wanted: &Settings) -> Vec<Vec<u8>> {
        let encoding = wanted.value(ENCODING);
        let recodes = [(ENCODING, encoding)];
        let changes = self.differences(wanted);
        let parts = [
            &recodes[..usize::from(self.value(ENCODING) != encoding)],
            &changes,
        ];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let mut queries: Vec<_> = parts.map(set_for_session).collect();
        if let Some(last) = queries.last_mut() {
            last.extend_from_slice(b";COMMIT");
        }
        queries
    }

    /// The texts of the queries that set all of a server's settings to these, whatever they were, behind `open`: until the
    /// transaction that this opens, or its savepoint, is rolled back.
    pub fn set_within(&self, open: &str) -> [Vec<u8>; 2] {
        // Values are written in the encoding, which is another one only behind the first query.
        let mut first = format!("{open};RESET ALL").into_bytes();
        if let Some(encoding) = self.value(ENCODING) {
            first.push(b';');
            set_configs(&mut first, &[(ENCODING, Some(encoding))], Scope::Local);
        }
        let is_plain = |name: &&str| !is_identity(name) && *name != ENCODING;
        let taken = IDENTITY.into_iter().filter(|name| self.contains(name));
        let set = self.names().filter(is_plain).chain(taken);
        let reset = IDENTITY.into_iter().map(|name| (name, None));
        let changes: Vec<_> = reset
            .chain(set.map(|name| (name, self.value(name))))
            .collect();
        let mut second = Vec::new();
        set_configs(&mut second, &changes, Scope::Local);
        [first, second]
    }

    /// The text of a statement that turns settings `self` into `wanted` for the rest of a transaction, as far as names satisfy
    /// `counts`; empty if there is nothing to do. None where one statement cannot do it.
    pub fn change_within(
        &self,
        wanted: &Settings,
        counts: impl Fn(&str) -> bool,
    ) -> Option<Vec<u8>> {
        let differs = |name: &&str| self.value(name) != wanted.value(name);
        if IDENTITY.iter().chain(&[ENCODING]).any(differs) {
            return None;
        }
        let mut changes = self.differences(wanted);
        changes.retain(|(name, _)| counts(name));
        let mut sql = Vec::new();
        if !changes.is_empty() {
            set_configs(&mut sql, &changes, Scope::Local);
        }
        Some(sql)
    }

    /// In the order in which they can be made.
    fn differences<'a>(&'a self, wanted: &'a Settings) -> Vec<(&'a str, Option<&'a [u8]>)> {
        let acts_as_another = IDENTITY.iter().any(|n| self.value(n) != wanted.value(n));
        let mut changes = Vec::new();
        if acts_as_another {
            let held = IDENTITY.into_iter().filter(|name| self.contains(name));
            changes.extend(held.map(|name| (name, None)));
        }
        let is_plain = |name: &&str| !IDENTITY.contains(name) && *name != ENCODING;
        let gone = self
            .names()
            .filter(is_plain)
            .filter(|name| !wanted.contains(name));
        changes.extend(gone.map(|name| (name, None)));
        let set = wanted.names().filter(is_plain);
        let differs = set.filter(|name| self.value(name) != wanted.value(name));
        changes.extend(differs.map(|name| (name, wanted.value(name))));
        if acts_as_another {
            let taken = IDENTITY.into_iter().filter(|name| wanted.contains(name));
            changes.extend(taken.map(|name| (name, wanted.value(name))));
        }
        changes
    }
}

/// Whether the setting says who acts.
pub fn is_identity(name: &str) -> bool {
    IDENTITY.contains(&name)
}

/// More names, or a longer value, than is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

/// A setting's name as a text has it, in lower case and without quotes and spaces; None for what is no plain name.
pub fn normalised(written: &[u8]) -> Option<Box<str>> {
    let mut name = String::with_capacity(written.len());
    let mut quoted = false;
    for &byte in written {
        match byte {
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' if !quoted => {}
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'$' => name.push(byte as char),
            b'A'..=b'Z' => name.push(byte.to_ascii_lowercase() as char),
            _ => return None,
        }
    }
    (!name.is_empty()).then(|| name.into_boxed_str())
}

fn set_for_session(changes: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut sql = Vec::new();
    set_configs(&mut sql, changes, Scope::Session);
    sql
}

/// How long a change of settings lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    /// Until the transaction is over.
    Local,
}

/// `set_config` of NULL is a RESET.
fn set_configs(sql: &mut Vec<u8>, changes: &[(&str, Option<&[u8]>)], scope: Scope) {
    sql.extend_from_slice(b"SELECT ");
    for (at, (name, value)) in changes.iter().enumerate() {
        if at > 0 {
            sql.push(b',');
        }
        sql.extend_from_slice(b"pg_catalog.set_config(");
        literal(sql, name.as_bytes());
        sql.push(b',');
        match value {
            Some(value) => literal(sql, value),
            None => sql.extend_from_slice(b"NULL"),
        }
        sql.extend_from_slice(match scope {
            Scope::Session => b",false)",
            Scope::Local => b",true)",
        });
    }
}

/// An escape string: it means the same whatever `standard_conforming_strings` says.
pub fn literal(sql: &mut Vec<u8>, value: &[u8]) {
    sql.extend_from_slice(b"E'");
    for &byte in value {
        if matches!(byte, b'\'' | b'\\') {
            sql.push(byte);
        }
        sql.push(byte);
    }
    sql.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let answers = pairs.iter().map(|(n, v)| (*n, Some(v.as_bytes())));
        Settings::default().with(answers).unwrap()
    }

    fn change(from: &[(&str, &str)], to: &[(&str, &str)]) -> Vec<String> {
        let queries = settings(from).change_to(&settings(to));
        queries
            .into_iter()
            .map(|q| String::from_utf8(q).unwrap())
            .collect()
    }

    #[test]
    fn equal_settings_need_no_change() {
        let a = [("app.tenant", "7"), ("work_mem", "4MB")];
        assert!(settings(&a).is_same(&settings(&a)));
        assert!(change(&a, &a).is_empty());
        assert!(Settings::default().is_same(&settings(&[])));
        assert!(!settings(&a).is_same(&Settings::default()));
    }

    #[test]
    fn what_the_last_session_set_is_reset_and_what_this_one_set_is_set() {
        let sql = change(
            &[("datestyle", "ISO, DMY")],
            &[("search_path", "a, \"B'\\\"")],
        );
        assert_eq!(
            sql,
            ["SELECT pg_catalog.set_config(E'datestyle',NULL,false),\
              pg_catalog.set_config(E'search_path',E'a, \"B''\\\\\"',false);COMMIT"]
        );
    }

    #[test]
    fn who_acts_is_reset_first_and_set_last_even_where_only_one_of_both_differs() {
        let from = [
            ("role", "r"),
            ("session_authorization", "s"),
            ("work_mem", "1MB"),
        ];
        let to = [
            ("role", "q"),
            ("session_authorization", "s"),
            ("timezone", "UTC"),
        ];
        let sql = change(&from, &to).concat();
        let order = [
            "'session_authorization',NULL",
            "'role',NULL",
            "'work_mem',NULL",
            "'timezone',E'UTC'",
            "'session_authorization',E's'",
            "'role',E'q'",
        ];
        let at: Vec<_> = order
            .iter()
            .map(|part| sql.find(part).expect(part))
            .collect();
        assert!(at.is_sorted(), "{sql}");
    }

    #[test]
    fn the_encoding_is_changed_before_the_values_that_are_written_in_it() {
        let sql = change(&[], &[("app.name", "Zoë"), ("client_encoding", "LATIN1")]);
        assert_eq!(sql.len(), 2);
        assert!(
            sql[0].contains("client_encoding") && sql[1].contains("Zoë"),
            "{sql:?}"
        );
        let commits = |sql: &String| sql.ends_with(";COMMIT");
        assert!(!commits(&sql[0]) && commits(&sql[1]), "{sql:?}");
        let alone = change(&[], &[("client_encoding", "LATIN1")]);
        assert!(alone.len() == 1 && commits(&alone[0]), "{alone:?}");
    }

    #[test]
    fn all_settings_are_set_within_a_transaction_whatever_they_were() {
        let text = |of: &[(&str, &str)]| {
            let queries = settings(of).set_within("BEGIN");
            queries.map(|query| String::from_utf8(query).unwrap())
        };
        let reset = "SELECT pg_catalog.set_config(E'session_authorization',NULL,true),\
                     pg_catalog.set_config(E'role',NULL,true)";
        assert_eq!(text(&[]), ["BEGIN;RESET ALL", reset]);
        let [first, second] = text(&[
            ("client_encoding", "LATIN1"),
            ("role", "r"),
            ("timezone", "UTC"),
        ]);
        assert!(first.ends_with(
            "RESET ALL;SELECT pg_catalog.set_config(E'client_encoding',E'LATIN1',true)"
        ));
        let (zone, role) = (second.find("E'UTC'").unwrap(), second.find("E'r'").unwrap());
        assert!(second.starts_with(reset) && zone < role, "{second}");
    }

    #[test]
    fn a_change_within_a_transaction_is_of_what_counts_alone_and_of_nobody_who_acts() {
        let (old, new) = (
            settings(&[("datestyle", "ISO, DMY"), ("a.b", "1")]),
            settings(&[]),
        );
        let text = |from: &Settings, to: &Settings| from.change_within(to, |name| name != "a.b");
        let back = text(&new, &old).unwrap();
        assert_eq!(
            back,
            b"SELECT pg_catalog.set_config(E'datestyle',E'ISO, DMY',true)"
        );
        assert_eq!(text(&old, &old), Some(Vec::new()));
        assert_eq!(text(&old, &settings(&[("role", "r")])), None);
        assert_eq!(
            text(&settings(&[("client_encoding", "LATIN1")]), &old),
            None
        );
    }

    #[test]
    fn more_than_can_be_carried_is_refused() {
        let long = "x".repeat(MAX_VALUE + 1);
        let with = Settings::default().with([("a", Some(long.as_bytes()))].into_iter());
        assert!(with.is_err());
        let names: Vec<_> = (0..=MAX_NAMES).map(|n| format!("a.b{n}")).collect();
        let many = names.iter().map(|n| (n.as_str(), Some(&b""[..])));
        assert!(Settings::default().with(many).is_err());
    }

    #[test]
    fn names_are_compared_without_quotes_case_and_spaces() {
        for (written, name) in [
            ("Work_Mem", Some("work_mem")),
            ("\"Work_Mem\"", Some("work_mem")),
            ("App . \"Tenant\"", Some("app.tenant")),
            ("\"a b.c\"", None),
            ("ümlaut.x", None),
            ("a'b", None),
            ("", None),
        ] {
            assert_eq!(normalised(written.as_bytes()).as_deref(), name, "{written}");
        }
    }
}
