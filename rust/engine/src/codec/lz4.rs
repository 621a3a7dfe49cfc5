//! Raw LZ4 blocks: no frame, no size, no checksum.

use lz4_flex::block::{decompress_into, DecompressError};

use super::DecodeError;

pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    decompress_into(input, output).map_err(|error| match error {
        DecompressError::OutputTooSmall { .. } => DecodeError::too_long(output.len()),
        DecompressError::ExpectedAnotherByte | DecompressError::LiteralOutOfBounds => {
            DecodeError::truncated()
        }
        _ => DecodeError::new("lz4: a match reaches back before the block"),
    })
}
