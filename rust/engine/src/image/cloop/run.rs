//! Reads of whole blocks, straight into the reader's buffer.
//!
//! What is read in whole blocks is not kept: such a reader has the bytes, and
//! a copy of a large image would push out what small reads come back to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::cache::Loaded;
use crate::Result;

use super::entry::Data;
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
        match self.workers.pool() {
            Some(pool) if helpers > 0 && count >= WORTH_SHARING && !step.sequential => {
                self.share(pool, helpers, blocks.collect())
            }
            _ => {
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
            if let Data::Whole(bytes) = &entry.data {
                // The reader's step is told for the run as a whole.
                entry.first_use();
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                output.copy_from_slice(bytes);
                return Ok(true);
            }
        } else if expected && self.cache.in_flight(block) {
            return Ok(false);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        self.load_whole(block, self.location(block), output)?;
        Ok(true)
    }

    /// A block that a worker is decoding.
    fn await_block(&self, block: u64, output: &mut [u8]) -> Result<()> {
        let absent = self.cache.load(block, || Err(()));
        if let Ok(Loaded::Found(entry)) = absent {
            if let Data::Whole(bytes) = &entry.data {
                entry.first_use();
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                output.copy_from_slice(bytes);
                return Ok(());
            }
        }
        self.read_whole(block, output, false).map(|_| ())
    }
}
