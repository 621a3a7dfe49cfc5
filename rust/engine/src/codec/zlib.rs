//! zlib streams (RFC 1950): inflated by `cowcloop-inflate`, compressed by libdeflate.

use std::cell::RefCell;

use cowcloop_inflate::{Container, Error, Inflated, Inflater, Job, Progress, State};
use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor};

use super::{DecodeError, Encode, EncodeError, Level};

thread_local! {
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
}

/// Inflates a whole stream and checks its Adler-32.
pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    let result = INFLATER.with_borrow_mut(|it| it.inflate(Container::Zlib, input, output));
    judge(result, input, output)
}

/// A whole stream among several.
pub(super) struct Whole<'a> {
    pub(super) input: &'a [u8],
    pub(super) output: &'a mut [u8],
    pub(super) length: Result<usize, DecodeError>,
}

impl<'a> Whole<'a> {
    pub(super) fn new(input: &'a [u8], output: &'a mut [u8]) -> Self {
        Whole { input, output, length: Err(DecodeError::truncated()) }
    }
}

/// Inflates whole streams, two at a time.
pub(super) fn decode_many(streams: &mut [Whole<'_>]) {
    let jobs = streams.iter_mut().map(|stream| Job::new(stream.input, &mut *stream.output));
    let mut jobs: Vec<_> = jobs.collect();
    INFLATER.with_borrow_mut(|inflater| inflater.inflate_many(Container::Zlib, &mut jobs));
    let results: Vec<_> = jobs.into_iter().map(|job| job.result).collect();
    for (stream, result) in streams.iter_mut().zip(results) {
        stream.length = judge(result, stream.input, stream.output);
    }
}

/// The length of a stream. Where the inflater refuses one, zlib-ng has the last word: its
/// reasons are those that users and search engines know.
fn judge(
    result: Result<Inflated, Error>,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, DecodeError> {
    match result {
        Ok(inflated) => Ok(inflated.written),
        Err(Error::TooLong) => Err(DecodeError::too_long(output.len())),
        Err(_) => decode_by_library(input, output),
    }
}

fn decode_by_library(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    let mut inflater = Decompress::new(true);
    let (mut consumed, mut written) = (0, 0);
    // When the output is full, the stream must end without another byte.
    let mut beyond = [0];
    loop {
        let target = if written < output.len() { &mut output[written..] } else { &mut beyond[..] };
        let status = inflater
            .decompress(&input[consumed..], target, FlushDecompress::None)
            .map_err(refused)?;
        let before = (consumed, written);
        (consumed, written) = (inflater.total_in() as usize, inflater.total_out() as usize);
        if written > output.len() {
            return Err(DecodeError::too_long(output.len()));
        }
        if status == Status::StreamEnd {
            return Ok(written);
        }
        if (consumed, written) == before {
            return Err(DecodeError::truncated());
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

/// The beginning of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// So many bytes are right, and the stream may go on.
    GoesOn(usize),
    /// The stream ends after so many bytes.
    Ends(usize),
}

/// A stream that is inflated as far as it is wanted, and further later.
#[derive(Debug, Clone)]
pub(crate) struct Stream(State);

impl Stream {
    /// A stream of which nothing is inflated yet.
    pub(crate) fn new() -> Self {
        Stream(State::new(Container::Zlib))
    }

    /// The beginning of the input is used up: returns how many bytes, which the caller takes
    /// off the input.
    pub(crate) fn take_used(&mut self) -> usize {
        self.0.take_used()
    }

    /// Inflates until `stop` bytes of the output are there, or more, or the stream ends; with
    /// `None`, to the end, where the Adler-32 is checked. `output` begins with what was inflated
    /// before. After an error, the stream goes on if there is more of the input.
    pub(crate) fn inflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        stop: Option<usize>,
    ) -> Result<Prefix, DecodeError> {
        let stop = stop.unwrap_or(usize::MAX);
        let progress = INFLATER.with_borrow_mut(|it| it.resume(&mut self.0, input, output, stop));
        match progress {
            Ok(Progress::Paused(length)) => Ok(Prefix::GoesOn(length)),
            Ok(Progress::Ended(inflated)) => Ok(Prefix::Ends(inflated.written)),
            Err(Error::TooLong) => Err(DecodeError::too_long(output.len())),
            Err(Error::Truncated) => Err(DecodeError::truncated()),
            Err(error) => Err(DecodeError::new(format!("zlib: {error}"))),
        }
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
