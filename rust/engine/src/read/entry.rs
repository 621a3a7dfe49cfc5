//! A block in the cache: all of it, or as much as a reader asked for.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::cache::Weigh;
use super::growing::Growing;
use crate::buffers::Buffer;

/// Bytes that an entry takes besides its data, about.
const OVERHEAD: u64 = 256;

/// The most bytes that an entry can take.
pub(crate) fn heaviest(block_size: usize) -> u64 {
    OVERHEAD + block_size as u64
}

/// A block as the cache holds it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) data: Data,
    /// It was read ahead, and no reader has come yet.
    ahead: AtomicBool,
    /// It is here for one reader, which goes through the image in order.
    passing: bool,
    /// Where in the block the last read ended.
    read_to: AtomicU32,
    had: Had,
}

/// What readers have had of a block that passes.
#[derive(Debug, Default)]
struct Had {
    bytes: AtomicU32,
    /// A bit for each 64th part of it that was had as a whole.
    parts: AtomicU64,
    /// One of them was had twice: the block is wanted again.
    again: AtomicBool,
}

/// The part of a block that is there.
#[derive(Debug)]
pub(crate) enum Data {
    /// All of it, and its checksum was right.
    Whole(Buffer),
    /// Its beginning, and the state from which inflating goes on.
    Growing(Box<Growing>),
}

impl Entry {
    /// A block that is worth keeping.
    pub(super) fn new(data: Data) -> Self {
        let (ahead, read_to) = (AtomicBool::new(false), AtomicU32::new(0));
        Entry { data, ahead, passing: false, read_to, had: Had::default() }
    }

    /// A block that was read `ahead` of its reader, or that no other reader will want
    /// (`passing`).
    pub(super) fn in_order(data: Data, ahead: bool, passing: bool) -> Self {
        Entry { ahead: AtomicBool::new(ahead), passing, ..Entry::new(data) }
    }

    /// Copies a piece out of a block that is known to be right; `false` when not all of it is
    /// there.
    pub(super) fn copy_checked(&self, within: usize, piece: &mut [u8]) -> bool {
        match &self.data {
            Data::Whole(bytes) => piece.copy_from_slice(&bytes[within..within + piece.len()]),
            Data::Growing(growing) => return growing.copy_checked(within, piece),
        }
        true
    }

    /// Whether no other reader is expected to want it.
    pub(super) fn passing(&self) -> bool {
        self.passing
    }

    /// Whether this is the first use of a block that was read ahead.
    pub(super) fn first_use(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) && self.ahead.swap(false, Ordering::Relaxed)
    }

    /// Notes a read of a block of `block_size` bytes; returns whether it goes on where the last
    /// one ended, and so is the same use of the block.
    pub(super) fn continues(&self, within: usize, end: usize, block_size: usize) -> bool {
        if self.passing {
            self.had.note(within, end, block_size);
        }
        self.read_to.swap(end as u32, Ordering::Relaxed) as usize == within
    }

    /// Whether it is here for one reader, which has had as many bytes as there are in a block of
    /// this size, and none of them twice. A reader of small files has a block in pieces, in any
    /// order.
    pub(super) fn used_up(&self, block_size: usize) -> bool {
        let had = &self.had;
        self.passing
            && had.bytes.load(Ordering::Relaxed) as usize >= block_size
            && !had.again.load(Ordering::Relaxed)
    }
}

impl Had {
    fn note(&self, within: usize, end: usize, block_size: usize) {
        self.bytes.fetch_add((end - within) as u32, Ordering::Relaxed);
        let part = block_size.div_ceil(64);
        let (first, last) = (within.div_ceil(part), end / part);
        if first >= last {
            return;
        }
        let parts = (u64::MAX >> (64 - (last - first))) << first;
        if self.parts.fetch_or(parts, Ordering::Relaxed) & parts != 0 {
            self.again.store(true, Ordering::Relaxed);
        }
    }
}

impl Weigh for Entry {
    fn weight(&self) -> u64 {
        OVERHEAD
            + match &self.data {
                Data::Whole(bytes) => bytes.len() as u64,
                Data::Growing(growing) => growing.weight(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffers;

    const BLOCK: usize = 65536;

    fn used_up(passing: bool, reads: &[(usize, usize)]) -> bool {
        let data = Data::Whole(Buffers::for_job(BLOCK).take());
        let entry = Entry::in_order(data, false, passing);
        for (within, end) in reads {
            entry.continues(*within, *end, BLOCK);
        }
        entry.used_up(BLOCK)
    }

    #[test]
    fn a_block_is_used_up_by_pieces_in_any_order() {
        let pieces = [(40_000, BLOCK), (0, 100), (100, 39_000), (39_000, 40_000)];
        assert!(used_up(true, &pieces));
        assert!(!used_up(true, &pieces[1..]));
        assert!(!used_up(false, &pieces));
        assert!(used_up(true, &[(0, BLOCK)]));
    }

    #[test]
    fn a_block_that_is_read_again_is_not_used_up() {
        let page = |at: usize| (at * 4096, at * 4096 + 4096);
        let pages: Vec<_> = (0..16).map(page).collect();
        assert!(used_up(true, &pages));
        assert!(!used_up(true, &[&pages[..], &[page(3)]].concat()));
        assert!(!used_up(true, &[page(7); 100]));
    }
}
