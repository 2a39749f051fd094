//! ErrorResponse and NoticeResponse as a server sends them: the fields that decide, read without trust.
//!
//! Any field may be missing, doubled or not UTF-8: a missing SQLSTATE reads as XX000, never as a panic.

use super::cursor::{Cursor, Malformed};

/// The fields that the proxy judges by. Texts may be localised: never judge by `message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'a> {
    /// Field V, else S: ERROR, FATAL, PANIC, WARNING, … Empty if the server sent neither.
    pub severity: &'a [u8],
    /// Field C, if it was five characters A-Z, 0-9.
    pub sqlstate: Option<[u8; 5]>,
    /// Field M, invalid UTF-8 replaced.
    pub message: std::borrow::Cow<'a, str>,
    /// Field R: the C function that raised it.
    pub routine: &'a [u8],
}

impl<'a> Report<'a> {
    /// `body` is the message without type and length.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut report = Report::empty();
        report.read(body).map(|()| report)
    }

    /// Of a message of which only the start is here: the fields that are whole. Severity and SQLSTATE come first.
    pub fn parse_start(start: &'a [u8]) -> Self {
        let mut report = Report::empty();
        // The field in which the start ends is left out.
        let _ = report.read(start);
        report
    }

    fn empty() -> Self {
        Report {
            severity: b"",
            sqlstate: None,
            message: "".into(),
            routine: b"",
        }
    }

    fn read(&mut self, body: &'a [u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(body);
        // At most one turn per two bytes of the body, whose length is limited by its phase.
        loop {
            match cursor.u8()? {
                0 => return cursor.end(),
                name => self.set(name, cursor.cstr()?),
            }
        }
    }

    fn set(&mut self, name: u8, value: &'a [u8]) {
        match name {
            b'V' => self.severity = value,
            b'S' if self.severity.is_empty() => self.severity = value,
            b'C' => self.sqlstate = sqlstate(value),
            b'M' => self.message = String::from_utf8_lossy(value),
            b'R' => self.routine = value,
            _ => {}
        }
    }

    /// The SQLSTATE, or XX000 where the server sent none.
    pub fn sqlstate_str(&self) -> &str {
        let code = self
            .sqlstate
            .as_ref()
            .and_then(|c| std::str::from_utf8(c).ok());
        code.unwrap_or("XX000")
    }
}

fn sqlstate(value: &[u8]) -> Option<[u8; 5]> {
    let code: [u8; 5] = value.try_into().ok()?;
    code.iter()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        .then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unlocalised_severity_wins_over_the_localised_one() {
        for body in [
            &b"SFATAAL\0VFATAL\0C57P01\0Mbye\0RProcessInterrupts\0\0"[..],
            &b"VFATAL\0SFATAAL\0C57P01\0Mbye\0RProcessInterrupts\0\0"[..],
        ] {
            let report = Report::parse(body).unwrap();
            assert_eq!(report.severity, b"FATAL");
            assert_eq!(report.sqlstate_str(), "57P01");
            assert_eq!(report.message, "bye");
            assert_eq!(report.routine, b"ProcessInterrupts");
        }
    }

    #[test]
    fn the_start_of_a_long_report_tells_severity_and_sqlstate() {
        let report = Report::parse_start(b"SFATAL\0VFATAL\0C57P01\0Ma text that is cut of");
        assert_eq!(report.severity, b"FATAL");
        assert_eq!(report.sqlstate_str(), "57P01");
        assert_eq!(report.message, "");
    }

    #[test]
    fn a_missing_or_impossible_sqlstate_is_xx000() {
        for body in [&b"\0"[..], b"Mx\0\0", b"C123\0\0", b"C28p01\0\0", b"C\0\0"] {
            assert_eq!(Report::parse(body).unwrap().sqlstate_str(), "XX000");
        }
    }

    #[test]
    fn cut_reports_are_errors_at_every_length() {
        let body = b"SERROR\0C42601\0Mx\0\0";
        for len in 0..body.len() {
            assert!(Report::parse(&body[..len]).is_err(), "{len}");
        }
        assert!(Report::parse(body).is_ok());
        assert!(Report::parse(b"SERROR\0\0x").is_err());
    }
}
