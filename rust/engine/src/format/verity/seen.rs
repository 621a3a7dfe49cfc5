//! Which blocks of a file have been verified in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::BLOCK;

/// Words of bits in a page: 4 KiB, for 128 MiB of the file.
const WORDS: usize = 512;
const BLOCKS: u64 = WORDS as u64 * 64;

type Page = Box<[AtomicU64; WORDS]>;

/// A bit for each block; pages without one are not there.
#[derive(Debug)]
pub(super) struct Seen {
    pages: Box<[OnceLock<Page>]>,
    /// Of what is kept, the edition in which they were verified.
    edition: AtomicU64,
    /// Held while blocks are noted: none is for an edition that has passed.
    noting: Mutex<()>,
}

impl Seen {
    /// None of a file of `size` bytes.
    pub(super) fn new(size: u64) -> Seen {
        let pages = size.div_ceil(BLOCK as u64 * BLOCKS);
        Seen {
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            edition: AtomicU64::new(0),
            noting: Mutex::default(),
        }
    }

    /// The edition in which all blocks from `first` up to `end` have been seen.
    pub(super) fn all(&self, first: u64, end: u64) -> Option<u64> {
        // Before the bits, which are of this edition or of a later one, and then of no use to a
        // reader that has bytes of this one.
        let edition = self.edition.load(Ordering::Acquire);
        let seen = words(first, end).all(|(page, word, mask)| match self.pages[page].get() {
            Some(page) => page[word].load(Ordering::Acquire) & mask == mask,
            None => false,
        });
        seen.then_some(edition)
    }

    /// Notes the blocks from `first` up to `end`, as they are in an edition; those that were seen
    /// in earlier ones are forgotten.
    pub(super) fn note(&self, first: u64, end: u64, edition: u64) {
        let _noting = self.noting.lock();
        let before = self.edition.load(Ordering::Acquire);
        if edition < before {
            return;
        }
        if edition > before {
            self.clear();
            self.edition.store(edition, Ordering::Release);
        }
        for (page, word, mask) in words(first, end) {
            let pages = || Box::new([const { AtomicU64::new(0) }; WORDS]);
            self.pages[page].get_or_init(pages)[word].fetch_or(mask, Ordering::Release);
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        for word in self.pages.iter().filter_map(OnceLock::get).flat_map(|page| page.iter()) {
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
            assert_eq!(seen.all(block, block + 1), None, "{block}");
            seen.note(block, block + 1, 0);
        }
        for block in [0, 1, 2, 62, 63, 66, 126, 128, BLOCKS - 2, BLOCKS + 1, 2 * BLOCKS] {
            assert_eq!(seen.all(block, block + 1).is_some(), noted.contains(&block), "{block}");
        }
        for (first, end, all) in [
            (63, 66, true),
            (BLOCKS - 1, BLOCKS + 1, true),
            (7, 7, true),
            (0, 64, false),
            (BLOCKS - 2, BLOCKS + 1, false),
        ] {
            assert_eq!(seen.all(first, end).is_some(), all, "{first}");
        }
        seen.clear();
        assert!(noted.iter().all(|block| seen.all(*block, block + 1).is_none()));
    }

    #[test]
    fn what_was_seen_in_an_earlier_edition_is_forgotten() {
        let seen = Seen::new(1 << 20);
        seen.note(0, 10, 0);
        seen.note(20, 22, 4);
        assert_eq!((seen.all(0, 1), seen.all(20, 22)), (None, Some(4)));
        // By a reader that was slow.
        seen.note(0, 10, 2);
        assert_eq!((seen.all(0, 1), seen.all(20, 22)), (None, Some(4)));
    }
}
