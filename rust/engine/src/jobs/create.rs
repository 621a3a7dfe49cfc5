//! Compressing a device image into a cloop image.

use serde::Serialize;

use super::encode::Scheme;
use super::input::{fill, Input, Source};
use super::output::Output;
use super::pool::Pool;
use super::writer::CloopWriter;
use super::{ordered, thread_count, window};
use crate::codec::{Codec, EncodeError, Encoder, Level};
use crate::format::cloop::{Format, MAX_BLOCK_SIZE};
use crate::progress::{check, Progress};
use crate::{Error, ErrorKind, Result};

/// Bytes that are read and compressed in one piece, unless one block is more.
const PIECE: u32 = 512 << 10;

/// The kind of image that is made.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Uncompressed bytes per block: a multiple of 512, at most 64 MiB.
    pub block_size: u32,
    /// How hard to try. lz4, lzo and none have one level only.
    pub level: Level,
    /// The version of the format.
    pub format: Format,
    /// The codec of every block.
    pub codec: Codec,
    /// Header and index at the end: made in one pass, with nothing buffered.
    pub footer: bool,
    /// Threads that compress; 0: one per core. The result does not depend on it.
    pub threads: usize,
}

impl Default for CreateOptions {
    fn default() -> Self {
        CreateOptions {
            block_size: 65536,
            level: Level::default(),
            format: Format::V2,
            codec: Codec::Zlib,
            footer: false,
            threads: 0,
        }
    }
}

impl CreateOptions {
    fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidInput, "create", message));
        let size = self.block_size;
        if size == 0 || !size.is_multiple_of(512) {
            return refuse(format!("the block size {size} is not a multiple of 512"));
        }
        if size > MAX_BLOCK_SIZE {
            return refuse(format!("the block size {size} is above {MAX_BLOCK_SIZE}"));
        }
        if self.format == Format::V2 && self.codec != Codec::Zlib {
            return refuse(format!("the codec {} needs the format v4", self.codec));
        }
        if self.format == Format::V2 && self.footer {
            return refuse("a footer needs the format v4".into());
        }
        Ok(())
    }
}

/// The outcome of a [`create()`], in bytes unless it says blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CreateSummary {
    /// Size of the input.
    pub input_size: u64,
    /// Size of the image's device: the input and the zeros that fill its last block.
    pub size: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Compressed blocks, together.
    pub compressed_bytes: u64,
    /// Size of the image file, the padding at its end included.
    pub file_size: u64,
}

/// A piece of the input to compress.
struct Job {
    offset: u64,
    /// The bytes that were read from a pipe.
    data: Option<Vec<u8>>,
    length: usize,
}

/// A compressed piece.
struct Piece {
    buffer: Vec<u8>,
    lengths: Vec<u32>,
    input: u64,
}

/// Compresses `input` into `output`.
///
/// The same input and options give the same bytes, whatever the number of
/// threads and whether the input and output are files or pipes.
///
/// # Errors
/// `InvalidInput` for options that contradict each other or an empty input;
/// `Cancelled`; the system's error. The output's place is unchanged then.
pub fn create(
    input: &Input,
    output: Output,
    options: &CreateOptions,
    progress: &dyn Progress,
) -> Result<CreateSummary> {
    options.validate()?;
    if input.size() == Some(0) {
        return Err(empty(input));
    }
    let name = output.name().to_string();
    let check = || check(progress, &name);
    let scheme = Scheme::new(options.codec, options.level, options.block_size)?;
    let blocks = input.size().map(|size| size.div_ceil(u64::from(options.block_size)));
    let mut writer = CloopWriter::new(
        output,
        options.format,
        options.footer,
        options.block_size,
        blocks,
        &check,
    )?;
    if let Some(size) = input.size() {
        progress.total(size);
    }
    let input_size = append_blocks(&mut writer, input, &scheme, options, progress, &check)?;
    if input_size == 0 {
        return Err(empty(input));
    }
    let written = writer.finish(|_| Ok(()))?;
    Ok(CreateSummary {
        input_size,
        size: written.blocks * u64::from(options.block_size),
        blocks: written.blocks,
        compressed_bytes: written.compressed,
        file_size: written.file,
    })
}

/// Compresses the input's blocks and appends them to the image; returns the input's bytes.
fn append_blocks(
    writer: &mut CloopWriter<'_>,
    input: &Input,
    scheme: &Scheme,
    options: &CreateOptions,
    progress: &dyn Progress,
    check: &(dyn Fn() -> Result<()> + Sync),
) -> Result<u64> {
    let block_size = options.block_size as usize;
    let piece = PIECE.max(options.block_size) as usize / block_size * block_size;
    let threads = thread_count(options.threads);
    let jobs = Jobs { input, piece, check };
    let read = Pool::new(piece);
    let compressed = Pool::new(piece / block_size * scheme.bound());
    let mut total = 0;
    ordered::run(
        threads,
        window(threads, piece),
        jobs.iterate(&read),
        || scheme.encoder(),
        |encoder, job| {
            let mut data = job.data.unwrap_or_else(|| read.take());
            let known_zero = jobs.fetch(&mut data[..job.length], job.offset)?;
            let padded = job.length.next_multiple_of(block_size);
            data[job.length..padded].fill(0);
            let blocks = data[..padded].chunks_exact(block_size);
            let blocks = blocks.map(|block| (!known_zero).then_some(block));
            let mut buffer = compressed.take();
            let lengths = compress(scheme, encoder, blocks, &mut buffer).map_err(
                |(block, EncodeError(reason))| {
                    let at = job.offset + (block * block_size) as u64;
                    let message = format!("the block at byte {at} cannot be compressed: {reason}");
                    Error::new(ErrorKind::InvalidInput, input.name(), message)
                },
            )?;
            read.give(data);
            Ok(Piece { buffer, lengths, input: job.length as u64 })
        },
        |Piece { buffer, lengths, input }| {
            let end = lengths.iter().map(|length| *length as usize).sum();
            writer.append(&buffer[..end], lengths.iter().map(|length| (options.codec, *length)))?;
            compressed.give(buffer);
            total += input;
            progress.advance(input);
            Ok(())
        },
        check,
    )?;
    Ok(total)
}

/// Compresses blocks, `None` for one of zeros, into `buffer`, one behind the other; returns
/// their lengths, or which one cannot be compressed, and why.
fn compress<'a>(
    scheme: &Scheme,
    encoder: &mut Encoder,
    blocks: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    buffer: &mut [u8],
) -> std::result::Result<Vec<u32>, (usize, EncodeError)> {
    let mut lengths = Vec::with_capacity(blocks.len());
    let mut end = 0;
    for (number, block) in blocks.enumerate() {
        let length =
            scheme.encode(encoder, block, &mut buffer[end..]).map_err(|error| (number, error))?;
        end += length;
        lengths.push(length as u32);
    }
    Ok(lengths)
}

struct Jobs<'a> {
    input: &'a Input,
    piece: usize,
    check: &'a (dyn Fn() -> Result<()> + Sync),
}

impl Jobs<'_> {
    /// The pieces of the input in order, those of a pipe already read.
    fn iterate<'b>(&'b self, pool: &'b Pool) -> impl FnMut() -> Result<Option<Job>> + Send + 'b {
        let mut offset = 0;
        let mut ended = false;
        move || {
            if ended {
                return Ok(None);
            }
            let job = match &self.input.source {
                Source::Storage(_) => {
                    let left = self.input.size().unwrap_or(0) - offset;
                    Job { offset, data: None, length: left.min(self.piece as u64) as usize }
                }
                Source::Pipe(file) => {
                    let mut data = pool.take();
                    let length = fill(self.input.name(), file, &mut data, self.check)?;
                    Job { offset, data: Some(data), length }
                }
            };
            offset += job.length as u64;
            ended = job.length < self.piece;
            Ok((job.length > 0).then_some(job))
        }
    }

    /// Reads a piece of a file, unless it is a hole; returns whether it is one. Bytes read
    /// from a pipe stay as they are.
    fn fetch(&self, data: &mut [u8], offset: u64) -> Result<bool> {
        let Source::Storage(storage) = &self.input.source else { return Ok(false) };
        let error = |source| {
            Error::io(self.input.name(), format!("cannot be read at byte {offset}"), source)
        };
        let end = offset + data.len() as u64;
        if storage.next_data(offset).map_err(error)?.is_none_or(|next| next >= end) {
            // A file that was cut short since has no data here either.
            if storage.len().map_err(error)? < end {
                return Err(error(std::io::ErrorKind::UnexpectedEof.into()));
            }
            return Ok(true);
        }
        storage.read_exact_at(data, offset).map_err(error)?;
        Ok(false)
    }
}

fn empty(input: &Input) -> Error {
    Error::new(ErrorKind::InvalidInput, input.name(), "is empty: there is nothing to compress")
}
