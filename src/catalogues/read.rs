//! Reading one catalogue: a connection of its own to the primary, one transaction, closed again (or DROP DATABASE would
//! find it in its way).

use tokio_postgres::{Client, Error, Row, Transaction};

use crate::{
    config,
    route::{
        catalogue::{Body, By, Facts, Function, Reached, Stored, Table, TableKind, Through, Use},
        functions,
    },
    topology::Login,
};

/// More functions than this are not judged.
const MAX_FUNCTIONS: i64 = 200_000;
/// More of anything else neither.
const MAX_ROWS: i64 = 1_000_000;
const OPTIONS: &str = "-c search_path=pg_catalog -c statement_timeout=30s -c lock_timeout=5s \
    -c standard_conforming_strings=on -c client_encoding=UTF8 -c default_transaction_read_only=on";

/// One number over all rows that matter: who changes one of them writes a new version of it.
const FINGERPRINT: &str = include_str!("fingerprint.sql");
const FUNCTIONS: &str = include_str!("functions.sql");
const PARTS: &str = include_str!("parts.sql");
const REACHED: &str = include_str!("reached.sql");
const RELATIONS: &str = include_str!("relations.sql");
const TABLES: &str = include_str!("tables.sql");
const CHILDREN: &str = include_str!("children.sql");
const STORED: &str = include_str!("stored.sql");
const USES: &str = include_str!("uses.sql");
const BUILT_IN: &str =
    "SELECT p.oid, p.proname::text FROM pg_proc p WHERE p.oid < 16384 AND p.pronamespace = 11";

/// What a reading brought.
pub(super) enum Read {
    /// The fingerprint is the known one.
    Unchanged,
    /// Facts, their fingerprint, the server's major version.
    Changed(Box<(Facts, String, u8)>),
}

/// Reads the catalogue of `database` on `node`, unless its fingerprint is `known`.
///
/// # Errors
/// Says why not, for the log.
pub(super) async fn read(
    login: &Login,
    node: &config::Node,
    database: &str,
    known: Option<&str>,
) -> Result<Read, String> {
    let connecting = login.connect(node, database, "pgsluice catalogue", OPTIONS);
    let (mut client, mut driver) = connecting.await.map_err(|e| told(&e))?;
    let read = read_all(&mut client, known).await;
    drop(client);
    driver.ended().await;
    read
}

async fn read_all(client: &mut Client, known: Option<&str>) -> Result<Read, String> {
    let builder = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true);
    let tx = builder.start().await.map_err(|e| told(&e))?;
    let fingerprint: String = one(&tx, FINGERPRINT).await.map_err(|e| told(&e))?;
    if known == Some(&fingerprint) {
        return Ok(Read::Unchanged);
    }
    let version: String = one(&tx, "SELECT current_setting('server_version_num')")
        .await
        .map_err(|e| told(&e))?;
    let version: u32 = version.parse().map_err(|_| "no version".to_owned())?;
    let major = u8::try_from(version / 10_000).unwrap_or(u8::MAX);
    let facts = facts(&tx, major).await.map_err(|e| told(&e))?;
    let facts = facts.ok_or("the catalogue is too large")?;
    Ok(Read::Changed(Box::new((facts, fingerprint, major))))
}

async fn one(tx: &Transaction<'_>, sql: &str) -> Result<String, Error> {
    tx.query_one(sql, &[]).await?.try_get(0)
}

/// None: too many rows.
async fn facts(tx: &Transaction<'_>, major: u8) -> Result<Option<Facts>, Error> {
    let harmful = harmful_built_ins(tx, major).await?;
    // As an expression stores a call.
    let oids: Vec<String> = harmful.iter().map(u32::to_string).collect();
    let pattern = format!(":funcid ({}) ", oids.join("|"));
    let standard_body = match major {
        0..14 => "NULL::text",
        _ => "CASE WHEN p.prosqlbody IS NOT NULL THEN pg_get_function_sqlbody(p.oid) END",
    };
    let functions = FUNCTIONS.replace("{standard_body}", standard_body);
    let functions = tx.query(&functions, &[&(MAX_FUNCTIONS + 1)]).await?;
    let limit = MAX_ROWS + 1;
    let parts = tx.query(PARTS, &[&pattern, &harmful, &limit]).await?;
    let reached = tx.query(REACHED, &[&pattern, &harmful, &limit]).await?;
    let relations = tx.query(RELATIONS, &[&limit]).await?;
    let tables = tx.query(TABLES, &[&limit]).await?;
    let children = tx.query(CHILDREN, &[&limit]).await?;
    let stored = tx.query(STORED, &[&limit]).await?;
    let uses = tx.query(USES, &[&limit]).await?;
    let all = [
        &parts, &reached, &relations, &tables, &children, &stored, &uses,
    ];
    if functions.len() as i64 > MAX_FUNCTIONS || all.iter().any(|r| r.len() as i64 > MAX_ROWS) {
        return Ok(None);
    }
    Ok(Some(Facts {
        functions: each(&functions, function)?,
        parts: each(&parts, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?,
        reached: each(&reached, reach)?,
        relations: each(&relations, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?,
        tables: each(&tables, table)?,
        children: each(&children, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?,
        stored: each(&stored, stored_text)?,
        uses: each(&uses, used)?,
    }))
}

fn each<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    rows.iter().map(read).collect()
}

fn table(row: &Row) -> Result<Table, Error> {
    Ok(Table {
        schema: row.try_get(0)?,
        name: row.try_get(1)?,
        kind: match row.try_get(2)? {
            "sequence" => TableKind::Sequence,
            "foreign" => TableKind::Foreign,
            "unlogged" => TableKind::Unlogged,
            _ => TableKind::Replicated,
        },
        is_built_in: row.try_get(3)?,
    })
}

fn stored_text(row: &Row) -> Result<Stored, Error> {
    let (of, sql): (String, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    // Dropped meanwhile: what cannot be read is a quote without an end.
    let sql = sql.unwrap_or_else(|| "'".to_owned());
    Ok(match row.try_get(0)? {
        "query" => Stored::Query { relation: of, sql },
        "check" => Stored::Check { domain: of, sql },
        _ => Stored::Expression { relation: of, sql },
    })
}

fn used(row: &Row) -> Result<Use, Error> {
    let by: String = row.try_get(1)?;
    Ok(Use {
        by: match row.try_get(0)? {
            "operator" => Through::Operator(by),
            "cast" => Through::Cast(by),
            "argument" => Through::Argument(by),
            _ => Through::Implicit,
        },
        function: row.try_get(2)?,
    })
}

async fn harmful_built_ins(tx: &Transaction<'_>, major: u8) -> Result<Vec<u32>, Error> {
    let rows = tx.query(BUILT_IN, &[]).await?;
    let mut harmful = Vec::new();
    for row in rows {
        let (oid, name): (u32, &str) = (row.try_get(0)?, row.try_get(1)?);
        if functions::is_harmful(name, major) {
            harmful.push(oid);
        }
    }
    Ok(harmful)
}

fn function(row: &Row) -> Result<Function, Error> {
    let kind: &str = row.try_get(4)?;
    let standard: Option<String> = row.try_get(5)?;
    let text: Option<String> = row.try_get(6)?;
    let body = match (kind, standard, text) {
        ("a", _, _) => Body::Aggregate,
        (_, Some(standard), _) => Body::Standard(standard),
        (_, None, Some(text)) => Body::Text(text),
        (_, None, None) => Body::Unknown,
    };
    Ok(Function {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        language: row.try_get(3)?,
        body,
        settings: row.try_get(7)?,
        extension: row.try_get(8)?,
        takes_argument: row.try_get(9)?,
        defaults: row.try_get(10)?,
    })
}

fn reach(row: &Row) -> Result<Reached, Error> {
    let relation: String = row.try_get(1)?;
    let by = match row.try_get(0)? {
        "naming" => By::Naming(relation),
        "index" => By::Index(relation),
        "writing" => By::Writing(relation),
        "defining" => By::Defining,
        _ => By::Anything,
    };
    Ok(Reached {
        by,
        function: row.try_get(2)?,
    })
}

/// tokio-postgres says only "db error"; what the server said is the source.
fn told(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
