//! `[[login]]`: each says something, and no two of the same logins.

use std::{collections::HashMap, time::Duration};

use toml::Spanned;

use super::{Context, LONG, MS};
use crate::config::{Login, problem::Problem, raw};

impl Context<'_, '_> {
    /// `most`: what is further behind serves nobody.
    pub(super) fn logins(&mut self, raw: &[Spanned<raw::Login>], most: Duration) -> Vec<Login> {
        let mut seen = HashMap::new();
        let mut logins = Vec::new();
        for (index, one) in raw.iter().enumerate() {
            let key = format!("login[{index}]");
            let login = self.login(one, &key);
            if let Some(given) = &one.get_ref().max_staleness
                && login.max_staleness.is_some_and(|time| time > most)
            {
                let expected = "at most `reads.max_staleness`: a replica that is further behind is out of rotation";
                self.bad(given.span(), &format!("{key}.max_staleness"), expected);
            }
            let whose = (login.user.clone(), login.database.clone());
            if whose == (None, None) {
                let expected = "`user`, `database` or both; what holds for all is in `[reads]`";
                self.missing(one.span(), &format!("{key}.user"), expected);
            } else if let Some(before) = seen.insert(whose, index) {
                let what = format!("`{key}` is about the same logins as `login[{before}]`");
                let problem = Problem::new(&key, what).expected("one for each user and database");
                self.error(one.span(), problem);
            }
            logins.push(login);
        }
        logins
    }

    fn login(&mut self, raw: &Spanned<raw::Login>, key: &str) -> Login {
        let raw = raw.get_ref();
        Login {
            user: self.name(&raw.user, &format!("{key}.user")),
            database: self.name(&raw.database, &format!("{key}.database")),
            consistency: raw.consistency.as_ref().map(|it| *it.get_ref()),
            max_staleness: self.time(
                &raw.max_staleness,
                &format!("{key}.max_staleness"),
                MS,
                LONG,
            ),
            transactions: raw.transactions.as_ref().map(|it| *it.get_ref()),
            place: raw.place.as_ref().map(|it| *it.get_ref()),
        }
    }
}
