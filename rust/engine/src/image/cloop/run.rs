//! Reads of whole blocks, straight into the reader's buffer.
//!
//! A block that is read whole for the first time is not kept: such a reader has
//! the bytes, and a copy of a large image would push out what others come back to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::cache::{Loaded, Place};
use crate::Result;

use super::entry::{Data, Entry};
use super::CloopImage;

/// Blocks from which on a request is worth being shared among threads.
const WORTH_SHARING: usize = 4;

impl CloopImage {
    /// Reads the whole blocks from `first` on.
    pub(super) fn read_run(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let _busy = self.workers.enter();
        let block_size = self.block_size() as usize;
        let count = buf.len() / block_size;
        let step = self.follow(first, first + count as u64);
        let helpers = self.workers.spare().saturating_sub(1).min(count / 2);
        let blocks = (first..).zip(buf.chunks_exact_mut(block_size));
        let shared = helpers > 0 && count >= WORTH_SHARING && !step.sequential;
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

    /// Has blocks read by the caller and `helpers` threads, whoever comes first.
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
                let taken = place.lock().expect("no panic while locked").take();
                let Some((block, output)) = taken else { continue };
                if let Err(error) = self.read_whole(block, output, false) {
                    failed.lock().expect("no panic while locked").get_or_insert(error);
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
        match failed.into_inner().expect("no panic while locked") {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A whole block, from the cache or decoded in place. `false`, only with
    /// `expected`: a worker is at it, and will have it in the cache soon.
    fn read_whole(&self, block: u64, output: &mut [u8], expected: bool) -> Result<bool> {
        if self.read_known(block, output)? {
            return Ok(true);
        }
        if let Some(entry) = self.cache.peek(block) {
            if self.take_whole(block, &entry, output) {
                return Ok(true);
            }
        } else if expected && self.cache.in_flight(block) {
            return Ok(false);
        }
        let location = self.location(block);
        if self.history.note(block) {
            // Wanted again: it may be so once more.
            let make = || Ok((Entry::new(self.make_whole(block, location)?), Place::Kept));
            match self.cache.load(block, make)? {
                Loaded::Found(entry) if self.take_whole(block, &entry, output) => return Ok(true),
                Loaded::Found(_) => {}
                Loaded::Made(entry) => {
                    self.counters.misses.fetch_add(1, Ordering::Relaxed);
                    if let Data::Whole(bytes) = &entry.data {
                        output.copy_from_slice(bytes);
                        return Ok(true);
                    }
                }
            }
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        self.load_whole(block, location, output)?;
        Ok(true)
    }

    /// Copies a block out of the cache; `false` when not all of it is there.
    fn take_whole(&self, block: u64, entry: &Arc<Entry>, output: &mut [u8]) -> bool {
        let Data::Whole(bytes) = &entry.data else { return false };
        // The reader's step is told for the run as a whole.
        let first = entry.first_use();
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        output.copy_from_slice(bytes);
        match entry.passing() {
            true => self.cache.remove(block, entry),
            // Who it was read ahead for is no second reader.
            false if !first => self.cache.touch(block, entry),
            false => {}
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
