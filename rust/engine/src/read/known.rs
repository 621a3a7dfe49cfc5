//! What is known of blocks: zeros, data, damage.
//!
//! Images of create_compressed_fs store a block of zeros as an ordinary stream, and one
//! encoder always writes such a block with the same bytes. So a block whose compressed
//! length is suspiciously small is compared with streams that are known to be zeros. Where
//! none matches, the block is decoded once, and if it is zeros its stream joins the known
//! ones. The result is kept in two bits per block.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::codec::Codec;
use crate::format::cloop::BlockLocation;
use crate::{Error, ErrorKind, Result};

use super::block::BlockError;
use super::decoder::{Decoder, Wanted};
use super::growing::Growing;

/// Blocks whose bits are allocated together.
const CHUNK: u64 = 16 << 10;
const PER_BYTE: u64 = 4;

/// Streams that are kept for each codec and length.
const STREAMS_A_LENGTH: usize = 4;
/// Bytes of streams that are kept in all.
const STREAM_BYTES: usize = 4 << 20;

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing yet.
    Nothing,
    /// It holds more than zeros.
    Data,
    /// It is all zeros.
    Zero,
    /// It does not decode, and this was logged.
    Damaged,
}

/// The blocks of an image, and what is known of each.
#[derive(Debug)]
pub(crate) struct KnownBlocks {
    decoder: Decoder,
    states: BlockStates,
    zero_streams: ZeroStreams,
}

impl KnownBlocks {
    /// Nothing is known yet.
    pub(super) fn new(decoder: Decoder) -> Self {
        let states = BlockStates::new(decoder.block_count());
        KnownBlocks { decoder, states, zero_streams: ZeroStreams::default() }
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// What is known of a block.
    pub(crate) fn state(&self, block: u64) -> Known {
        self.states.get(block)
    }

    /// Serves what is known without decoding: `true` when `piece`, a part of
    /// the block, was filled with zeros.
    ///
    /// # Errors
    /// `Damaged` when that is what is known.
    pub(super) fn read(&self, block: u64, piece: &mut [u8]) -> Result<bool> {
        self.refuse_damaged(block)?;
        let zero = self.state(block) == Known::Zero || self.decoder.location(block).length == 0;
        if zero {
            piece.fill(0);
        }
        Ok(zero)
    }

    /// # Errors
    /// `Damaged` when the block was found to be.
    pub(super) fn refuse_damaged(&self, block: u64) -> Result<()> {
        if self.state(block) == Known::Damaged {
            return Err(self.damaged(block));
        }
        Ok(())
    }

    /// Whether a block's stream is so small that the block might be all zeros.
    pub(super) fn may_be_zeros(&self, location: BlockLocation) -> bool {
        ZeroStreams::candidate(location, self.decoder.block_size())
    }

    /// Decodes and checks whole blocks, and remembers the outcome of each. A block that cannot
    /// be had is `Damaged` or `Io`.
    pub(super) fn load(&self, wanted: &mut [Wanted<'_>]) -> Vec<Result<()>> {
        let zeros = |block, input: &[u8], output: &mut [u8]| {
            self.known_zeros(block, input)?;
            output.fill(0);
            Some(Known::Zero)
        };
        let learn = |block, input: &[u8], output: &[u8]| self.learn(block, input, output);
        let found = self.decoder.decode_all(wanted, zeros, learn);
        let remember = |(wanted, found): (&Wanted<'_>, std::result::Result<_, _>)| {
            let known = found.map_err(|error| self.failed(wanted.block, error))?;
            self.states.set(wanted.block, known);
            Ok(())
        };
        wanted.iter().zip(found).map(remember).collect()
    }

    /// Has at least `end` bytes of a block inflated; the checksum is checked with the last
    /// byte.
    ///
    /// # Errors
    /// `Damaged` or `Io`.
    pub(super) fn grow(&self, block: u64, growing: &Growing, end: usize) -> Result<()> {
        let location = self.decoder.location(block);
        let grow = || growing.grow(end, |buf, at| self.decoder.read(buf, location.offset + at));
        let grown = match grow() {
            Err(BlockError::Decode(_)) if self.decoder.renew(location) => {
                growing.restart();
                grow()
            }
            grown => grown,
        };
        match grown {
            Ok(true) => {
                self.states.set(block, Known::Data);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => Err(self.failed(block, error)),
        }
    }

    /// What a small stream, given as `input`, decodes to, found by comparison with known
    /// streams or by decoding it; noted for the next time.
    pub(super) fn look_at(&self, block: u64, input: &[u8], scratch: &mut Vec<u8>) -> Known {
        let known = match self.known_zeros(block, input) {
            Some(_) => Known::Zero,
            None => {
                scratch.resize(self.decoder.block_size(), 0);
                match self.decoder.decode(block, input, scratch) {
                    Ok(()) => self.learn(block, input, scratch),
                    Err(_) => Known::Nothing,
                }
            }
        };
        self.note(block, known);
        known
    }

    /// The known stream of zeros that equals `input`.
    pub(super) fn known_zeros(&self, block: u64, input: &[u8]) -> Option<Arc<[u8]>> {
        let location = self.decoder.location(block);
        let candidate = self.may_be_zeros(location);
        candidate.then(|| self.zero_streams.find(location.codec, input))?
    }

    /// Notes what a block was found to be.
    pub(super) fn note(&self, block: u64, known: Known) {
        if known != Known::Nothing {
            self.states.set(block, known);
        }
    }

    /// What a block holds that was decoded to `output`; learns its stream if that is zeros.
    fn learn(&self, block: u64, input: &[u8], output: &[u8]) -> Known {
        let location = self.decoder.location(block);
        if !self.may_be_zeros(location) || output.iter().any(|byte| *byte != 0) {
            return Known::Data;
        }
        // A stream that was allowed to be short is no model for others.
        if !self.decoder.may_be_short(block) {
            self.zero_streams.learn(location.codec, input);
        }
        Known::Zero
    }

    /// The error for a block that cannot be had. Damage is noted, and logged once.
    fn failed(&self, block: u64, error: BlockError) -> Error {
        let offset = self.decoder.location(block).offset;
        match error {
            BlockError::Io(error) => {
                let message = format!("cannot read block {block} at offset {offset}");
                Error::io(self.decoder.name(), message, error).at(offset)
            }
            BlockError::Decode(reason) => {
                if self.states.set(block, Known::Damaged) {
                    log::error!(
                        "{}: block {block} at offset {offset} is damaged: {reason}",
                        self.decoder.name()
                    );
                }
                self.damaged(block)
            }
        }
    }

    fn damaged(&self, block: u64) -> Error {
        let offset = self.decoder.location(block).offset;
        let message = format!("block {block} at offset {offset} is damaged");
        Error::new(ErrorKind::Damaged, self.decoder.name(), message).at(offset)
    }
}

/// Two bits per block, allocated where something is known.
#[derive(Debug)]
struct BlockStates(Vec<OnceLock<Box<[AtomicU8]>>>);

impl BlockStates {
    fn new(blocks: u64) -> Self {
        BlockStates((0..blocks.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect())
    }

    fn get(&self, block: u64) -> Known {
        let Some(chunk) = self.0[(block / CHUNK) as usize].get() else { return Known::Nothing };
        let byte = chunk[(block % CHUNK / PER_BYTE) as usize].load(Ordering::Acquire);
        match byte >> Self::shift(block) & 3 {
            0 => Known::Nothing,
            1 => Known::Data,
            2 => Known::Zero,
            _ => Known::Damaged,
        }
    }

    /// Notes what was found; returns whether it was not known before. Damage is never taken
    /// back.
    fn set(&self, block: u64, known: Known) -> bool {
        let chunk = self.0[(block / CHUNK) as usize].get_or_init(|| {
            (0..CHUNK / PER_BYTE).map(|_| AtomicU8::new(0)).collect::<Vec<_>>().into_boxed_slice()
        });
        let shift = Self::shift(block);
        let value = match known {
            Known::Nothing => 0,
            Known::Data => 1,
            Known::Zero => 2,
            Known::Damaged => 3,
        };
        let cell = &chunk[(block % CHUNK / PER_BYTE) as usize];
        let update = |byte: u8| {
            let old = byte >> shift & 3;
            (old != value && old != 3).then_some(byte & !(3 << shift) | value << shift)
        };
        cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok()
    }

    fn shift(block: u64) -> u32 {
        (block % PER_BYTE) as u32 * 2
    }
}

/// Streams that are known to decode to a block of zeros.
#[derive(Debug, Default)]
struct ZeroStreams(RwLock<HashMap<(Codec, u32), Streams>>);

/// Streams of one codec and length.
type Streams = Vec<Arc<[u8]>>;

impl ZeroStreams {
    /// Whether a block of this compressed length might be all zeros.
    ///
    /// A long run costs one byte in 128 to 255 with LZ4, LZO and deflate's fixed codes, and
    /// much less elsewhere. Stored blocks are left out: comparing them is as dear as
    /// reading them.
    fn candidate(location: BlockLocation, block_size: usize) -> bool {
        location.codec != Codec::Stored && location.length as usize <= block_size / 128 + 128
    }

    /// This very stream, if it was learned.
    fn find(&self, codec: Codec, stream: &[u8]) -> Option<Arc<[u8]>> {
        let known = self.0.read();
        let streams = known.get(&(codec, stream.len() as u32))?;
        streams.iter().find(|known| ***known == *stream).cloned()
    }

    /// Remembers a stream that decoded to zeros, while there is room.
    fn learn(&self, codec: Codec, stream: &[u8]) {
        let mut known = self.0.write();
        let held: usize = known.values().flatten().map(|stream| stream.len()).sum();
        if held + stream.len() > STREAM_BYTES {
            return;
        }
        let streams = known.entry((codec, stream.len() as u32)).or_default();
        if streams.len() < STREAMS_A_LENGTH && !streams.iter().any(|known| **known == *stream) {
            streams.push(stream.into());
        }
    }
}
