//! Decoding blocks for the cache.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::codec::Codec;
use crate::format::cloop::BlockLocation;
use crate::read::cache::Admission;
use crate::read::checker::CheckBlock;
use crate::read::decoder::Wanted;
use crate::read::entry::{Data, Entry};
use crate::read::growing::Growing;
use crate::read::known::Known;
use crate::read::readahead::{LoadAhead, Step};
use crate::Result;

use super::BlockReader;

impl BlockReader {
    /// Decodes a block, or the beginning of it up to `end` at least, for the cache.
    pub(super) fn load(&self, block: u64, end: usize) -> Result<(Entry, Admission)> {
        // The caller may have waited while another one found the block damaged.
        self.blocks.refuse_damaged(block)?;
        let location = self.blocks.decoder().location(block);
        let step = self.readahead.follow(block, block + 1);
        let jumps_about = self.look_around(block, step);
        let again = self.history.note(block);
        let again = again || self.shared;
        let admission = if again || step.sequential { Admission::Kept } else { Admission::Once };
        let checked = self.blocks.state(block) == Known::Data;
        // A block that was read before and is not checked yet was perhaps pushed out of the queue
        // of those to be checked.
        let owed = again && !checked;
        let ordered = step.sequential || jumps_about;
        let entry = if !ordered && !owed && self.worth_a_part(location, checked) {
            let data = self.load_part(block, location, end)?;
            if self.blocks.state(block) == Known::Nothing {
                self.check_later(block);
            }
            Entry::new(data)
        } else {
            Entry::in_order(self.load_whole(block)?, false, step.sequential && !again)
        };
        Ok((entry, admission))
    }

    /// Notes that a block is wanted, and has a worker bring in those behind it where its
    /// neighbours were wanted lately. Returns whether they were: then all of it will be wanted,
    /// in several reads, and is decoded once.
    pub(super) fn look_around(&self, block: u64, step: Step) -> bool {
        let soon = self.neighbours.note(block);
        let end = soon.end.min(self.blocks.decoder().block_count());
        // Of a reader in order blocks are brought in already.
        if step.sequential || soon.start >= end || self.shared {
            return false;
        }
        if !self.blocks.decoder().is_near(soon.start, end) {
            return false;
        }
        let missing = |block| {
            self.has_data(block)
                && !self.dropped.knows(block)
                && self.cache.peek(block).is_none()
                && !self.cache.in_flight(block)
        };
        // Not for each block: two of them are decoded in less time together.
        if self.workers.spare() > 0 && (soon.start..end).take(2).any(missing) {
            self.readahead.hint(soon.start..end);
        }
        true
    }

    /// Whether to decode only the part that is wanted now, given whether the block was checked
    /// before.
    ///
    /// There is no part from which on all of it is decoded at once, and no size up to which that
    /// is done for the second read. Measured with blocks of 64 KiB and reads of 4 KiB in random
    /// places: with such rules a read took 17 to 23 % more processor time with one read for each
    /// block, 17 to 19 % with two, 3 to 12 % with four, and as much with eight.
    fn worth_a_part(&self, location: BlockLocation, checked: bool) -> bool {
        !self.strict
            && !self.shared
            && location.codec == Codec::Zlib
            // What may have changed where it is kept is checked whole, once.
            && (checked || !self.blocks.decoder().may_rot())
            // A small stream is mostly long runs, and takes almost no time to decode.
            && !self.blocks.may_be_zeros(location)
    }

    fn load_part(&self, block: u64, location: BlockLocation, end: usize) -> Result<Data> {
        let may_be_short = self.blocks.decoder().may_be_short(block);
        let (buffers, block_size) = (Arc::clone(&self.buffers), self.block_size());
        let growing = Growing::new(buffers, block_size, location.length, may_be_short);
        self.grow(block, &growing, end)?;
        Ok(Data::Growing(Box::new(growing)))
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

    /// Brings a block that will be wanted into the cache, to stay, unless it is there or another
    /// reader brings it. Of one that cannot be had a reader will find out.
    pub(crate) fn bring_in(&self, block: u64) {
        if !self.has_data(block) || self.cache.peek(block).is_some() {
            return;
        }
        let Some(turn) = self.cache.try_turn(block) else { return };
        let _busy = self.workers.enter();
        self.misses.fetch_add(1, Ordering::Relaxed);
        if let Ok(data) = self.load_whole(block) {
            turn.fill(Entry::new(data), Admission::Kept);
        }
    }

    /// Whether there is something to decode: the block is stored, and not known to be zeros or
    /// damaged.
    fn has_data(&self, block: u64) -> bool {
        let stored = self.blocks.decoder().location(block).length > 0;
        stored && !matches!(self.blocks.state(block), Known::Zero | Known::Damaged)
    }

    /// Decodes and checks a whole block.
    pub(super) fn load_into(&self, block: u64, output: &mut [u8]) -> Result<()> {
        self.load_all(&mut [Wanted { block, output }]).pop().expect("one for each block")
    }

    /// Decodes and checks whole blocks. Returns the result of each.
    pub(super) fn load_all(&self, wanted: &mut [Wanted<'_>]) -> Vec<Result<()>> {
        let results = self.blocks.load(wanted);
        let pairs = wanted.iter().zip(results);
        pairs.map(|(wanted, result)| self.forget_failed(wanted.block, result)).collect()
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
    fn load_ahead(&self, blocks: Range<u64>, asked: bool) {
        // A worker that waited for what is far away would be missing to readers of what is here.
        if !self.blocks.decoder().is_near(blocks.start, blocks.end) {
            self.blocks.decoder().expect(blocks.start, blocks.end);
            return;
        }
        let _busy = self.workers.enter();
        let turns = blocks
            .filter(|block| self.has_data(*block) && (asked || !self.dropped.knows(*block)))
            .filter_map(|block| self.cache.try_turn(block));
        let turns: Vec<_> = turns.collect();
        self.misses.fetch_add(turns.len() as u64, Ordering::Relaxed);
        let mut buffers: Vec<_> = turns.iter().map(|_| self.buffers.take()).collect();
        let rooms = turns.iter().zip(&mut buffers);
        let rooms = rooms.map(|(turn, output)| Wanted { block: turn.block(), output });
        let results = self.load_all(&mut rooms.collect::<Vec<_>>());
        for ((turn, buffer), result) in turns.into_iter().zip(buffers).zip(results) {
            // A reader will find out what cannot be read.
            if result.is_ok() {
                let passing = !self.history.note(turn.block()) && !self.shared;
                let entry = Entry::in_order(Data::Whole(buffer), true, passing);
                turn.fill(entry, Admission::Kept);
            }
        }
    }
}

impl CheckBlock for BlockReader {
    /// Decodes blocks and keeps nothing of them but whether they are right.
    fn check_blocks(&self, blocks: &[u64]) {
        let unknown = |block: &&u64| self.blocks.state(**block) == Known::Nothing;
        let blocks: Vec<_> = blocks.iter().filter(unknown).collect();
        let mut buffers: Vec<_> = blocks.iter().map(|_| self.buffers.take()).collect();
        let rooms = blocks.iter().zip(&mut buffers);
        let rooms = rooms.map(|(block, output)| Wanted { block: **block, output });
        let results = self.load_all(&mut rooms.collect::<Vec<_>>());
        for (block, result) in blocks.into_iter().zip(results) {
            if result.is_err() {
                // The same when it cannot be read now: its next reader finds out.
                self.forget(*block);
            }
        }
    }

    fn idle_since(&self) -> Option<u64> {
        (self.workers.busy() == 0).then(|| self.misses.load(Ordering::Relaxed))
    }
}
