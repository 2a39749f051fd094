//! The corpus: what is expected of a statement, and the statement.

const CORPUS: &str = include_str!("corpus.txt");

/// A line of the corpus.
pub struct Line<'c> {
    /// `read`, or `reason:object`.
    pub expected: &'c str,
    /// It would do no harm on a replica, but is not proven.
    pub is_wasted: bool,
    pub sql: String,
    /// It ends in an error, on the primary as well.
    pub fails: bool,
    /// Where the server has no libxml.
    pub may_fail: bool,
    /// The oldest version that understands it.
    pub since: u8,
}

impl<'c> Line<'c> {
    /// `expected | sql`; before it words, which the corpus explains.
    pub fn read(line: &'c str) -> Line<'c> {
        let (head, sql) = line.split_once(" | ").expect(line);
        let mut read = Line {
            expected: "",
            is_wasted: false,
            sql: sql.trim().replace("\\n", "\n"),
            fails: false,
            may_fail: false,
            since: 13,
        };
        for word in head.split_whitespace() {
            match word {
                "wasted" => read.is_wasted = true,
                "fails" => read.fails = true,
                "libxml" => read.may_fail = true,
                _ if word.ends_with('+') => {
                    read.since = word.trim_end_matches('+').parse().unwrap();
                }
                _ => read.expected = word,
            }
        }
        read
    }

    pub fn all() -> Vec<Line<'static>> {
        let lines = CORPUS.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Line::read)
            .collect()
    }

    pub fn allows<T>(&self, answer: &Result<T, String>) -> bool {
        match answer {
            Err(error) if self.may_fail => error.starts_with("0A000 unsupported XML"),
            _ => answer.is_err() == self.fails,
        }
    }

    pub fn is_read(&self) -> bool {
        self.expected == "read"
    }
}
