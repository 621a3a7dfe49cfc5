//! .xz and .lzma ("alone") streams, by liblzma within a memory limit.

use liblzma::stream::{Action, Error, Status, Stream};

use super::{DecodeError, LZMA_MEMORY_LIMIT};

/// What an .xz stream begins with, and no .lzma one: its first byte is below 225.
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

pub(super) fn decode_xz(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    run(Stream::new_stream_decoder(LZMA_MEMORY_LIMIT, 0), input, output)
}

/// A block of a uzip image: an .xz stream, as FreeBSD's kernel reads it, or the .lzma that
/// early versions of `mkulzma` wrote.
pub(super) fn decode_uzip(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    if input.starts_with(&XZ_MAGIC) {
        return decode_xz(input, output);
    }
    match run(Stream::new_lzma_decoder(LZMA_MEMORY_LIMIT), input, output) {
        // No block is empty; but bytes that were lost to zeros are the header of such a stream.
        Ok(0) => Err(DecodeError::new("lzma: a stream of nothing")),
        other => other,
    }
}

fn run(
    stream: Result<Stream, Error>,
    input: &[u8],
    output: &mut [u8],
) -> Result<usize, DecodeError> {
    let mut stream = stream.map_err(refused)?;
    let limit = output.len();
    // Where the output is full the stream must end without one byte more.
    let mut beyond = [0];
    loop {
        let (consumed, written) = (stream.total_in() as usize, stream.total_out() as usize);
        let target = match written < limit {
            true => &mut output[written..],
            false => &mut beyond[..],
        };
        let status = stream.process(&input[consumed..], target, Action::Run).map_err(refused)?;
        let now = stream.total_out() as usize;
        if now > limit {
            return Err(DecodeError::too_long(limit));
        }
        if status == Status::StreamEnd {
            return Ok(now);
        }
        if now == written && stream.total_in() as usize == consumed {
            return Err(DecodeError::truncated());
        }
    }
}

fn refused(error: Error) -> DecodeError {
    DecodeError::new(match error {
        Error::Data => "lzma: corrupt data, or a checksum that does not match",
        Error::Format => "lzma: not a stream of this format",
        Error::Options => "lzma: options that are not supported",
        Error::MemLimit => "lzma: decoding would take more than 96 MiB of memory",
        Error::Mem => "lzma: out of memory",
        _ => "lzma: refused",
    })
}
