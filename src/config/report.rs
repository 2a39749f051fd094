//! Collects what is found while a file is read: errors, warnings, and which keys they are about.

use std::{collections::HashSet, ops::Range};

use super::{
    Config,
    problem::{ConfigErrors, Place, Problem, Show},
    read::Loaded,
};

pub(super) struct Report<'a> {
    source: String,
    text: &'a str,
    /// With the position in the text, to sort by.
    errors: Vec<(usize, Problem)>,
    warnings: Vec<(usize, Problem)>,
    /// Keys with an error, so that a key that was taken out is not called missing too.
    blamed: HashSet<String>,
}

impl<'a> Report<'a> {
    pub fn new(source: String, text: &'a str) -> Self {
        Report {
            source,
            text,
            errors: Vec::new(),
            warnings: Vec::new(),
            blamed: HashSet::new(),
        }
    }

    pub fn error(&mut self, span: Range<usize>, show: Show, problem: Problem) {
        self.blamed.insert(problem.key.clone());
        let placed = self.placed(&span, show, problem);
        self.errors.push((span.start, placed));
    }

    /// An error of the file as a whole.
    pub fn error_nowhere(&mut self, problem: Problem) {
        self.errors.push((usize::MAX, problem));
    }

    pub fn warning(&mut self, span: Range<usize>, problem: Problem) {
        let placed = self.placed(&span, Show::Value, problem);
        self.warnings.push((span.start, placed));
    }

    /// A text that is no TOML. One message per line: the parser's next ones follow from the first.
    pub fn broken(&mut self, span: Option<Range<usize>>, message: &str) {
        let problem = Problem::new("", format!("not valid TOML: {message}"));
        let Some(span) = span else {
            return self.error_nowhere(problem);
        };
        let place = Place::new(&self.source, self.text, &span, Show::Broken);
        let line = Some(place.line);
        let known = self.errors.iter().filter_map(|(_, one)| one.place.as_ref());
        if known.map(|place| place.line).any(|at| Some(at) == line) {
            return;
        }
        self.errors.push((
            span.start,
            Problem {
                place: Some(place),
                ..problem
            },
        ));
    }

    pub fn is_blamed(&self, key: &str) -> bool {
        self.blamed.contains(key)
    }

    fn placed(&self, span: &Range<usize>, show: Show, problem: Problem) -> Problem {
        Problem {
            place: Some(Place::new(&self.source, self.text, span, show)),
            ..problem
        }
    }

    pub fn finish(self, config: Config, most: usize) -> Result<Loaded, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(self.into_errors(most));
        }
        Ok(Loaded {
            config,
            warnings: sorted(self.warnings),
        })
    }

    /// At most `most`, in the order of the file.
    pub fn into_errors(self, most: usize) -> ConfigErrors {
        let mut problems = sorted(self.errors);
        problems.truncate(most);
        ConfigErrors { problems }
    }
}

fn sorted(mut found: Vec<(usize, Problem)>) -> Vec<Problem> {
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, problem)| problem).collect()
}
