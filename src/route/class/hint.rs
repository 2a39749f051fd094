//! What a client says itself: a comment before everything else, `/* pgsluice: primary */` or `/* pgsluice: replica */`.

/// Where the client wants its text to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    Primary,
    Replica,
}

const NAME: &[u8] = b"pgsluice:";

/// The hint that a text begins with.
pub(super) fn hint(text: &[u8]) -> Option<Hint> {
    let comment = text.trim_ascii_start().strip_prefix(b"/*")?;
    let end = memchr::memmem::find(comment, b"*/")?;
    let said = comment[..end].trim_ascii();
    let name = said.get(..NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let word = said[NAME.len()..].trim_ascii();
    if word.eq_ignore_ascii_case(b"primary") {
        Some(Hint::Primary)
    } else if word.eq_ignore_ascii_case(b"replica") {
        Some(Hint::Replica)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comment_before_everything_else_is_a_hint() {
        for (text, expected) in [
            ("/* pgsluice: primary */ select 1", Some(Hint::Primary)),
            ("  \n/*pgsluice:replica*/select 1", Some(Hint::Replica)),
            ("/* PgSluice:  Replica */ select 1", Some(Hint::Replica)),
            ("/* pgsluice: nowhere */ select 1", None),
            ("/* pgsluice primary */ select 1", None),
            ("/* x pgsluice: primary */ select 1", None),
            ("/* a */ /* pgsluice: primary */ select 1", None),
            ("select 1 /* pgsluice: primary */", None),
            ("-- pgsluice: primary\nselect 1", None),
            ("/* pgsluice: primary", None),
            ("", None),
        ] {
            assert_eq!(hint(text.as_bytes()), expected, "{text}");
        }
    }
}
