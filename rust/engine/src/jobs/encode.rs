//! Compressing the blocks of one image.

use super::is_zero;
use crate::codec::{Codec, EncodeError, Encoder, Level};
use crate::{Error, ErrorKind};

type Result<T, E = Error> = std::result::Result<T, E>;

/// How all blocks of an image are compressed: makes an encoder for each thread, and knows
/// the stream of a block of zeros, so that it is compressed once.
pub(super) struct Scheme {
    pub(super) codec: Codec,
    level: Level,
    block_size: u32,
    zeros: Vec<u8>,
}

impl Scheme {
    /// # Errors
    /// `Unsupported` for a codec that our own images cannot have.
    pub(super) fn new(codec: Codec, level: Level, block_size: u32) -> Result<Self> {
        let mut scheme = Scheme { codec, level, block_size, zeros: Vec::new() };
        let unsupported = |reason: String| Error::new(ErrorKind::Unsupported, "create", reason);
        let mut encoder = codec
            .encoder(level, block_size)
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
        self.codec.bound(self.block_size)
    }

    /// An encoder, for one thread.
    pub(super) fn encoder(&self) -> Encoder {
        self.codec.encoder(self.level, self.block_size).expect("it could be made before")
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
