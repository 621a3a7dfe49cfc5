//! Which chunks are there: a bit each.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bit for each chunk, least significant first, as in the file.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Vec<AtomicU64>,
    count: u64,
}

impl Bits {
    pub fn new(count: u64) -> Bits {
        let words = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Bits { words, count }
    }

    /// Bytes that they take in a file.
    pub fn bytes(count: u64) -> u64 {
        count.div_ceil(8)
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn has(&self, bit: u64) -> bool {
        bit < self.count && self.word(bit).load(Ordering::Acquire) & mask(bit) != 0
    }

    /// Whether all of a range are set.
    pub fn has_all(&self, from: u64, to: u64) -> bool {
        (from..to).all(|bit| self.has(bit))
    }

    pub fn set(&self, bit: u64) {
        self.word(bit).fetch_or(mask(bit), Ordering::AcqRel);
    }

    pub fn clear(&self, bit: u64) {
        self.word(bit).fetch_and(!mask(bit), Ordering::AcqRel);
    }

    pub fn clear_all(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Release));
    }

    /// Sets those that are set in the file's `bytes`, the first of which is for the bits from
    /// `8 * first` on.
    pub fn add(&self, first: u64, bytes: &[u8]) {
        for (at, byte) in (first..).zip(bytes) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1).map(|bit| at * 8 + bit) {
                if bit < self.count {
                    self.set(bit);
                }
            }
        }
    }

    /// How many are set.
    pub fn set_bits(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        self.words.iter().map(ones).sum()
    }

    fn word(&self, bit: u64) -> &AtomicU64 {
        &self.words[(bit / 64) as usize]
    }
}

fn mask(bit: u64) -> u64 {
    1 << (bit % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_file() {
        let bits = Bits::new(70);
        bits.add(0, &[0b1000_0001]);
        bits.add(8, &[0xff]);
        assert_eq!(bits.set_bits(), 8);
        for bit in 0..72 {
            let set = matches!(bit, 0 | 7 | 64..=69);
            assert_eq!(bits.has(bit), set, "{bit}");
        }
        bits.clear(65);
        bits.set(1);
        assert!(!bits.has(65) && bits.has(1) && bits.has_all(0, 2) && !bits.has_all(0, 3));
        assert_eq!(Bits::bytes(70), 9);
    }
}
