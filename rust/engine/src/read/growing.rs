//! A large block that is inflated as far as a reader asks, and further when one asks for
//! more.
//!
//! A reader of bytes that are there copies them out of what was inflated last. A reader that
//! needs more inflates it under the block's own lock, where other readers that need more wait,
//! into memory of its own, which begins with what was there before.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::codec::zlib::{Prefix, Stream};
use crate::codec::DecodeError;

use super::block::BlockError;

/// A block grows by a multiple of one part in so many.
const PARTS: usize = 32;

/// Compressed bytes that are read at a time.
const CHUNK: u64 = 64 << 10;

/// Room behind the bytes that are wanted, so that the inflater is quick up to these.
const SLACK: usize = 1024;

/// How far a block is inflated.
pub(crate) struct Growing {
    block_size: usize,
    /// Bytes of compressed data.
    length: u64,
    /// The stream may end before the block does.
    may_be_short: bool,
    /// What is there.
    beginning: RwLock<Arc<Vec<u8>>>,
    /// Where the stream stands; `None` once all is there.
    stream: Mutex<Option<Inflating>>,
}

/// A stream under way.
#[derive(Clone)]
struct Inflating {
    stream: Stream,
    /// The first compressed byte that it still needs.
    from: u64,
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Growing({} of {})", self.available(), self.block_size)
    }
}

impl Growing {
    /// A block of which nothing is there yet; `length` is the length of its compressed
    /// bytes.
    pub(super) fn new(block_size: usize, length: u32, may_be_short: bool) -> Self {
        let stream = Inflating { stream: Stream::new(), from: 0 };
        Growing {
            block_size,
            length: length.into(),
            may_be_short,
            beginning: RwLock::default(),
            stream: Mutex::new(Some(stream)),
        }
    }

    /// Bytes that it takes in the end.
    pub(super) fn weight(&self) -> u64 {
        self.block_size as u64
    }

    /// Bytes that are there.
    pub(super) fn available(&self) -> usize {
        self.beginning.read().len()
    }

    /// Copies out bytes that are there.
    pub(super) fn copy(&self, within: usize, piece: &mut [u8]) {
        let bytes = Arc::clone(&self.beginning.read());
        piece.copy_from_slice(&bytes[within..within + piece.len()]);
    }

    /// Inflates until `end` bytes are there, or some more, and checks the stream's end when that is the
    /// whole block. `read` reads compressed bytes from an offset in the stream. Returns
    /// whether the whole block is there and right.
    pub(super) fn grow(
        &self,
        end: usize,
        read: impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<bool, BlockError> {
        let mut place = self.stream.lock();
        let Some(inflating) = &mut *place else { return Ok(true) };
        let have = Arc::clone(&self.beginning.read());
        let step = self.block_size.div_ceil(PARTS);
        let end = end.next_multiple_of(step).min(self.block_size);
        if end <= have.len() && end < self.block_size {
            return Ok(false);
        }
        let room = self.block_size.min(end + SLACK).max(have.len());
        let mut bytes = vec![0; room];
        bytes[..have.len()].copy_from_slice(&have);
        // What is there stays as it is, and the stream with it, if a read fails.
        let mut next = inflating.clone();
        let stop = (end < self.block_size).then_some(end);
        match next.inflate(self.length, &mut bytes, stop, read)? {
            Prefix::GoesOn(length) => {
                bytes.truncate(length);
                *inflating = next;
            }
            Prefix::Ends(length) if length < self.block_size && !self.may_be_short => {
                return Err(DecodeError::too_short(length, self.block_size).into());
            }
            Prefix::Ends(length) => {
                bytes.truncate(length);
                bytes.resize(self.block_size, 0);
                *place = None;
            }
        }
        *self.beginning.write() = Arc::new(bytes);
        Ok(place.is_none())
    }
}

impl Inflating {
    /// Inflates up to `stop`, or to the end; `length` is that of all compressed bytes.
    fn inflate(
        &mut self,
        length: u64,
        output: &mut [u8],
        stop: Option<usize>,
        mut read: impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<Prefix, BlockError> {
        let mut input = Vec::new();
        loop {
            let result = self.stream.inflate(&input, output, stop);
            let used = self.stream.take_used();
            input.drain(..used);
            self.from += used as u64;
            let have = input.len();
            let rest = length - self.from - have as u64;
            match result {
                Ok(prefix) => return Ok(prefix),
                Err(error) if rest == 0 => return Err(error.into()),
                // Perhaps only because the stream goes on in what was not read yet.
                Err(_) => {
                    input.resize(have + rest.min(CHUNK) as usize, 0);
                    let at = self.from + have as u64;
                    read(&mut input[have..], at).map_err(BlockError::Io)?;
                }
            }
        }
    }
}
