//! Which blocks were wanted lately, in a few bits of memory.
//!
//! A block that is read in order and for the first time is not kept once its
//! reader is through with it: a copy of a whole image would push out what
//! other readers come back to. A block that is wanted again, by another session
//! of the same image for example, is kept.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bits for each block that the cache can hold.
const BITS_A_BLOCK: u64 = 16;
/// Blocks remembered for each one that the cache can hold: so one bit in eight is set at
/// most, and a block is rarely mistaken for another.
const REMEMBERED: usize = 2;

/// The blocks that were wanted lately; rarely, one that was not.
#[derive(Debug)]
pub(super) struct History {
    bits: Box<[AtomicU64]>,
    noted: AtomicUsize,
    most: usize,
}

impl History {
    /// For a cache of `capacity` blocks.
    pub(super) fn new(capacity: u64) -> Self {
        let words = (capacity.max(4) * BITS_A_BLOCK).next_power_of_two() / 64;
        History {
            bits: (0..words).map(|_| AtomicU64::new(0)).collect(),
            noted: AtomicUsize::new(0),
            most: capacity.max(4) as usize * REMEMBERED,
        }
    }

    /// Notes that the block is wanted; returns whether it was wanted lately.
    pub(super) fn note(&self, block: u64) -> bool {
        let (word, bit) = self.place(block);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return true;
        }
        if self.noted.fetch_add(1, Ordering::Relaxed) + 1 >= self.most {
            self.forget();
        }
        false
    }

    /// Whether a block was wanted lately.
    pub(super) fn knows(&self, block: u64) -> bool {
        let (word, bit) = self.place(block);
        word.load(Ordering::Relaxed) & bit != 0
    }

    fn place(&self, block: u64) -> (&AtomicU64, u64) {
        // Fibonacci hashing spreads blocks evenly that lie apart in any regular way.
        let place = block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = place >> (64 - (self.bits.len() as u64 * 64).trailing_zeros());
        (&self.bits[place as usize / 64], 1 << (place % 64))
    }

    fn forget(&self) {
        self.noted.store(0, Ordering::Relaxed);
        for word in &self.bits {
            word.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_is_told_from_the_first() {
        let history = History::new(1000);
        let first = (0..1900).filter(|&block| history.note(block)).count();
        assert!(first < 1900 / 8, "{first} blocks were taken for others");
        assert!((0..1900).all(|block| history.knows(block)));
        assert!((0..1900).all(|block| history.note(block)));
        let others = (5000..6000).filter(|&block| history.knows(block)).count();
        assert!(others < 1000 / 4, "{others} blocks were taken for others");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let history = History::new(1000);
        for block in 0..1_000_000 {
            history.note(block);
        }
        let known = (0..1000).filter(|&block| history.note(block)).count();
        assert!(known < 1000 / 4, "{known} of the first blocks are still known");
    }
}
