//! What a statement is, from its text alone. Pure: no socket, clock, log or configuration, and no
//! allocation but for the catalogue's judgement and for parsing.
//!
//! [`lexer`] cuts a text into PostgreSQL's own tokens, [`keyword`] knows the key words, [`functions`] which built-in
//! functions are harmless, [`effects`] says what a text leaves behind in a session, [`settings`] which setting a
//! SET or RESET names, [`catalogue`] what a database's functions leave behind, [`class`] whether a text is a proven read
//! that may run on a replica, which [`primary`]'s functions may not. [`parse`] reads a text
//! whole: which statements it has and all that they name.
//!
//! Everything here errs in one direction: what is not recognised pins the session to its server, and goes to the primary.

pub mod catalogue;
pub mod class;
pub mod effects;
pub mod fingerprint;
mod function_table;
pub mod functions;
pub mod keyword;
mod keyword_table;
pub mod lexer;
pub mod parse;
pub mod primary;
pub mod settings;

#[cfg(test)]
mod lexer_tests;

/// How the bytes of a text are to be read: what the server said in ParameterStatus, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// `standard_conforming_strings`: off makes a backslash in `'…'` an escape.
    pub standard_conforming_strings: bool,
    pub encoding: Encoding,
    /// As in `server_version`: 15, 18. Key words and built-in functions that came later are then not trusted.
    pub server_major: u8,
}

impl Default for Context {
    /// The defaults of the oldest PostgreSQL that the tables were made from.
    fn default() -> Self {
        Context {
            standard_conforming_strings: true,
            encoding: Encoding::AsciiSafe,
            server_major: 15,
        }
    }
}

/// Whether a byte below 0x80 always means itself in the client's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Every byte of a multibyte character is at or above 0x80.
    AsciiSafe,
    /// The second byte of a character may look like a quote or a backslash.
    Unsafe,
}

impl Encoding {
    /// Reads the value of `client_encoding`, spelt as the server reports it or as a client may ask for it.
    /// An unknown name is [`Encoding::Unsafe`].
    pub fn of(client_encoding: &[u8]) -> Encoding {
        const SAFE: &[&str] = &[
            "abc",
            "alt",
            "eucjis2004",
            "euccn",
            "eucjp",
            "euckr",
            "euctw",
            "iso88591",
            "iso885910",
            "iso885913",
            "iso885914",
            "iso885915",
            "iso885916",
            "iso88592",
            "iso88593",
            "iso88594",
            "iso88595",
            "iso88596",
            "iso88597",
            "iso88598",
            "iso88599",
            "koi8",
            "koi8r",
            "koi8u",
            "latin1",
            "latin10",
            "latin2",
            "latin3",
            "latin4",
            "latin5",
            "latin6",
            "latin7",
            "latin8",
            "latin9",
            "muleinternal",
            "sqlascii",
            "tcvn",
            "tcvn5712",
            "unicode",
            "utf8",
            "vscii",
        ];
        let mut folded = [0u8; 16];
        let mut len = 0;
        for byte in client_encoding.iter().filter(|b| b.is_ascii_alphanumeric()) {
            let Some(slot) = folded.get_mut(len) else {
                return Encoding::Unsafe;
            };
            *slot = byte.to_ascii_lowercase();
            len += 1;
        }
        let folded = &folded[..len];
        let windows = folded.starts_with(b"win") && folded.len() >= 6 && !is_unsafe_windows(folded);
        if windows || SAFE.iter().any(|name| name.as_bytes() == folded) {
            Encoding::AsciiSafe
        } else {
            Encoding::Unsafe
        }
    }
}

/// Windows code pages 932, 936, 949 and 950 are Shift JIS, GBK, UHC and Big5.
fn is_unsafe_windows(folded: &[u8]) -> bool {
    [b"932", b"936", b"949", b"950"]
        .iter()
        .any(|page| folded.ends_with(*page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_with_ascii_inside_characters_are_unsafe() {
        for name in [
            "SJIS",
            "Shift_JIS_2004",
            "BIG5",
            "GBK",
            "GB18030",
            "UHC",
            "JOHAB",
            "WIN936",
            "windows-949",
            "mskanji",
            "",
        ] {
            assert_eq!(Encoding::of(name.as_bytes()), Encoding::Unsafe, "{name}");
        }
        for name in [
            "UTF8",
            "utf-8",
            "SQL_ASCII",
            "LATIN1",
            "WIN1252",
            "windows-1251",
            "WIN866",
            "EUC_JP",
            "ISO_8859_5",
            "KOI8R",
        ] {
            assert_eq!(Encoding::of(name.as_bytes()), Encoding::AsciiSafe, "{name}");
        }
    }
}
