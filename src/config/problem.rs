//! What is wrong with a configuration, where, and how it is shown.
//!
//! A [`Problem`] keeps only one line of the file, already without its secrets: nothing that prints it can leak one.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask;

/// One mistake, or one thing to know, in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key in dotted form (`pool.size`, `node[1].host`); empty if the text is no TOML.
    pub key: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// What to do, such as "did you mean `size`?".
    pub help: Option<String>,
    /// None for what does not come from a file.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line, secrets masked.
    excerpt: String,
    /// What to underline in `excerpt`, in bytes.
    mark: Range<usize>,
}

/// How much of its line a problem may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The value: its key is known, and holds no secret.
    Value,
    /// The key only. What stands behind an unknown key may be a password under a misspelt name.
    Key,
    /// Nothing behind the line's first `=`.
    Name,
    /// Whatever a line that is no TOML may show.
    Broken,
}

impl Place {
    /// Finds line and column of `span` in `text`, and masks the line.
    pub(super) fn new(source: &str, text: &str, span: &Range<usize>, show: Show) -> Self {
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[line_start..];
        let line = rest.split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let end = floor(text, span.end).max(start) - line_start;
        let mark = (start - line_start).min(line.len())..end.min(line.len());
        let column = line[..mark.start].chars().count() + 1;
        let (excerpt, mark) = mask::mask(line, mark, show);
        Place {
            source: source.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column,
            excerpt,
            mark,
        }
    }
}

/// The nearest position at or below `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Problem {
            key: key.into(),
            message: message.into(),
            expected: None,
            help: None,
            place: None,
        }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn group(&self, level: Level<'static>) -> Group<'_> {
        let Some(place) = &self.place else {
            let notes = self.expected.as_deref().map(|it| format!("expected {it}"));
            return level
                .primary_title(self.message.as_str())
                .elements(notes.map(|note| Level::NOTE.message(note)))
                .elements(self.help.as_deref().map(|it| Level::HELP.message(it)));
        };
        let label = self.expected.as_deref().map(|it| format!("expected {it}"));
        let mark = AnnotationKind::Primary
            .span(place.mark.clone())
            .label(label);
        let snippet = Snippet::source(place.excerpt.as_str())
            .line_start(place.line)
            .path(place.source.as_str())
            .annotation(mark);
        level
            .primary_title(self.message.as_str())
            .element(snippet)
            .elements(self.help.as_deref().map(|it| Level::HELP.message(it)))
    }

    /// As a warning, with the line it is about. Ends without a line feed.
    pub fn render_warning(&self, color: bool) -> String {
        renderer(color).render(&[self.group(Level::WARNING)])
    }
}

/// `file:line:column: message: expected …; help`, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.source, place.line, place.column)?;
        }
        f.write_str(&self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, ": expected {expected}")?;
        }
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// With the lines they are about, for a terminal. Ends without a line feed.
    pub fn render(&self, color: bool) -> String {
        let groups = self.problems.iter().map(|one| one.group(Level::ERROR));
        let shown: Vec<String> = groups.map(|one| renderer(color).render(&[one])).collect();
        shown.join("\n\n")
    }
}

impl From<Problem> for ConfigErrors {
    fn from(problem: Problem) -> Self {
        ConfigErrors {
            problems: vec![problem],
        }
    }
}

/// One problem on a line each, for logs.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

fn renderer(color: bool) -> Renderer {
    match color {
        true => Renderer::styled(),
        false => Renderer::plain(),
    }
}
