//! `[auth]` and `[[user]]`: how applications prove who they are.

use std::collections::HashMap;

use toml::Spanned;

use super::{Context, HOUR, given, secrets::Ways};
use crate::config::{Allow, Auth, AuthMethod, User, problem::Problem, raw, value::FromText};

impl Context<'_, '_> {
    pub(super) fn auth(&mut self, raw: raw::Auth, users: &[Spanned<raw::User>]) -> Auth {
        let default = Auth::default();
        let ways = Ways {
            plain: &raw.password,
            file: &raw.password_file,
            env: &raw.password_env,
        };
        let auth = Auth {
            method: given(&raw.method, default.method),
            user: self.name(&raw.user, "auth.user"),
            password: self.secret(&ways, "auth"),
            database: self
                .name(&raw.database, "auth.database")
                .unwrap_or(default.database),
            query: self.query(&raw).unwrap_or(default.query),
            ttl: self
                .time(&raw.ttl, "auth.ttl", std::time::Duration::ZERO, HOUR)
                .unwrap_or(default.ttl),
            allow: raw
                .allow
                .iter()
                .enumerate()
                .filter_map(|(index, one)| self.allow(index, one))
                .collect(),
        };
        if ways.is_given() && raw.user.is_none() {
            let problem = Problem::new("auth.user", "`auth` has a password but no `user`");
            let span = raw.password.as_ref().map(|it| it.span());
            let span = span.or(raw.password_file.as_ref().map(|it| it.span()));
            let span = span.or(raw.password_env.as_ref().map(|it| it.span()));
            self.error(
                span.unwrap_or(0..0),
                problem.expected("the role that runs `auth.query`"),
            );
        }
        self.someone(&auth, &raw, users);
        auth
    }

    /// Somebody must be able to log in.
    fn someone(&mut self, auth: &Auth, raw: &raw::Auth, users: &[Spanned<raw::User>]) {
        let open = auth.method == AuthMethod::Trust;
        let blamed = self.report.is_blamed("auth.user") || self.report.is_blamed("user");
        if open || blamed || raw.user.is_some() || !users.is_empty() {
            return;
        }
        let problem = Problem::new("auth.user", "nobody could log in: there is no `[[user]]` and no `auth.user`")
            .help("add [[user]] with name and password, or [auth] user = \"…\", the role that looks verifiers up in the cluster");
        self.report.error_nowhere(problem);
    }

    fn query(&mut self, raw: &raw::Auth) -> Option<String> {
        let given = raw.query.as_ref()?;
        let text = given.get_ref();
        if text.contains("$1") {
            return Some(text.clone());
        }
        self.bad(
            given.span(),
            "auth.query",
            "a query with $1 for the role's name",
        );
        None
    }

    fn allow(&mut self, index: usize, given: &Spanned<String>) -> Option<Allow> {
        let allow = Allow::from_text(given.get_ref());
        if allow.is_none() {
            self.bad(
                given.span(),
                &format!("auth.allow[{index}]"),
                Allow::EXPECTED,
            );
        }
        allow
    }

    pub(super) fn users(&mut self, raw: Vec<Spanned<raw::User>>) -> Vec<User> {
        self.unique_users(&raw);
        let all = raw.iter().enumerate();
        all.filter_map(|(index, one)| self.user(one, &format!("user[{index}]")))
            .collect()
    }

    fn user(&mut self, raw: &Spanned<raw::User>, key: &str) -> Option<User> {
        let (span, raw) = (raw.span(), raw.get_ref());
        if raw.name.is_none() {
            self.missing(span.clone(), &format!("{key}.name"), "the name of a role");
        }
        let ways = Ways {
            plain: &raw.password,
            file: &raw.password_file,
            env: &raw.password_env,
        };
        if !ways.is_given() {
            let expected = "one of `password`, `password_file`, `password_env`";
            self.missing(span, &format!("{key}.password"), expected);
        }
        let password = self.secret(&ways, key);
        Some(User {
            name: self.name(&raw.name, &format!("{key}.name"))?,
            password: password?,
        })
    }

    fn unique_users(&mut self, raw: &[Spanned<raw::User>]) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, one) in raw.iter().enumerate() {
            let Some(name) = &one.get_ref().name else {
                continue;
            };
            if let Some(first) = seen.insert(name.get_ref(), index) {
                let message = format!("`{}` is `user[{first}]` too", name.get_ref());
                let problem = Problem::new(format!("user[{index}].name"), message);
                self.error(name.span(), problem.expected("each user once"));
            }
        }
    }
}
