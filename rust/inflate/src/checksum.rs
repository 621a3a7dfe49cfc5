//! Adler-32, computed along the way.

use crate::Container;

/// Bytes after which the sum is taken: they are still in the second level's cache.
const PIECE: usize = 128 << 10;

/// The Adler-32 of the beginning of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adler {
    sum: u32,
    /// Bytes that are in it.
    length: usize,
}

impl Adler {
    pub(crate) fn new() -> Self {
        Adler { sum: 1, length: 0 }
    }

    pub(crate) fn sum(self) -> u32 {
        self.sum
    }

    /// Adds what is new in `output`, which begins where it began before.
    pub(crate) fn add(&mut self, output: &[u8]) {
        let new = output.get(self.length..).unwrap_or_default();
        let mut adler = simd_adler32::Adler32::from_checksum(self.sum);
        adler.write(new);
        *self = Adler { sum: adler.finish(), length: output.len() };
    }

    /// Adds what is new, if the container needs it and it is much. A stream that is stopped early
    /// never needs its sum.
    pub(crate) fn add_much(&mut self, container: Container, output: &[u8]) {
        if container == Container::Zlib && output.len() - self.length >= PIECE {
            self.add(output);
        }
    }
}
