//! One direction of a relay: bytes received, looked at, and sent on, in place.
//!
//! ```text
//!  0        sent       scanned      filled     capacity
//!  ├─────────┼────────────┼────────────┼──────────┤
//!    gone      to be sent   unseen       room
//! ```
//! Invariant: `sent ≤ scanned ≤ filled ≤ capacity`. A frame larger than the buffer passes through it: its header is
//! scanned, and `ahead` says what becomes of the bytes of it that are still to come.

/// What becomes of the rest of a frame that has not arrived yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Nothing,
    /// So many bytes go through unseen.
    Pass(usize),
    /// So many bytes are thrown away.
    Drop(usize),
}

/// See the module's picture.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    sent: usize,
    scanned: usize,
    filled: usize,
    ahead: Ahead,
}

impl Buffer {
    /// Takes a block of memory; its contents do not matter.
    pub fn new(block: Box<[u8]>) -> Self {
        Buffer {
            bytes: block,
            sent: 0,
            scanned: 0,
            filled: 0,
            ahead: Ahead::Nothing,
        }
    }

    /// Bytes of the whole block.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Takes everything from `other`, which is left drained. Must be drained itself, and at least as large.
    pub fn take_over(&mut self, other: &mut Buffer) {
        debug_assert!(self.is_drained() && self.capacity() >= other.filled);
        self.bytes[..other.filled].copy_from_slice(&other.bytes[..other.filled]);
        (self.sent, self.scanned, self.filled) = (other.sent, other.scanned, other.filled);
        self.ahead = other.ahead;
        (other.sent, other.scanned, other.filled) = (0, 0, 0);
        other.ahead = Ahead::Nothing;
    }

    /// No byte is in it and none of a started frame is to come.
    pub fn is_drained(&self) -> bool {
        self.sent == self.filled && self.ahead == Ahead::Nothing
    }

    /// All that was passed has been sent, to the end of its last frame.
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.sent == self.scanned && self.ahead == Ahead::Nothing
    }

    /// What was passed and not yet sent goes nowhere, nor does the rest of a frame that is still to come.
    pub fn abandon(&mut self) {
        self.sent = self.scanned;
        if let Ahead::Pass(len) = self.ahead {
            self.ahead = Ahead::Drop(len);
        }
    }

    /// Bytes to be sent.
    #[inline]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..self.scanned]
    }

    /// Bytes received and not yet looked at.
    #[inline]
    pub fn unseen(&self) -> &[u8] {
        &self.bytes[self.scanned..self.filled]
    }

    /// Overwrites unseen bytes from `at` on, as far as they are here.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        let unseen = &mut self.bytes[self.scanned..self.filled];
        if let Some(place) = unseen.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Room for a read; what was sent is given up first when the tail is short. Empty when all of it is in use.
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        if self.sent == self.filled {
            (self.sent, self.scanned, self.filled) = (0, 0, 0);
        } else if self.bytes.len() - self.filled < self.bytes.len() / 4 {
            self.compact();
        }
        &mut self.bytes[self.filled..]
    }

    /// Takes in `bytes` as if they had been read. False, and nothing is taken, if there is no room for all of them.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.room().get_mut(..bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.fill(bytes.len());
        true
    }

    /// The last `n` unseen bytes were never there.
    pub fn take_back(&mut self, n: usize) {
        self.filled -= n.min(self.filled - self.scanned);
    }

    /// Nothing is in it, and nothing is to come.
    pub fn clear(&mut self) {
        (self.sent, self.scanned, self.filled) = (0, 0, 0);
        self.ahead = Ahead::Nothing;
    }

    /// `n` bytes were read into [`Buffer::room`].
    #[inline]
    pub fn fill(&mut self, n: usize) {
        debug_assert!(n <= self.bytes.len() - self.filled);
        self.filled += n;
        match self.ahead {
            Ahead::Nothing => {}
            Ahead::Pass(len) => {
                self.ahead = Ahead::Nothing;
                self.pass(len);
            }
            Ahead::Drop(len) => {
                self.ahead = Ahead::Nothing;
                self.discard(len);
            }
        }
    }

    /// The next `len` unseen bytes, here or still to come, go through.
    #[inline]
    pub fn pass(&mut self, len: usize) {
        let here = len.min(self.filled - self.scanned);
        self.scanned += here;
        if here < len {
            self.ahead = Ahead::Pass(len - here);
        }
    }

    /// The next `len` unseen bytes, here or still to come, are not sent: what waits before them moves up over them.
    pub fn discard(&mut self, len: usize) {
        let here = len.min(self.filled - self.scanned);
        self.bytes
            .copy_within(self.sent..self.scanned, self.sent + here);
        self.sent += here;
        self.scanned += here;
        if here < len {
            self.ahead = Ahead::Drop(len - here);
        }
    }

    /// Takes in bytes that were read elsewhere, behind the others.
    pub fn append(&mut self, bytes: &[u8]) {
        let unseen = self.filled - self.scanned;
        self.scanned = self.filled;
        self.insert(bytes);
        self.scanned -= bytes.len() + unseen;
    }

    /// Puts `extra` after the bytes that were passed, before the unseen ones; grows by no more than `extra`'s length.
    /// Must not be called while the rest of a frame that goes through is still to come; of one that is thrown away it may.
    pub fn insert(&mut self, extra: &[u8]) {
        debug_assert!(!matches!(self.ahead, Ahead::Pass(_)));
        self.compact();
        let (end, filled) = (self.scanned + extra.len(), self.filled + extra.len());
        if filled > self.bytes.len() {
            let mut bytes = std::mem::take(&mut self.bytes).into_vec();
            bytes.resize(filled, 0);
            self.bytes = bytes.into_boxed_slice();
        }
        self.bytes.copy_within(self.scanned..self.filled, end);
        self.bytes[self.scanned..end].copy_from_slice(extra);
        (self.scanned, self.filled) = (end, filled);
    }

    /// Puts `bytes` before the unseen ones, unseen as well. Where [`Buffer::insert`] may be called.
    pub fn prepend(&mut self, bytes: &[u8]) {
        self.insert(bytes);
        self.scanned -= bytes.len();
    }

    /// Passes `new` in the place of the next `old` unseen bytes, which must all be here. Moves as little as possible; grows
    /// by no more than the difference.
    pub fn replace(&mut self, old: usize, new: &[u8]) {
        debug_assert!(old <= self.filled - self.scanned && self.ahead == Ahead::Nothing);
        let old = old.min(self.filled - self.scanned);
        let Some(longer) = new.len().checked_sub(old).filter(|n| *n > 0) else {
            let shorter = old - new.len();
            self.discard(shorter);
            self.patch(0, new);
            return self.pass(new.len());
        };
        if longer > self.sent {
            // Behind the first `old` bytes, so that only what follows them moves.
            self.scanned += old;
            self.insert(&new[old..]);
            self.scanned -= new.len();
        } else {
            let start = self.sent - longer;
            self.bytes.copy_within(self.sent..self.scanned, start);
            (self.sent, self.scanned) = (start, self.scanned - longer);
        }
        self.patch(0, new);
        self.pass(new.len());
    }

    /// The rest of a frame whose beginning was passed or thrown away has not arrived yet.
    pub fn is_inside_frame(&self) -> bool {
        self.ahead != Ahead::Nothing
    }

    /// `n` of the pending bytes are gone.
    #[inline]
    pub fn sent(&mut self, n: usize) {
        debug_assert!(n <= self.scanned - self.sent);
        self.sent += n;
    }

    /// Grows so that a frame of `len` bytes can be whole in it. Only a full buffer doubles, so that a peer pays for
    /// memory with bytes it has really sent.
    pub fn grow_for(&mut self, len: usize) {
        self.compact();
        if self.filled == self.bytes.len() && self.filled - self.scanned < len {
            let capacity = (self.bytes.len() * 2).min(self.scanned - self.sent + len);
            let mut bytes = vec![0; capacity.max(self.filled)];
            bytes[..self.filled].copy_from_slice(&self.bytes[..self.filled]);
            self.bytes = bytes.into_boxed_slice();
        }
    }

    /// Free when there is nothing to move: a peer that sends a long message byte by byte must not pay one byte for a
    /// move of all of it.
    fn compact(&mut self) {
        if self.sent == 0 {
            return;
        }
        self.bytes.copy_within(self.sent..self.filled, 0);
        self.scanned -= self.sent;
        self.filled -= self.sent;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(capacity: usize) -> Buffer {
        Buffer::new(vec![0; capacity].into_boxed_slice())
    }

    fn feed(buffer: &mut Buffer, bytes: &[u8]) -> usize {
        let room = buffer.room();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        buffer.fill(n);
        n
    }

    fn drain(buffer: &mut Buffer) -> Vec<u8> {
        let out = buffer.pending().to_vec();
        buffer.sent(out.len());
        out
    }

    #[test]
    fn a_frame_larger_than_the_buffer_passes_through_it() {
        let message: Vec<u8> = (0..100).collect();
        let (mut b, mut out, mut at) = (buffer(16), Vec::new(), feed_first(&message));
        feed(&mut b, &message[..at]);
        b.pass(message.len());
        while out.len() < message.len() {
            out.extend(drain(&mut b));
            at += feed(&mut b, &message[at..]);
        }
        assert_eq!(out, message);
        assert!(b.is_drained());
    }

    fn feed_first(message: &[u8]) -> usize {
        message.len().min(5)
    }

    #[test]
    fn discarded_bytes_never_come_out_wherever_they_are_split() {
        for split in 1..9 {
            let mut b = buffer(16);
            feed(&mut b, b"ab");
            b.pass(2);
            feed(&mut b, &b"xxxxyyyy"[..split.min(8)]);
            b.discard(8);
            feed(&mut b, &b"xxxxyyyy"[split.min(8)..]);
            feed(&mut b, b"cd");
            b.pass(2);
            assert_eq!(drain(&mut b), b"abcd", "split {split}");
            assert!(b.is_drained());
        }
    }

    #[test]
    fn what_is_abandoned_never_comes_out_wherever_the_frame_is_split() {
        for split in 1..=4 {
            let mut b = buffer(16);
            feed(&mut b, &b"xxxx"[..split]);
            b.pass(4);
            b.abandon();
            feed(&mut b, &b"xxxx"[split..]);
            feed(&mut b, b"ab");
            b.pass(2);
            assert_eq!(drain(&mut b), b"ab", "split {split}");
            assert!(b.is_sent() && b.is_drained());
        }
    }

    #[test]
    fn inserted_bytes_stand_between_what_was_passed_and_what_is_unseen() {
        let mut b = buffer(16);
        feed(&mut b, b"abcd");
        b.pass(2);
        b.insert(b"--");
        b.pass(2);
        assert_eq!(drain(&mut b), b"ab--cd");
        b.insert(&[7; 17]);
        assert_eq!(drain(&mut b), [7; 17]);
    }

    #[test]
    fn a_replaced_part_stands_where_the_old_one_stood_whatever_their_lengths() {
        for (passed, sent, old, new) in [
            (2, 0, 3, &b"NEW"[..]),
            (2, 0, 3, b"N"),
            (2, 1, 3, b""),
            (2, 0, 3, b"LONGER"),
            (2, 2, 3, b"LONG"),
            (4, 3, 3, b"LONGER"),
            (4, 1, 3, b"LONGER"),
            (0, 0, 0, b"+"),
            (3, 0, 3, b"MUCH_LONGER_THAN_ROOM"),
        ] {
            let text = b"0123456789abcdef";
            let mut b = buffer(16);
            feed(&mut b, text);
            b.pass(passed);
            b.sent(sent);
            b.replace(old, new);
            b.pass(text.len() - passed - old);
            let expected = [&text[sent..passed], new, &text[passed + old..]].concat();
            assert_eq!(drain(&mut b), expected, "{passed} {sent} {old} {new:?}");
            assert!(b.is_drained());
        }
    }

    #[test]
    fn the_rest_of_a_frame_goes_through_behind_a_replaced_part() {
        let mut b = buffer(16);
        feed(&mut b, b"hnnnbb");
        b.patch(0, b"H");
        b.pass(1);
        b.replace(3, b"other");
        b.pass(10);
        let mut out = drain(&mut b);
        feed(&mut b, b"cccccccc");
        feed(&mut b, b"next");
        out.extend(drain(&mut b));
        assert_eq!(out, b"Hotherbbcccccccc");
        assert_eq!(b.unseen(), b"next");
    }

    #[test]
    fn what_replaces_a_frame_larger_than_the_buffer_comes_out_before_what_follows_it() {
        let mut b = buffer(16);
        feed(&mut b, b"ab");
        b.pass(2);
        feed(&mut b, &[b'x'; 10]);
        b.discard(40);
        b.insert(b"--");
        assert_eq!(drain(&mut b), b"ab--");
        for _ in 0..3 {
            assert_eq!(feed(&mut b, &[b'x'; 10]), 10);
        }
        assert!(!b.is_inside_frame());
        feed(&mut b, b"cd");
        b.pass(2);
        assert_eq!(drain(&mut b), b"cd");
    }

    #[test]
    fn what_is_taken_over_goes_on_where_it_was() {
        let (mut small, mut large) = (buffer(8), buffer(16));
        feed(&mut small, b"abcdef");
        small.pass(2);
        small.sent(1);
        small.pass(6);
        large.take_over(&mut small);
        assert!(small.is_drained());
        feed(&mut large, b"ghij");
        assert_eq!(
            (large.pending(), large.unseen()),
            (&b"bcdefgh"[..], &b"ij"[..])
        );
    }

    #[test]
    fn what_is_put_is_unseen_until_it_is_taken_back() {
        let mut b = buffer(8);
        assert!(b.put(b"abc") && b.put(b"def"));
        assert!(!b.put(b"ghi"));
        b.take_back(3);
        assert_eq!(b.unseen(), b"abc");
        b.clear();
        assert!(b.is_drained() && b.put(b"12345678"));
    }

    #[test]
    fn memory_grows_only_when_full_and_never_beyond_the_frame() {
        let mut b = buffer(8);
        feed(&mut b, b"abcd");
        b.grow_for(1 << 30);
        assert_eq!(b.bytes.len(), 8);
        feed(&mut b, b"efgh");
        b.grow_for(1 << 30);
        assert_eq!(b.bytes.len(), 16);
        feed(&mut b, b"ijklmnop");
        b.grow_for(20);
        assert_eq!(b.bytes.len(), 20);
        assert_eq!(b.unseen(), b"abcdefghijklmnop");
    }
}
