//! Adler-32, computed while inflating.

use crate::Container;

/// Bytes after which the sum is updated: they are still in the second-level cache.
const PIECE: usize = 128 << 10;

/// The Adler-32 of the beginning of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adler {
    sum: u32,
    /// Bytes that it covers.
    length: usize,
}

impl Adler {
    pub(crate) fn new() -> Self {
        Adler { sum: 1, length: 0 }
    }

    pub(crate) fn sum(self) -> u32 {
        self.sum
    }

    /// Adds the new part of `output`, which begins at the same place in each call.
    pub(crate) fn add(&mut self, output: &[u8]) {
        let new = output.get(self.length..).unwrap_or_default();
        let mut adler = simd_adler32::Adler32::from_checksum(self.sum);
        adler.write(new);
        *self = Adler { sum: adler.finish(), length: output.len() };
    }

    /// Adds the new part, if the container needs the sum and the part is large. A stream
    /// that is stopped early never needs its sum.
    pub(crate) fn add_much(&mut self, container: Container, output: &[u8]) {
        if container == Container::Zlib && output.len() - self.length >= PIECE {
            self.add(output);
        }
    }
}
