//! A worker's free lists of relay blocks: a waiting client owns none, and one that waits for a server a small one.

use std::cell::RefCell;

use crate::wire::buffer::Buffer;

/// Bytes of a block to begin with: most statements, and the answers to most reads of one row. Thousands of sessions may
/// wait for a server with a statement in theirs.
const SMALL_LEN: usize = 2 * 1024;
/// Bytes of a block for what is more: two of PostgreSQL's own send buffers, and a whole TLS record.
const LARGE_LEN: usize = 16 * 1024;
/// Blocks kept for reuse, 8 MiB and 4 MiB; more are given back to the allocator.
const MAX_FREE_SMALL: usize = 4096;
const MAX_FREE_LARGE: usize = 256;

/// See the module's header.
#[derive(Debug, Default)]
pub struct Blocks {
    small: FreeList,
    large: FreeList,
}

// Boxed: a session keeps one pointer where it has no block.
#[allow(clippy::vec_box)]
#[derive(Debug, Default)]
struct FreeList(RefCell<Vec<Box<Buffer>>>);

impl FreeList {
    #[inline]
    fn take(&self, len: usize) -> Box<Buffer> {
        let buffer = self.0.borrow_mut().pop();
        buffer.unwrap_or_else(|| Box::new(Buffer::new(vec![0; len].into_boxed_slice())))
    }

    #[inline]
    fn give_back(&self, buffer: Box<Buffer>, max: usize) {
        let mut free = self.0.borrow_mut();
        if free.len() < max {
            free.push(buffer);
        }
    }
}

impl Blocks {
    #[inline]
    pub fn take(&self) -> Box<Buffer> {
        self.small.take(SMALL_LEN)
    }

    /// A read has filled the block: if it is a small one, what is in it goes on in a large one.
    pub fn enlarge(&self, buffer: &mut Box<Buffer>) {
        if buffer.capacity() != SMALL_LEN {
            return;
        }
        let mut large = self.large.take(LARGE_LEN);
        large.take_over(buffer);
        self.give_back(std::mem::replace(buffer, large));
    }

    /// Takes back a drained buffer. Those that have grown for one large message are not kept.
    #[inline]
    pub fn give_back(&self, buffer: Box<Buffer>) {
        if !buffer.is_drained() {
            return;
        }
        match buffer.capacity() {
            SMALL_LEN => self.small.give_back(buffer, MAX_FREE_SMALL),
            LARGE_LEN => self.large.give_back(buffer, MAX_FREE_LARGE),
            _ => {}
        }
    }
}
