//! zlib streams (RFC 1950), by libdeflate where a whole block is wanted and by
//! zlib-ng where a block is inflated piece by piece.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{DecompressionError, Decompressor};

use super::DecodeError;

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
        // libdeflate does not say what is bad; zlib-ng does, and it has the last word.
        Err(DecompressionError::BadData) => {
            let mut stream = Stream::new();
            let length = stream.inflate(input, output, 0)?;
            stream.finish(input, output.len(), length)
        }
    }
}

/// Inflates the beginning of a stream into the whole of `output`, or as much
/// of it as there is. Nothing is said of what follows: the Adler-32 is not checked.
pub(crate) fn decode_prefix(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    PIECEWISE.with_borrow_mut(|inflater| {
        inflater.reset(true);
        step(inflater, input, output).map(|(length, _)| length)
    })
}

/// An inflate that was stopped, and can go on.
pub(crate) struct Stream {
    inflater: Decompress,
    ended: bool,
}

/// Bytes that a [`Stream`] takes: zlib-ng's state and its window.
pub(crate) const STREAM_BYTES: u64 = 48 << 10;

impl Stream {
    /// A stream of which nothing was inflated yet.
    pub(crate) fn new() -> Self {
        Stream { inflater: Decompress::new(true), ended: false }
    }

    /// Goes on: fills `output[done..]`, where `done` bytes came out before, from
    /// `input`, the whole stream. Returns the bytes that are there now: fewer
    /// than `output.len()` only where the stream ends.
    pub(crate) fn inflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        done: usize,
    ) -> Result<usize, DecodeError> {
        if self.ended || done == output.len() {
            return Ok(done);
        }
        let consumed = self.inflater.total_in() as usize;
        let rest = &input[consumed.min(input.len())..];
        let (length, ended) = step(&mut self.inflater, rest, &mut output[done..])?;
        self.ended = ended;
        Ok(done + length)
    }

    /// With all of the block inflated: is this the end, and the Adler-32 right?
    /// Returns `done`, the bytes that came out.
    pub(crate) fn finish(
        &mut self,
        input: &[u8],
        limit: usize,
        done: usize,
    ) -> Result<usize, DecodeError> {
        if !self.ended {
            let consumed = self.inflater.total_in() as usize;
            let rest = &input[consumed.min(input.len())..];
            let mut beyond = [0];
            let (length, ended) = step(&mut self.inflater, rest, &mut beyond)?;
            if length > 0 {
                return Err(DecodeError::too_long(limit));
            }
            self.ended = ended;
        }
        Ok(done)
    }
}

/// Inflates until `output` is full or the stream ends: bytes written, and whether it ended.
fn step(
    inflater: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(usize, bool), DecodeError> {
    let (start_in, start_out) = (inflater.total_in(), inflater.total_out());
    loop {
        let consumed = (inflater.total_in() - start_in) as usize;
        let written = (inflater.total_out() - start_out) as usize;
        let status = inflater
            .decompress(&input[consumed..], &mut output[written..], FlushDecompress::None)
            .map_err(|error| match error.message() {
                Some(message) => DecodeError::new(format!("zlib: {message}")),
                None if error.needs_dictionary().is_some() => {
                    DecodeError::new("zlib: a preset dictionary is asked for")
                }
                None => DecodeError::new("zlib: invalid data"),
            })?;
        let now = (inflater.total_out() - start_out) as usize;
        if status == Status::StreamEnd {
            return Ok((now, true));
        }
        if now == output.len() {
            return Ok((now, false));
        }
        let progressed = now > written || inflater.total_in() - start_in > consumed as u64;
        if !progressed {
            return Err(DecodeError::truncated());
        }
    }
}
