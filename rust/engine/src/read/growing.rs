//! A large block that is inflated as far as a reader asks, and further when one asks for
//! more.
//!
//! The block is cut into equal segments, each written once. A reader of segments that are
//! there takes no lock; a reader that needs more inflates it under the block's own lock,
//! where other readers that need more wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::codec::zlib::{Stream, STREAM_BYTES};
use crate::codec::DecodeError;

use super::decoder::BlockError;

/// Segments of a block.
const SEGMENTS: usize = 32;

/// Compressed bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// How far a block is inflated.
pub(crate) struct Growing {
    block_size: usize,
    /// Bytes of compressed data.
    length: u64,
    /// The stream may end before the block does.
    may_be_short: bool,
    segments: [OnceLock<Box<[u8]>>; SEGMENTS],
    /// Segments that are there.
    ready: AtomicUsize,
    /// `None` once all is there.
    stream: Mutex<Option<Inflating>>,
}

/// The stream, and the segment that it has reached: a segment that it gave out before a
/// read failed, it does not give out again.
struct Inflating {
    stream: Stream,
    segment: Box<[u8]>,
    written: usize,
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Growing({} of {SEGMENTS})", self.ready.load(Ordering::Relaxed))
    }
}

impl Growing {
    /// A block of which nothing is there yet; `length` is the length of its compressed
    /// bytes.
    pub(super) fn new(block_size: usize, length: u32, may_be_short: bool) -> Self {
        Growing {
            block_size,
            length: length.into(),
            may_be_short,
            segments: [const { OnceLock::new() }; SEGMENTS],
            ready: AtomicUsize::new(0),
            stream: Mutex::new(Some(Inflating {
                stream: Stream::new(),
                segment: Box::default(),
                written: 0,
            })),
        }
    }

    /// Bytes that it takes while it grows, and once all of it is there.
    pub(super) fn weight(&self) -> u64 {
        self.block_size as u64 + STREAM_BYTES
    }

    fn segment_size(&self) -> usize {
        self.block_size.div_ceil(SEGMENTS)
    }

    /// Bytes that are there.
    pub(super) fn available(&self) -> usize {
        (self.ready.load(Ordering::Acquire) * self.segment_size()).min(self.block_size)
    }

    /// Copies out bytes that are there.
    pub(super) fn copy(&self, within: usize, piece: &mut [u8]) {
        let (size, mut at, mut rest) = (self.segment_size(), within, piece);
        while !rest.is_empty() {
            let segment = self.segments[at / size].get().expect("the caller asked what is there");
            let source = &segment[at % size..];
            let n = source.len().min(rest.len());
            rest[..n].copy_from_slice(&source[..n]);
            rest = &mut rest[n..];
            at += n;
        }
    }

    /// Inflates until `end` bytes are there, and checks the stream's end when that is the
    /// whole block. `read` reads compressed bytes from an offset in the stream. Returns
    /// whether the whole block is there and right.
    pub(super) fn grow(
        &self,
        end: usize,
        mut read: impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<bool, BlockError> {
        let mut place = self.stream.lock();
        let Some(Inflating { stream, segment, written }) = &mut *place else { return Ok(true) };
        let mut input = Input { bytes: Vec::new(), at: 0, length: self.length };
        while self.available() < end {
            let ready = self.ready.load(Ordering::Acquire);
            let size = self.segment_size().min(self.block_size - self.available());
            if segment.is_empty() {
                (*segment, *written) = (vec![0; size].into_boxed_slice(), 0);
            }
            input.inflate(stream, segment, written, &mut read)?;
            if *written < size && !self.may_be_short {
                let length = self.available() + *written;
                return Err(DecodeError::too_short(length, self.block_size).into());
            }
            // zlib-ng may use the room behind what it writes in any way.
            segment[*written..].fill(0);
            let _ = self.segments[ready].set(std::mem::take(segment));
            self.ready.store(ready + 1, Ordering::Release);
        }
        if self.available() < self.block_size {
            return Ok(false);
        }
        let mut beyond = 0;
        input.inflate(stream, &mut [0], &mut beyond, &mut read)?;
        if beyond > 0 {
            return Err(DecodeError::too_long(self.block_size).into());
        }
        *place = None;
        Ok(true)
    }
}

/// Compressed bytes, from where the stream stands.
struct Input {
    bytes: Vec<u8>,
    at: usize,
    length: u64,
}

impl Input {
    /// Fills `output`, or as much of it as there is before the stream's end.
    fn inflate(
        &mut self,
        stream: &mut Stream,
        output: &mut [u8],
        written: &mut usize,
        read: &mut impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<(), BlockError> {
        while *written < output.len() && !stream.ended() {
            let (consumed, wrote) = stream.step(&self.bytes[self.at..], &mut output[*written..])?;
            self.at += consumed;
            *written += wrote;
            if *written < output.len() && !stream.ended() {
                let rest = self.length - stream.consumed();
                if rest == 0 || self.at < self.bytes.len() {
                    return Err(DecodeError::truncated().into());
                }
                self.bytes.resize(rest.min(CHUNK as u64) as usize, 0);
                read(&mut self.bytes, stream.consumed()).map_err(BlockError::Io)?;
                self.at = 0;
            }
        }
        Ok(())
    }
}
