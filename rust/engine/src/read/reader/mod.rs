//! Reads of an image: from the cache, or through a codec into it or past it.
//!
//! A request is cut into pieces of blocks ([`piece`]) and a run of whole blocks
//! ([`run`]); [`load`] decodes what the cache does not have.

mod checked;
mod load;
mod piece;
mod run;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::{LayerCounters, Result};

use super::cache::BlockCache;
use super::checker::Checker;
use super::decoder::Decoder;
use super::entry::{self, Entry};
use super::history::History;
use super::known::KnownBlocks;
use super::neighbours::Neighbours;
use super::readahead::ReadAhead;
use super::workers::Workers;
use crate::buffers::Buffers;

/// Memory for blocks that are decoded next, in bytes: what a reader keeps of it between blocks.
const SPARE_BYTES: usize = 2 << 20;

/// Blocks that are not decoded ahead soon after readers have had them, about: a few times as many as
/// a reader's longest window. Two readers in one neighbourhood have windows that overlap.
const DROPPED: u64 = 128;

/// How blocks are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderOptions {
    /// Bytes of decompressed blocks to keep at most.
    pub(crate) cache_bytes: u64,
    /// Threads that inflate ahead of readers; 0: one per core.
    pub(crate) threads: usize,
    /// Inflate and check a whole block before any byte of it is returned.
    pub(crate) strict: bool,
    /// What one reader wants, many others will want too.
    pub(crate) shared: bool,
}

/// Reads the blocks of one image, for any number of threads.
#[derive(Debug)]
pub(crate) struct BlockReader {
    blocks: KnownBlocks,
    strict: bool,
    /// Each block is decoded once, whole, and kept as long as there is room.
    shared: bool,
    cache: BlockCache<Entry>,
    history: History,
    /// What readers in order have had, and no one else is expected to want.
    dropped: History,
    buffers: Arc<Buffers>,
    workers: Arc<Workers>,
    readahead: Arc<ReadAhead<BlockReader>>,
    neighbours: Neighbours,
    checker: Arc<Checker<BlockReader>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Fills a piece that lies in one block, from a byte of it on.
type ReadPiece = fn(&BlockReader, u64, usize, &mut [u8]) -> Result<()>;

impl BlockReader {
    pub(crate) fn new(mut decoder: Decoder, options: ReaderOptions) -> Arc<Self> {
        let (block_size, count) = (decoder.block_size(), decoder.block_count());
        // A cache that cannot hold two blocks would decode one again for each small read.
        let heaviest = entry::heaviest(block_size);
        // A cache that is twice as large as the image holds all of it, in any order of
        // reads.
        let most = count.saturating_mul(2 * heaviest);
        let cache_bytes = options.cache_bytes.min(most).max(2 * heaviest);
        let workers = Arc::new(Workers::new(options.threads));
        if options.shared {
            // Twice as many: a thread that is given a place may take a moment to run.
            decoder.share_out(2 * workers.threads());
        }
        Arc::new_cyclic(|me: &Weak<BlockReader>| BlockReader {
            blocks: KnownBlocks::new(decoder),
            strict: options.strict,
            shared: options.shared,
            cache: BlockCache::new(cache_bytes, heaviest),
            history: History::new(cache_bytes / block_size as u64),
            dropped: History::new(DROPPED),
            buffers: Buffers::new(block_size, SPARE_BYTES),
            readahead: ReadAhead::new(count, block_size, cache_bytes, workers.clone(), me.clone()),
            neighbours: Neighbours::new(block_size),
            checker: Checker::new(me.clone()),
            workers,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// The blocks, and what is known of them.
    pub(crate) fn blocks(&self) -> &KnownBlocks {
        &self.blocks
    }

    /// Lets threads be used from now on.
    pub(crate) fn start(&self) {
        self.workers.start();
        self.blocks.decoder().start();
    }

    /// Fills `buf` from `offset` on, within the image.
    ///
    /// # Errors
    /// `Damaged` or `Io`; `buf` is then unspecified.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_with(buf, offset, Self::read_piece)
    }

    /// As [`read`](Self::read), for bytes that are to be kept: each block is decoded whole
    /// and found right before any byte of it is returned.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub(crate) fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_with(buf, offset, Self::read_checked_piece)
    }

    /// Whole blocks are always checked; `read_piece` decides for parts of them.
    fn read_with(&self, buf: &mut [u8], offset: u64, read_piece: ReadPiece) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let block_size = self.block_size();
        let first = offset / block_size as u64;
        let within = (offset % block_size as u64) as usize;
        if within + buf.len() < block_size {
            return read_piece(self, first, within, buf);
        }
        let head = (block_size - within) % block_size;
        let (head, rest) = buf.split_at_mut(head);
        let (run, tail) = rest.split_at_mut(rest.len() / block_size * block_size);
        let after_head = first + u64::from(!head.is_empty());
        let after_run = after_head + (run.len() / block_size) as u64;
        if !head.is_empty() {
            read_piece(self, first, within, head)?;
        }
        if !run.is_empty() {
            self.read_run(after_head, run)?;
        }
        if !tail.is_empty() {
            read_piece(self, after_run, 0, tail)?;
        }
        Ok(())
    }

    /// Has a worker decode the blocks of a range into the cache, as far as they fit it
    /// well. Does nothing before [`start`](Self::start).
    pub(crate) fn prefetch(&self, offset: u64, length: u64) {
        let block_size = self.block_size() as u64;
        let first = offset / block_size;
        let room = (self.cache.limit() / 2 / block_size).max(1);
        let count = self.blocks.decoder().block_count();
        let end = offset.saturating_add(length).div_ceil(block_size).min(count);
        self.readahead.hint(first..end.min(first + room));
    }

    /// The work done so far.
    pub(crate) fn counters(&self) -> LayerCounters {
        let (base_reads, base_read_bytes) = self.blocks.decoder().reads();
        LayerCounters {
            base_reads,
            base_read_bytes,
            cache_hits: self.hits.load(Ordering::Relaxed),
            cache_misses: self.misses.load(Ordering::Relaxed),
            cache_evictions: self.cache.evictions(),
            cache_blocks: self.cache.blocks(),
            cache_bytes: self.cache.bytes(),
            cache_limit: self.cache.limit(),
        }
    }

    fn block_size(&self) -> usize {
        self.blocks.decoder().block_size()
    }

    /// Drops a block that its only reader has had.
    fn drop_used(&self, block: u64, entry: &Arc<Entry>) {
        self.dropped.note(block);
        self.cache.remove(block, entry);
    }

    /// Drops a block from the cache.
    fn forget(&self, block: u64) {
        if let Some(entry) = self.cache.peek(block) {
            self.cache.remove(block, &entry);
        }
    }
}

#[cfg(test)]
impl BlockReader {
    /// The block's entry in the cache.
    pub(crate) fn cached(&self, block: u64) -> Option<Arc<Entry>> {
        self.cache.peek(block)
    }

    /// What a worker does for a sequence, or because it was `asked`.
    pub(crate) fn decode_ahead(&self, blocks: std::ops::Range<u64>, asked: bool) {
        super::readahead::LoadAhead::load_ahead(self, blocks, asked);
    }
}
