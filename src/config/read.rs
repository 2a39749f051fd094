//! From a file's text to a checked [`Config`], with all that is wrong said at once.
//!
//! serde stops at the first mistake. So the text is parsed once into a tree that knows places; where serde refuses an
//! entry, that entry is reported, taken out, and serde tries again. What is left is then checked by [`super::check`].

use std::{fs, path::Path};

use serde::Deserialize as _;
use toml::{Deserializer, de::DeTable};

use super::{
    Config, check,
    problem::{ConfigErrors, Problem, Show},
    raw,
    report::Report,
    tree::{self, Hit},
};

/// A file with more mistakes than this is shown in part.
const MAX_PROBLEMS: usize = 100;
/// A configuration is written by hand; what is larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A good configuration, and what is worth knowing about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file. Secrets and certificates that it names are read too; no socket is opened.
///
/// # Errors
/// Everything that is wrong with it, with places.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let text = text_of(path).map_err(|why| {
        Problem::new("", format!("cannot read `{}`: {why}", path.display()))
            .help("name the file with -c, or name nodes with --node host:port")
    })?;
    parse(path, &text, &|name| std::env::var(name).ok())
}

fn text_of(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Checks a configuration's text. `source` names it in messages, and paths in it are relative to its directory; `env`
/// looks up environment variables for `password_env`.
///
/// # Errors
/// Everything that is wrong with it, with places.
pub fn parse(
    source: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::new(source.display().to_string(), text);
    let Some(file) = file(text, &mut report) else {
        return Err(report.into_errors(MAX_PROBLEMS));
    };
    let config = check::config(file, &mut check::Context::new(source, env, &mut report));
    report.finish(config, MAX_PROBLEMS)
}

/// The file as serde structs; None if it is no TOML.
fn file(text: &str, report: &mut Report) -> Option<raw::File> {
    let (mut root, broken) = DeTable::parse_recoverable(text);
    for error in &broken {
        report.broken(error.span(), error.message());
    }
    if !broken.is_empty() {
        return None;
    }
    for _ in 0..MAX_PROBLEMS {
        let error = match raw::File::deserialize(Deserializer::from(root.clone())) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let hit = error
            .span()
            .and_then(|span| tree::take(root.get_mut(), &span));
        let known = hit.is_some();
        report.refused(hit, error.message());
        if !known {
            return None;
        }
    }
    None
}

impl Report<'_> {
    /// Reports the entry that serde refused with `message`.
    fn refused(&mut self, hit: Option<Hit>, message: &str) {
        let Some(hit) = hit else {
            return self.broken(None, message);
        };
        let path = hit.path();
        if let Some((_, known)) = between(message, "unknown field ") {
            return self.unknown_key(&hit, &known);
        }
        let problem = match between(message, "unknown variant ") {
            Some((found, known)) => {
                Problem::new(&path, format!("`{found}` is no value of `{path}`"))
                    .expected(one_of(&known))
                    .suggest(&found, &known)
            }
            None => Problem::new(&path, format!("bad value for `{path}`")).expected(wish(message)),
        };
        // What should have been a table may hold anything.
        let show = match hit.parent.as_str() {
            "" | "tls" if !matches!(hit.key.as_str(), "workers" | "zone") => Show::Name,
            _ => Show::Value,
        };
        self.error(hit.span, show, problem);
    }

    fn unknown_key(&mut self, hit: &Hit, known: &[String]) {
        let place = match hit.parent.as_str() {
            "" => "at the top".to_owned(),
            parent => format!("in `{parent}`"),
        };
        let problem = Problem::new(hit.path(), format!("unknown key `{}` {place}", hit.key))
            .expected(one_of(known))
            .suggest(&hit.key, known);
        self.error(hit.span.clone(), Show::Key, problem);
    }
}

impl Problem {
    /// "did you mean …?", if one of `known` is near.
    fn suggest(self, found: &str, known: &[String]) -> Self {
        match nearest(found, known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// Below this likeness a suggestion would only confuse.
const LIKENESS: f64 = 0.75;

fn nearest<'a>(found: &str, known: &'a [String]) -> Option<&'a str> {
    let found = found.to_lowercase().replace('-', "_");
    let alike = |name: &String| strsim::jaro_winkler(&found, &name.replace('-', "_"));
    known
        .iter()
        .map(|name| (alike(name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.as_str())
}

fn one_of(known: &[String]) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        [one, other] => format!("{one} or {other}"),
        _ => format!("one of {}", quoted.join(", ")),
    }
}

/// The names in serde's "unknown field `x`, expected one of `a`, `b`".
fn between(message: &str, prefix: &str) -> Option<(String, Vec<String>)> {
    let mut names = message.strip_prefix(prefix)?.split('`').skip(1).step_by(2);
    let found = names.next()?.to_owned();
    Some((found, names.map(str::to_owned).collect()))
}

/// What serde wanted, in our words and without the value that it found. Only enums say it in another way, and they are
/// written as strings.
fn wish(message: &str) -> String {
    let (found, wanted) = match message.rsplit_once(", expected ") {
        Some((found, wanted)) => (Some(found), wanted),
        None => (
            None,
            message.strip_prefix("expected ").unwrap_or("a string"),
        ),
    };
    let wanted = match wanted {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other => other,
    };
    match found.and_then(kind) {
        Some(kind) => format!("{wanted}, found {kind}"),
        None => wanted.to_owned(),
    }
}

/// The kind of value that serde found: "invalid type: integer `5`" is "a whole number".
fn kind(found: &str) -> Option<&'static str> {
    let found = found.strip_prefix("invalid type: ")?;
    let kinds = [
        ("integer", "a number"),
        ("floating", "a number with a fraction"),
        ("boolean", "true or false"),
        ("string", "a string"),
        ("sequence", "a list"),
        ("map", "a table"),
    ];
    let known = kinds.iter().find(|(name, _)| found.starts_with(name));
    known.map(|(_, kind)| *kind)
}
