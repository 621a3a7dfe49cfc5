//! Raw LZ4 blocks: no frame, no size, no checksum.

use lz4_flex::block::{
    compress_into_with_table, decompress_into, get_maximum_output_size, CompressTable,
    DecompressError,
};

use super::{DecodeError, Encode, EncodeError};

pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    decompress_into(input, output).map_err(|error| match error {
        DecompressError::OutputTooSmall { .. } => DecodeError::too_long(output.len()),
        DecompressError::ExpectedAnotherByte | DecompressError::LiteralOutOfBounds => {
            DecodeError::truncated()
        }
        _ => DecodeError::new("lz4: a match reaches back before the block"),
    })
}

/// The longest result of a block of `size` bytes.
pub(super) fn bound(size: usize) -> usize {
    get_maximum_output_size(size)
}

#[derive(Default)]
pub(super) struct Encoder(CompressTable);

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        compress_into_with_table(block, output, &mut self.0).map_err(EncodeError::new)
    }
}
