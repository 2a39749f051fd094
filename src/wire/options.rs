//! The startup packet's `options`: command-line arguments for the server, as `-c name=value` and `--name=value`.

/// More settings than this in one startup packet are refused; 10,000 bytes cannot hold many more.
pub const MAX_SETTINGS: usize = 1000;

/// Splits at white space; a backslash takes the next character as it is (PostgreSQL's `pg_split_opts`).
pub fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = options.chars().peekable();
    loop {
        while chars.next_if(|c| is_space(*c)).is_some() {}
        if chars.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !is_space(*c)) {
            match c {
                '\\' => word.extend(chars.next()),
                _ => word.push(c),
            }
        }
        words.push(word);
    }
}

/// C's isspace.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// Why `options` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// `-c name` without a value, with the argument.
    NoValue(String),
    /// Anything but `-c` and `--`: a server's other switches mean nothing to a session through a proxy.
    Unknown(String),
    TooMany,
}

/// Names and values, in order.
pub type Settings = Vec<(Box<str>, Box<str>)>;

/// The settings in `options`.
pub fn settings(options: &str) -> Result<Settings, Unusable> {
    let mut words = split(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        if settings.len() >= MAX_SETTINGS {
            return Err(Unusable::TooMany);
        }
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next().ok_or(Unusable::NoValue(word))?,
            Some(attached) => attached.to_owned(),
            None => match word.strip_prefix("--") {
                Some(long) if !long.is_empty() => long.to_owned(),
                _ => return Err(Unusable::Unknown(word)),
            },
        };
        settings.push(assignment(setting)?);
    }
    Ok(settings)
}

/// `name=value`; hyphens in a name stand for underscores (PostgreSQL's `ParseLongOption`).
fn assignment(setting: String) -> Result<(Box<str>, Box<str>), Unusable> {
    match setting.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.replace('-', "_").into(), value.into()))
        }
        _ => Err(Unusable::NoValue(setting)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &str) -> Vec<(String, String)> {
        let settings = settings(options).unwrap();
        settings
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn words_are_split_and_unescaped_as_postgresql_does() {
        for (options, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("a b", vec!["a", "b"]),
            ("\ta\\ b\\\\ \nc ", vec!["a b\\", "c"]),
            ("a\\", vec!["a"]),
            ("\\", vec![""]),
            ("é\\ é", vec!["é é"]),
        ] {
            assert_eq!(split(options), expected, "{options:?}");
        }
    }

    #[test]
    fn both_spellings_give_settings_in_order() {
        let got = pairs("-c a=b -cc=d=e --work-mem=1MB -c geqo= -c x.y=a\\ b");
        let want = [
            ("a", "b"),
            ("c", "d=e"),
            ("work_mem", "1MB"),
            ("geqo", ""),
            ("x.y", "a b"),
        ];
        let want: Vec<_> = want
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for options in ["-c", "-c a", "--a", "--", "-c =b", "-d 5", "a=b", "-"] {
            assert!(settings(options).is_err(), "{options}");
        }
        assert_eq!(settings(&"-ca=b ".repeat(1001)), Err(Unusable::TooMany));
    }
}
