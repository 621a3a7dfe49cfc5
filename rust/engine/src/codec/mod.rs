//! Compressors of blocks: bytes in, bytes of a known size out.
//!
//! Each codec is one file. Its `decode(input, output)` never writes beyond `output`, never
//! allocates by a size that the input claims (liblzma within [`LZMA_MEMORY_LIMIT`]),
//! ignores what follows the stream's end, and says in one phrase what is wrong with a
//! stream that it refuses. Codecs that our own images may have also bring an [`Encode`]r.

mod level;
mod lz4;
mod lzma;
mod lzo;
mod stored;
pub(crate) mod zlib;
mod zstd;

use std::borrow::Cow;
use std::fmt;

pub use level::Level;

/// Bytes that the decoder of an xz or lzma block may take: what `xz -9` asks
/// for (a dictionary of 64 MiB), and some more.
pub(crate) const LZMA_MEMORY_LIMIT: u64 = 96 << 20;

/// The compressor of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// RFC 1950.
    Zlib,
    /// Not compressed.
    Stored,
    /// An .xz stream.
    Xz,
    /// A raw LZ4 block.
    Lz4,
    /// A raw LZO1X stream.
    Lzo,
    /// An .xz stream or, in old images, an .lzma ("alone") one.
    Lzma,
    /// A zstd frame.
    Zstd,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Codec; 7] =
        [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo, Codec::Lzma, Codec::Zstd];

    /// The number that names the codec in an index entry of a V4.0 image, if there is one:
    /// those of the cloop driver, versions 4 and 5.
    pub(crate) const fn v4_flag(self) -> Option<u64> {
        match self {
            Codec::Zlib => Some(0),
            Codec::Stored => Some(1),
            Codec::Xz => Some(2),
            Codec::Lz4 => Some(3),
            Codec::Lzo => Some(4),
            Codec::Lzma | Codec::Zstd => None,
        }
    }

    /// The codec that an index entry of a V4.0 image names by `flag`.
    pub(crate) fn from_v4_flag(flag: u64) -> Option<Codec> {
        Self::ALL.into_iter().find(|codec| codec.v4_flag() == Some(flag))
    }

    /// Its name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Zlib => "zlib",
            Codec::Stored => "none",
            Codec::Xz => "xz",
            Codec::Lz4 => "lz4",
            Codec::Lzo => "lzo",
            Codec::Lzma => "lzma",
            Codec::Zstd => "zstd",
        }
    }

    /// Decodes one stream into `output` and returns the number of bytes that it holds,
    /// `output.len()` or fewer; the bytes behind them in `output` are undefined.
    ///
    /// # Errors
    /// What is wrong with the stream: broken, or longer than `output`.
    pub fn decode(self, input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
        match self {
            Codec::Zlib => zlib::decode(input, output),
            Codec::Stored => stored::decode(input, output),
            Codec::Xz => lzma::decode_xz(input, output),
            Codec::Lz4 => lz4::decode(input, output),
            Codec::Lzo => lzo::decode(input, output),
            Codec::Lzma => lzma::decode_uzip(input, output),
            Codec::Zstd => zstd::decode(input, output),
        }
    }

    /// Decodes one stream that must fill `output`.
    ///
    /// `short`: a stream that ends early is accepted too, and the rest is zeros.
    ///
    /// # Errors
    /// What is wrong with the stream.
    pub(crate) fn decode_block(
        self,
        input: &[u8],
        output: &mut [u8],
        short: bool,
    ) -> Result<(), DecodeError> {
        fill(self.decode(input, output)?, output, short)
    }
}

/// Checks that a stream of `length` bytes fills `output`, or fills the rest with zeros.
fn fill(length: usize, output: &mut [u8], short: bool) -> Result<(), DecodeError> {
    if length < output.len() {
        if !short {
            return Err(DecodeError::too_short(length, output.len()));
        }
        output[length..].fill(0);
    }
    Ok(())
}

/// A block among several, to be decoded as by [`Codec::decode_block`].
pub(crate) struct Task<'a> {
    pub(crate) codec: Codec,
    pub(crate) input: &'a [u8],
    pub(crate) output: &'a mut [u8],
    pub(crate) short: bool,
}

/// Decodes blocks, of zlib two at a time: that takes less time than one after the other. Returns
/// the result of each.
pub(crate) fn decode_blocks(tasks: &mut [Task<'_>]) -> Vec<Result<(), DecodeError>> {
    let (zlib, others): (Vec<_>, Vec<_>) =
        tasks.iter_mut().enumerate().partition(|(_, task)| task.codec == Codec::Zlib);
    let mut results = vec![Ok(()); zlib.len() + others.len()];
    for (at, task) in others {
        results[at] = task.codec.decode_block(task.input, task.output, task.short);
    }
    let (places, mut streams): (Vec<_>, Vec<_>) = zlib
        .into_iter()
        .map(|(at, task)| ((at, task.short), zlib::Whole::new(task.input, task.output)))
        .unzip();
    zlib::decode_many(&mut streams);
    for ((at, short), stream) in places.into_iter().zip(streams) {
        results[at] = stream.length.and_then(|length| fill(length, stream.output, short));
    }
    results
}

impl Codec {
    /// An encoder of blocks of `block_size` bytes at most; `None` for a codec that our own
    /// images cannot have.
    pub(crate) fn encoder(self, level: Level, block_size: u32) -> Option<Encoder> {
        Some(match self {
            Codec::Zlib => Box::new(zlib::Encoder::new(level)),
            Codec::Stored => Box::new(stored::Encoder),
            Codec::Xz => Box::new(lzma::XzEncoder::new(level, block_size)),
            Codec::Lz4 => Box::new(lz4::Encoder::default()),
            Codec::Lzo => Box::new(lzo::Encoder::default()),
            Codec::Lzma | Codec::Zstd => return None,
        })
    }

    /// The longest result of encoding a block of `block_size` bytes.
    pub(crate) fn bound(self, block_size: u32) -> usize {
        let size = block_size as usize;
        match self {
            Codec::Stored => size,
            Codec::Lz4 => lz4::bound(size),
            // Stored parts of deflate add 5 bytes in 5000 or more, of LZMA2 3 in
            // 65536, LZO's literals 1 in 255; each has a frame of its own.
            Codec::Zlib | Codec::Xz | Codec::Lzo | Codec::Lzma | Codec::Zstd => {
                size + size / 16 + 512
            }
        }
    }
}

/// Compresses blocks one after the other; the result depends on the block alone.
pub(crate) type Encoder = Box<dyn Encode>;

/// One codec's way to compress a block.
pub(crate) trait Encode {
    /// Compresses `block` into `output`, which is [`Codec::bound`] bytes or more,
    /// and returns the length of the result.
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError>;
}

/// A block that could not be compressed, in one phrase.
#[derive(Debug)]
pub(crate) struct EncodeError(pub(crate) String);

impl EncodeError {
    fn new(reason: impl fmt::Debug) -> Self {
        EncodeError(format!("{reason:?}"))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with a compressed block, in one phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Cow<'static, str>);

impl DecodeError {
    /// An error with this phrase.
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        DecodeError(reason.into())
    }

    pub(crate) fn too_long(limit: usize) -> Self {
        Self::new(format!("it decodes to more than {limit} bytes"))
    }

    pub(crate) fn too_short(length: usize, expected: usize) -> Self {
        Self::new(format!("it decodes to {length} bytes, not {expected}"))
    }

    pub(crate) fn truncated() -> Self {
        Self::new("the compressed data ends early")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
pub(crate) mod tests;
