//! SQL for setting clusters up and for looking into them: one short connection per call, values as text.
//!
//! Blocking, and usable from inside an async runtime too: each call has a thread and a small runtime of its own. Not
//! for the data path.

use std::{future::Future, net::Ipv4Addr, time::Duration};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::error::{Error, Result};

/// Of each row the columns' texts; None is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Whom to ask, as whom.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// For errors.
    pub node: &'a str,
    pub port: u16,
    pub user: &'a str,
    /// None where the server trusts us.
    pub password: Option<&'a str>,
    pub database: &'a str,
}

impl Login<'_> {
    /// Runs `sql` (several statements are allowed) and gives the rows of all of them, within `limit`.
    ///
    /// # Errors
    /// [`Error::Sql`], also when nobody answers in time.
    pub fn query(&self, sql: &str, limit: Duration) -> Result<Rows> {
        let work = async {
            match tokio::time::timeout(limit, self.ask(sql)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.error(sql, format!("no answer within {limit:?}"), None)),
            }
        };
        match block_on(work) {
            Some(answer) => answer,
            None => Err(self.error(sql, "no thread for it could be started".into(), None)),
        }
    }

    async fn ask(&self, sql: &str) -> Result<Rows> {
        let failed = |e: tokio_postgres::Error| self.failed(sql, &e);
        let mut config = tokio_postgres::Config::new();
        config
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(self.port)
            .user(self.user)
            .dbname(self.database)
            .application_name("pgsluice cluster");
        if let Some(password) = self.password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        let (answer, _) = tokio::join!(
            async {
                let answer = client.simple_query(sql).await;
                drop(client);
                answer
            },
            connection
        );
        Ok(rows(answer.map_err(failed)?))
    }

    fn failed(&self, sql: &str, error: &tokio_postgres::Error) -> Error {
        let sqlstate = error.code().map(|code| code.code().to_owned());
        let message = match (error.as_db_error(), std::error::Error::source(error)) {
            (Some(db), _) => db.message().to_owned(),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        };
        self.error(sql, message, sqlstate)
    }

    fn error(&self, sql: &str, message: String, sqlstate: Option<String>) -> Error {
        Error::Sql {
            node: self.node.to_owned(),
            statement: first_line(sql),
            message,
            sqlstate,
        }
    }
}

/// Enough to recognise the statement; never what stands behind the word PASSWORD.
fn first_line(sql: &str) -> String {
    const CHARS: usize = 60;
    let line = sql.trim_start().lines().next().unwrap_or_default();
    if let Some(secret) = line.to_ascii_uppercase().find("PASSWORD") {
        return format!("{}…", &line[..secret]);
    }
    match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let texts = rows.map(|row| {
        (0..row.len())
            .map(|i| row.get(i).map(str::to_owned))
            .collect()
    });
    texts.collect()
}

/// None if neither a thread nor a runtime could be made.
fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let run = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().ok()?;
            Some(runtime.block_on(work))
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, run).ok()?;
        thread.join().ok().flatten()
    })
}

/// `text` as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `name` as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_the_beginning_of_a_statement_only() {
        assert_eq!(first_line("SELECT 1\n, 2"), "SELECT 1");
        let secret = first_line("CREATE ROLE é LOGIN password 'secret'");
        assert_eq!(secret, "CREATE ROLE é LOGIN …");
        assert_eq!(first_line(&"é".repeat(100)).chars().count(), 61);
    }
}
