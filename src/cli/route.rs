//! `pgsluice route "select …"`: where would this run, and why.
//!
//! Offline only what is built in is known; with `-c` the catalogue of one of the configured nodes is read, whichever
//! answers first, and the file's rules count.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use serde_json::{Value, json};

use crate::{
    catalogues,
    config::Config,
    route::{
        Context,
        catalogue::Catalogue,
        class::{Class, class_of},
        effects::{Names, effects_among},
        fingerprint,
        lexer::{Lexer, TokenKind},
    },
    topology,
};

/// For one node, from name lookup to the last row of its catalogue.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whose built-in functions are known without a server.
const NEWEST: u8 = 18;

#[derive(clap::Args)]
pub struct RouteArgs {
    /// SQL: one statement or several
    text: String,
    /// Read the catalogue of a node in this configuration; without it, only what is built in is known
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database whose catalogue is read [default: the probe's]
    #[arg(short, long, value_name = "NAME", requires = "config")]
    database: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// 0, wherever it would run; 1: no node could be asked; 64: the configuration is bad.
pub fn run(args: RouteArgs) -> ExitCode {
    let known = match &args.config {
        None => None,
        Some(path) => match super::load(path) {
            Err(code) => return code,
            Ok(loaded) => match look(&loaded.config, args.database.as_deref()) {
                Ok(known) => Some(known),
                Err(error) => {
                    eprintln!("pgsluice: {error}");
                    return ExitCode::from(super::FAILURE);
                }
            },
        },
    };
    let answer = Answer::of(&args.text, known.as_ref());
    let shown = match args.json {
        true => format!("{:#}\n", answer.json()),
        false => answer.text(),
    };
    super::print_all(shown.as_bytes())
}

/// The catalogue, and the major version that it is of.
type Known = (Catalogue, u8);

/// Asks the nodes one by one: replicas have the same catalogue.
fn look(config: &Config, database: Option<&str>) -> Result<Known, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let nodes = runtime.block_on(topology::named_nodes(config))?;
    let database = database.unwrap_or(&config.probe.database);
    let mut refusals = String::new();
    for node in &nodes {
        let looking = async {
            let looking = catalogues::look(config, node, database);
            tokio::time::timeout(PATIENCE, looking).await
        };
        let why = match runtime.block_on(looking) {
            Ok(Ok(known)) => return Ok(known),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let _ = write!(refusals, "\n  {}: {why}", node.name);
    }
    Err(format!(
        "no node could be asked for its catalogue:{refusals}"
    ))
}

/// Statements with their classes.
struct Answer<'t> {
    statements: Vec<(&'t str, Class)>,
    /// All in one message.
    together: Class,
}

impl<'t> Answer<'t> {
    fn of(text: &'t str, known: Option<&Known>) -> Self {
        let class = |text: &'t str| (text, class(text, known));
        Answer {
            statements: statements(text).into_iter().map(class).collect(),
            together: class(text).1,
        }
    }

    fn text(&self) -> String {
        let mut shown = String::new();
        for (text, class) in &self.statements {
            let sql = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (place, why) = (class.place.as_str(), why(class));
            let _ = writeln!(shown, "{place:<8}  {why:<32}  {sql}");
            if let Some(shape) = self.shape(text) {
                let _ = writeln!(shown, "{:<8}  {shape}", "");
            }
        }
        if self.statements.len() > 1 {
            let (place, why) = (self.together.place.as_str(), why(&self.together));
            let _ = writeln!(shown, "{place:<8}  {why:<32}  (sent as one message)");
        }
        shown
    }

    /// What a `[[rule]]` for the statement is written with.
    fn shape(&self, sql: &str) -> Option<String> {
        let shape = fingerprint::lasting(sql.as_bytes(), &Context::default());
        shape.map(|shape| shape.to_string())
    }

    fn json(&self) -> Value {
        let statements = self.statements.iter().map(|(sql, class)| {
            let mut shown = shown(class);
            shown["sql"] = json!(sql);
            shown["fingerprint"] = json!(self.shape(sql));
            shown
        });
        json!({
            "statements": statements.collect::<Vec<_>>(),
            "together": shown(&self.together),
        })
    }
}

fn shown(class: &Class) -> Value {
    json!({
        "place": class.place.as_str(),
        "reason": class.reason.as_str(),
        "object": class.object,
    })
}

/// `unlogged: scratch`.
fn why(class: &Class) -> String {
    match &class.object {
        Some(object) => format!("{}: {object}", class.reason.as_str()),
        None => class.reason.as_str().to_owned(),
    }
}

fn class(text: &str, known: Option<&Known>) -> Class {
    let context = Context {
        server_major: known.map_or(NEWEST, |(_, major)| *major),
        ..Context::default()
    };
    let names = match known {
        None => Names::BuiltIn,
        Some((catalogue, _)) => Names::Read {
            catalogue,
            current: true,
        },
    };
    let effects = effects_among(text.as_bytes(), &context, names);
    class_of(text.as_bytes(), &effects, &context, names)
}

/// Cut at the semicolons that end statements.
fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut end, mut depth) = (None, 0, 0usize);
    let mut atomic = false;
    for token in Lexer::new(text.as_bytes(), true) {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            TokenKind::Word => {
                atomic |= token.text(text.as_bytes()).eq_ignore_ascii_case(b"atomic");
            }
            // A body of standard SQL has semicolons of its own, and where it ends is not looked for.
            TokenKind::Semicolon if depth == 0 && !atomic => {
                found.extend(start.take().map(|start| &text[start..end]));
                continue;
            }
            _ => {}
        }
        // What stands before the first one may be a hint.
        start.get_or_insert(if found.is_empty() { 0 } else { token.start });
        end = token.end;
    }
    found.extend(start.map(|start| &text[start..end]));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_where_they_end() {
        for (text, expected) in [
            ("", &[][..]),
            (" ; ", &[]),
            ("/* x */ select 1", &["/* x */ select 1"]),
            ("select ';'; -- ;\n select 2;", &["select ';'", "select 2"]),
            (
                "create rule r as on insert to t do (select 1; select 2)",
                &["create rule r as on insert to t do (select 1; select 2)"],
            ),
        ] {
            assert_eq!(statements(text), expected, "{text}");
        }
        let atomic = "create function f() returns int begin atomic; select 1; end";
        assert_eq!(statements(atomic), [atomic]);
    }

    #[test]
    fn each_statement_is_shown_with_its_place_and_reason_and_all_together() {
        let answer = Answer::of("select 1; select\n txid_current()", None);
        let text = answer.text();
        // Under each statement stands its fingerprint.
        let (fingerprints, lines): (Vec<_>, Vec<_>) = text.lines().map(words).partition(|line| {
            line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        assert_eq!(
            lines,
            [
                "anywhere read select 1",
                "primary function: txid_current select txid_current()",
                "primary function: txid_current (sent as one message)",
            ]
        );
        assert_eq!(fingerprints.len(), 2);
        let json = answer.json();
        assert_eq!(json["statements"][1]["object"], "txid_current");
        assert_eq!(json["together"]["place"], "primary");
        let one = Answer::of("/* pgsluice: primary */ select 1", None);
        assert_eq!(
            words(&one.text()),
            "primary hint /* pgsluice: primary */ select 1"
        );
    }

    fn words(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
