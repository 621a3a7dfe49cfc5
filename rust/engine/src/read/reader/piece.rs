//! Reads of less than a block.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::read::cache::Loaded;
use crate::read::entry::{Data, Entry};
use crate::read::workers::Busy;
use crate::Result;

use super::load::Part;
use super::BlockReader;

impl BlockReader {
    /// A piece that lies in one block and is not all of it.
    pub(super) fn read_piece(&self, block: u64, within: usize, piece: &mut [u8]) -> Result<()> {
        if self.blocks.read(block, piece)? {
            return Ok(());
        }
        let end = within + piece.len();
        let Some(entry) = self.cache.peek(block) else {
            return self.read_missing(block, Part::UpTo(end), within, piece);
        };
        let goes_on = entry.continues(within, end);
        if !goes_on && !entry.is_prefix() {
            self.cache.touch(block, &entry);
        }
        if self.serve_found(block, &entry, within, piece, None)? {
            self.hits.fetch_add(1, Ordering::Relaxed);
            if goes_on && end == self.block_size() && entry.passing() {
                self.cache.remove(block, &entry);
            }
            return Ok(());
        }
        self.cache.remove(block, &entry);
        self.read_missing(block, Part::Whole, within, piece)
    }

    fn read_missing(&self, block: u64, part: Part, within: usize, piece: &mut [u8]) -> Result<()> {
        let busy = self.workers.enter();
        let loaded = self.cache.load(block, || self.load(block, part))?;
        let Some(short) = self.serve_loaded(block, loaded, within, piece, &busy)? else {
            return Ok(());
        };
        // Another reader has made it just now, and needed less of it.
        let load = || self.load(block, Part::Whole);
        let loaded = self.cache.load_instead(block, &short, load)?;
        if self.serve_loaded(block, loaded, within, piece, &busy)?.is_none() {
            return Ok(());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (entry, _) = self.load(block, Part::Whole)?;
        self.serve_made(block, &entry, within, piece)
    }

    /// Serves a reader that missed a block; returns the entry when that holds too little.
    fn serve_loaded(
        &self,
        block: u64,
        loaded: Loaded<Entry>,
        within: usize,
        piece: &mut [u8],
        busy: &Busy<'_>,
    ) -> Result<Option<Arc<Entry>>> {
        let end = within + piece.len();
        match loaded {
            Loaded::Made(entry) => {
                entry.continues(within, end);
                self.serve_made(block, &entry, within, piece)?;
                self.misses.fetch_add(1, Ordering::Relaxed);
            }
            Loaded::Found(entry) => {
                entry.continues(within, end);
                if !self.serve_found(block, &entry, within, piece, Some(busy))? {
                    return Ok(Some(entry));
                }
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(None)
    }

    /// Copies a piece out of an entry that was made for it just now.
    fn serve_made(&self, block: u64, entry: &Entry, within: usize, piece: &mut [u8]) -> Result<()> {
        let end = within + piece.len();
        self.note_first_use(block, entry);
        match &entry.data {
            Data::Whole(bytes) | Data::Prefix(bytes, _) => {
                piece.copy_from_slice(&bytes[within..end]);
            }
            Data::Growing(growing) => {
                if end > growing.available() {
                    self.grow(block, growing, end)?;
                }
                growing.copy(within, piece);
            }
        }
        Ok(())
    }

    /// Copies a piece out of an entry; `false`: it holds too little, or what it
    /// holds must be checked first. `busy`: the caller is counted as decoding.
    fn serve_found(
        &self,
        block: u64,
        entry: &Entry,
        within: usize,
        piece: &mut [u8],
        busy: Option<&Busy<'_>>,
    ) -> Result<bool> {
        let end = within + piece.len();
        self.note_first_use(block, entry);
        match &entry.data {
            Data::Whole(bytes) => piece.copy_from_slice(&bytes[within..end]),
            Data::Prefix(bytes, length) => {
                if end > *length || !self.may_stay_unchecked(block) {
                    return Ok(false);
                }
                piece.copy_from_slice(&bytes[within..end]);
            }
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
        Ok(true)
    }

    /// The reader has come for which the block was read ahead: send workers further.
    fn note_first_use(&self, block: u64, entry: &Entry) {
        if entry.first_use() {
            self.readahead.follow(block, block + 1);
        }
    }
}
