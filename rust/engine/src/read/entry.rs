//! A block in the cache: all of it, or as much as a reader asked for.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    /// Bytes that readers have taken of it.
    taken: AtomicU32,
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
        let (read_to, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        Entry { data, ahead: AtomicBool::new(false), passing: false, read_to, taken }
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

    /// Notes a read; returns whether it goes on where the last one ended, and
    /// so is the same use of the block.
    pub(super) fn continues(&self, within: usize, end: usize) -> bool {
        self.taken.fetch_add((end - within) as u32, Ordering::Relaxed);
        self.read_to.swap(end as u32, Ordering::Relaxed) as usize == within
    }

    /// Whether readers have had as many bytes as there are in a block of this size. A reader of
    /// small files has a block in pieces, in any order.
    pub(super) fn used_up(&self, block_size: usize) -> bool {
        self.taken.load(Ordering::Relaxed) as usize >= block_size
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
