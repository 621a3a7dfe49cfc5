//! Which blocks are zeros, from the index and from compressed bytes alone.

use std::sync::Arc;

use crate::codec::Codec;
use crate::format::cloop::BlockLocation;

use super::known::{Known, KnownBlocks};

/// Compressed bytes that are read at once to look at several blocks.
const WINDOW: u64 = 256 << 10;

/// A walk over blocks, in order, that tells of each whether it is zeros.
pub(crate) struct ZeroFinder<'a> {
    blocks: &'a KnownBlocks,
    /// The block at which the walk ends.
    end: u64,
    /// Where in the file `bytes` begin.
    offset: u64,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    /// The stream of zeros that was met last.
    zeros: Option<(Codec, Arc<[u8]>)>,
}

impl<'a> ZeroFinder<'a> {
    /// For blocks below `end`.
    pub(crate) fn new(blocks: &'a KnownBlocks, end: u64) -> Self {
        let (bytes, scratch) = (Vec::new(), Vec::new());
        ZeroFinder { blocks, end, offset: 0, bytes, scratch, zeros: None }
    }

    /// Whether a block is zeros. A block that cannot be read counts as data: a read tells
    /// why.
    pub(crate) fn is_zero(&mut self, block: u64) -> bool {
        let location = self.blocks.decoder().location(block);
        if location.length == 0 {
            return true;
        }
        match self.blocks.state(block) {
            Known::Zero => return true,
            Known::Data | Known::Damaged => return false,
            Known::Nothing => {}
        }
        if !self.blocks.may_be_zeros(location) || !self.bring(block, location) {
            return false;
        }
        let start = (location.offset - self.offset) as usize;
        let stream = &self.bytes[start..start + location.length as usize];
        // Zeros follow zeros: most often this is the stream that was met last.
        if let Some((codec, zeros)) = &self.zeros {
            if *codec == location.codec && **zeros == *stream {
                self.blocks.note(block, Known::Zero);
                return true;
            }
        }
        let known = self.blocks.look_at(block, stream, &mut self.scratch);
        if known == Known::Zero {
            let zeros = self.blocks.known_zeros(block, stream);
            self.zeros = zeros.map(|zeros| (location.codec, zeros)).or(self.zeros.take());
        }
        known == Known::Zero
    }

    /// Has the compressed bytes of a block in `bytes`, read together with those of the
    /// candidates that follow it in the file.
    fn bring(&mut self, block: u64, location: BlockLocation) -> bool {
        let held = self.offset..self.offset + self.bytes.len() as u64;
        if location.offset >= held.start && location.end() <= held.end {
            return true;
        }
        let decoder = self.blocks.decoder();
        let mut end = location.end();
        for next in block + 1..self.end {
            let next = decoder.location(next);
            let adjoins = next.offset == end && next.end() - location.offset <= WINDOW;
            if !adjoins || !self.blocks.may_be_zeros(next) {
                break;
            }
            end = next.end();
        }
        self.offset = location.offset;
        self.bytes.resize((end - location.offset) as usize, 0);
        let read = decoder.read(&mut self.bytes, self.offset).is_ok();
        if !read {
            self.bytes.clear();
        }
        read
    }
}
