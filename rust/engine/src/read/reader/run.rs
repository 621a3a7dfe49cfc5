//! Reads of whole blocks, straight into the reader's buffer.
//!
//! A block that is read whole for the first time is not kept: its reader has the bytes, and
//! a copy of a large image would push out blocks that other readers come back to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::read::cache::{Admission, Loaded};
use crate::read::entry::{Data, Entry};
use crate::Result;

use super::BlockReader;

/// A request of so many blocks or more is shared among threads.
const WORTH_SHARING: usize = 4;

impl BlockReader {
    /// Reads the whole blocks from `first` on.
    pub(super) fn read_run(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let _busy = self.workers.enter();
        let block_size = self.block_size();
        let count = buf.len() / block_size;
        let step = self.readahead.follow(first, first + count as u64);
        let end = first + count as u64;
        let near = self.blocks.decoder().is_near(first, end);
        if !near {
            self.blocks.decoder().expect(first, end);
        }
        let helpers = self.workers.spare().saturating_sub(1).min(count / 2);
        let blocks = (first..).zip(buf.chunks_exact_mut(block_size));
        let shared = helpers > 0 && count >= WORTH_SHARING && !step.sequential && near;
        match shared.then(|| self.workers.pool()).flatten() {
            Some(pool) => self.share(pool, helpers, blocks.collect()),
            None => {
                let mut late = Vec::new();
                for (block, output) in blocks {
                    if !self.read_whole(block, output, block < step.ahead)? {
                        late.push((block, output));
                    }
                }
                late.into_iter().try_for_each(|(block, output)| self.await_block(block, output))
            }
        }
    }

    /// Has blocks read by the caller and `helpers` threads, each taking the next one.
    fn share(
        &self,
        pool: &rayon_core::ThreadPool,
        helpers: usize,
        blocks: Vec<(u64, &mut [u8])>,
    ) -> Result<()> {
        let blocks: Vec<_> = blocks.into_iter().map(|block| Mutex::new(Some(block))).collect();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            while let Some(place) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let taken = place.lock().take();
                let Some((block, output)) = taken else { continue };
                if let Err(error) = self.read_whole(block, output, false) {
                    failed.lock().get_or_insert(error);
                    next.store(blocks.len(), Ordering::Relaxed);
                }
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| {
                    let _busy = self.workers.enter();
                    work();
                });
            }
            work();
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// A whole block, from the cache or decoded in place. `false`, only with
    /// `expected`: a worker is decoding it, and will have it in the cache soon.
    fn read_whole(&self, block: u64, output: &mut [u8], expected: bool) -> Result<bool> {
        if self.blocks.read(block, output)? {
            return Ok(true);
        }
        if let Some(entry) = self.cache.peek(block) {
            if self.take_whole(block, &entry, output) {
                return Ok(true);
            }
        } else if expected && self.cache.in_flight(block) {
            return Ok(false);
        }
        if self.history.note(block) {
            // Wanted again, and so perhaps a third time.
            let load = || Ok((Entry::new(self.load_whole(block)?), Admission::Kept));
            match self.cache.load(block, load)? {
                Loaded::Found(entry) if self.take_whole(block, &entry, output) => return Ok(true),
                Loaded::Found(_) => {}
                Loaded::Made(entry) => {
                    self.misses.fetch_add(1, Ordering::Relaxed);
                    if let Data::Whole(bytes) = &entry.data {
                        output.copy_from_slice(bytes);
                        return Ok(true);
                    }
                }
            }
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.load_into(block, output)?;
        Ok(true)
    }

    /// Copies a block out of the cache; `false` when not all of it is there.
    fn take_whole(&self, block: u64, entry: &Arc<Entry>, output: &mut [u8]) -> bool {
        let Data::Whole(bytes) = &entry.data else { return false };
        // The reader's step is noted for the run as a whole.
        let first = entry.first_use();
        self.hits.fetch_add(1, Ordering::Relaxed);
        output.copy_from_slice(bytes);
        if entry.passing() {
            self.cache.remove(block, entry);
        } else if !first {
            // The reader for which the block was read ahead does not count as a second one.
            self.cache.touch(block, entry);
        }
        true
    }

    /// A block that a worker is decoding.
    fn await_block(&self, block: u64, output: &mut [u8]) -> Result<()> {
        if let Ok(Loaded::Found(entry)) = self.cache.load(block, || Err(())) {
            if self.take_whole(block, &entry, output) {
                return Ok(());
            }
        }
        self.read_whole(block, output, false).map(|_| ())
    }
}
