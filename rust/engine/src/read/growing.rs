//! A block that is inflated as far as a reader asks, and further when one asks for more.
//!
//! A reader of bytes that are there copies them out of what was inflated last. A reader that
//! needs more inflates it under the block's own lock, where other readers that need more wait,
//! into memory of its own, which begins with what was there before.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::codec::zlib::{Prefix, Stream};
use crate::codec::DecodeError;

use super::block::BlockError;
use crate::buffers::{Buffer, Buffers};

/// A block grows by a multiple of one part in so many.
const PARTS: usize = 32;

/// Compressed bytes that are read at a time.
const CHUNK: u64 = 64 << 10;

/// How far a block is inflated.
pub(crate) struct Growing {
    block_size: usize,
    buffers: Arc<Buffers>,
    /// Bytes of compressed data.
    length: u64,
    /// The stream may end before the block does.
    may_be_short: bool,
    /// What is there, if anything is.
    beginning: RwLock<Option<Arc<Beginning>>>,
    /// Where the stream stands; `None` once all is there.
    stream: Mutex<Option<Inflating>>,
}

/// The bytes of a block that are there.
struct Beginning {
    bytes: Buffer,
    length: usize,
    /// All of them, and the checksum was right.
    whole: bool,
}

/// A stream under way.
#[derive(Clone)]
struct Inflating {
    stream: Stream,
    /// The first compressed byte that it still needs.
    from: u64,
    /// Bytes that it has come to.
    length: usize,
}

impl Inflating {
    fn new() -> Self {
        Inflating { stream: Stream::new(), from: 0, length: 0 }
    }
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Growing({} of {})", self.available(), self.block_size)
    }
}

impl Growing {
    /// A block of which nothing is there yet, for buffers of its size; `length` is the length of
    /// its compressed bytes.
    pub(super) fn new(
        buffers: Arc<Buffers>,
        block_size: usize,
        length: u32,
        may_be_short: bool,
    ) -> Self {
        Growing {
            block_size,
            buffers,
            length: length.into(),
            may_be_short,
            beginning: RwLock::default(),
            stream: Mutex::new(Some(Inflating::new())),
        }
    }

    /// Bytes that it takes.
    pub(super) fn weight(&self) -> u64 {
        self.block_size as u64
    }

    fn beginning(&self) -> Option<Arc<Beginning>> {
        self.beginning.read().clone()
    }

    /// Bytes that are there.
    pub(crate) fn available(&self) -> usize {
        self.beginning.read().as_ref().map_or(0, |beginning| beginning.length)
    }

    /// Copies out bytes that are there.
    pub(super) fn copy(&self, within: usize, piece: &mut [u8]) {
        let beginning = self.beginning().expect("the caller asked what is there");
        piece.copy_from_slice(&beginning.bytes[within..within + piece.len()]);
    }

    /// Copies out a part of a block that is known to be right; `false` when it is not yet.
    pub(super) fn copy_checked(&self, within: usize, piece: &mut [u8]) -> bool {
        let Some(beginning) = self.beginning().filter(|beginning| beginning.whole) else {
            return false;
        };
        piece.copy_from_slice(&beginning.bytes[within..within + piece.len()]);
        true
    }

    /// Has a stream under way begin anew: its compressed bytes were wrong. What is there stays
    /// until all of it has been inflated again.
    pub(super) fn restart(&self) {
        if let Some(inflating) = &mut *self.stream.lock() {
            *inflating = Inflating::new();
        }
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
        let have = self.beginning();
        let (available, done) = (have.as_ref().map_or(0, |have| have.length), inflating.length);
        let step = self.block_size.div_ceil(PARTS);
        let end = end.next_multiple_of(step).min(self.block_size);
        if end <= done && end < self.block_size {
            return Ok(false);
        }
        // What readers know to be there stays there.
        let end = end.max(available);
        let mut bytes = self.buffers.take();
        if let Some(have) = have {
            bytes[..done].copy_from_slice(&have.bytes[..done]);
        }
        // What is there stays as it is, and the stream with it, if a read fails.
        let mut next = inflating.clone();
        let stop = (end < self.block_size).then_some(end);
        let length = match next.inflate(self.length, &mut bytes, stop, read)? {
            Prefix::GoesOn(length) => {
                *inflating = Inflating { length, ..next };
                length
            }
            Prefix::Ends(length) if length < self.block_size && !self.may_be_short => {
                return Err(DecodeError::too_short(length, self.block_size).into());
            }
            Prefix::Ends(length) => {
                bytes[length..].fill(0);
                *place = None;
                self.block_size
            }
        };
        let whole = place.is_none();
        *self.beginning.write() = Some(Arc::new(Beginning { bytes, length, whole }));
        Ok(whole)
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
