//! Checked reading of a peer's bytes: the one way in which `wire` takes bytes apart.
//!
//! Every read says whether the bytes were there; nothing here panics, whatever the input. What is left of a message
//! after its last field is an error too ([`Cursor::end`]).

use std::fmt;

/// Why a peer's bytes are refused, in words that the peer may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

const SHORT: Malformed = Malformed("insufficient data left in message");

/// A position in a peer's bytes. `Copy`: look ahead by copying.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Up to the next zero byte, which is taken but not returned.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self
            .rest
            .iter()
            .position(|b| *b == 0)
            .ok_or(Malformed("invalid string in message"))?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Ok(text)
    }

    /// A zero-terminated string that must be UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.cstr()?).map_err(|_| Malformed("invalid UTF-8 in message"))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The message must end here.
    pub fn end(self) -> Result<(), Malformed> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed("invalid message format")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_are_errors_and_take_nothing() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert!(cursor.i32().is_err());
        assert!(cursor.bytes(usize::MAX).is_err());
        assert!(cursor.cstr().is_err());
        assert_eq!(cursor.remaining(), 3);
        assert_eq!(cursor.u16().unwrap(), 0x0102);
        assert_eq!(cursor.u8().unwrap(), 3);
        assert!(cursor.u8().is_err());
        assert!(cursor.end().is_ok());
    }

    #[test]
    fn strings_end_at_their_zero_and_leftovers_are_errors() {
        let mut cursor = Cursor::new(b"ab\0\0\xff\0x");
        assert_eq!(cursor.text().unwrap(), "ab");
        assert_eq!(cursor.text().unwrap(), "");
        assert!(cursor.text().is_err());
        assert!(cursor.end().is_err());
        assert_eq!(cursor.rest(), b"x");
    }
}
