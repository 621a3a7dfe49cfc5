//! Blocks that were not compressed.

use super::{DecodeError, Encode, EncodeError};

pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    let limit = output.len();
    let target = output.get_mut(..input.len()).ok_or_else(|| DecodeError::too_long(limit))?;
    target.copy_from_slice(input);
    Ok(input.len())
}

pub(super) struct Encoder;

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        output[..block.len()].copy_from_slice(block);
        Ok(block.len())
    }
}
