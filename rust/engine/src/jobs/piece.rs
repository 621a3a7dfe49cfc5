//! A piece of an image: blocks that are compressed together, here or on another machine.

use libdeflater::crc32;

use super::create::CreateOptions;
use super::encode::Scheme;
use super::input::{fetch, Input};
use crate::buffers::{Buffer, Buffers};
use crate::codec::{EncodeError, Encoder};
use crate::{Error, ErrorKind, Result};

/// Blocks in order, compressed.
#[derive(Debug)]
pub struct Piece {
    /// The compressed blocks, one after the other, and room behind them.
    pub(super) buffer: Buffer,
    /// Compressed bytes of each block.
    pub(super) lengths: Vec<u32>,
    /// Bytes of the input.
    pub(super) input: u64,
}

impl Piece {
    /// The compressed blocks, one after the other.
    pub fn bytes(&self) -> &[u8] {
        let end: usize = self.lengths.iter().map(|length| *length as usize).sum();
        &self.buffer[..end]
    }

    /// Compressed bytes of each block.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Bytes of the input.
    pub fn input(&self) -> u64 {
        self.input
    }

    /// The CRC-32 of the compressed bytes.
    pub fn sum(&self) -> u32 {
        crc32(self.bytes())
    }
}

/// Compresses the pieces of an image, on any number of threads and machines: a block's
/// compressed bytes depend on the block and the options alone.
pub struct Compressor {
    scheme: Scheme,
    block_size: usize,
}

impl Compressor {
    /// # Errors
    /// As for [`create()`](super::create()), where the options contradict each other.
    pub fn new(options: &CreateOptions) -> Result<Self> {
        options.validate()?;
        let scheme = Scheme::new(options.codec, options.level, options.block_size)?;
        Ok(Compressor { scheme, block_size: options.block_size as usize })
    }

    /// Compresses `length` bytes of a file or block device, from a block's beginning on.
    ///
    /// # Errors
    /// `InvalidInput` for a pipe or a block that cannot be compressed; the system's error.
    pub fn range(&self, input: &Input, offset: u64, length: usize) -> Result<Piece> {
        let padded = length.next_multiple_of(self.block_size);
        let mut data = vec![0; padded];
        let hole = fetch(input, &mut data[..length], offset)?;
        let data = if hole { Data::Zeros(padded) } else { Data::Bytes(&data) };
        self.alone(input.name(), offset, data, length)
    }

    /// Compresses the bytes that `name` has from `offset` on, a block's beginning.
    ///
    /// # Errors
    /// `InvalidInput` for a block that cannot be compressed.
    pub fn bytes(&self, name: &str, offset: u64, mut data: Vec<u8>) -> Result<Piece> {
        let length = data.len();
        data.resize(length.next_multiple_of(self.block_size), 0);
        self.alone(name, offset, Data::Bytes(&data), length)
    }

    /// Compresses one piece into a buffer of its own.
    fn alone(&self, name: &str, offset: u64, data: Data<'_>, length: usize) -> Result<Piece> {
        let buffer = Buffers::new(self.room(data.len()), 0).take();
        let mut piece = self.compress(&mut self.encoder(), name, offset, data, buffer)?;
        piece.input = length as u64;
        Ok(piece)
    }

    /// Room for so many bytes of whole blocks, compressed.
    pub(super) fn room(&self, bytes: usize) -> usize {
        bytes / self.block_size * self.scheme.bound()
    }

    /// An encoder, for one thread.
    pub(super) fn encoder(&self) -> Encoder {
        self.scheme.encoder()
    }

    /// Compresses whole blocks into `buffer`, which has room for them.
    pub(super) fn compress(
        &self,
        encoder: &mut Encoder,
        name: &str,
        offset: u64,
        data: Data<'_>,
        mut buffer: Buffer,
    ) -> Result<Piece> {
        let blocks = data.len() / self.block_size;
        let mut lengths = Vec::with_capacity(blocks);
        let mut end = 0;
        for number in 0..blocks {
            let at = number * self.block_size;
            let block = data.bytes().map(|bytes| &bytes[at..at + self.block_size]);
            let failed = |EncodeError(reason)| {
                let at = offset + at as u64;
                let message = format!("the block at byte {at} cannot be compressed: {reason}");
                Error::new(ErrorKind::InvalidInput, name, message)
            };
            let length = self.scheme.encode(encoder, block, &mut buffer[end..]).map_err(failed)?;
            end += length;
            lengths.push(length as u32);
        }
        Ok(Piece { buffer, lengths, input: data.len() as u64 })
    }
}

/// Whole blocks.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(usize),
}

impl<'a> Data<'a> {
    fn len(self) -> usize {
        match self {
            Data::Bytes(bytes) => bytes.len(),
            Data::Zeros(length) => length,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Data::Bytes(bytes) => Some(bytes),
            Data::Zeros(_) => None,
        }
    }
}
