//! Which ranges are zeros, from the index and from compressed bytes alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::codec::Codec;
use crate::layer::ExtentSink;
use crate::{Extent, ExtentKind, Result};

use super::zeros::{Known, ZeroStreams};
use super::{BlockLocation, CloopImage};

/// Compressed bytes that are read together to look at several blocks.
const WINDOW: u64 = 256 << 10;

impl CloopImage {
    pub(super) fn walk_extents(
        &self,
        offset: u64,
        length: u64,
        sink: ExtentSink<'_>,
    ) -> Result<()> {
        let block_size = u64::from(self.block_size());
        let end = offset + length;
        let mut look = Look::new(self, end.div_ceil(block_size));
        let mut merged: Option<Extent> = None;
        let mut at = offset;
        while at < end {
            let block = at / block_size;
            let to = ((block + 1) * block_size).min(end);
            let kind = if look.is_zero(block) { ExtentKind::Zero } else { ExtentKind::Data };
            let piece = Extent { offset: at, length: to - at, kind };
            at = to;
            match &mut merged {
                Some(extent) if extent.kind == kind => extent.length += piece.length,
                _ => {
                    if let Some(extent) = merged.replace(piece) {
                        if let ControlFlow::Break(()) = sink(extent) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        if let Some(extent) = merged {
            let _ = sink(extent);
        }
        Ok(())
    }
}

/// A walk over blocks, and what it has in hand.
pub(super) struct Look<'a> {
    image: &'a CloopImage,
    /// The block at which the walk ends.
    end: u64,
    /// Where in the file `bytes` begin.
    offset: u64,
    bytes: Vec<u8>,
    /// The stream of zeros that was met last.
    zeros: Option<(Codec, Arc<[u8]>)>,
}

impl<'a> Look<'a> {
    pub(super) fn new(image: &'a CloopImage, end: u64) -> Self {
        Look { image, end, offset: 0, bytes: Vec::new(), zeros: None }
    }

    /// Whether a block is zeros. What cannot be read is data: a read tells why.
    pub(super) fn is_zero(&mut self, block: u64) -> bool {
        let location = self.image.location(block);
        if location.length == 0 {
            return true;
        }
        match self.image.states.get(block) {
            Known::Zero => return true,
            Known::Data | Known::Damaged => return false,
            Known::Nothing => {}
        }
        if !self.is_candidate(location) || !self.bring(block, location) {
            return false;
        }
        let start = (location.offset - self.offset) as usize;
        let stream = &self.bytes[start..start + location.length as usize];
        let known = match &self.zeros {
            // Zeros follow zeros: most often this is the stream that was met before.
            Some((codec, zeros)) if *codec == location.codec && **zeros == *stream => Known::Zero,
            _ => match self.image.zero_streams.find(location.codec, stream) {
                Some(found) => {
                    self.zeros = Some((location.codec, found));
                    Known::Zero
                }
                None => self.image.try_stream(block, location, stream),
            },
        };
        if known != Known::Nothing {
            self.image.states.set(block, known);
        }
        known == Known::Zero
    }

    fn is_candidate(&self, location: BlockLocation) -> bool {
        ZeroStreams::candidate(location.codec, location.length, self.image.block_size())
    }

    /// Has the compressed bytes of a block in `bytes`, read with those of the
    /// candidates that follow it in the file.
    fn bring(&mut self, block: u64, location: BlockLocation) -> bool {
        let held = self.offset..self.offset + self.bytes.len() as u64;
        if location.offset >= held.start && location.end() <= held.end {
            return true;
        }
        let mut end = location.end();
        for next in block + 1..self.end {
            let next = self.image.location(next);
            let adjoins = next.offset == end && next.end() - location.offset <= WINDOW;
            if !adjoins || !self.is_candidate(next) {
                break;
            }
            end = next.end();
        }
        self.offset = location.offset;
        self.bytes.resize((end - location.offset) as usize, 0);
        let read = self.image.read_storage(&mut self.bytes, self.offset).is_ok();
        if !read {
            self.bytes.clear();
        }
        read
    }
}

impl CloopImage {
    /// Decodes a stream that is not known, and learns it where zeros come out.
    fn try_stream(&self, block: u64, location: BlockLocation, stream: &[u8]) -> Known {
        let mut output = self.buffers.take();
        match self.decode(block, location, stream, &mut output) {
            Ok(()) => self.look_at_output(block, location, stream, &output),
            Err(_) => Known::Nothing,
        }
    }
}
