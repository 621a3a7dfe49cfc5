//! What was fetched last and is kept nowhere else.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::cache::CHUNK;

/// Bytes that are held at most.
const MOST: usize = 32 << 20;

/// The ranges that were fetched last, whole chunks each.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    ranges: VecDeque<(u64, Bytes)>,
    held: usize,
}

impl Recent {
    /// Takes in the chunks from `first` on; what was fetched long ago goes.
    pub fn push(&mut self, first: u64, bytes: Bytes) {
        self.held += bytes.len();
        self.ranges.push_back((first, bytes));
        while self.held > MOST {
            let Some((_, oldest)) = self.ranges.pop_front() else { return };
            self.held -= oldest.len();
        }
    }

    /// Copies bytes from `offset` on, as far as one range has them; how many.
    pub fn copy(&self, buf: &mut [u8], offset: u64) -> usize {
        let chunk = offset / CHUNK;
        let Some((first, bytes)) = self.find(chunk) else { return 0 };
        let source = bytes.get((offset - first * CHUNK) as usize..).unwrap_or_default();
        let n = source.len().min(buf.len());
        buf[..n].copy_from_slice(&source[..n]);
        n
    }

    pub fn has(&self, chunk: u64) -> bool {
        self.find(chunk).is_some()
    }

    /// Forgets the ranges that any of the chunks `[from, to)` are in; whether there were any.
    pub fn forget(&mut self, from: u64, to: u64) -> bool {
        let before = self.ranges.len();
        self.ranges.retain(|(first, bytes)| *first >= to || end(*first, bytes) <= from);
        self.held = self.ranges.iter().map(|(_, bytes)| bytes.len()).sum();
        self.ranges.len() < before
    }

    fn find(&self, chunk: u64) -> Option<&(u64, Bytes)> {
        let has = |(first, bytes): &&(u64, Bytes)| (*first..end(*first, bytes)).contains(&chunk);
        self.ranges.iter().rev().find(has)
    }
}

fn end(first: u64, bytes: &Bytes) -> u64 {
    first + (bytes.len() as u64).div_ceil(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        const EACH: u64 = (1 << 20) / CHUNK;
        let mut recent = Recent::default();
        for first in 0..40 {
            recent.push(first * EACH, vec![first as u8; 1 << 20].into());
        }
        assert!(!recent.has(7 * EACH) && recent.has(8 * EACH));
        let mut buf = [0; 10];
        assert_eq!(recent.copy(&mut buf, (39 << 20) + 3), 10);
        assert_eq!(buf, [39; 10]);
        assert_eq!(recent.copy(&mut buf, (40 << 20) - 4), 4);
        assert_eq!(recent.copy(&mut buf, 5), 0);
        assert!(recent.forget(39 * EACH + 3, 39 * EACH + 4) && !recent.has(39 * EACH));
        assert!(!recent.forget(39 * EACH, 40 * EACH));
    }
}
