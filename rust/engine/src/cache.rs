//! Decoded blocks, kept within a budget of bytes.
//!
//! Sharded and resistant to scans (quick_cache); of several readers that miss
//! one block, one decodes it and the others wait for it. No lock is held while
//! a block is decoded or copied out.

use std::sync::{Arc, Mutex};

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Buffers that are kept for the next blocks.
const SPARE_BUFFERS: usize = 16;

/// A decoded block.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    spares: Arc<Spares>,
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.spares.give(std::mem::take(&mut self.bytes));
    }
}

/// Buffers of evicted blocks, to be used again.
#[derive(Debug, Default)]
struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    fn give(&self, buffer: Vec<u8>) {
        let mut spares = self.0.lock().expect("no panic while locked");
        if spares.len() < SPARE_BUFFERS {
            spares.push(buffer);
        }
    }

    fn take(&self, length: usize) -> Vec<u8> {
        let spare = self.0.lock().expect("no panic while locked").pop();
        match spare {
            Some(buffer) if buffer.len() == length => buffer,
            _ => vec![0; length],
        }
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<u64, Arc<Block>> for ByBytes {
    fn weight(&self, _block: &u64, value: &Arc<Block>) -> u64 {
        value.bytes.len() as u64
    }
}

/// A cache of the blocks of one image.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Cache<u64, Arc<Block>, ByBytes>,
    spares: Arc<Spares>,
    block_size: usize,
}

impl BlockCache {
    /// A cache of `capacity` bytes, but of no fewer than two blocks.
    pub(crate) fn new(capacity: u64, block_size: u32) -> Self {
        let capacity = capacity.max(2 * u64::from(block_size));
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity((capacity / u64::from(block_size)) as usize)
            .build()
            .expect("all options that have no default are given");
        let blocks = Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        BlockCache { blocks, spares: Arc::default(), block_size: block_size as usize }
    }

    /// The block, when it is there; for one who will read past it and go on.
    pub(crate) fn peek(&self, block: u64) -> Option<Arc<Block>> {
        self.blocks.peek(&block)
    }

    /// The block, decoded by `fill` when it is not there. The second value: it was.
    pub(crate) fn get<E>(
        &self,
        block: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(Arc<Block>, bool), E> {
        match self.blocks.get_value_or_guard(&block, None) {
            GuardResult::Value(found) => Ok((found, true)),
            GuardResult::Guard(guard) => {
                let bytes = self.spares.take(self.block_size);
                let mut made = Block { bytes, spares: Arc::clone(&self.spares) };
                fill(&mut made.bytes)?;
                let made = Arc::new(made);
                // It is not admitted when somebody cleared the cache meanwhile.
                let _ = guard.insert(Arc::clone(&made));
                Ok((made, false))
            }
            GuardResult::Timeout => unreachable!("no time limit was given"),
        }
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
