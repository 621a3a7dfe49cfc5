//! Compressors of blocks: bytes in, bytes of a known size out.
//!
//! Each codec is one file with a `decode(input, output)` that never writes
//! beyond `output`, never allocates by a size that the input claims (liblzma
//! within [`LZMA_MEMORY_LIMIT`]), ignores what follows the stream's end, and
//! says in one phrase what is wrong with a stream that it refuses.

mod lz4;
mod lzma;
mod lzo;
mod stored;
pub(crate) mod zlib;
mod zstd;

use std::borrow::Cow;
use std::fmt;

/// Bytes that the decoder of an xz or lzma block may take: what `xz -9` asks
/// for (a dictionary of 64 MiB), and some more.
pub const LZMA_MEMORY_LIMIT: u64 = 96 << 20;

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
    /// The codecs that a V4.0 index entry can name, by the number that it has there.
    pub const FLAGS: [Codec; 5] = [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo];

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

    /// Decodes one stream into `output` and returns the bytes that it holds,
    /// `output.len()` or fewer; what lies behind them in `output` is undefined.
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
    /// `short`: a stream that ends early is taken too, and the rest is zeros.
    ///
    /// # Errors
    /// What is wrong with the stream.
    pub fn decode_block(
        self,
        input: &[u8],
        output: &mut [u8],
        short: bool,
    ) -> Result<(), DecodeError> {
        let length = self.decode(input, output)?;
        if length < output.len() {
            if !short {
                return Err(DecodeError::too_short(length, output.len()));
            }
            output[length..].fill(0);
        }
        Ok(())
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
