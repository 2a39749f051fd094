//! `[[listener]]`: one per address.

use std::{collections::HashMap, net::SocketAddr};

use toml::Spanned;

use super::{Context, given};
use crate::config::{
    Http, Listener, PoolMode, Route, defaults::default_listeners, problem::Problem, raw,
    value::Given,
};

impl Context<'_, '_> {
    /// The listeners of the file, or the three default ones.
    pub(super) fn listeners(
        &mut self,
        raw: &[Spanned<raw::Listener>],
        mode: PoolMode,
        http: &raw::Http,
    ) -> Vec<Listener> {
        let listeners: Vec<Listener> = raw
            .iter()
            .enumerate()
            .filter_map(|(index, one)| self.listener(one, &format!("listener[{index}]"), mode))
            .collect();
        let http = http
            .listen
            .as_ref()
            .map_or(Http::default().listen, |it| it.get_ref().0);
        self.one_per_address(raw, http);
        match raw.is_empty() {
            true => default_listeners(mode),
            false => listeners,
        }
    }

    fn listener(
        &mut self,
        raw: &Spanned<raw::Listener>,
        key: &str,
        mode: PoolMode,
    ) -> Option<Listener> {
        let (span, raw) = (raw.span(), raw.get_ref());
        if raw.listen.is_none() {
            let expected = "an address such as listen = \"127.0.0.1:5000\"";
            self.missing(span.clone(), &format!("{key}.listen"), expected);
        }
        if raw.route.is_none() {
            self.missing(
                span,
                &format!("{key}.route"),
                "`primary`, `replica` or `split`",
            );
        }
        let route = *raw.route.as_ref()?.get_ref();
        self.replica_only(&raw.writes, &format!("{key}.writes"), route);
        self.replica_only(&raw.primary, &format!("{key}.primary"), route);
        self.primary_only(&raw.shadow, &format!("{key}.shadow"), route);
        let base = Listener::at(raw.listen.as_ref()?.get_ref().0, route, mode);
        Some(Listener {
            mode: given(&raw.mode, mode),
            writes: given(&raw.writes, base.writes),
            primary: given(&raw.primary, base.primary),
            shadow: given(&raw.shadow, base.shadow),
            ..base
        })
    }

    fn primary_only(&mut self, given: &Given<bool>, key: &str, route: Route) {
        if let Some(given) = given
            && *given.get_ref()
            && route != Route::Primary
        {
            let problem = Problem::new(key, format!("`{key}` is for route = \"primary\" only"));
            self.error(
                given.span(),
                problem.help("remove the key, or change the route"),
            );
        }
    }

    fn replica_only<T>(&mut self, given: &Given<T>, key: &str, route: Route) {
        if let Some(given) = given
            && route != Route::Replica
        {
            let problem = Problem::new(key, format!("`{key}` is for route = \"replica\" only"));
            self.error(
                given.span(),
                problem.help("remove the key, or change the route"),
            );
        }
    }

    fn one_per_address(&mut self, raw: &[Spanned<raw::Listener>], http: Option<SocketAddr>) {
        let mut taken: HashMap<SocketAddr, String> =
            http.map(|at| (at, "http".to_owned())).into_iter().collect();
        for (index, one) in raw.iter().enumerate() {
            let Some(listen) = &one.get_ref().listen else {
                continue;
            };
            let (name, addr) = (format!("listener[{index}]"), listen.get_ref().0);
            // Port 0 takes any free port: no two are the same.
            if addr.port() == 0 {
                continue;
            }
            match taken.get(&addr) {
                Some(owner) => {
                    let message = format!("`{addr}` is taken by `{owner}`");
                    let problem = Problem::new(format!("{name}.listen"), message);
                    self.error(listen.span(), problem.expected("an address of its own"));
                }
                None => drop(taken.insert(addr, name)),
            }
        }
    }
}
