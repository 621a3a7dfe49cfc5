//! Compressing one block: each codec with the levels that it has.

use libdeflater::{CompressionLvl, Compressor};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream, PRESET_EXTREME};
use lz4_flex::block::CompressTable;

use super::is_zero;
use crate::codec::Codec;
use crate::{Error, ErrorKind};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level(Inner);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Inner {
    Number(u8),
    Best,
}

impl Level {
    /// The smallest result, however long it takes.
    pub const BEST: Level = Level(Inner::Best);

    /// 1, the fastest, to 9; `None` for other numbers.
    pub fn new(number: u8) -> Option<Level> {
        (1..=9).contains(&number).then_some(Level(Inner::Number(number)))
    }
}

impl Default for Level {
    /// 8: smaller than zlib's 9 on programs, text, tables and pictures alike, in a
    /// fifth of its time. 7 is not, on source text, by 0.3 %.
    fn default() -> Self {
        Level(Inner::Number(8))
    }
}

/// A block that could not be compressed, in one phrase.
#[derive(Debug)]
pub(super) struct EncodeError(pub(super) String);

/// Compresses blocks one after the other; the result depends on the block alone.
pub(super) struct Encoder {
    method: Method,
}

enum Method {
    Zlib(Compressor),
    Stored,
    /// The parameters to try; the smallest result is kept.
    Xz {
        candidates: Vec<Filters>,
        spare: Vec<u8>,
    },
    Lz4(CompressTable),
    Lzo(Box<lzokay_native::Dict>),
}

impl Encoder {
    /// An encoder of blocks of `block_size` bytes at most; `None` for a codec
    /// that images of ours cannot have.
    fn new(codec: Codec, level: Level, block_size: u32) -> Option<Self> {
        let method = match codec {
            Codec::Zlib => {
                // Level 12 is within 0.01 % of the best of 9 to 12 for each block.
                let number = match level.0 {
                    Inner::Number(number) => i32::from(number),
                    Inner::Best => 12,
                };
                Method::Zlib(Compressor::new(CompressionLvl::new(number).expect("1 to 12")))
            }
            Codec::Stored => Method::Stored,
            Codec::Xz => {
                let candidates = xz_candidates(level, block_size);
                let spare = match candidates.len() {
                    1 => Vec::new(),
                    _ => vec![0; bound(Codec::Xz, block_size)],
                };
                Method::Xz { candidates, spare }
            }
            Codec::Lz4 => Method::Lz4(CompressTable::default()),
            Codec::Lzo => Method::Lzo(Box::default()),
            Codec::Lzma | Codec::Zstd => return None,
        };
        Some(Encoder { method })
    }

    /// Compresses `block` into `output`, which is [`bound`] bytes or more, and
    /// returns the length of the result.
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        let fail = |reason: &dyn std::fmt::Debug| EncodeError(format!("{reason:?}"));
        match &mut self.method {
            Method::Zlib(compressor) => {
                compressor.zlib_compress(block, output).map_err(|reason| fail(&reason))
            }
            Method::Stored => {
                output[..block.len()].copy_from_slice(block);
                Ok(block.len())
            }
            Method::Xz { candidates, spare } => {
                let (first, others) = candidates.split_first().expect("never empty");
                let mut length = xz(first, block, output)?;
                for filters in others {
                    let other = xz(filters, block, spare)?;
                    if other < length {
                        length = other;
                        output[..length].copy_from_slice(&spare[..length]);
                    }
                }
                Ok(length)
            }
            Method::Lz4(table) => lz4_flex::block::compress_into_with_table(block, output, table)
                .map_err(|reason| fail(&reason)),
            Method::Lzo(dictionary) => {
                let result = lzokay_native::compress_with_dict(block, dictionary)
                    .map_err(|reason| fail(&reason))?;
                output[..result.len()].copy_from_slice(&result);
                Ok(result.len())
            }
        }
    }
}

/// How all blocks of an image are compressed: makes an encoder for each thread,
/// and knows the stream of a block of zeros, so that it is compressed once.
pub(super) struct Scheme {
    pub(super) codec: Codec,
    level: Level,
    block_size: u32,
    zeros: Vec<u8>,
}

impl Scheme {
    /// # Errors
    /// `Unsupported` for a codec that images of ours cannot have.
    pub(super) fn new(codec: Codec, level: Level, block_size: u32) -> Result<Self> {
        let mut scheme = Scheme { codec, level, block_size, zeros: Vec::new() };
        let unsupported = |reason: String| Error::new(ErrorKind::Unsupported, "create", reason);
        let mut encoder = Encoder::new(codec, level, block_size)
            .ok_or_else(|| unsupported(format!("the codec {codec} cannot be written")))?;
        let mut stream = vec![0; scheme.bound()];
        let length = encoder
            .encode(&vec![0; block_size as usize], &mut stream)
            .map_err(|EncodeError(reason)| unsupported(reason))?;
        scheme.zeros = stream[..length].to_vec();
        Ok(scheme)
    }

    /// The longest result of a block.
    pub(super) fn bound(&self) -> usize {
        bound(self.codec, self.block_size)
    }

    /// An encoder, for one thread.
    pub(super) fn encoder(&self) -> Encoder {
        Encoder::new(self.codec, self.level, self.block_size).expect("it could be made before")
    }

    /// Compresses `block`, or, where that is `None`, a block of zeros, into
    /// `output` and returns the length of the result.
    pub(super) fn encode(
        &self,
        encoder: &mut Encoder,
        block: Option<&[u8]>,
        output: &mut [u8],
    ) -> Result<usize, EncodeError> {
        match block.filter(|block| !is_zero(block)) {
            Some(block) => encoder.encode(block, output),
            None => {
                output[..self.zeros.len()].copy_from_slice(&self.zeros);
                Ok(self.zeros.len())
            }
        }
    }
}

/// The longest result of a block of `block_size` bytes.
fn bound(codec: Codec, block_size: u32) -> usize {
    let size = block_size as usize;
    match codec {
        Codec::Stored => size,
        Codec::Lz4 => lz4_flex::block::get_maximum_output_size(size),
        // Stored parts of deflate add 5 bytes in 5000 or more, of LZMA2 3 in
        // 65536, LZO's literals 1 in 255; each has a frame of its own.
        _ => size + size / 16 + 512,
    }
}

fn xz_candidates(level: Level, block_size: u32) -> Vec<Filters> {
    let preset = match level.0 {
        Inner::Number(number) => u32::from(number),
        Inner::Best => 9 | PRESET_EXTREME,
    };
    let filters = |literal_context, position| {
        let mut options = LzmaOptions::new_preset(preset).expect("a preset of 1 to 9");
        // A larger dictionary than the data costs memory in every decoder.
        options.dict_size(block_size.max(4096));
        options.literal_context_bits(literal_context).position_bits(position);
        let mut filters = Filters::new();
        filters.lzma2(&options);
        filters
    };
    match level.0 {
        Inner::Number(_) => vec![filters(3, 2)],
        // Machine code and tables; text.
        Inner::Best => vec![filters(3, 2), filters(4, 0)],
    }
}

/// One .xz stream with CRC32, the only check that the kernel driver knows.
fn xz(filters: &Filters, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
    let fail = |reason: &dyn std::fmt::Debug| EncodeError(format!("{reason:?}"));
    let mut stream =
        Stream::new_stream_encoder(filters, Check::Crc32).map_err(|reason| fail(&reason))?;
    match stream.process(block, output, Action::Finish) {
        Ok(Status::StreamEnd) => Ok(stream.total_out() as usize),
        Ok(status) => Err(fail(&status)),
        Err(reason) => Err(fail(&reason)),
    }
}
