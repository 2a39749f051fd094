//! Another name in a message that names a statement, while the rest of it streams through untouched.

use std::ops::Range;

use super::{buffer::Buffer, frame::Frame};

/// Passes `frame`, with `new` in the place of its bytes `name` (counted from its type byte on), which must have arrived;
/// what follows them may still be to come.
pub fn pass_renamed(buffer: &mut Buffer, frame: Frame, name: Range<usize>, new: &[u8]) {
    let len = (frame.len - 1 - name.len() + new.len()) as u32;
    buffer.patch(1, &len.to_be_bytes());
    buffer.pass(name.start);
    buffer.replace(name.len(), new);
    buffer.pass(frame.len - name.end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Sender, peek};

    fn bind(name: &[u8], rest: usize) -> Vec<u8> {
        let body = [b"portal\0", name, b"\0", &vec![b'x'; rest]].concat();
        let len = (body.len() as u32 + 4).to_be_bytes();
        [b"B", &len[..], &body].concat()
    }

    #[test]
    fn a_renamed_message_is_the_one_that_the_new_name_would_make_whole_or_in_parts() {
        for (old, new) in [(&b"s"[..], &b"pgsluice_12345"[..]), (b"a_long_name", b"p")] {
            for rest in [0, 6, 40, 200] {
                let message = bind(old, rest);
                let mut buffer = Buffer::new(vec![0; 64].into_boxed_slice());
                let (mut out, mut at, mut renamed) = (Vec::new(), 0, false);
                while at < message.len() || !buffer.pending().is_empty() {
                    let room = buffer.room();
                    let n = room.len().min(message.len() - at);
                    room[..n].copy_from_slice(&message[at..at + n]);
                    buffer.fill(n);
                    at += n;
                    if !renamed {
                        let frame = peek(buffer.unseen(), Sender::Frontend).unwrap().unwrap();
                        pass_renamed(&mut buffer, frame, 12..12 + old.len(), new);
                        renamed = true;
                    }
                    out.extend_from_slice(buffer.pending());
                    buffer.sent(buffer.pending().len());
                }
                assert_eq!(out, bind(new, rest), "{rest}");
                assert!(buffer.is_drained());
            }
        }
    }
}
