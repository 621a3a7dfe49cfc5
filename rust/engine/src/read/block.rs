//! What is told of one block: where it is stored, and what is wrong with it.

use std::io;

use serde::Serialize;

use crate::codec::{decode_blocks, DecodeError, Task};
use crate::format::cloop::BlockLocation;

/// A block that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadBlock {
    /// Its number.
    pub block: u64,
    /// Where its compressed bytes begin in the file.
    pub offset: u64,
    /// How many there are.
    pub length: u32,
    /// What is wrong, in one phrase.
    pub reason: String,
}

/// A block whose compressed bytes may have been taken out of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its number.
    pub block: u64,
    /// Where its compressed bytes are in the image, and what compressed them.
    pub location: BlockLocation,
    /// Its stream may end before the block does.
    pub may_be_short: bool,
}

impl StoredBlock {
    /// Decodes the compressed bytes of a block of `block_size` bytes, and says what is wrong with
    /// it. `scratch` is working space that may be reused.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub(crate) fn check(
        &self,
        input: &[u8],
        block_size: u32,
        scratch: &mut Vec<u8>,
    ) -> Result<(), BadBlock> {
        scratch.resize(block_size as usize, 0);
        let codec = self.location.codec;
        let mut tasks = [Task { codec, input, output: scratch, short: self.may_be_short }];
        let decoded = decode_blocks(&mut tasks).pop().expect("one for each task");
        decoded.map_err(|error| self.bad(&error.into()))
    }

    /// The block, as one that cannot be read.
    pub(crate) fn bad(&self, error: &BlockError) -> BadBlock {
        BadBlock {
            block: self.block,
            offset: self.location.offset,
            length: self.location.length,
            reason: error.to_string(),
        }
    }
}

/// Why a block cannot be read.
#[derive(Debug)]
pub(crate) enum BlockError {
    /// The storage could not be read.
    Io(io::Error),
    /// The compressed bytes are damaged.
    Decode(DecodeError),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        BlockError::Io(error)
    }
}

impl From<DecodeError> for BlockError {
    fn from(error: DecodeError) -> Self {
        BlockError::Decode(error)
    }
}

impl std::fmt::Display for BlockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BlockError::Io(error) => error.fmt(f),
            BlockError::Decode(error) => error.fmt(f),
        }
    }
}
