//! Whether the blocks around one were wanted lately: then those behind it will be wanted, too.
//!
//! A file system is read in small jumps: a directory, the inodes that it names, the files of
//! those inodes, in whatever order. No block follows the one before it, so that this is no
//! sequence, but in the end nearly all of the neighbourhood is read.

use std::ops::Range;

use parking_lot::Mutex;

/// Blocks that are remembered.
const REMEMBERED: usize = 16;
/// How far away a neighbour may be, in bytes, and in blocks where those are large.
const REACH: u64 = 512 << 10;
/// Neighbours that a neighbourhood has: one may be there by chance.
const ENOUGH: usize = 2;
/// How far ahead blocks are wanted, in bytes.
const AHEAD: u64 = 256 << 10;

/// The blocks that were wanted last.
#[derive(Debug)]
pub(super) struct Neighbours {
    reach: u64,
    ahead: u64,
    lately: Mutex<Lately>,
}

#[derive(Debug)]
struct Lately {
    blocks: [u64; REMEMBERED],
    next: usize,
}

impl Neighbours {
    /// Of blocks of so many bytes.
    pub(super) fn new(block_size: usize) -> Self {
        let blocks = |bytes: u64| (bytes / block_size as u64).max(1);
        let lately = Lately { blocks: [u64::MAX; REMEMBERED], next: 0 };
        Neighbours { reach: blocks(REACH), ahead: blocks(AHEAD), lately: Mutex::new(lately) }
    }

    /// Notes that a block is wanted, for the first time since it was far from here. Returns the
    /// blocks behind it that will be wanted soon; none where it has no neighbours.
    pub(super) fn note(&self, block: u64) -> Range<u64> {
        let mut lately = self.lately.lock();
        let near = |other: &&u64| **other != block && other.abs_diff(block) <= self.reach;
        let neighbours = lately.blocks.iter().filter(near).count();
        let place = lately.next;
        lately.blocks[place] = block;
        lately.next = (place + 1) % REMEMBERED;
        let ahead = if neighbours >= ENOUGH { self.ahead } else { 0 };
        block + 1..block + 1 + ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_in_a_neighbourhood_have_what_lies_behind_wanted() {
        let neighbours = Neighbours::new(65536);
        assert!(neighbours.note(107).is_empty());
        assert!(neighbours.note(100).is_empty());
        assert_eq!(neighbours.note(104), 105..109);
        assert_eq!(neighbours.note(101), 102..106);
        // Elsewhere, and back.
        assert!(neighbours.note(500).is_empty());
        assert_eq!(neighbours.note(102), 103..107);
    }

    #[test]
    fn a_block_is_not_its_own_neighbour() {
        let neighbours = Neighbours::new(65536);
        assert!((0..100).all(|_| neighbours.note(7).is_empty()));
    }

    #[test]
    fn what_is_far_or_long_ago_does_not_count() {
        let neighbours = Neighbours::new(65536);
        assert!((0..1000).all(|step| neighbours.note(step * 9).is_empty()));
        neighbours.note(20_000);
        neighbours.note(20_001);
        assert!((0..REMEMBERED as u64).all(|step| neighbours.note(step * 9).is_empty()));
        assert!(neighbours.note(20_002).is_empty());
    }

    #[test]
    fn of_large_blocks_one_is_wanted() {
        let neighbours = Neighbours::new(4 << 20);
        neighbours.note(9);
        neighbours.note(11);
        assert_eq!(neighbours.note(10), 11..12);
    }
}
