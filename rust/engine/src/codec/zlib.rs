//! zlib streams (RFC 1950), by libdeflate where a whole block is wanted and by
//! zlib-ng where a block is inflated in part or piece by piece.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::{DecodeError, Encode, EncodeError, Level};

thread_local! {
    static WHOLE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static PIECEWISE: RefCell<Decompress> = RefCell::new(Decompress::new(true));
}

/// Inflates a whole stream and checks its Adler-32.
pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    let result = WHOLE.with_borrow_mut(|inflater| inflater.zlib_decompress(input, output));
    match result {
        Ok(length) => Ok(length),
        Err(DecompressionError::InsufficientSpace) => Err(DecodeError::too_long(output.len())),
        // libdeflate does not say what is wrong; zlib-ng does, and its verdict counts.
        Err(DecompressionError::BadData) => {
            let mut stream = Stream::new();
            let (consumed, length) = stream.step(input, output)?;
            if !stream.ended() {
                let (_, beyond) = stream.step(&input[consumed..], &mut [0])?;
                match (beyond, stream.ended()) {
                    (0, true) => {}
                    (0, false) => return Err(DecodeError::truncated()),
                    _ => return Err(DecodeError::too_long(output.len())),
                }
            }
            Ok(length)
        }
    }
}

/// The beginning of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// All of the output is right, and the stream may go on.
    GoesOn,
    /// The stream ends after so many bytes.
    Ends(usize),
}

/// Inflates the beginning of a stream, and checks nothing of what follows it: the Adler-32
/// is checked only where the stream ends.
///
/// This takes zlib-ng, which was made to stop. libdeflate promises nothing about what it
/// has written when its room is too small: a stored part of the stream, which holds bytes
/// that do not compress, it writes whole or not at all.
pub(crate) fn decode_prefix(input: &[u8], output: &mut [u8]) -> Result<Prefix, DecodeError> {
    PIECEWISE.with_borrow_mut(|inflater| {
        inflater.reset(true);
        let (_, length, ended) = step(inflater, input, output)?;
        match ended {
            true => Ok(Prefix::Ends(length)),
            false if length == output.len() => Ok(Prefix::GoesOn),
            false => Err(DecodeError::truncated()),
        }
    })
}

/// An inflate that stops where its input or its output ends, and can go on.
pub(crate) struct Stream {
    inflater: Decompress,
    ended: bool,
}

/// Bytes that a [`Stream`] occupies: zlib-ng's state and its window.
pub(crate) const STREAM_BYTES: u64 = 48 << 10;

impl Stream {
    /// A stream of which nothing is inflated yet.
    pub(crate) fn new() -> Self {
        Stream { inflater: Decompress::new(true), ended: false }
    }

    /// Bytes of input that it has used so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.inflater.total_in()
    }

    /// Whether the end was seen, and the Adler-32 was right.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Inflates until `output` is full, `input` is used up, or the stream ends. Returns the
    /// bytes used and the bytes written.
    pub(crate) fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), DecodeError> {
        if self.ended {
            return Ok((0, 0));
        }
        let (consumed, written, ended) = step(&mut self.inflater, input, output)?;
        self.ended = ended;
        Ok((consumed, written))
    }
}

/// Bytes used, bytes written, and whether the stream ended.
fn step(
    inflater: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(usize, usize, bool), DecodeError> {
    let (start_in, start_out) = (inflater.total_in(), inflater.total_out());
    let (mut consumed, mut written) = (0, 0);
    loop {
        let status = inflater
            .decompress(&input[consumed..], &mut output[written..], FlushDecompress::None)
            .map_err(refused)?;
        let before = (consumed, written);
        consumed = (inflater.total_in() - start_in) as usize;
        written = (inflater.total_out() - start_out) as usize;
        if status == Status::StreamEnd {
            return Ok((consumed, written, true));
        }
        if (consumed, written) == before || written == output.len() {
            return Ok((consumed, written, false));
        }
    }
}

fn refused(error: flate2::DecompressError) -> DecodeError {
    match error.message() {
        Some(message) => DecodeError::new(format!("zlib: {message}")),
        None if error.needs_dictionary().is_some() => {
            DecodeError::new("zlib: a preset dictionary is asked for")
        }
        None => DecodeError::new("zlib: invalid data"),
    }
}

/// libdeflate's compressor.
pub(super) struct Encoder(Compressor);

impl Encoder {
    pub(super) fn new(level: Level) -> Self {
        // Level 12 is within 0.01 % of the best of 9 to 12 for each block.
        let number = level.number().map_or(12, i32::from);
        Encoder(Compressor::new(CompressionLvl::new(number).expect("1 to 12")))
    }
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        self.0.zlib_compress(block, output).map_err(EncodeError::new)
    }
}
