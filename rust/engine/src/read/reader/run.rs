//! Reads of whole blocks, straight into the reader's buffer.
//!
//! A block that is read whole for the first time is not kept: its reader has the bytes, and
//! a copy of a large image would push out blocks that other readers come back to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::read::cache::{Admission, Loaded};
use crate::read::decoder::Wanted;
use crate::read::entry::{Data, Entry};
use crate::read::shares::{as_reader, reader};
use crate::Result;

use super::BlockReader;

/// A request of so many blocks or more is shared among threads.
const WORTH_SHARING: usize = 4;

/// Blocks that are decoded together at most, to have others not wait too long for one of them.
const MOST_TOGETHER: usize = 8;

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
        let mut blocks: Vec<_> = blocks.map(|(block, output)| Wanted { block, output }).collect();
        let shared = helpers > 0 && count >= WORTH_SHARING && !step.sequential && near;
        match shared.then(|| self.workers.pool()).flatten() {
            Some(pool) => self.share(pool, helpers, blocks),
            None => {
                let mut late = Vec::new();
                while !blocks.is_empty() {
                    let after = blocks.split_off(blocks.len().min(MOST_TOGETHER));
                    late.extend(self.read_together(blocks, step.ahead)?);
                    blocks = after;
                }
                late.into_iter().try_for_each(|wanted| self.await_block(wanted))
            }
        }
    }

    /// Has blocks read by the caller and `helpers` threads, each taking the next ones.
    fn share(
        &self,
        pool: &rayon_core::ThreadPool,
        helpers: usize,
        mut blocks: Vec<Wanted<'_>>,
    ) -> Result<()> {
        // Two turns a thread, so that none waits long for the others.
        let together = (blocks.len() / (2 * (helpers + 1))).clamp(2, MOST_TOGETHER);
        let mut groups = Vec::new();
        while !blocks.is_empty() {
            let after = blocks.split_off(blocks.len().min(together));
            groups.push(Mutex::new(blocks));
            blocks = after;
        }
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                let group = std::mem::take(&mut *group.lock());
                let read = self.read_together(group, 0).and_then(|late| {
                    late.into_iter().try_for_each(|wanted| self.await_block(wanted))
                });
                if let Err(error) = read {
                    failed.lock().get_or_insert(error);
                    next.store(groups.len(), Ordering::Relaxed);
                }
            }
        };
        let reader = reader();
        let help = || {
            let _busy = self.workers.enter();
            as_reader(reader, work);
        };
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| help());
            }
            work();
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// Whole blocks, from the cache or decoded in place. Returns those that another thread is
    /// decoding, and will have in the cache soon: blocks below `ahead` that a worker decodes, and
    /// blocks that were wanted before.
    fn read_together<'a>(&self, blocks: Vec<Wanted<'a>>, ahead: u64) -> Result<Vec<Wanted<'a>>> {
        let (mut late, mut missing, mut turns) = (Vec::new(), Vec::new(), Vec::new());
        let mut refused = Ok(());
        for wanted in blocks {
            let block = wanted.block;
            match self.blocks.read(block, wanted.output) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    // Of several damaged blocks the first one is told.
                    refused = Err(error);
                    break;
                }
            }
            if let Some(entry) = self.cache.peek(block) {
                if !self.take_whole(block, &entry, wanted.output) {
                    self.history.note(block);
                    missing.push(wanted);
                }
                continue;
            }
            if block < ahead && self.cache.in_flight(block) {
                late.push(wanted);
            } else if !self.history.note(block) && !self.shared {
                self.dropped.note(block);
                missing.push(wanted);
            } else if let Some(turn) = self.cache.try_turn(block) {
                // Wanted again, and so perhaps a third time.
                turns.push((turn, missing.len()));
                missing.push(wanted);
            } else {
                late.push(wanted);
            }
        }
        self.misses.fetch_add(missing.len() as u64, Ordering::Relaxed);
        self.load_all(&mut missing).into_iter().chain([refused]).collect::<Result<()>>()?;
        for (turn, at) in turns {
            let mut bytes = self.buffers.take();
            bytes.copy_from_slice(missing[at].output);
            turn.fill(Entry::new(Data::Whole(bytes)), Admission::Kept);
        }
        Ok(late)
    }

    /// Copies a block out of the cache; `false` when not all of it is there.
    fn take_whole(&self, block: u64, entry: &Arc<Entry>, output: &mut [u8]) -> bool {
        if !entry.copy_checked(0, output) {
            return false;
        }
        // The reader's step is noted for the run as a whole.
        let first = entry.first_use();
        self.hits.fetch_add(1, Ordering::Relaxed);
        if entry.passing() {
            self.drop_used(block, entry);
        } else if !first {
            // The reader for which the block was read ahead does not count as a second one.
            self.cache.touch(block, entry);
        }
        true
    }

    /// A block that another thread is decoding.
    fn await_block(&self, wanted: Wanted<'_>) -> Result<()> {
        let Wanted { block, output } = wanted;
        if let Ok(Loaded::Found(entry)) = self.cache.load(block, || Err(())) {
            if self.take_whole(block, &entry, output) {
                return Ok(());
            }
        }
        // It failed there, or has left the cache already.
        if self.blocks.read(block, output)? {
            return Ok(());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.load_into(block, output)
    }
}
