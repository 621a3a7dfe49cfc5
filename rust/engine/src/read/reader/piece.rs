//! Reads of less than a block.

use std::sync::atomic::Ordering;

use crate::read::cache::Loaded;
use crate::read::entry::{Data, Entry};
use crate::read::workers::Busy;
use crate::Result;

use super::BlockReader;

impl BlockReader {
    /// A piece that lies in one block and is not all of it.
    pub(super) fn read_piece(&self, block: u64, within: usize, piece: &mut [u8]) -> Result<()> {
        if self.blocks.read(block, piece)? {
            return Ok(());
        }
        let end = within + piece.len();
        let Some(entry) = self.cache.peek(block) else {
            return self.read_missing(block, within, piece);
        };
        let goes_on = entry.continues(within, end, self.block_size());
        if !goes_on {
            self.cache.touch(block, &entry);
        }
        self.serve_found(block, &entry, within, piece, None)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        if entry.used_up(self.block_size()) {
            self.drop_used(block, &entry);
        }
        Ok(())
    }

    fn read_missing(&self, block: u64, within: usize, piece: &mut [u8]) -> Result<()> {
        let busy = self.workers.enter();
        let end = within + piece.len();
        match self.cache.load(block, || self.load(block, end))? {
            Loaded::Made(entry) => {
                entry.continues(within, end, self.block_size());
                self.serve_made(block, &entry, within, piece)?;
                self.misses.fetch_add(1, Ordering::Relaxed);
            }
            Loaded::Found(entry) => {
                entry.continues(within, end, self.block_size());
                self.serve_found(block, &entry, within, piece, Some(&busy))?;
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Copies a piece out of an entry that was made for it just now.
    fn serve_made(&self, block: u64, entry: &Entry, within: usize, piece: &mut [u8]) -> Result<()> {
        let end = within + piece.len();
        self.note_first_use(block, entry);
        match &entry.data {
            Data::Whole(bytes) => piece.copy_from_slice(&bytes[within..end]),
            Data::Growing(growing) => {
                if end > growing.available() {
                    self.grow(block, growing, end)?;
                }
                growing.copy(within, piece);
            }
        }
        Ok(())
    }

    /// Copies a piece out of an entry, of which more is decoded if need be. `busy`: the caller is
    /// counted as decoding.
    fn serve_found(
        &self,
        block: u64,
        entry: &Entry,
        within: usize,
        piece: &mut [u8],
        busy: Option<&Busy<'_>>,
    ) -> Result<()> {
        let end = within + piece.len();
        self.note_first_use(block, entry);
        match &entry.data {
            Data::Whole(bytes) => piece.copy_from_slice(&bytes[within..end]),
            Data::Growing(growing) => {
                let available = growing.available();
                if end > available || !self.may_stay_unchecked(block) {
                    let _busy = busy.is_none().then(|| self.workers.enter());
                    // A block that is wanted a second time will be wanted a third time:
                    // decode more of it.
                    let target = end.max(2 * available).min(self.block_size());
                    self.grow(block, growing, target)?;
                }
                growing.copy(within, piece);
            }
        }
        Ok(())
    }

    /// The reader has come for which the block was read ahead: send workers further.
    fn note_first_use(&self, block: u64, entry: &Entry) {
        if entry.first_use() {
            let step = self.readahead.follow(block, block + 1);
            self.look_around(block, step);
        }
    }
}
