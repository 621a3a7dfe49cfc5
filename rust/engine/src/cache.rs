//! Decoded blocks, kept within a budget of bytes.
//!
//! Sharded and resistant to scans (quick_cache); of several readers that miss
//! one block, one decodes it and the others wait for it. No lock of the cache is
//! held while a block is decoded or copied out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Part of the cache that is kept for blocks that were wanted more than once;
/// the rest is where new blocks, read ahead ones among them, wait for a reader.
const HOT: f64 = 0.8;

/// Items that the cache has its tables ready for at the start.
const MOST_PREPARED: u64 = 1 << 14;

/// Buffers that are kept for the next blocks, while they take no more bytes
/// than this.
const SPARE_BYTES: usize = 2 << 20;

/// Something to keep.
pub(crate) trait Weigh {
    /// The bytes that it takes; must not change while it is in a cache.
    fn weight(&self) -> u64;
}

#[derive(Debug, Clone)]
struct ByWeight;

impl<T: Weigh> Weighter<u64, Arc<T>> for ByWeight {
    fn weight(&self, _block: &u64, value: &Arc<T>) -> u64 {
        value.weight()
    }
}

/// What [`BlockCache::load`] came to.
pub(crate) enum Loaded<T> {
    /// It was there, or another reader brought it.
    Found(Arc<T>),
    /// It was made now.
    Made(Arc<T>),
}

/// A cache of the blocks of one image.
#[derive(Debug)]
pub(crate) struct BlockCache<T: Weigh> {
    blocks: Cache<u64, Arc<T>, ByWeight>,
}

impl<T: Weigh> BlockCache<T> {
    /// A cache of `capacity` bytes, in which an item usually takes `item` bytes.
    pub(crate) fn new(capacity: u64, item: u64) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity((capacity / item).min(MOST_PREPARED) as usize)
            .hot_allocation(HOT)
            .build()
            .expect("all options that have no default are given");
        let blocks = Cache::with_options(
            options,
            ByWeight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        BlockCache { blocks }
    }

    /// The block, when it is there. This does not count as a use.
    pub(crate) fn peek(&self, block: u64) -> Option<Arc<T>> {
        self.blocks.peek(&block)
    }

    /// Counts a use of the block: what is used twice stays longer.
    pub(crate) fn touch(&self, block: u64) {
        self.blocks.get(&block);
    }

    /// The block, made by `make` when it is not there. Of those who come at the
    /// same time one makes it, and the others wait.
    pub(crate) fn load<E>(
        &self,
        block: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Loaded<T>, E> {
        match self.blocks.get_value_or_guard(&block, None) {
            GuardResult::Value(found) => Ok(Loaded::Found(found)),
            GuardResult::Guard(guard) => {
                let made = Arc::new(make()?);
                // Not admitted when it was removed meanwhile: then it serves once.
                let _ = guard.insert(Arc::clone(&made));
                Ok(Loaded::Made(made))
            }
            GuardResult::Timeout => unreachable!("no time limit was given"),
        }
    }

    /// The same for one who has no use for the block yet: does nothing when it
    /// is there or another is making it.
    pub(crate) fn try_load<E>(
        &self,
        block: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<(), E> {
        if self.blocks.contains_key(&block) {
            return Ok(());
        }
        if let GuardResult::Guard(guard) =
            self.blocks.get_value_or_guard(&block, Some(Duration::ZERO))
        {
            let _ = guard.insert(Arc::new(make()?));
        }
        Ok(())
    }

    /// Whether somebody is making the block now.
    pub(crate) fn in_flight(&self, block: u64) -> bool {
        let found = self.blocks.get_value_or_guard(&block, Some(Duration::ZERO));
        matches!(found, GuardResult::Timeout)
    }

    /// Takes out a value that did not do, unless another has taken its place.
    pub(crate) fn remove(&self, block: u64, value: &Arc<T>) {
        self.blocks.remove_if(&block, |held| Arc::ptr_eq(held, value));
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Bytes that it may hold.
    pub(crate) fn limit(&self) -> u64 {
        self.blocks.capacity()
    }
}

/// Buffers of one length, used again and again: no block needs fresh memory,
/// which would have to be cleared first.
#[derive(Debug)]
pub(crate) struct Buffers {
    length: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn new(length: usize) -> Arc<Self> {
        Arc::new(Buffers { length, spare: Mutex::default() })
    }

    /// A buffer with whatever its last user left in it.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let spare = self.spare.lock().expect("no panic while locked").pop();
        let bytes = spare.unwrap_or_else(|| vec![0; self.length]);
        Buffer { bytes, home: Arc::clone(self) }
    }
}

/// A buffer that goes back to where it came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.home.spare.lock().expect("no panic while locked");
        if (spare.len() + 1) * self.home.length <= SPARE_BYTES {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}
