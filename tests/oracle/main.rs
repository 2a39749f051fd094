//! The facts that the parser's tree gives are those of PostgreSQL's own grammar, or there are none.
//!
//! Three sources: lists of expressions and statements beside this file, every string in the tests that is SQL, and
//! PostgreSQL's regression tests where `scripts/regress` has fetched them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use pgsluice::route::{
    Context,
    lexer::{Lexer, TokenKind},
    parse::{self, Facts, Kind, Name, Statement, Verb},
};

/// The grammar that is built in.
const CONTEXT: Context = Context {
    standard_conforming_strings: true,
    encoding: pgsluice::route::Encoding::AsciiSafe,
    server_major: 18,
};

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    texts: usize,
    /// Read by the grammar.
    known: usize,
    /// Of these, read by the parser too.
    read: usize,
    /// Queries, INSERTs, UPDATEs and so on, and how many of them the parser read.
    plain: usize,
    plain_read: usize,
    misread: Vec<String>,
}

impl Tally {
    fn compare(&mut self, text: &str) {
        self.texts += 1;
        let Some(truth) = parse::by_grammar(text.as_bytes(), &CONTEXT) else {
            // What the server refuses does nothing, and what only it can read is not for the parser to say.
            return;
        };
        self.known += 1;
        let is_plain = truth
            .statements
            .iter()
            .any(|s| matches!(s.kind, Kind::Plain(_)));
        self.plain += usize::from(is_plain);
        let Some(read) = parse::by_parser(text.as_bytes(), &CONTEXT) else {
            return;
        };
        self.read += 1;
        self.plain_read += usize::from(is_plain);
        if !agree(&read, &truth) {
            self.misread
                .push(format!("{text}\n  read:  {read:?}\n  truth: {truth:?}"));
        }
    }

    fn assert_no_misreading(&self) {
        println!(
            "{} texts, {} known, {} read; {} of {} plain statements read",
            self.texts, self.known, self.read, self.plain_read, self.plain
        );
        assert!(
            self.misread.is_empty(),
            "{} texts are misread:\n{}",
            self.misread.len(),
            self.misread[..self.misread.len().min(40)].join("\n")
        );
    }
}

fn agree(read: &Facts, truth: &Facts) -> bool {
    let same_count = read.statements.len() == truth.statements.len();
    let mut pairs = read.statements.iter().zip(&truth.statements);
    same_count && pairs.all(|(read, truth)| statements_agree(read, truth))
}

/// A built-in name too many is harmless: whether a sign belongs to a number, and whether `a.b[1]` has a schema, hangs on
/// precedence; the parser takes the string in `RANGE '1 day' PRECEDING` for an interval.
fn statements_agree(read: &Statement, truth: &Statement) -> bool {
    let mut read = read.clone();
    let sign = Name::plain("-");
    if !truth.operators.contains(&sign) {
        read.operators.remove(&sign);
    }
    let interval = Name::built_in("interval");
    if !truth.types.contains(&interval) {
        read.types.remove(&interval);
    }
    if read.attributes.is_superset(&truth.attributes) {
        read.attributes.clone_from(&truth.attributes);
    }
    read == *truth
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty())
}

#[test]
fn expressions_are_read_as_postgresql_reads_them() {
    let mut tally = Tally::default();
    for expression in lines(include_str!("expressions.txt")) {
        tally.compare(&format!("SELECT {expression} FROM t"));
        tally.compare(&format!("SELECT {expression} AS x, ({expression}) y"));
        tally.compare(&format!(
            "SELECT 1 FROM t JOIN u ON {expression} WHERE ({expression}) IS NULL"
        ));
        tally.compare(&format!(
            "SELECT a FROM t WHERE b AND {expression} ORDER BY {expression}"
        ));
        tally.compare(&format!(
            "UPDATE t SET a = {expression} WHERE f({expression}) RETURNING {expression}"
        ));
    }
    tally.assert_no_misreading();
    assert!(
        tally.known > 1500 && tally.read * 10 > tally.known * 8,
        "{tally:?}"
    );
}

#[test]
fn statements_are_read_as_postgresql_reads_them() {
    let mut tally = Tally::default();
    for statement in lines(include_str!("statements.sql")) {
        tally.compare(statement);
        tally.compare(&format!("EXPLAIN {statement}"));
        tally.compare(&format!("COPY ({statement}) TO STDOUT"));
        tally.compare(&format!("WITH x AS ({statement}) SELECT * FROM x, y"));
        tally.compare(&format!("SELECT 1; {statement}"));
    }
    tally.assert_no_misreading();
    assert!(
        tally.known > 700 && tally.read * 10 > tally.known * 8,
        "{tally:?}"
    );
}

#[test]
fn other_dialects_are_not_taken_for_postgresqls() {
    // Read by the grammar, as something else than their own dialect means.
    for (text, relations) in [
        ("SELECT a FROM t qualify", 1),
        ("SELECT a FROM t semi JOIN u ON true", 2),
        ("SELECT top FROM t", 1),
    ] {
        let truth = parse::by_grammar(text.as_bytes(), &CONTEXT).expect(text);
        assert_eq!(truth.statements[0].relations.len(), relations);
        if let Some(read) = parse::by_parser(text.as_bytes(), &CONTEXT) {
            assert!(agree(&read, &truth), "{text}");
        }
    }
}

#[test]
fn the_second_reader_reads_what_the_first_does_not() {
    let text = b"SELECT f(a) FROM ROWS FROM (g(1), h(2)) x";
    assert_eq!(parse::by_parser(text, &CONTEXT), None);
    let read = parse::read(text, &CONTEXT).expect("the grammar knows it");
    assert_eq!(read.statements[0].kind, Kind::Plain(Verb::Select));
    assert_eq!(read.statements[0].functions.len(), 3);
}

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("the tests' sources") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The insides of the plain string literals in a Rust text.
fn strings(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find('"') {
        rest = &rest[start + 1..];
        let mut string = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((_, c)) = chars.next() {
            match c {
                '"' => {
                    end -= chars.as_str().len();
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => string.push('\n'),
                    Some((_, 't')) => string.push('\t'),
                    // Goes on with the first word of the next line.
                    Some((_, '\n')) => {
                        let behind = chars.as_str();
                        let skip = behind.len() - behind.trim_start().len();
                        chars = behind[skip..].char_indices();
                    }
                    Some((_, other)) => string.push(other),
                    None => {}
                },
                c => string.push(c),
            }
        }
        found.push(string);
        rest = &rest[end..];
    }
    found
}

#[test]
fn every_statement_in_the_tests_is_read_as_postgresql_reads_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for below in ["tests", "src", "benches"] {
        sources(&root.join(below), &mut files);
    }
    let mut tally = Tally::default();
    for file in files {
        let code = fs::read_to_string(&file).expect("a source");
        strings(&code).iter().for_each(|text| tally.compare(text));
    }
    tally.assert_no_misreading();
    assert!(tally.known > 1000, "{tally:?}");
}

/// The statements of a script for psql, without what is psql's.
fn of_script(script: &str) -> Vec<String> {
    let mut copies = false;
    let kept = script.lines().filter(|line| {
        let is_data = copies;
        let lower = line.to_ascii_lowercase();
        match copies {
            true => copies = *line != "\\.",
            false => copies = lower.starts_with("copy ") && lower.contains("from stdin"),
        }
        !is_data && !line.starts_with('\\')
    });
    let text = kept.collect::<Vec<_>>().join("\n");
    let (mut statements, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for token in Lexer::new(text.as_bytes(), true) {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            TokenKind::Semicolon if depth == 0 => {
                statements.push(text[start..token.start].to_owned());
                start = token.end;
            }
            _ => {}
        }
    }
    statements
}

#[test]
fn postgresqls_regression_tests_are_read_as_postgresql_reads_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let Ok(scripts) = fs::read_dir(target.join("regress/suite/sql")) else {
        println!("skipped: scripts/regress has not fetched them");
        return;
    };
    let mut tally = Tally::default();
    for script in scripts {
        let bytes = fs::read(script.expect("an entry").path()).expect("a script");
        let script = String::from_utf8_lossy(&bytes);
        of_script(&script)
            .iter()
            .for_each(|text| tally.compare(text));
    }
    tally.assert_no_misreading();
    assert!(
        tally.plain > 10_000 && tally.plain_read * 10 > tally.plain * 8,
        "{tally:?}"
    );
}
