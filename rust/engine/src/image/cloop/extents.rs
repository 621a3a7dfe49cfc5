//! Which ranges are zeros, from the index and from compressed bytes alone.

use std::ops::ControlFlow;

use crate::layer::ExtentSink;
use crate::{Extent, ExtentKind, Result};

use super::zeros::{Known, ZeroStreams};
use super::CloopImage;

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
        let mut window = Window::default();
        let mut merged: Option<Extent> = None;
        let mut at = offset;
        while at < end {
            let block = at / block_size;
            let to = ((block + 1) * block_size).min(end);
            let kind = match self.is_zero_block(block, end.div_ceil(block_size), &mut window) {
                true => ExtentKind::Zero,
                false => ExtentKind::Data,
            };
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

    /// Whether a block is zeros. What cannot be read is data: a read tells why.
    fn is_zero_block(&self, block: u64, blocks_end: u64, window: &mut Window) -> bool {
        let location = self.location(block);
        match self.states.get(block) {
            _ if location.length == 0 => return true,
            Known::Zero => return true,
            Known::Data | Known::Damaged => return false,
            Known::Nothing => {}
        }
        if !ZeroStreams::candidate(location.codec, location.length, self.block_size()) {
            return false;
        }
        let Some(stream) = window.get(self, block, blocks_end) else { return false };
        let known = self.look_at_stream(block, stream);
        if known != Known::Nothing {
            self.states.set(block, known);
        }
        known == Known::Zero
    }

    /// Compares a stream with known ones, or decodes it and learns it.
    fn look_at_stream(&self, block: u64, stream: &[u8]) -> Known {
        let location = self.location(block);
        if self.zero_streams.contains(location.codec, stream) {
            return Known::Zero;
        }
        let mut output = self.buffers.take();
        match self.decode(block, location, stream, &mut output) {
            Ok(()) => self.look_at_output(block, location, stream, &output),
            Err(_) => Known::Nothing,
        }
    }
}

/// Compressed bytes of the file from some offset on.
#[derive(Default)]
struct Window {
    offset: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The compressed bytes of a block, read with those of the blocks after it.
    fn get(&mut self, image: &CloopImage, block: u64, blocks_end: u64) -> Option<&[u8]> {
        let location = image.location(block);
        let held = self.offset..self.offset + self.bytes.len() as u64;
        if location.offset < held.start || location.end() > held.end {
            let mut to = location.end();
            for next in block + 1..blocks_end {
                let next = image.location(next);
                if next.offset != to || next.end() - location.offset > WINDOW {
                    break;
                }
                let small = ZeroStreams::candidate(next.codec, next.length, image.block_size());
                if !small {
                    break;
                }
                to = next.end();
            }
            self.offset = location.offset;
            self.bytes.resize((to - location.offset) as usize, 0);
            if image.read_storage(&mut self.bytes, self.offset).is_err() {
                self.bytes.clear();
                return None;
            }
        }
        let start = (location.offset - self.offset) as usize;
        self.bytes.get(start..start + location.length as usize)
    }
}
