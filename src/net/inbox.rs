//! Whole tagged messages out of a stream, for the phases where messages are small: logins.
//!
//! A length is checked against the phase's limit, and memory is taken for what has arrived, not for it. Bytes read past the last message taken
//! are kept and handed over by [`Inbox::into_unread`]. Dropping a read in the middle loses nothing.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::cursor::{Cursor, Malformed};

/// Read at a time; a login's usual messages fit.
const CHUNK: usize = 2048;
/// Type byte and length.
const HEADER: usize = 5;

/// Why no message came.
#[derive(Debug)]
pub enum Broken {
    Io(std::io::Error),
    /// The peer closed the connection.
    Closed,
    Malformed(Malformed),
    /// Longer than the limit that the caller gave.
    TooLong,
}

/// One message; `body` is without type and length.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub tag: u8,
    pub body: &'a [u8],
    /// Type, length and body.
    pub frame: &'a [u8],
}

#[derive(Debug, Default)]
pub struct Inbox {
    /// `buf[taken..]` is unread.
    buf: Vec<u8>,
    taken: usize,
}

impl Inbox {
    /// The next message, whose body may be `limit` bytes long.
    ///
    /// # Cancel safety
    /// What was read stays in the inbox.
    pub async fn next<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limit: usize,
    ) -> Result<Message<'_>, Broken> {
        self.buf.drain(..self.taken);
        self.taken = 0;
        let len = loop {
            match frame_len(&self.buf, limit)? {
                Some(len) if len <= self.buf.len() => break len,
                _ => self.fill(stream).await?,
            }
        };
        self.taken = len;
        let frame = self.buf.get(..len).unwrap_or_default();
        let (header, body) = frame.split_at_checked(HEADER).unwrap_or_default();
        Ok(Message {
            tag: header.first().copied().unwrap_or_default(),
            body,
            frame,
        })
    }

    /// Memory doubles with what has arrived, whatever length the peer has announced.
    async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), Broken> {
        if self.buf.len() == self.buf.capacity() {
            self.buf.reserve(CHUNK);
        }
        match stream.read_buf(&mut self.buf).await {
            Ok(0) => Err(Broken::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::Io(error)),
        }
    }

    /// What the peer sent after the last message taken.
    pub fn into_unread(mut self) -> Vec<u8> {
        self.buf.drain(..self.taken);
        // An empty Vec keeps its memory: a waiting session should own none.
        self.buf.shrink_to_fit();
        self.buf
    }
}

/// The whole frame's length, once its header is there.
fn frame_len(buf: &[u8], limit: usize) -> Result<Option<usize>, Broken> {
    if buf.len() < HEADER {
        return Ok(None);
    }
    let mut header = Cursor::new(buf);
    let body = header
        .u8()
        .and_then(|_| header.i32())
        .map_err(Broken::Malformed)?
        .checked_sub(4)
        .and_then(|body| usize::try_from(body).ok())
        .ok_or(Broken::Malformed(Malformed("invalid message length")))?;
    if body > limit {
        return Err(Broken::TooLong);
    }
    Ok(Some(HEADER + body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const FRAMES: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0Z\0\0\0\x05I";

    #[tokio::test]
    async fn messages_split_at_every_byte_come_out_whole() {
        for split in 0..=FRAMES.len() {
            let (mut near, mut far) = tokio::io::duplex(64);
            let writer = async {
                let (first, second) = FRAMES.split_at(split);
                far.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(second).await.unwrap();
            };
            let reader = async {
                let mut inbox = Inbox::default();
                let tags = [
                    inbox.next(&mut near, 16).await.unwrap().tag,
                    inbox.next(&mut near, 16).await.unwrap().tag,
                    inbox.next(&mut near, 16).await.unwrap().tag,
                ];
                assert_eq!(&tags, b"RSZ", "split {split}");
                assert!(inbox.into_unread().is_empty());
            };
            tokio::join!(writer, reader);
        }
    }

    #[tokio::test]
    async fn what_follows_the_last_message_is_handed_over() {
        let mut inbox = Inbox::default();
        let mut bytes = FRAMES;
        inbox.next(&mut bytes, 16).await.unwrap();
        assert_eq!(inbox.into_unread(), &FRAMES[9..]);
    }

    #[tokio::test]
    async fn lengths_out_of_bounds_are_refused_before_memory_is_taken() {
        for (bytes, too_long) in [
            (&b"p\xff\xff\xff\xff"[..], false),
            (b"p\0\0\0\x03", false),
            (b"p\x80\0\0\0", false),
            (b"p\x7f\xff\xff\xff", true),
            (b"p\0\0\0\x15", true),
        ] {
            let mut inbox = Inbox::default();
            let error = inbox.next(&mut &bytes[..], 16).await.unwrap_err();
            assert_eq!(matches!(error, Broken::TooLong), too_long, "{bytes:?}");
            assert!(inbox.buf.capacity() <= 2 * CHUNK);
        }
    }

    #[tokio::test]
    async fn an_announced_length_takes_no_memory_until_its_bytes_come() {
        let mut inbox = Inbox::default();
        let sent = [&b"p\0\0\xff\xff"[..], &[7; 100]].concat();
        let broken = inbox.next(&mut &sent[..], 65_535).await.unwrap_err();
        assert!(matches!(broken, Broken::Closed));
        assert!(inbox.buf.capacity() <= 2 * CHUNK);
    }

    #[tokio::test]
    async fn an_early_end_is_closed() {
        let error = Inbox::default()
            .next(&mut &b"p\0\0"[..], 16)
            .await
            .unwrap_err();
        assert!(matches!(error, Broken::Closed));
    }
}
