//! From the file as written ([`raw`](super::raw)) to a checked [`Config`]: ranges, duplicates, what belongs together.
//!
//! A bad value is reported and its default taken, so that one pass finds everything; the result is used only if nothing
//! was reported.

use std::{
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, Failover, Http, Limits, Log, Pool, Reads,
    defaults::default_workers,
    problem::{Problem, Show},
    raw,
    report::Report,
    value::{Given, Time, Whole},
};

mod auth;
mod listeners;
mod logins;
mod nodes;
mod probe;
mod rules;
mod secrets;
mod sources;
mod tls;

/// Worker threads: far above any machine's cores this is a slip.
const MAX_WORKERS: i64 = 1024;
const MAX_POOL_SIZE: i64 = 10_000;
/// File descriptors are the real limit.
const MAX_CLIENTS: i64 = 1_000_000;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// The longest wait that a timer is trusted with.
const LONG: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the checks share: where paths start, the environment, and where to complain.
pub(super) struct Context<'a, 'r> {
    base: PathBuf,
    env: &'a dyn Fn(&str) -> Option<String>,
    report: &'a mut Report<'r>,
}

/// Checks everything; what was found is in the report.
pub(super) fn config(file: raw::File, cx: &mut Context) -> Config {
    let pool = cx.pool(file.pool);
    let auth = cx.auth(file.auth, &file.user);
    let reads = cx.reads(file.reads);
    let tls = cx.tls(file.tls, auth.method);
    let http = Http {
        listen: file
            .http
            .listen
            .as_ref()
            .map_or(Http::default().listen, |it| it.get_ref().0),
    };
    Config {
        workers: cx.workers(&file.workers),
        zone: text(&file.zone),
        listeners: cx.listeners(&file.listener, pool.mode, &file.http),
        nodes: cx.nodes(&file.node, &file.patroni, &pool),
        repmgr: cx.repmgr(&file.repmgr, &file.node, &file.patroni),
        patroni: cx.patroni(file.patroni),
        probe: cx.probe(file.probe),
        reads,
        rules: cx.rules(&file.rule),
        logins: cx.logins(&file.login, reads.max_staleness),
        failover: cx.failover(file.failover),
        limits: cx.limits(file.limits),
        users: cx.users(file.user),
        log: log(file.log),
        http,
        pool,
        auth,
        tls,
    }
}

impl<'a, 'r> Context<'a, 'r> {
    pub fn new(
        source: &Path,
        env: &'a dyn Fn(&str) -> Option<String>,
        report: &'a mut Report<'r>,
    ) -> Self {
        let base = source.parent().unwrap_or(Path::new("")).to_owned();
        Context { base, env, report }
    }

    /// A path of the file, which starts at the file's own directory.
    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    fn error(&mut self, span: Range<usize>, problem: Problem) {
        self.report.error(span, Show::Value, problem);
    }

    fn bad(&mut self, span: Range<usize>, key: &str, expected: impl Into<String>) {
        let problem = Problem::new(key, format!("bad value for `{key}`")).expected(expected);
        self.error(span, problem);
    }

    /// A key that the table at `span` must have, unless something was already said about it.
    fn missing(&mut self, span: Range<usize>, key: &str, expected: &str) {
        if !self.report.is_blamed(key) {
            let problem = Problem::new(key, format!("`{key}` is missing")).expected(expected);
            self.error(span, problem);
        }
    }

    fn whole(
        &mut self,
        given: &Given<Whole>,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let given = given.as_ref()?;
        let number = given.get_ref().0;
        if range.contains(&number) {
            return Some(number);
        }
        let (low, high) = range.into_inner();
        self.bad(given.span(), key, format!("a number from {low} to {high}"));
        None
    }

    fn count(
        &mut self,
        given: &Given<Whole>,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Option<usize> {
        let number = self.whole(given, key, range)?;
        usize::try_from(number).ok()
    }

    fn time(
        &mut self,
        given: &Given<Time>,
        key: &str,
        low: Duration,
        high: Duration,
    ) -> Option<Duration> {
        let given = given.as_ref()?;
        let time = given.get_ref().0;
        if (low..=high).contains(&time) {
            return Some(time);
        }
        let show = humantime::format_duration;
        let expected = format!("a duration from \"{}\" to \"{}\"", show(low), show(high));
        self.bad(given.span(), key, expected);
        None
    }

    /// A name that PostgreSQL could have: not empty, no zero byte.
    fn name(&mut self, given: &Given<String>, key: &str) -> Option<String> {
        let given = given.as_ref()?;
        let text = given.get_ref();
        if !text.is_empty() && !text.contains('\0') {
            return Some(text.clone());
        }
        self.bad(given.span(), key, "a name that is not empty");
        None
    }

    /// A key that is accepted but does nothing in this version: warns where it would change something.
    fn later<T, U: PartialEq>(&mut self, given: &Given<T>, key: &str, value: &U, default: &U) {
        if let Some(given) = given
            && value != default
        {
            let problem = Problem::new(key, format!("`{key}` is not in effect yet"))
                .help("this version accepts the key and behaves as with the default");
            self.report.warning(given.span(), problem);
        }
    }

    fn workers(&mut self, given: &Given<Whole>) -> usize {
        match self.count(given, "workers", 0..=MAX_WORKERS) {
            None | Some(0) => default_workers(),
            Some(workers) => workers,
        }
    }

    fn pool(&mut self, raw: raw::Pool) -> Pool {
        let default = Pool::default();
        let time = |cx: &mut Self, given: &Given<Time>, key, default| {
            cx.time(given, key, MS, LONG).unwrap_or(default)
        };
        let pool = Pool {
            mode: raw.mode.map_or(default.mode, toml::Spanned::into_inner),
            size: self
                .count(&raw.size, "pool.size", 1..=MAX_POOL_SIZE)
                .unwrap_or(default.size),
            checkout_timeout: time(
                self,
                &raw.checkout_timeout,
                "pool.checkout_timeout",
                default.checkout_timeout,
            ),
            idle_timeout: time(
                self,
                &raw.idle_timeout,
                "pool.idle_timeout",
                default.idle_timeout,
            ),
            lifetime: time(self, &raw.lifetime, "pool.lifetime", default.lifetime),
            login_backoff: time(
                self,
                &raw.login_backoff,
                "pool.login_backoff",
                default.login_backoff,
            ),
            opaque: given(&raw.opaque, default.opaque),
            harmless_functions: self.functions(&raw.harmless_functions),
            sequences: given(&raw.sequences, default.sequences),
            multiplex: given(&raw.multiplex, default.multiplex),
        };
        self.later(
            &raw.multiplex,
            "pool.multiplex",
            &pool.multiplex,
            &default.multiplex,
        );
        pool
    }

    fn functions(&mut self, given: &[toml::Spanned<String>]) -> Vec<String> {
        let mut functions = Vec::new();
        for (index, one) in given.iter().enumerate() {
            let name = one.get_ref();
            match rules::is_qualified(name) {
                true => functions.push(name.clone()),
                false => self.bad(
                    one.span(),
                    &format!("pool.harmless_functions[{index}]"),
                    "a function as \"name\" or \"schema.name\", without its arguments",
                ),
            }
        }
        functions
    }

    fn reads(&mut self, raw: raw::Reads) -> Reads {
        let default = Reads::default();
        let staleness = self.time(&raw.max_staleness, "reads.max_staleness", MS, LONG);
        Reads {
            consistency: given(&raw.consistency, default.consistency),
            max_staleness: staleness.unwrap_or(default.max_staleness),
            transactions: given(&raw.transactions, default.transactions),
            place: given(&raw.place, default.place),
        }
    }

    fn failover(&mut self, raw: raw::Failover) -> Failover {
        let default = Failover::default();
        let zero = Duration::ZERO;
        Failover {
            hold: self
                .time(&raw.hold, "failover.hold", zero, HOUR)
                .unwrap_or(default.hold),
            max_held: self
                .count(&raw.max_held, "failover.max_held", 0..=MAX_CLIENTS)
                .unwrap_or(default.max_held),
            settle: self
                .time(&raw.settle, "failover.settle", zero, HOUR)
                .unwrap_or(default.settle),
            grace: self
                .time(&raw.grace, "failover.grace", zero, HOUR)
                .unwrap_or(default.grace),
            replay_aborted: given(&raw.replay_aborted, default.replay_aborted),
            trust_promotion: given(&raw.trust_promotion, default.trust_promotion),
            state_file: raw.state_file.as_ref().map(|it| self.path(it.get_ref())),
        }
    }

    fn limits(&mut self, raw: raw::Limits) -> Limits {
        let default = Limits::default();
        Limits {
            max_clients: self
                .count(&raw.max_clients, "limits.max_clients", 1..=MAX_CLIENTS)
                .unwrap_or(default.max_clients),
            login_timeout: self
                .time(&raw.login_timeout, "limits.login_timeout", SECOND, HOUR)
                .unwrap_or(default.login_timeout),
            drain_timeout: self
                .time(
                    &raw.drain_timeout,
                    "limits.drain_timeout",
                    Duration::ZERO,
                    LONG,
                )
                .unwrap_or(default.drain_timeout),
            peer_timeout: self
                .time(&raw.peer_timeout, "limits.peer_timeout", SECOND, HOUR)
                .unwrap_or(default.peer_timeout),
            idle_timeout: self.unless_zero(&raw.idle_timeout, "limits.idle_timeout"),
            idle_transaction_timeout: self.unless_zero(
                &raw.idle_transaction_timeout,
                "limits.idle_transaction_timeout",
            ),
        }
    }

    /// `"0s"` means never.
    fn unless_zero(&mut self, given: &Given<Time>, key: &str) -> Option<Duration> {
        let time = self.time(given, key, Duration::ZERO, LONG)?;
        (!time.is_zero()).then_some(time)
    }
}

fn log(raw: raw::Log) -> Log {
    let default = Log::default();
    Log {
        level: given(&raw.level, default.level),
        format: given(&raw.format, default.format),
    }
}

/// The text written, or none.
fn text(given: &Given<String>) -> String {
    given
        .as_ref()
        .map_or_else(String::new, |it| it.get_ref().clone())
}

/// The value written, or the default.
fn given<T: Copy>(given: &Given<T>, default: T) -> T {
    given.as_ref().map_or(default, |it| *it.get_ref())
}
