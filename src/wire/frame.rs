//! Frame headers: one type byte and a length word, checked against what PostgreSQL itself accepts.
//!
//! A frame is looked at by its header only; whoever needs the body waits until it is whole.

use super::Violation;

/// Type byte and length word.
pub const HEADER_LEN: usize = 5;

/// Largest body of a query, parameter, row or COPY message (`MaxAllocSize` in PostgreSQL's memutils.h).
const LARGE: u32 = 0x3fff_ffff;
/// Largest length word of the frontend's other messages (`PQ_SMALL_MESSAGE_LIMIT` in libpq/libpq.h).
const SMALL_FRONTEND: u32 = 10_000;
/// Largest length word of the backend's short messages, as libpq has it (fe-protocol3.c).
const SMALL_BACKEND: u32 = 30_000;

/// Who sends: the two directions have types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Frontend,
    Backend,
}

/// The header of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    /// Bytes of the whole message, header included.
    pub len: usize,
}

/// Reads the header at the start of `bytes`; None when fewer than [`HEADER_LEN`] are there.
#[inline]
pub fn peek(bytes: &[u8], sender: Sender) -> Result<Option<Frame>, Violation> {
    let [tag, a, b, c, d, ..] = *bytes else {
        return peek_tag(bytes, sender).map(|()| None);
    };
    let len = u32::from_be_bytes([a, b, c, d]);
    let limit = limit(tag, sender).ok_or(Violation::UnknownType(tag))?;
    if len < 4 || len > limit {
        return Err(Violation::BadLength { tag, len });
    }
    if exact(tag, sender).is_some_and(|exact| len != exact) {
        return Err(Violation::Malformed(tag));
    }
    // At most 0x3fff_ffff + 1: no overflow on any platform we build for.
    Ok(Some(Frame {
        tag,
        len: len as usize + 1,
    }))
}

/// An unknown type is an error as soon as its byte is there: waiting for four more could be waiting for ever.
fn peek_tag(bytes: &[u8], sender: Sender) -> Result<(), Violation> {
    match bytes.first() {
        Some(&tag) if limit(tag, sender).is_none() => Err(Violation::UnknownType(tag)),
        _ => Ok(()),
    }
}

/// The largest length word that a message may have; None for a type that does not exist after login.
#[inline]
fn limit(tag: u8, sender: Sender) -> Option<u32> {
    match sender {
        Sender::Frontend => match tag {
            b'Q' | b'P' | b'B' | b'F' | b'd' => Some(LARGE),
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL_FRONTEND),
            _ => None,
        },
        Sender::Backend => match tag {
            b'D' | b'd' | b'T' | b'V' | b'E' | b'N' | b'A' => Some(LARGE),
            b'1' | b'2' | b'3' | b'C' | b'G' | b'H' | b'I' | b'S' | b'W' | b'Z' | b'c' | b'n'
            | b's' | b't' => Some(SMALL_BACKEND.max(parameter_description_limit(tag))),
            _ => None,
        },
    }
}

/// The length word of a server's messages whose body has a fixed size. To a client who gets that wrong the server has
/// something to say.
#[inline]
fn exact(tag: u8, sender: Sender) -> Option<u32> {
    match (sender, tag) {
        (Sender::Backend, b'Z') => Some(5),
        (Sender::Backend, b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's') => Some(4),
        _ => None,
    }
}

/// A statement may have 65,535 parameters of four bytes each.
fn parameter_description_limit(tag: u8) -> u32 {
    match tag {
        b't' => 4 + 2 + 4 * 65_535,
        _ => 0,
    }
}

/// Where a stream of messages that nobody reads stands: between two of them, or inside of one. Lengths are taken as
/// they come; of a stream that is none of messages nothing is said.
#[derive(Debug, Default)]
pub struct Boundary {
    /// What has come of the present message's header.
    header: [u8; HEADER_LEN],
    seen: usize,
    /// What is still to come of its body.
    left: usize,
}

impl Boundary {
    /// `bytes` come next.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let (_, after) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - after.len();
                bytes = after;
            } else {
                self.pass_header(*first);
                bytes = rest;
            }
        }
    }

    fn pass_header(&mut self, byte: u8) {
        self.header[self.seen] = byte;
        self.seen += 1;
        if self.seen == HEADER_LEN {
            let [_, a, b, c, d] = self.header;
            self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
            self.seen = 0;
        }
    }

    /// Whether the last message has passed whole.
    pub fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_after_each_whole_message_however_they_are_cut() {
        let messages: [&[u8]; 4] = [
            b"n\0\0\0\x04",
            b"d\0\0\0\x07abc",
            b"Z\0\0\0\x05I",
            b"c\0\0\0\x04",
        ];
        let stream = messages.concat();
        let ends: Vec<usize> = messages
            .iter()
            .scan(0, |end, m| {
                *end += m.len();
                Some(*end)
            })
            .collect();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut boundary = Boundary::default();
                boundary.pass(&stream[..first]);
                assert_eq!(boundary.is_between(), first == 0 || ends.contains(&first));
                boundary.pass(&stream[first..second]);
                assert_eq!(boundary.is_between(), second == 0 || ends.contains(&second));
            }
        }
    }

    #[test]
    fn a_header_split_anywhere_is_waited_for() {
        let whole = [b'Q', 0, 0, 0, 9, b'a'];
        for cut in 0..HEADER_LEN {
            assert_eq!(peek(&whole[..cut], Sender::Frontend), Ok(None));
        }
        let frame = Frame { tag: b'Q', len: 10 };
        assert_eq!(peek(&whole, Sender::Frontend), Ok(Some(frame)));
    }

    #[test]
    fn lengths_outside_the_types_limit_are_refused_before_anything_is_taken() {
        for (bytes, sender) in [
            ([b'Q', 0, 0, 0, 3], Sender::Frontend),
            ([b'Q', 0xff, 0xff, 0xff, 0xff], Sender::Frontend),
            ([b'Q', 0x40, 0, 0, 0], Sender::Frontend),
            ([b'S', 0, 0, 0x27, 0x11], Sender::Frontend),
            ([b'Z', 0, 0, 0, 0], Sender::Backend),
            ([b'C', 0, 1, 0, 0], Sender::Backend),
        ] {
            let refused = peek(&bytes, sender);
            assert!(
                matches!(refused, Err(Violation::BadLength { .. })),
                "{refused:?}"
            );
        }
        assert!(peek(&[b'Q', 0x3f, 0xff, 0xff, 0xff], Sender::Frontend).is_ok());
    }

    #[test]
    fn messages_of_fixed_size_have_that_size() {
        for (bytes, sender) in [
            // The status would be the next message's type byte.
            (b"Z\0\0\0\x04", Sender::Backend),
            (b"Z\0\0\0\x06", Sender::Backend),
            (b"1\0\0\0\x05", Sender::Backend),
            (b"n\0\0\0\x06", Sender::Backend),
        ] {
            let refused = peek(bytes, sender);
            assert_eq!(refused, Err(Violation::Malformed(bytes[0])));
        }
        assert!(peek(b"Z\0\0\0\x05I", Sender::Backend).is_ok());
        assert!(peek(b"S\0\0\0\x04", Sender::Frontend).is_ok());
        assert!(peek(b"H\0\0\0\x08", Sender::Frontend).is_ok());
    }

    #[test]
    fn an_unknown_type_is_refused_at_its_first_byte() {
        for tag in [0, b'p', b'Z', b'K', 0xff] {
            let refused = peek(&[tag], Sender::Frontend);
            assert_eq!(refused, Err(Violation::UnknownType(tag)));
        }
        let refused = peek(b"R", Sender::Backend);
        assert_eq!(refused, Err(Violation::UnknownType(b'R')));
    }
}
