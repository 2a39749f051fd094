//! The roles that the demo makes: for the probes, for looking users up, and one for an application.

use std::fmt::Write;

use crate::{
    client::verifier,
    cluster::{Node, Result, identifier, literal},
    config::Secret,
};

/// The probes' role, a member of pg_monitor.
pub(super) const PROBE: &str = "pgsluice";
/// The role that may call the lookup function, and nothing else.
pub(super) const LOOKUP: &str = "pgsluice_auth";
/// An application's role, and its password: this is a demo.
pub(super) const APP: &str = "app";

/// Of the proxy's own roles; new at each start of the demo.
pub(super) struct Passwords {
    pub probe: Secret,
    pub lookup: Secret,
}

impl Passwords {
    /// # Errors
    /// The kernel gives no random numbers.
    pub(super) fn random() -> std::result::Result<Passwords, getrandom::Error> {
        Ok(Passwords {
            probe: random()?,
            lookup: random()?,
        })
    }
}

fn random() -> std::result::Result<Secret, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok(Secret::new(hex))
}

/// Lines of pg_hba.conf: the proxy's own roles log in with their passwords, as they would elsewhere.
pub(super) fn hba() -> String {
    format!("host all {PROBE},{LOOKUP} 127.0.0.1/32 scram-sha-256")
}

/// Makes the roles and the lookup function, or gives roles of an earlier run the new passwords.
pub(super) fn make(primary: &Node, passwords: &Passwords) -> Result<()> {
    let roles = [
        (PROBE, passwords.probe.reveal()),
        (LOOKUP, passwords.lookup.reveal()),
        (APP, APP),
    ];
    for (role, password) in roles {
        make_role(primary, role, password)?;
    }
    let rights = format!(
        "GRANT pg_monitor TO {}; GRANT CREATE ON SCHEMA public TO {}",
        identifier(PROBE),
        identifier(APP)
    );
    run(primary, &rights)?;
    run(primary, &verifier::lookup_sql(LOOKUP))
}

fn make_role(primary: &Node, role: &str, password: &str) -> Result<()> {
    let exists = format!(
        "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}",
        literal(role)
    );
    let verb = match primary.value(&exists)? {
        Some(_) => "ALTER",
        None => "CREATE",
    };
    let (role, password) = (identifier(role), literal(password));
    run(
        primary,
        &format!("{verb} ROLE {role} LOGIN PASSWORD {password}"),
    )
}

/// With synchronous replication these must not wait for a replica that may be gone.
fn run(primary: &Node, sql: &str) -> Result<()> {
    let sql = format!("SET synchronous_commit = local; SET client_min_messages = warning; {sql}");
    primary.sql(&sql).map(drop)
}
