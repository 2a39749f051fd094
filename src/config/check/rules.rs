//! `[[rule]]`: each is about one function, table or statement, and no two are about the same.

use std::collections::HashMap;

use toml::Spanned;

use super::Context;
use crate::config::{Rule, Ruled, problem::Problem, raw, value::Given};

impl Context<'_, '_> {
    pub(super) fn rules(&mut self, raw: &[Spanned<raw::Rule>]) -> Vec<Rule> {
        let mut seen = HashMap::new();
        let mut rules = Vec::new();
        for (index, one) in raw.iter().enumerate() {
            let key = format!("rule[{index}]");
            let Some(rule) = self.rule(one, &key) else {
                continue;
            };
            let what = format!("{:?}", rule.of);
            match seen.insert(what, index) {
                None => rules.push(rule),
                Some(before) => {
                    let what = format!("`{key}` is about the same as `rule[{before}]`");
                    let problem = Problem::new(&key, what).expected("one rule for each name");
                    self.error(one.span(), problem);
                }
            }
        }
        rules
    }

    fn rule(&mut self, raw: &Spanned<raw::Rule>, key: &str) -> Option<Rule> {
        let (span, raw) = (raw.span(), raw.get_ref());
        let given = [
            ("function", &raw.function),
            ("table", &raw.table),
            ("statement", &raw.statement),
        ];
        let mut given = given.into_iter().filter(|(_, given)| given.is_some());
        let of = match (given.next(), given.next()) {
            (Some(("function", name)), None) => {
                self.ruled(name, key, "function").map(Ruled::Function)
            }
            (Some(("table", name)), None) => self.ruled(name, key, "table").map(Ruled::Table),
            (Some((_, shape)), None) => self.shape(shape, key).map(Ruled::Statement),
            (None, _) => {
                let expected = "`function`, `table` or `statement`, whichever the rule is about";
                self.missing(span.clone(), &format!("{key}.function"), expected);
                None
            }
            (Some(_), Some((kind, other))) => {
                let problem =
                    Problem::new(format!("{key}.{kind}"), "a rule is about one thing only")
                        .expected("one of `function`, `table` and `statement`");
                let span = other.as_ref().map_or(span.clone(), Spanned::span);
                self.error(span, problem);
                None
            }
        };
        if raw.place.is_none() {
            let expected = "`primary` or `replica`";
            self.missing(span, &format!("{key}.place"), expected);
        }
        Some(Rule {
            of: of?,
            place: *raw.place.as_ref()?.get_ref(),
        })
    }

    fn shape(&mut self, given: &Given<String>, key: &str) -> Option<u128> {
        let given = given.as_ref()?;
        let text = given.get_ref();
        let is_whole = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let shape = u128::from_str_radix(text, 16).ok().filter(|_| is_whole);
        if shape.is_none() {
            let expected = "a fingerprint, as `pgsluice route` shows it".to_owned();
            self.bad(given.span(), &format!("{key}.statement"), expected);
        }
        shape
    }

    fn ruled(&mut self, given: &Given<String>, key: &str, kind: &str) -> Option<String> {
        let given = given.as_ref()?;
        let name = given.get_ref();
        if is_qualified(name) {
            return Some(name.clone());
        }
        let expected = format!("a {kind} as \"name\" or \"schema.name\"");
        self.bad(given.span(), &format!("{key}.{kind}"), expected);
        None
    }
}

/// `name` or `schema.name`, without arguments.
pub(super) fn is_qualified(name: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && !part.contains(['(', ' ', '\0']);
    name.splitn(2, '.').all(is_name)
}
