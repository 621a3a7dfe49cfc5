//! One block: from the storage through its codec, and what is wrong with it.
//!
//! Nothing is remembered of a block here.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::codec::{zlib, DecodeError};
use crate::format::cloop::{BlockLocation, Index};
use crate::storage::Storage;

/// Compressed bytes for which a thread keeps room between reads.
const KEPT_INPUT: usize = 1 << 20;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A block that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    /// Its number.
    pub block: u64,
    /// Where its compressed bytes begin in the file.
    pub offset: u64,
    /// How many there are.
    pub length: u32,
    /// What is wrong, in one phrase.
    pub reason: String,
}

/// Why a block cannot be read.
#[derive(Debug)]
pub(crate) enum BlockError {
    /// The storage could not be read.
    Io(io::Error),
    /// The compressed bytes are damaged.
    Decode(DecodeError),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        BlockError::Io(error)
    }
}

impl From<DecodeError> for BlockError {
    fn from(error: DecodeError) -> Self {
        BlockError::Decode(error)
    }
}

impl std::fmt::Display for BlockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BlockError::Io(error) => error.fmt(f),
            BlockError::Decode(error) => error.fmt(f),
        }
    }
}

/// The compressed blocks of an image, and the way to decode them.
#[derive(Debug)]
pub(crate) struct Decoder {
    storage: Arc<dyn Storage>,
    index: Index,
    block_size: u32,
    last_may_be_short: bool,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

impl Decoder {
    /// `last_may_be_short`: the last block's stream may end early; zeros follow.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        index: Index,
        block_size: u32,
        last_may_be_short: bool,
    ) -> Self {
        let (reads, read_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Decoder { storage, index, block_size, last_may_be_short, reads, read_bytes }
    }

    /// The image's name in messages.
    pub(crate) fn name(&self) -> &str {
        self.storage.name()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Bytes of a block, decoded.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size as usize
    }

    pub(crate) fn block_count(&self) -> u64 {
        self.index.block_count()
    }

    /// Where a block's compressed bytes are; `block` is below the count.
    pub(crate) fn location(&self, block: u64) -> BlockLocation {
        self.index.block(block)
    }

    /// Whether the block's stream may end before the block does.
    pub(super) fn may_be_short(&self, block: u64) -> bool {
        self.last_may_be_short && block + 1 == self.block_count()
    }

    /// Read requests to the storage, and the bytes that they asked for.
    pub(crate) fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.read_bytes.load(Ordering::Relaxed))
    }

    /// Reads compressed bytes from an offset in the file.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.storage.read_exact_at(buf, offset)
    }

    /// Gives the compressed bytes of a block to `work`.
    pub(super) fn with_compressed<T>(
        &self,
        location: BlockLocation,
        work: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        let mut input = INPUT.take();
        let length = location.length as usize;
        if input.len() < length {
            input.resize(length, 0);
        }
        let bytes = &mut input[..length];
        let result = self.read(bytes, location.offset).map(|()| work(bytes));
        if input.len() <= KEPT_INPUT {
            INPUT.set(input);
        }
        result
    }

    /// Gives the compressed bytes of a block to `decode`. Where these turn out to be wrong and
    /// were kept of something far away, they are fetched once more, and `decode` gets those.
    pub(super) fn with_right<T>(
        &self,
        location: BlockLocation,
        mut decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, BlockError> {
        match self.with_compressed(location, &mut decode)? {
            Err(_) if self.storage.renew(location.offset, location.length.into()) => {
                Ok(self.with_compressed(location, decode)??)
            }
            decoded => Ok(decoded?),
        }
    }

    /// A hint that the blocks `[first, end)` will be read soon.
    pub(super) fn expect(&self, first: u64, end: u64) {
        let (from, to) = self.span(first, end);
        self.storage.expect(from, to - from);
    }

    /// Whether the blocks `[first, end)` can be read without waiting for what is far away.
    pub(super) fn is_near(&self, first: u64, end: u64) -> bool {
        let (from, to) = self.span(first, end);
        self.storage.is_near(from, to - from)
    }

    /// Where the blocks `[first, end)` lie, those aside that share the bytes of others.
    fn span(&self, first: u64, end: u64) -> (u64, u64) {
        let from = self.location(first).offset;
        (from, self.location(end - 1).end().max(from))
    }

    /// Whether blocks may have changed where they are kept.
    pub(super) fn may_rot(&self) -> bool {
        self.storage.may_rot()
    }

    /// Lets the storage use threads of its own.
    pub(super) fn start(&self) {
        self.storage.start();
    }

    /// Reads a block's compressed bytes as they are; none for a block of zeros
    /// that is not stored.
    pub(crate) fn read_compressed(&self, block: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let location = self.location(block);
        if self.storage.may_rot() && location.length > 0 {
            let mut output = vec![0; self.block_size()];
            let copied = self.with_right(location, |input| {
                bytes.clear();
                bytes.extend_from_slice(input);
                self.decode(block, input, &mut output)
            });
            return copied.map_err(|error| match error {
                BlockError::Io(error) => error,
                BlockError::Decode(reason) => io::Error::other(reason.to_string()),
            });
        }
        bytes.resize(location.length as usize, 0);
        self.read(bytes, location.offset)
    }

    /// Decodes the compressed bytes of a block, all of it.
    pub(super) fn decode(
        &self,
        block: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), DecodeError> {
        self.location(block).codec.decode_block(input, output, self.may_be_short(block))
    }

    /// Decodes the beginning of a zlib block, as long as `prefix`. Only these bytes are
    /// checked.
    pub(super) fn decode_prefix(&self, block: u64, prefix: &mut [u8]) -> Result<(), BlockError> {
        let location = self.location(block);
        let decode = |input: &[u8]| zlib::decode_prefix(input, &mut *prefix);
        match self.with_right(location, decode)? {
            zlib::Prefix::GoesOn => Ok(()),
            // A block may end exactly where the prefix does; zlib-ng may use the room
            // behind what it writes in any way.
            zlib::Prefix::Ends(end) if self.may_be_short(block) => {
                prefix[end..].fill(0);
                Ok(())
            }
            zlib::Prefix::Ends(end) => Err(DecodeError::too_short(end, self.block_size()).into()),
        }
    }

    /// Reads and decodes a block and says what is wrong with it. `scratch` is working space
    /// that may be reused.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub(crate) fn check(&self, block: u64, scratch: &mut Vec<u8>) -> Result<(), BadBlock> {
        let location = self.location(block);
        if location.length == 0 {
            return Ok(());
        }
        scratch.resize(self.block_size(), 0);
        let checked = self.with_right(location, |input| self.decode(block, input, scratch));
        checked.map_err(|error| BadBlock {
            block,
            offset: location.offset,
            length: location.length,
            reason: error.to_string(),
        })
    }
}
