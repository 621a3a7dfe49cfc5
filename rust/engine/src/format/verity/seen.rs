//! Which blocks of a file have been verified in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::BLOCK;

/// Words of bits in a page: 4 KiB, for 128 MiB of the file.
const WORDS: usize = 512;
const BLOCKS: u64 = WORDS as u64 * 64;

type Page = Box<[AtomicU64; WORDS]>;

/// A bit for each block; pages without one are not there.
#[derive(Debug)]
pub(super) struct Seen(Box<[OnceLock<Page>]>);

impl Seen {
    /// None of a file of `size` bytes.
    pub(super) fn new(size: u64) -> Seen {
        let pages = size.div_ceil(BLOCK as u64 * BLOCKS);
        Seen((0..pages).map(|_| OnceLock::new()).collect())
    }

    /// Whether all blocks from `first` up to `end` have been seen.
    pub(super) fn all(&self, first: u64, end: u64) -> bool {
        words(first, end).all(|(page, word, mask)| match self.0[page].get() {
            Some(page) => page[word].load(Ordering::Acquire) & mask == mask,
            None => false,
        })
    }

    /// Notes a block.
    pub(super) fn note(&self, block: u64) {
        for (page, word, mask) in words(block, block + 1) {
            let page = self.0[page].get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
            page[word].fetch_or(mask, Ordering::Release);
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        for word in self.0.iter().filter_map(OnceLock::get).flat_map(|page| page.iter()) {
            word.store(0, Ordering::Release);
        }
    }
}

/// The words that hold the bits of a range: page, word, and which of its bits.
fn words(first: u64, end: u64) -> impl Iterator<Item = (usize, usize, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let bit = at % 64;
            let count = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let place = ((at / BLOCKS) as usize, (at % BLOCKS / 64) as usize, mask);
            at += count;
            place
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_remembered_by_itself() {
        let seen = Seen::new(3 * BLOCKS * BLOCK as u64 - 5);
        let noted = [0, 1, 63, 64, 65, 127, BLOCKS - 1, BLOCKS, 3 * BLOCKS - 1];
        for block in noted {
            assert!(!seen.all(block, block + 1), "{block}");
            seen.note(block);
        }
        for block in [0, 1, 2, 62, 63, 66, 126, 128, BLOCKS - 2, BLOCKS + 1, 2 * BLOCKS] {
            assert_eq!(seen.all(block, block + 1), noted.contains(&block), "{block}");
        }
        assert!(seen.all(63, 66) && seen.all(BLOCKS - 1, BLOCKS + 1) && seen.all(7, 7));
        assert!(!seen.all(0, 64) && !seen.all(BLOCKS - 2, BLOCKS + 1));
        seen.clear();
        assert!(noted.iter().all(|block| !seen.all(*block, block + 1)));
    }
}
