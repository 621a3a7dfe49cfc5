//! The bitmap in memory: which blocks live in the cowfile, and which pages of
//! the bitmap have changed since they were last taken for writing.
//!
//! Pages are laid out by *file* offset, so that one page is one 4 KiB block of
//! the file that holds it: the first has the head in front and fewer bits.
//! Pages that hold no bit are not there: empty, the bitmap of 1 TiB costs 0.5 MiB.

mod reading;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use super::head::HEAD_BYTES;

/// Bytes of a page of the bitmap, and of the writes that make it durable.
pub const PAGE_BYTES: u64 = 4096;
const PAGE_WORDS: usize = (PAGE_BYTES / 8) as usize;
const PAGE_BITS: u64 = PAGE_BYTES * 8;
/// Bit 0 of the bitmap is this bit of the file.
const FIRST_BIT: u64 = HEAD_BYTES * 8;

type Page = Box<[AtomicU64; PAGE_WORDS]>;

/// A bitmap that any number of threads read and set bits in. Bits never go back to 0.
#[derive(Debug)]
pub struct Bitmap {
    /// Bytes on disk, from [`HEAD_BYTES`] on.
    mapsize: u64,
    pages: Box<[OnceLock<Page>]>,
    /// One bit per page: changed since the last [`take_changed`](Self::take_changed).
    changed: Box<[AtomicU64]>,
    count: AtomicU64,
}

/// A copy of a page's bytes, and where in the file they belong.
#[derive(Debug)]
pub(crate) struct PageCopy {
    page: usize,
    /// Where the bytes belong in the file.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl Bitmap {
    /// An empty bitmap of `mapsize` bytes.
    pub fn new(mapsize: u64) -> Bitmap {
        let pages = (HEAD_BYTES + mapsize).div_ceil(PAGE_BYTES) as usize;
        Bitmap {
            mapsize,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            changed: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
        }
    }

    /// Every run of set bits, in order: first block and number of blocks.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = self.mapsize * 8;
        let mut block = 0;
        std::iter::from_fn(move || {
            while block < end {
                let (set, length) = self.run(block, end - block);
                let first = block;
                block += length;
                if set {
                    return Some((first, length));
                }
            }
            None
        })
    }

    /// The pages that hold a bit, and where in the file they belong.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageCopy> + '_ {
        let used = self.pages.iter().enumerate().filter(|(_, page)| page.get().is_some());
        used.map(|(page, _)| self.copy(page))
    }

    /// Another bitmap of the same bits, none of which counts as changed.
    pub fn duplicate(&self) -> Bitmap {
        let twin = Bitmap::new(self.mapsize);
        let pages = self.pages.iter().zip(&twin.pages);
        for (words, copies) in pages.filter_map(|(from, to)| Some((from.get()?, to))) {
            let copy = |i: usize| AtomicU64::new(words[i].load(Ordering::Acquire));
            let _ = copies.set(Box::new(std::array::from_fn(copy)));
        }
        twin.count.store(self.count(), Ordering::Relaxed);
        twin
    }

    fn page(&self, page: usize) -> &Page {
        self.pages[page].get_or_init(|| Box::new([const { AtomicU64::new(0) }; PAGE_WORDS]))
    }

    /// The word of the file that holds bit `bit` of the file; 0 where no page is.
    fn word(&self, bit: u64) -> u64 {
        match self.pages[(bit / PAGE_BITS) as usize].get() {
            Some(words) => words[(bit % PAGE_BITS / 64) as usize].load(Ordering::Acquire),
            None => 0,
        }
    }

    /// Whether the block lives in the cowfile, and for how many blocks from it on the
    /// answer is the same, up to `limit` blocks.
    pub fn run(&self, block: u64, limit: u64) -> (bool, u64) {
        let start = block + FIRST_BIT;
        let end = start + limit;
        let first = self.word(start);
        let set = first >> (start % 64) & 1 == 1;
        let mut bit = start;
        while bit < end {
            if !set && self.pages[(bit / PAGE_BITS) as usize].get().is_none() {
                bit = (bit / PAGE_BITS + 1) * PAGE_BITS;
                continue;
            }
            // The first word as it was seen: a bit of it may be set meanwhile.
            let word = if bit == start { first } else { self.word(bit) };
            let other = (if set { !word } else { word }) >> (bit % 64);
            if other != 0 {
                bit += u64::from(other.trailing_zeros());
                break;
            }
            bit = (bit / 64 + 1) * 64;
        }
        (set, bit.min(end) - start)
    }

    /// Whether the block lives in the cowfile.
    pub fn get(&self, block: u64) -> bool {
        self.run(block, 1).0
    }

    /// Sets the bits of `length` blocks from `block` on.
    ///
    /// Their data must be in the file already: a flush that runs at the same
    /// time may take the bits at once. No other thread may be setting the same bits:
    /// a caller that finds them all set relies on their page being marked as changed.
    pub fn set(&self, block: u64, length: u64) {
        let end = block + length + FIRST_BIT;
        let mut bit = block + FIRST_BIT;
        while bit < end {
            let stop = ((bit / 64 + 1) * 64).min(end);
            let mask = (u64::MAX >> (64 - (stop - bit))) << (bit % 64);
            let page = (bit / PAGE_BITS) as usize;
            let word = &self.page(page)[(bit % PAGE_BITS / 64) as usize];
            if word.load(Ordering::Acquire) & mask != mask {
                let fresh = mask & !word.fetch_or(mask, Ordering::AcqRel);
                self.count.fetch_add(u64::from(fresh.count_ones()), Ordering::Relaxed);
                // After the bits: a flush that takes the page from here on sees them.
                self.mark_changed(page);
            }
            bit = stop;
        }
    }

    /// Sets the bits of another bitmap of the same size, as [`set`](Self::set) does; how many of
    /// them were not set before.
    pub fn join(&self, other: &Bitmap) -> u64 {
        let before = self.count();
        other.runs().for_each(|(block, length)| self.set(block, length));
        self.count() - before
    }

    /// The words of the file that hold the bits of `length` blocks from `block` on, as they will
    /// be with these bits set, and where in the file they belong. The blocks lie in one page.
    pub fn words_with(&self, block: u64, length: u64) -> (u64, Vec<u8>) {
        let (start, end) = (block + FIRST_BIT, block + length + FIRST_BIT);
        let words = start / 64..end.div_ceil(64);
        let with = |word: u64| {
            let (from, to) = (start.max(word * 64), end.min(word * 64 + 64));
            let mask = (u64::MAX >> (64 - (to - from))) << (from % 64);
            (self.word(word * 64) | mask).to_le_bytes()
        };
        (words.start * 8, words.flat_map(with).collect())
    }

    /// The page that holds the bit of `block`, and the first block of the next page.
    pub fn page_of(block: u64) -> (u64, u64) {
        let page = (block + FIRST_BIT) / PAGE_BITS;
        (page, (page + 1) * PAGE_BITS - FIRST_BIT)
    }

    /// Sets the bits of all blocks from `block` on back to 0. The caller alone has the bitmap.
    pub(crate) fn clear_from(&mut self, block: u64) {
        let (end, start) = (self.mapsize * 8 + FIRST_BIT, block + FIRST_BIT);
        let mut bit = start;
        while bit < end {
            let page = (bit / PAGE_BITS) as usize;
            let Some(words) = self.pages[page].get() else {
                bit = (page as u64 + 1) * PAGE_BITS;
                continue;
            };
            let word = &words[(bit % PAGE_BITS / 64) as usize];
            let kept = word.load(Ordering::Acquire) & !(u64::MAX << (bit % 64));
            let lost = word.swap(kept, Ordering::AcqRel) & !kept;
            if lost != 0 {
                self.count.fetch_sub(u64::from(lost.count_ones()), Ordering::Relaxed);
                self.mark_changed(page);
            }
            bit = (bit / 64 + 1) * 64;
        }
    }

    fn mark_changed(&self, page: usize) {
        self.changed[page / 64].fetch_or(1 << (page % 64), Ordering::AcqRel);
    }

    /// Marks each page that holds a bit as changed.
    pub(crate) fn mark_all_changed(&self) {
        let used = self.pages.iter().enumerate().filter(|(_, page)| page.get().is_some());
        used.for_each(|(page, _)| self.mark_changed(page));
    }

    /// Bits that are set.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The highest block whose bit is set.
    pub fn last(&self) -> Option<u64> {
        self.pages.iter().enumerate().rev().find_map(|(page, words)| {
            words.get()?.iter().enumerate().rev().find_map(|(i, word)| {
                let top = word.load(Ordering::Acquire).checked_ilog2()?;
                Some((page * PAGE_WORDS + i) as u64 * 64 + u64::from(top) - FIRST_BIT)
            })
        })
    }

    /// Copies of all pages that changed since they were last taken, in order;
    /// they count as unchanged from then on.
    pub(crate) fn take_changed(&self) -> Vec<PageCopy> {
        let mut copies = Vec::new();
        for (i, pages) in self.changed.iter().enumerate() {
            if pages.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut pages = pages.swap(0, Ordering::AcqRel);
            while pages != 0 {
                copies.push(self.copy(i * 64 + pages.trailing_zeros() as usize));
                pages &= pages - 1;
            }
        }
        copies
    }

    fn copy(&self, page: usize) -> PageCopy {
        let start = page as u64 * PAGE_BYTES;
        let from = (HEAD_BYTES.max(start) - start) as usize;
        let to = (HEAD_BYTES + self.mapsize - start).min(PAGE_BYTES) as usize;
        let words = self.page(page)[from / 8..to / 8].iter();
        let bytes = words.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()).collect();
        PageCopy { page, offset: start + from as u64, bytes }
    }

    /// Takes back copies that could not be written: their pages count as changed again.
    pub(crate) fn put_back(&self, copies: &[PageCopy]) {
        copies.iter().for_each(|copy| self.mark_changed(copy.page));
    }
}

#[cfg(test)]
mod tests;
