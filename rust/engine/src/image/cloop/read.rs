//! Blocks on their way out: from the storage through a codec to the reader.

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

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let block_size = self.block_size() as usize;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let block = at / block_size as u64;
            let within = (at % block_size as u64) as usize;
            let n = (block_size - within).min(rest.len());
            let (piece, later) = rest.split_at_mut(n);
            self.read_piece(block, within, piece)?;
            rest = later;
            at += n as u64;
        }
        Ok(())
    }

    /// A piece that lies in one block.
    fn read_piece(&self, block: u64, within: usize, piece: &mut [u8]) -> Result<()> {
        let location = self.location(block);
        match self.states.get(block) {
            Known::Zero => {
                piece.fill(0);
                return Ok(());
            }
            Known::Damaged => return Err(self.damaged(block, location)),
            Known::Nothing | Known::Data => {}
        }
        if location.length == 0 {
            piece.fill(0);
            return Ok(());
        }
        if piece.len() == self.block_size() as usize {
            // A reader of whole blocks has no use for the cache, nor the cache for it.
            if let Some(found) = self.cache.peek(block) {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                piece.copy_from_slice(found.bytes());
                return Ok(());
            }
            self.counters.misses.fetch_add(1, Ordering::Relaxed);
            return self.load(block, location, piece);
        }
        let (found, hit) = self.cache.get(block, |bytes| self.load(block, location, bytes))?;
        let counter = if hit { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        piece.copy_from_slice(&found.bytes()[within..within + piece.len()]);
        Ok(())
    }

    /// Decodes a whole block from the storage.
    fn load(&self, block: u64, location: BlockLocation, output: &mut [u8]) -> Result<()> {
        self.with_compressed(location, |input| {
            if ZeroStreams::candidate(location.codec, location.length, self.block_size())
                && self.zero_streams.contains(location.codec, input)
            {
                self.states.set(block, Known::Zero);
                output.fill(0);
                return Ok(());
            }
            self.decode(block, location, input, output)
        })
        .map_err(|error| self.unreadable(block, location, error))?
        .map_err(|error| self.mark_damaged(block, location, &error))
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
    fn with_compressed<T>(
        &self,
        location: BlockLocation,
        work: impl FnOnce(&[u8]) -> T,
    ) -> std::io::Result<T> {
        let mut input = INPUT.take();
        input.resize(location.length as usize, 0);
        let result = self.read_storage(&mut input, location.offset).map(|()| work(&input));
        if input.capacity() <= KEPT_INPUT {
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

    /// Notes and logs a damaged block, once.
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
        }
        self.damaged(block, location)
    }

    pub(super) fn damaged(&self, block: u64, location: BlockLocation) -> Error {
        let message = format!("block {block} at offset {} is damaged", location.offset);
        Error::new(ErrorKind::Damaged, self.name(), message)
    }
}
