//! Whether users can be looked up in the cluster: logs in as `[auth] user` and runs `[auth] query` once.

use super::{
    PATIENCE,
    ask::{Login, To, words},
    verdict::Finding,
};
use crate::{
    client::verifier,
    config::{self, Config},
};

/// What the proxy reads: verifier, can_login, valid_until, superuser, replication.
const COLUMNS: usize = 5;

/// Why a lookup cannot work.
enum Trouble {
    /// The role cannot log in.
    Login(String),
    /// Function or schema is missing, or the role may not use it: the SQL that makes both helps.
    Function(String),
    Shape(usize),
}

/// Nothing if lookups work, or are not asked for.
pub async fn check(config: &Config, login: &Login, primary: &config::Node) -> Option<Finding> {
    let auth = &config.auth;
    let user = auth.user.as_deref()?;
    let to = login.to_as(primary, user, auth.password.as_ref(), &auth.database);
    let tried = tokio::time::timeout(PATIENCE, try_query(to, &auth.query, user)).await;
    let trouble = match tried {
        Ok(Ok(())) => return None,
        Ok(Err(trouble)) => trouble,
        Err(_) => Trouble::Login(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Some(finding(trouble, user, &auth.database))
}

async fn try_query(to: To, query: &str, user: &str) -> Result<(), Trouble> {
    let open = to
        .open()
        .await
        .map_err(|error| Trouble::Login(words(&error)))?;
    let broken = |error| Trouble::Function(words(&error));
    let statement = open.client.prepare(query).await.map_err(broken)?;
    if statement.columns().len() != COLUMNS {
        return Err(Trouble::Shape(statement.columns().len()));
    }
    open.client
        .query(&statement, &[&user])
        .await
        .map_err(broken)?;
    Ok(())
}

fn finding(trouble: Trouble, user: &str, database: &str) -> Finding {
    match trouble {
        Trouble::Login(why) => Finding::error(format!(
            "auth.user `{user}` cannot log in to `{database}`: {why}"
        )),
        Trouble::Function(why) => Finding::error(format!("auth.query fails as `{user}`: {why}"))
            .help(format!(
                "as a superuser, in database `{database}` of the primary, run:\n\n{}",
                verifier::lookup_sql(user)
            )),
        Trouble::Shape(columns) => Finding::error(format!(
            "auth.query gives {columns} columns; expected {COLUMNS}: verifier, can_login, valid_until, superuser, replication"
        )),
    }
}
