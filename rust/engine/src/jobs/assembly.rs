//! An image in the making, whose pieces come in order from wherever they were compressed.

use libdeflater::crc32;

use super::create::{CreateOptions, CreateSummary};
use super::input::Input;
use super::output::Output;
use super::piece::Piece;
use super::writer::{Check, CloopWriter};
use crate::codec::Codec;
use crate::{Error, ErrorKind, Result};

/// An image to which pieces are appended. If it is dropped before
/// [`finish`](Self::finish), the output's place is unchanged.
pub struct Assembly {
    writer: CloopWriter,
    codec: Codec,
    block_size: u64,
    input: String,
    /// Bytes of the input so far.
    total: u64,
}

impl Assembly {
    /// Begins the image of `input`.
    ///
    /// # Errors
    /// `InvalidInput` for options that contradict each other or an empty input; the system's
    /// error; that of `check`.
    pub fn new(
        input: &Input,
        output: Output,
        options: &CreateOptions,
        check: Check<'_>,
    ) -> Result<Self> {
        options.validate()?;
        if input.size() == Some(0) {
            return Err(empty(input.name()));
        }
        let CreateOptions { format, footer, block_size, codec, .. } = *options;
        let blocks = input.size().map(|size| size.div_ceil(u64::from(block_size)));
        let writer = CloopWriter::new(output, format, footer, block_size, blocks, check)?;
        let (block_size, input) = (u64::from(block_size), input.name().to_string());
        Ok(Assembly { writer, codec, block_size, input, total: 0 })
    }

    /// Appends the next piece.
    ///
    /// # Errors
    /// The system's error; that of `check`; `InvalidInput` when there are too many blocks.
    pub fn append(&mut self, piece: &Piece, check: Check<'_>) -> Result<()> {
        self.append_parts(piece.bytes(), piece.lengths(), piece.input(), check)
    }

    /// Appends the next piece, which came over a network in parts: they have to fit together.
    ///
    /// # Errors
    /// As for [`append`](Self::append); `Damaged` where the parts do not belong together.
    pub fn append_received(
        &mut self,
        bytes: &[u8],
        lengths: &[u32],
        sum: u32,
        input: u64,
        check: Check<'_>,
    ) -> Result<()> {
        let whole: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let blocks = input.div_ceil(self.block_size);
        if whole != bytes.len() as u64 || blocks != lengths.len() as u64 || crc32(bytes) != sum {
            let at = self.total;
            let message = format!("the compressed blocks from byte {at} on came back damaged");
            return Err(Error::new(ErrorKind::Damaged, &self.input, message));
        }
        self.append_parts(bytes, lengths, input, check)
    }

    fn append_parts(
        &mut self,
        bytes: &[u8],
        lengths: &[u32],
        input: u64,
        check: Check<'_>,
    ) -> Result<()> {
        let codec = self.codec;
        self.writer.append(bytes, lengths.iter().map(|length| (codec, *length)), check)?;
        self.total += input;
        Ok(())
    }

    /// Completes the image and puts it in its place.
    ///
    /// # Errors
    /// `InvalidInput` for an empty input; the system's error; that of `check`.
    pub fn finish(self, check: Check<'_>) -> Result<CreateSummary> {
        if self.total == 0 {
            return Err(empty(&self.input));
        }
        let written = self.writer.finish(|_| Ok(()), check)?;
        Ok(CreateSummary {
            input_size: self.total,
            size: written.blocks * self.block_size,
            blocks: written.blocks,
            compressed_bytes: written.compressed,
            file_size: written.file,
        })
    }
}

fn empty(name: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, name, "is empty: there is nothing to compress")
}
