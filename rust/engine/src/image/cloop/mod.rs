//! cloop images and their uzip relatives: read-only devices that are compressed
//! block by block.

mod ahead;
mod block;
mod check;
mod ending;
mod entry;
mod extents;
mod growing;
mod header;
mod history;
mod index;
mod info;
mod read;
mod run;
mod workers;
mod zeros;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use sha2::{Digest, Sha256};

use crate::cache::{BlockCache, Buffers};
use crate::layer::ExtentSink;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Layer, LayerCounters, Result};

use super::ImageOptions;
use ahead::Streams;
use check::Unchecked;
use entry::Entry;
use history::History;
use index::Index;
use workers::Workers;
use zeros::{BlockStates, ZeroStreams};

pub use block::BadBlock;
pub use header::{Header, Kind, Layout, HEADER_BYTES, MAX_BLOCK_SIZE};
pub use index::{max_compressed_length, BlockLocation};
pub use info::CloopInfo;

/// A cloop or uzip image.
#[derive(Debug)]
pub struct CloopImage {
    /// For work that others do.
    me: Weak<CloopImage>,
    storage: Arc<dyn Storage>,
    header: Header,
    index: Index,
    strict: bool,
    cache: BlockCache<Entry>,
    history: History,
    buffers: Arc<Buffers>,
    states: BlockStates,
    zero_streams: ZeroStreams,
    streams: Streams,
    unchecked: Unchecked,
    workers: Workers,
    counters: Counters,
    /// Hints that wait.
    hints: AtomicUsize,
}

/// Hints of what will be read that wait at most.
const MOST_HINTS: usize = 256;

/// One of them, heard or not; dropped, it waits no more.
struct Hint(Weak<CloopImage>);

impl Drop for Hint {
    fn drop(&mut self) {
        if let Some(image) = self.0.upgrade() {
            image.hints.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl CloopImage {
    /// Opens an image that must be of this family; reads and checks its index.
    ///
    /// # Errors
    /// `Format`: not a cloop image, or one that is damaged, cut short or absurd;
    /// `Unsupported`: a version or codec that is not read; `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<CloopImage>> {
        match Header::find(&*storage)? {
            Some(header) => Self::with_header(storage, header, options),
            None => Err(Error::new(
                ErrorKind::Format,
                storage.name(),
                "not a cloop image: it has no cloop header at its beginning or end",
            )),
        }
    }

    pub(super) fn with_header(
        storage: Arc<dyn Storage>,
        header: Header,
        options: &ImageOptions,
    ) -> Result<Arc<CloopImage>> {
        let index = Index::read(&*storage, &header)?;
        let block_size = header.block_size;
        // A cache that cannot hold two blocks would decode one again for each small read.
        let heaviest = entry::heaviest(block_size);
        // One that is twice as large as the image holds all of it, whatever comes first.
        let most = index.block_count().saturating_mul(2 * heaviest);
        let cache_bytes = options.cache_bytes.min(most).max(2 * heaviest);
        Ok(Arc::new_cyclic(|me| CloopImage {
            me: me.clone(),
            strict: options.strict,
            cache: BlockCache::new(cache_bytes, heaviest),
            history: History::new(cache_bytes / u64::from(block_size)),
            buffers: Buffers::new(block_size as usize),
            states: BlockStates::new(index.block_count()),
            zero_streams: ZeroStreams::default(),
            streams: Streams::new(block_size, cache_bytes),
            unchecked: Unchecked::default(),
            workers: Workers::new(options.threads),
            counters: Counters::default(),
            hints: AtomicUsize::new(0),
            storage,
            header,
            index,
        }))
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        self.storage.name()
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of a block, decoded.
    pub fn block_size(&self) -> u32 {
        self.header.block_size
    }

    /// Number of blocks.
    pub fn block_count(&self) -> u64 {
        self.index.block_count()
    }

    /// Where a block's compressed bytes are.
    ///
    /// # Panics
    /// When `block` is not below [`block_count`](Self::block_count).
    pub fn location(&self, block: u64) -> BlockLocation {
        self.index.block(block)
    }

    fn last_may_be_short(&self, block: u64) -> bool {
        block + 1 == self.block_count() && self.header.kind.last_may_be_short()
    }
}

impl Layer for CloopImage {
    fn size(&self) -> u64 {
        self.header.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read(buf, offset)
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        self.walk_extents(offset, length, sink)
    }

    fn read_unit(&self) -> u64 {
        u64::from(self.header.block_size)
    }

    /// Has the blocks of the range decoded into the cache, as far as they fit it
    /// well, by a worker. Does nothing before [`start`](Layer::start).
    fn prefetch(&self, offset: u64, length: u64) {
        let block_size = u64::from(self.block_size());
        let first = offset / block_size;
        let room = (self.cache.limit() / 2 / block_size).max(1);
        let end = offset.saturating_add(length).div_ceil(block_size).min(self.block_count());
        let hint = Hint(self.me.clone());
        // A hint may go unheard, and must not be what fills the memory.
        if self.hints.fetch_add(1, Ordering::AcqRel) < MOST_HINTS {
            self.workers.spawn(move || ahead::load_range(&hint.0, first..end.min(first + room)));
        }
    }

    fn start(&self) {
        self.workers.start();
    }

    /// SHA-256 over the size of the file, its header and its index.
    fn identity(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"cloop\0");
        hash.update(self.header.file_size.to_le_bytes());
        hash.update(self.header.bytes);
        let mut bytes = [0; 4096];
        for entries in self.index.entries().chunks(bytes.len() / 8) {
            for (entry, place) in entries.iter().zip(bytes.chunks_exact_mut(8)) {
                place.copy_from_slice(&entry.to_be_bytes());
            }
            hash.update(&bytes[..entries.len() * 8]);
        }
        Ok(hash.finalize().into())
    }

    fn counters(&self) -> LayerCounters {
        LayerCounters {
            base_reads: self.counters.reads.load(Ordering::Relaxed),
            base_read_bytes: self.counters.read_bytes.load(Ordering::Relaxed),
            cache_hits: self.counters.hits.load(Ordering::Relaxed),
            cache_misses: self.counters.misses.load(Ordering::Relaxed),
            cache_bytes: self.cache.bytes(),
            cache_limit: self.cache.limit(),
        }
    }
}

#[cfg(test)]
mod tests;
