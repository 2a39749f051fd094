//! `[[rule]]`: each is about one function or one table, and no two are about the same.

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
        let of = match (&raw.function, &raw.table) {
            (function @ Some(_), None) => {
                self.ruled(function, key, "function").map(Ruled::Function)
            }
            (None, table @ Some(_)) => self.ruled(table, key, "table").map(Ruled::Table),
            (None, None) => {
                let expected = "`function` or `table`, the name that the rule is about";
                self.missing(span.clone(), &format!("{key}.function"), expected);
                None
            }
            (Some(_), Some(table)) => {
                let problem = Problem::new(format!("{key}.table"), "a rule is about one name only")
                    .expected("either `function` or `table`");
                self.error(table.span(), problem);
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
