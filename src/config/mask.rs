//! Takes secrets out of a line of a configuration file before it is shown.
//!
//! The line may be broken, and the key misspelt: what could be a secret is cut off, so that at worst too little is
//! shown.

use std::ops::Range;

use super::problem::Show;

const STARS: &str = " ***";
/// So many slips still make a "password"; no other key is as near.
const MISSPELT: usize = 4;

/// What may be shown of `line`, and what of it to underline for `mark`.
pub(super) fn mask(line: &str, mark: Range<usize>, show: Show) -> (String, Range<usize>) {
    let Some(cut) = cut(line, &mark, show) else {
        return (line.to_owned(), mark);
    };
    let shown = format!("{}{STARS}", &line[..cut]);
    let mark = if mark.end <= cut {
        mark
    } else {
        cut + 1..shown.len()
    };
    (shown, mark)
}

/// Where the first thing begins that may be a secret.
fn cut(line: &str, mark: &Range<usize>, show: Show) -> Option<usize> {
    let secret = first_secret(line);
    let by_kind = match show {
        Show::Value => None,
        Show::Key => after_equals(line, mark.end).or(Some(line.len())),
        Show::Name => after_equals(line, 0),
        // Without a key in front this may be a line of a longer string.
        Show::Broken if !line.contains('=') && !line.trim_start().starts_with('[') => Some(0),
        Show::Broken => None,
    };
    [secret, by_kind, line.find("://")]
        .into_iter()
        .flatten()
        .filter(|at| *at < line.len())
        .min()
}

/// Behind the first `=` whose key looks like a secret's name.
fn first_secret(line: &str) -> Option<usize> {
    let equals = line.match_indices('=');
    equals
        .filter(|(at, _)| looks_secret(last_key(&line[..*at])))
        .map(|(at, _)| at + 1)
        .next()
}

fn after_equals(line: &str, from: usize) -> Option<usize> {
    line[from..].find('=').map(|at| from + at + 1)
}

/// The key in front of an `=`, dotted and quoted as it may be.
fn last_key(text: &str) -> &str {
    let trimmed = text.trim_end();
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'');
    let start = trimmed.trim_end_matches(part).len();
    &trimmed[start..]
}

/// Whether a key may have been meant to hold a secret.
fn looks_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let hint = ["pass", "pw", "secret", "token"];
    let mut words = key.split(['.', '"', '\'']);
    hint.iter().any(|hint| key.contains(hint))
        || words.any(|word| strsim::damerau_levenshtein(word, "password") <= MISSPELT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_behind_a_name_like_password_is_never_shown() {
        let lines = [
            r#"password = "hunter2""#,
            r#"passwrod = "hunter2""#,
            r#"PASSWORD="hunter2""#,
            r#"pwd = "hunter2""#,
            r#"paswd = hunter2"#,
            r#""password" = "hunter2""#,
            r#"user = [{ name = "app", password = "hunter2", weight = 3 }]"#,
            r#"probe.password = "hunter2" # hunter2"#,
            r#"password.file = "hunter2""#,
            r#""pasword".file = "hunter2""#,
            r#"dsn = "postgres://app:hunter2@db""#,
        ];
        for line in lines {
            for show in [Show::Value, Show::Key, Show::Broken] {
                let (shown, mark) = mask(line, line.len() - 1..line.len(), show);
                assert!(!shown.contains("hunter2"), "{shown}");
                assert!(mark.end <= shown.len(), "{line}");
            }
        }
    }

    #[test]
    fn a_line_inside_a_longer_string_is_never_shown() {
        assert_eq!(mask("hunter2", 0..3, Show::Broken).0, STARS);
    }

    #[test]
    fn the_value_of_an_unknown_key_is_never_shown() {
        assert_eq!(
            mask("kennwort = \"x\"", 0..8, Show::Key),
            ("kennwort = ***".to_owned(), 0..8)
        );
    }

    #[test]
    fn a_value_without_a_secret_is_shown() {
        let line = "interval = 5 # each";
        assert_eq!(mask(line, 11..12, Show::Value), (line.to_owned(), 11..12));
    }
}
