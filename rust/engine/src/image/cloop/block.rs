//! One block: from the storage through its codec, and what is wrong with it.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use crate::codec::DecodeError;
use crate::{Error, ErrorKind, Result};

use super::zeros::{Known, ZeroStreams};
use super::{BlockLocation, CloopImage};

/// Compressed bytes that a thread keeps room for between reads.
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

impl CloopImage {
    /// Reads a block and says what is wrong with it, past the cache and
    /// whatever is known of it. `scratch` is working space, to be used again.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub fn check_block(
        &self,
        block: u64,
        scratch: &mut Vec<u8>,
    ) -> std::result::Result<(), BadBlock> {
        let location = self.location(block);
        if location.length == 0 {
            return Ok(());
        }
        scratch.resize(self.block_size() as usize, 0);
        let bad = |reason: String| BadBlock {
            block,
            offset: location.offset,
            length: location.length,
            reason,
        };
        self.with_compressed(location, |input| self.decode(block, location, input, scratch))
            .map_err(|error| bad(error.to_string()))?
            .map_err(|error| bad(error.to_string()))
    }

    /// Reads a block's compressed bytes as they are; none for a block of zeros
    /// that is not stored.
    ///
    /// # Errors
    /// `Io`.
    pub fn read_compressed(&self, block: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let location = self.location(block);
        bytes.resize(location.length as usize, 0);
        self.read_storage(bytes, location.offset)
            .map_err(|error| self.unreadable(block, location, error))
    }

    /// Decodes and checks a whole block from the storage, and remembers how it went.
    pub(super) fn load_whole(
        &self,
        block: u64,
        location: BlockLocation,
        output: &mut [u8],
    ) -> Result<()> {
        let small = ZeroStreams::candidate(location.codec, location.length, self.block_size());
        let known = self
            .with_compressed(location, |input| {
                if small && self.zero_streams.find(location.codec, input).is_some() {
                    output.fill(0);
                    return Ok(Known::Zero);
                }
                self.decode(block, location, input, output)?;
                Ok(match small {
                    true => self.look_at_output(block, location, input, output),
                    false => Known::Data,
                })
            })
            .map_err(|error| self.unreadable(block, location, error))?
            .map_err(|error| self.mark_damaged(block, location, &error))?;
        self.states.set(block, known);
        Ok(())
    }

    /// Whether a block that was decoded turned out to be zeros: then its stream is learned.
    pub(super) fn look_at_output(
        &self,
        block: u64,
        location: BlockLocation,
        input: &[u8],
        output: &[u8],
    ) -> Known {
        if output.iter().any(|byte| *byte != 0) {
            return Known::Data;
        }
        // A stream that was allowed to be short is no model for others.
        if !self.last_may_be_short(block) {
            self.zero_streams.learn(location.codec, input);
        }
        Known::Zero
    }

    pub(super) fn decode(
        &self,
        block: u64,
        location: BlockLocation,
        input: &[u8],
        output: &mut [u8],
    ) -> std::result::Result<(), DecodeError> {
        location.codec.decode_block(input, output, self.last_may_be_short(block))
    }

    /// Gives the compressed bytes of a block to `work`.
    pub(super) fn with_compressed<T>(
        &self,
        location: BlockLocation,
        work: impl FnOnce(&[u8]) -> T,
    ) -> std::io::Result<T> {
        let mut input = INPUT.take();
        let length = location.length as usize;
        if input.len() < length {
            input.resize(length, 0);
        }
        let bytes = &mut input[..length];
        let result = self.read_storage(bytes, location.offset).map(|()| work(bytes));
        if input.len() <= KEPT_INPUT {
            INPUT.set(input);
        }
        result
    }

    pub(super) fn read_storage(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.counters.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.storage.read_exact_at(buf, offset)
    }

    pub(super) fn unreadable(
        &self,
        block: u64,
        location: BlockLocation,
        error: std::io::Error,
    ) -> Error {
        let message = format!("cannot read block {block} at offset {}", location.offset);
        Error::io(self.name(), message, error)
    }

    /// Notes and logs a damaged block, once, and lets go of what there is of it.
    pub(super) fn mark_damaged(
        &self,
        block: u64,
        location: BlockLocation,
        reason: &DecodeError,
    ) -> Error {
        if self.states.set(block, Known::Damaged) {
            log::error!(
                "{}: block {block} at offset {} is damaged: {reason}",
                self.name(),
                location.offset
            );
            self.forget(block);
        }
        self.damaged(block, location)
    }

    pub(super) fn damaged(&self, block: u64, location: BlockLocation) -> Error {
        let message = format!("block {block} at offset {} is damaged", location.offset);
        Error::new(ErrorKind::Damaged, self.name(), message)
    }
}
