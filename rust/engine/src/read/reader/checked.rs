//! Reads of bytes that are to be kept: the whole block is checked first.
//!
//! An ordinary read may be served from the beginning of a block that is checked later (see
//! `checker.rs`). A copy that stays, in a cowfile for example, would carry damage to a
//! place where no checksum finds it any more.

use std::sync::atomic::Ordering;

use crate::read::cache::{Admission, Loaded};
use crate::read::entry::Entry;
use crate::Result;

use super::BlockReader;

impl BlockReader {
    /// A piece of one block that was decoded whole and found right.
    pub(super) fn read_checked_piece(
        &self,
        block: u64,
        within: usize,
        piece: &mut [u8],
    ) -> Result<()> {
        if self.blocks.read(block, piece)? {
            return Ok(());
        }
        let _busy = self.workers.enter();
        let load = || {
            // The caller may have waited while another one found the block damaged.
            self.blocks.refuse_damaged(block)?;
            let again = self.history.note(block) || self.shared;
            let admission = if again { Admission::Kept } else { Admission::Once };
            Ok((Entry::new(self.load_whole(block)?), admission))
        };
        let loaded = match self.cache.peek(block) {
            Some(entry) if entry.copy_checked(within, piece) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(entry) => self.cache.load_instead(block, &entry, load)?,
            None => self.cache.load(block, load)?,
        };
        let (entry, counter) = match loaded {
            Loaded::Found(entry) => (entry, &self.hits),
            Loaded::Made(entry) => (entry, &self.misses),
        };
        if entry.copy_checked(within, piece) {
            counter.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // Another reader has made a part of it just now.
        self.misses.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.buffers.take();
        self.load_into(block, &mut bytes)?;
        piece.copy_from_slice(&bytes[within..within + piece.len()]);
        Ok(())
    }
}
