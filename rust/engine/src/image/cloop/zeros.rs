//! What is known of blocks without decoding them: zeros, data, damage.
//!
//! Images of create_compressed_fs store a block of zeros as an ordinary stream,
//! and every such stream of one encoder is the same bytes. So a block whose
//! compressed length is suspiciously small is compared with streams that are
//! known to be zeros; where none fits it is decoded once, and if zeros come out
//! its stream joins the known ones. What was found is kept in two bits a block.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use crate::codec::Codec;

/// Blocks of which two bits each are allocated together.
const CHUNK: u64 = 16 << 10;
const PER_BYTE: u64 = 4;

/// Streams that are kept of each codec and length.
const STREAMS_A_LENGTH: usize = 4;
/// Bytes of streams that are kept in all.
const STREAM_BYTES: usize = 4 << 20;

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing yet.
    Nothing,
    /// It holds more than zeros.
    Data,
    /// It is all zeros.
    Zero,
    /// It does not decode, and this was logged.
    Damaged,
}

/// Two bits a block, allocated where something is known.
#[derive(Debug)]
pub(super) struct BlockStates(Vec<OnceLock<Box<[AtomicU8]>>>);

impl BlockStates {
    pub(super) fn new(blocks: u64) -> Self {
        BlockStates((0..blocks.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect())
    }

    pub(super) fn get(&self, block: u64) -> Known {
        let Some(chunk) = self.0[(block / CHUNK) as usize].get() else { return Known::Nothing };
        let byte = chunk[(block % CHUNK / PER_BYTE) as usize].load(Ordering::Acquire);
        match byte >> Self::shift(block) & 3 {
            0 => Known::Nothing,
            1 => Known::Data,
            2 => Known::Zero,
            _ => Known::Damaged,
        }
    }

    /// Notes what was found; returns whether that is news. Damage is never taken back.
    pub(super) fn set(&self, block: u64, known: Known) -> bool {
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
pub(super) struct ZeroStreams(RwLock<HashMap<(Codec, u32), Streams>>);

/// Streams of one codec and length.
type Streams = Vec<Arc<[u8]>>;

impl ZeroStreams {
    /// Whether a block of this compressed length might be all zeros.
    ///
    /// A long run costs one byte in 128 to 255 with LZ4, LZO and deflate's
    /// fixed codes, and much less elsewhere. Stored blocks are not looked at: to
    /// compare them is to read them.
    pub(super) fn candidate(codec: Codec, length: u32, block_size: u32) -> bool {
        codec != Codec::Stored && length <= block_size / 128 + 128
    }

    /// This very stream, when it was learned.
    pub(super) fn find(&self, codec: Codec, stream: &[u8]) -> Option<Arc<[u8]>> {
        let known = self.0.read().expect("no panic while locked");
        let streams = known.get(&(codec, stream.len() as u32))?;
        streams.iter().find(|known| ***known == *stream).cloned()
    }

    /// Remembers a stream that decoded to zeros, while there is room.
    pub(super) fn learn(&self, codec: Codec, stream: &[u8]) {
        let mut known = self.0.write().expect("no panic while locked");
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
