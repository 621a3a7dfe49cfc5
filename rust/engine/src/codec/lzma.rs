//! .xz and .lzma ("alone") streams, by liblzma within a memory limit.

use liblzma::stream::{Action, Check, Error, Filters, LzmaOptions, Status, Stream, PRESET_EXTREME};

use super::{Codec, DecodeError, Encode, EncodeError, Level, LZMA_MEMORY_LIMIT};

/// The beginning of every .xz stream, and of no .lzma one, whose first byte is below 225.
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

pub(super) fn decode_xz(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    run(Stream::new_stream_decoder(LZMA_MEMORY_LIMIT, 0), input, output)
}

/// A block of a uzip image: an .xz stream, as FreeBSD's kernel reads it, or the .lzma
/// stream that early versions of `mkulzma` wrote.
pub(super) fn decode_uzip(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    if input.starts_with(&XZ_MAGIC) {
        return decode_xz(input, output);
    }
    match run(Stream::new_lzma_decoder(LZMA_MEMORY_LIMIT), input, output) {
        // No block is empty; but lost bytes, read as zeros, look like the header of such a
        // stream.
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
    // When the output is full, the stream must end without another byte.
    let mut beyond = [0];
    loop {
        let (consumed, written) = (stream.total_in() as usize, stream.total_out() as usize);
        let target = if written < limit { &mut output[written..] } else { &mut beyond[..] };
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

/// Writes .xz streams.
pub(super) struct XzEncoder {
    /// The parameters to try; the smallest result is kept. Never empty.
    candidates: Vec<Filters>,
    spare: Vec<u8>,
}

impl XzEncoder {
    pub(super) fn new(level: Level, block_size: u32) -> Self {
        let preset = level.number().map_or(9 | PRESET_EXTREME, u32::from);
        let filters = |literal_context, position| {
            let mut options = LzmaOptions::new_preset(preset).expect("a preset of 1 to 9");
            // A larger dictionary than the data costs memory in every decoder.
            options.dict_size(block_size.max(4096));
            options.literal_context_bits(literal_context).position_bits(position);
            let mut filters = Filters::new();
            filters.lzma2(&options);
            filters
        };
        if level.number().is_some() {
            return XzEncoder { candidates: vec![filters(3, 2)], spare: Vec::new() };
        }
        // Machine code and tables; text.
        let candidates = vec![filters(3, 2), filters(4, 0)];
        XzEncoder { candidates, spare: vec![0; Codec::Xz.bound(block_size)] }
    }
}

impl Encode for XzEncoder {
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        let (first, others) = self.candidates.split_first().expect("never empty");
        let mut length = encode_xz(first, block, output)?;
        for filters in others {
            let other = encode_xz(filters, block, &mut self.spare)?;
            if other < length {
                length = other;
                output[..length].copy_from_slice(&self.spare[..length]);
            }
        }
        Ok(length)
    }
}

/// One .xz stream with CRC32, the only check that the kernel driver knows.
fn encode_xz(filters: &Filters, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
    let mut stream = Stream::new_stream_encoder(filters, Check::Crc32).map_err(EncodeError::new)?;
    match stream.process(block, output, Action::Finish) {
        Ok(Status::StreamEnd) => Ok(stream.total_out() as usize),
        Ok(status) => Err(EncodeError::new(status)),
        Err(reason) => Err(EncodeError::new(reason)),
    }
}
