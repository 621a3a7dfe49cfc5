//! Decoding blocks for the cache.

use std::sync::atomic::Ordering;

use crate::codec::Codec;
use crate::format::cloop::BlockLocation;
use crate::read::cache::Admission;
use crate::read::checker::CheckBlock;
use crate::read::entry::{Data, Entry};
use crate::read::growing::Growing;
use crate::read::known::Known;
use crate::read::readahead::LoadAhead;
use crate::{Error, Result};

use super::BlockReader;

/// Blocks up to this size, in bytes, are decoded in part without keeping the inflater's
/// state. Measured with 64 KiB blocks: going on from a kept state saves no more time than
/// inflating the whole block with libdeflate, which is faster, and the state takes as much
/// of the cache as the block.
const LARGEST_WITHOUT_STATE: usize = 128 << 10;

/// The part of a block up to which inflating it is quicker than inflating all of it.
/// Measured: libdeflate does a whole block in the time in which zlib-ng, the only one that
/// can stop, does 0.65 (64 KiB) to 0.8 (1 MiB) of it.
const WORTHWHILE: (usize, usize) = (5, 8);

/// A block that is decoded in part is kept up to a multiple of this many bytes.
const PREFIX_STEP: usize = 4096;

/// How much of a block to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// At least the beginning up to here.
    UpTo(usize),
}

impl BlockReader {
    /// Decodes a block, or the beginning of it, for the cache.
    pub(super) fn load(&self, block: u64, part: Part) -> Result<(Entry, Admission)> {
        // The caller may have waited while another one found the block damaged.
        self.blocks.refuse_damaged(block)?;
        let location = self.blocks.decoder().location(block);
        let step = self.readahead.follow(block, block + 1);
        let again = self.history.note(block);
        let admission = if again || step.sequential { Admission::Kept } else { Admission::Once };
        let checked = self.blocks.state(block) == Known::Data;
        let a_part = |end| !step.sequential && self.worth_a_part(location, end, again, checked);
        let entry = match part {
            Part::UpTo(end) if a_part(end) => {
                let data = self.load_part(block, location, end)?;
                if self.blocks.state(block) == Known::Nothing {
                    self.check_later(block);
                }
                Entry::new(data)
            }
            _ => Entry::in_order(self.load_whole(block)?, false, step.sequential && !again),
        };
        Ok((entry, admission))
    }

    /// Whether to decode only the part that is wanted now, given whether the block was
    /// wanted before, and whether it was checked.
    fn worth_a_part(
        &self,
        location: BlockLocation,
        end: usize,
        again: bool,
        checked: bool,
    ) -> bool {
        let block_size = self.block_size();
        if again && block_size <= LARGEST_WITHOUT_STATE {
            return false;
        }
        let (parts, whole) = WORTHWHILE;
        !self.strict
            && location.codec == Codec::Zlib
            // What may have changed where it is kept is checked whole, once.
            && (checked || !self.blocks.decoder().may_rot())
            // A small stream is mostly long runs, and takes almost no time to decode.
            && !self.blocks.may_be_zeros(location)
            && end.next_multiple_of(PREFIX_STEP) * whole <= block_size * parts
    }

    fn load_part(&self, block: u64, location: BlockLocation, end: usize) -> Result<Data> {
        let block_size = self.block_size();
        if block_size > LARGEST_WITHOUT_STATE {
            let may_be_short = self.blocks.decoder().may_be_short(block);
            let growing = Box::new(Growing::new(block_size, location.length, may_be_short));
            self.grow(block, &growing, end)?;
            return Ok(Data::Growing(growing));
        }
        let mut bytes = self.buffers.take();
        let length = end.next_multiple_of(PREFIX_STEP).min(block_size);
        self.forget_failed(block, self.blocks.load_prefix(block, &mut bytes[..length]))?;
        Ok(Data::Prefix(bytes, length))
    }

    /// Has at least `end` bytes of a block inflated.
    pub(super) fn grow(&self, block: u64, growing: &Growing, end: usize) -> Result<()> {
        self.forget_failed(block, self.blocks.grow(block, growing, end))
    }

    /// Decodes a whole block for the cache.
    pub(super) fn load_whole(&self, block: u64) -> Result<Data> {
        let mut bytes = self.buffers.take();
        self.load_into(block, &mut bytes)?;
        Ok(Data::Whole(bytes))
    }

    /// Decodes and checks a whole block.
    pub(super) fn load_into(&self, block: u64, output: &mut [u8]) -> Result<()> {
        self.forget_failed(block, self.blocks.load(block, output))
    }

    /// Nothing of a damaged block stays in the cache.
    fn forget_failed(&self, block: u64, result: Result<()>) -> Result<()> {
        if result.is_err() && self.blocks.state(block) == Known::Damaged {
            self.forget(block);
        }
        result
    }

    /// Whether a block that was decoded in part may be read again as it is: it was checked
    /// before, or is about to be.
    pub(super) fn may_stay_unchecked(&self, block: u64) -> bool {
        self.blocks.state(block) == Known::Data || self.checker.running()
    }

    /// Has a block checked later; not before threads may be used.
    fn check_later(&self, block: u64) {
        if self.workers.started() {
            if let Some(pushed_out) = self.checker.check_later(block) {
                // Its next reader finds out.
                self.forget(pushed_out);
            }
        }
    }
}

impl LoadAhead for BlockReader {
    fn load_ahead(&self, block: u64) {
        let known = self.blocks.state(block);
        let stored = self.blocks.decoder().location(block).length > 0;
        if !stored || matches!(known, Known::Zero | Known::Damaged) {
            return;
        }
        // A worker that waited for what is far away would be missing to readers of what is here.
        if !self.blocks.decoder().is_near(block, block + 1) {
            self.blocks.decoder().expect(block, block + 1);
            return;
        }
        let _busy = self.workers.enter();
        // A reader will find out what cannot be read.
        let _ = self.cache.try_load(block, || {
            self.misses.fetch_add(1, Ordering::Relaxed);
            let data = self.load_whole(block)?;
            let entry = Entry::in_order(data, true, !self.history.note(block));
            Ok::<_, Error>((entry, Admission::Kept))
        });
    }
}

impl CheckBlock for BlockReader {
    /// Decodes a block and keeps nothing of it but whether it is right.
    fn check_block(&self, block: u64) {
        if self.blocks.state(block) == Known::Nothing {
            let mut output = self.buffers.take();
            if self.load_into(block, &mut output).is_err() {
                // The same when it cannot be read now: its next reader finds out.
                self.forget(block);
            }
        }
    }

    fn idle_since(&self) -> Option<u64> {
        (self.workers.busy() == 0).then(|| self.misses.load(Ordering::Relaxed))
    }
}
