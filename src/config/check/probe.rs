//! `[probe]`: the probes' login and pace.

use super::{Context, HOUR, MINUTE, MS, SECOND, secrets::Ways};
use crate::config::{Probe, problem::Problem, raw};

impl Context<'_, '_> {
    pub(super) fn probe(&mut self, raw: raw::Probe) -> Probe {
        let default = Probe::default();
        let ways = Ways {
            plain: &raw.password,
            file: &raw.password_file,
            env: &raw.password_env,
        };
        let probe = Probe {
            password: self.secret(&ways, "probe"),
            user: self.name(&raw.user, "probe.user").unwrap_or(default.user),
            database: self
                .name(&raw.database, "probe.database")
                .unwrap_or(default.database),
            interval: self
                .time(&raw.interval, "probe.interval", MS, MINUTE)
                .unwrap_or(default.interval),
            busy_interval: self
                .time(&raw.busy_interval, "probe.busy_interval", MS, MINUTE)
                .unwrap_or(default.busy_interval),
            timeout: self
                .time(&raw.timeout, "probe.timeout", MS, MINUTE)
                .unwrap_or(default.timeout),
            lookup_interval: self
                .time(&raw.lookup_interval, "probe.lookup_interval", SECOND, HOUR)
                .unwrap_or(default.lookup_interval),
        };
        if probe.busy_interval > probe.interval {
            let either = raw.busy_interval.as_ref().or(raw.interval.as_ref());
            let span = either.map_or(0..0, |it| it.span());
            let key = "probe.busy_interval";
            let problem =
                Problem::new(key, "`probe.busy_interval` is longer than `probe.interval`");
            self.error(
                span,
                problem.expected("probes to be more frequent while sessions wait"),
            );
        }
        probe
    }
}
