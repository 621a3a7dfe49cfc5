//! Reads of pieces of blocks: from the cache, or through a codec into it.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::cache::{Loaded, Place};
use crate::codec::{zlib, Codec, DecodeError};
use crate::{Error, Result};

use super::entry::{Data, Entry};
use super::growing::{GrowError, Growing};
use super::zeros::{Known, ZeroStreams};
use super::{BlockLocation, CloopImage};

/// Blocks up to this size are decoded in part without keeping the inflate's
/// state, in bytes. Measured with 64 KiB blocks: to go on from a kept state
/// saves no more time than whole-block inflate by libdeflate, which is faster,
/// and the state takes as much of the cache as the block.
const LARGEST_WITHOUT_STATE: usize = 128 << 10;

/// Of what part of a block inflating up to there is quicker than inflating all
/// of it. Measured: libdeflate does a whole block in the time in which zlib-ng,
/// which alone can stop, does 0.65 (64 KiB) to 0.8 (1 MiB) of it.
const WORTHWHILE: (usize, usize) = (5, 8);

/// What is kept of a block that is decoded in part is a multiple of this many bytes.
const PREFIX_STEP: usize = 4096;

/// How much of a block to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// At least the beginning up to here.
    UpTo(usize),
}

impl CloopImage {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let block_size = self.block_size() as usize;
        let first = offset / block_size as u64;
        let within = (offset % block_size as u64) as usize;
        if within + buf.len() < block_size {
            return self.read_piece(first, within, buf);
        }
        let head = (block_size - within) % block_size;
        let (head, rest) = buf.split_at_mut(head);
        let (run, tail) = rest.split_at_mut(rest.len() / block_size * block_size);
        let after_head = first + u64::from(!head.is_empty());
        let after_run = after_head + (run.len() / block_size) as u64;
        if !head.is_empty() {
            self.read_piece(first, within, head)?;
        }
        if !run.is_empty() {
            self.read_run(after_head, run)?;
        }
        if !tail.is_empty() {
            self.read_piece(after_run, 0, tail)?;
        }
        Ok(())
    }

    /// What is known without decoding: `true` when `piece` was filled with zeros.
    pub(super) fn read_known(&self, block: u64, piece: &mut [u8]) -> Result<bool> {
        let location = self.location(block);
        let known = self.states.get(block);
        if known == Known::Damaged {
            return Err(self.damaged(block, location));
        }
        let zero = location.length == 0 || known == Known::Zero;
        if zero {
            piece.fill(0);
        }
        Ok(zero)
    }

    /// A piece that lies in one block and is not all of it.
    fn read_piece(&self, block: u64, within: usize, piece: &mut [u8]) -> Result<()> {
        if self.read_known(block, piece)? {
            return Ok(());
        }
        let end = within + piece.len();
        if let Some(entry) = self.cache.peek(block) {
            let goes_on = entry.continues(within, end);
            if !goes_on && !entry.is_prefix() {
                self.cache.touch(block, &entry);
            }
            if self.serve(block, &entry, within, piece, false)? {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                if goes_on && end == self.block_size() as usize && entry.passing() {
                    self.cache.remove(block, &entry);
                }
                return Ok(());
            }
            self.cache.remove(block, &entry);
            return self.read_missing(block, Extent::Whole, within, piece);
        }
        self.read_missing(block, Extent::UpTo(end), within, piece)
    }

    fn read_missing(
        &self,
        block: u64,
        extent: Extent,
        within: usize,
        piece: &mut [u8],
    ) -> Result<()> {
        let _busy = self.workers.enter();
        let loaded = self.cache.load(block, || self.make(block, extent))?;
        let Some(short) = self.serve_loaded(block, loaded, within, piece)? else { return Ok(()) };
        // Another reader made it just now, and needed less of it.
        let make = || self.make(block, Extent::Whole);
        let loaded = self.cache.load_instead(block, &short, make)?;
        if self.serve_loaded(block, loaded, within, piece)?.is_none() {
            return Ok(());
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let (entry, _) = self.make(block, Extent::Whole)?;
        self.serve(block, &entry, within, piece, true).map(|_| ())
    }

    /// Serves a reader who missed a block; returns the entry when that holds too little.
    fn serve_loaded(
        &self,
        block: u64,
        loaded: Loaded<Entry>,
        within: usize,
        piece: &mut [u8],
    ) -> Result<Option<Arc<Entry>>> {
        let (entry, made, counter) = match loaded {
            Loaded::Made(entry) => (entry, true, &self.counters.misses),
            Loaded::Found(entry) => (entry, false, &self.counters.hits),
        };
        entry.continues(within, within + piece.len());
        if !self.serve(block, &entry, within, piece, made)? {
            return Ok(Some(entry));
        }
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    /// Copies a piece out of an entry; `false`: it holds too little, or what it
    /// holds must be checked first. `made`: the caller has just made it.
    fn serve(
        &self,
        block: u64,
        entry: &Entry,
        within: usize,
        piece: &mut [u8],
        made: bool,
    ) -> Result<bool> {
        let end = within + piece.len();
        if entry.first_use() {
            self.follow(block, block + 1);
        }
        match &entry.data {
            Data::Whole(bytes) => piece.copy_from_slice(&bytes[within..end]),
            Data::Prefix(bytes, length) => {
                if end > *length || !(made || self.may_stay_unchecked(block)) {
                    return Ok(false);
                }
                piece.copy_from_slice(&bytes[within..end]);
            }
            Data::Growing(growing) => {
                let available = growing.available();
                if end > available || !(made || self.may_stay_unchecked(block)) {
                    // What is wanted a second time will be wanted a third time: go further.
                    let target = end.max(2 * available).min(self.block_size() as usize);
                    self.grow(block, growing, target)?;
                }
                growing.copy(within, piece);
            }
        }
        Ok(true)
    }

    /// Whether a block that was decoded in part may be read once more as it is:
    /// it was checked before, or somebody is at it.
    fn may_stay_unchecked(&self, block: u64) -> bool {
        self.states.get(block) == Known::Data || self.unchecked.running()
    }

    /// Decodes a block, or the beginning of it, for the cache.
    fn make(&self, block: u64, extent: Extent) -> Result<(Entry, Place)> {
        let location = self.location(block);
        // Others may have waited while one found that out.
        if self.states.get(block) == Known::Damaged {
            return Err(self.damaged(block, location));
        }
        let step = self.follow(block, block + 1);
        let again = self.history.note(block);
        let place = if again || step.sequential { Place::Kept } else { Place::New };
        let entry = match extent {
            Extent::UpTo(end) if !step.sequential && self.worth_a_part(location, end, again) => {
                let data = self.make_part(block, location, end)?;
                if self.states.get(block) == Known::Nothing {
                    self.check_later(block);
                }
                Entry::new(data)
            }
            _ => {
                let data = self.make_whole(block, location)?;
                Entry::in_order(data, false, step.sequential && !again)
            }
        };
        Ok((entry, place))
    }

    /// Whether to decode only what is wanted now of a block that was wanted before, or was not.
    fn worth_a_part(&self, location: BlockLocation, end: usize, again: bool) -> bool {
        let block_size = self.block_size() as usize;
        if again && block_size <= LARGEST_WITHOUT_STATE {
            return false;
        }
        // A small stream is mostly long runs, and decodes in no time.
        let small = ZeroStreams::candidate(location.codec, location.length, self.block_size());
        let (parts, whole) = WORTHWHILE;
        !self.strict
            && location.codec == Codec::Zlib
            && !small
            && end.next_multiple_of(PREFIX_STEP) * whole <= block_size * parts
    }

    fn make_part(&self, block: u64, location: BlockLocation, end: usize) -> Result<Data> {
        let block_size = self.block_size() as usize;
        if block_size > LARGEST_WITHOUT_STATE {
            let may_be_short = self.last_may_be_short(block);
            let growing = Box::new(Growing::new(block_size, location.length, may_be_short));
            self.grow(block, &growing, end)?;
            return Ok(Data::Growing(growing));
        }
        let mut bytes = self.buffers.take();
        let length = end.next_multiple_of(PREFIX_STEP).min(block_size);
        let prefix = &mut bytes[..length];
        let result = self
            .with_compressed(location, |input| zlib::decode_prefix(input, prefix))
            .map_err(|error| self.unreadable(block, location, error))?
            .map_err(|error| self.mark_damaged(block, location, &error))?;
        match result {
            zlib::Prefix::GoesOn => {}
            // A block may end exactly where the prefix does; zlib-ng uses the room
            // behind what it writes as it likes.
            zlib::Prefix::Ends(end) if self.last_may_be_short(block) => bytes[end..length].fill(0),
            zlib::Prefix::Ends(end) => {
                let error = DecodeError::too_short(end, block_size);
                return Err(self.mark_damaged(block, location, &error));
            }
        }
        Ok(Data::Prefix(bytes, length))
    }

    /// Has at least `end` bytes of a block inflated.
    fn grow(&self, block: u64, growing: &Growing, end: usize) -> Result<()> {
        let _busy = self.workers.enter();
        let location = self.location(block);
        let read = |buf: &mut [u8], at| self.read_storage(buf, location.offset + at);
        match growing.grow(end, read) {
            Ok(true) => {
                self.states.set(block, Known::Data);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(GrowError::Io(error)) => Err(self.unreadable(block, location, error)),
            Err(GrowError::Decode(error)) => Err(self.mark_damaged(block, location, &error)),
        }
    }

    /// Decodes a whole block for the cache.
    pub(super) fn make_whole(&self, block: u64, location: BlockLocation) -> Result<Data> {
        let mut bytes = self.buffers.take();
        self.load_whole(block, location, &mut bytes)?;
        Ok(Data::Whole(bytes))
    }

    /// Decodes a block into the cache for a reader who is expected.
    pub(super) fn load_ahead(&self, block: u64) {
        let location = self.location(block);
        let known = self.states.get(block);
        if location.length == 0 || matches!(known, Known::Zero | Known::Damaged) {
            return;
        }
        let _busy = self.workers.enter();
        // What cannot be read is the reader's to find out.
        let _ = self.cache.try_load(block, || {
            self.counters.misses.fetch_add(1, Ordering::Relaxed);
            let data = self.make_whole(block, location)?;
            let entry = Entry::in_order(data, true, !self.history.note(block));
            Ok::<_, Error>((entry, Place::Kept))
        });
    }
}
