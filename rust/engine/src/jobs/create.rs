//! Compressing a device image into a cloop image.

use std::sync::Arc;

use serde::Serialize;

use super::assembly::Assembly;
use super::input::{fetch, fill, Input, Source};
use super::output::Output;
use super::piece::{Compressor, Data};
use super::{ordered, thread_count, window};
use crate::buffers::{Buffer, Buffers};
use crate::codec::{Codec, Level};
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
    /// Which programs are to read it: see [`Format`].
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
    pub(super) fn validate(&self) -> Result<()> {
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
    data: Option<Buffer>,
    length: usize,
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
    let name = output.name().to_string();
    let check = || check(progress, &name);
    let compressor = Compressor::new(options)?;
    let mut assembly = Assembly::new(input, output, options, &check)?;
    if let Some(size) = input.size() {
        progress.total(size);
    }

    let threads = thread_count(options.threads);
    let block_size = options.block_size as usize;
    let piece = piece_size(options.block_size);
    let read = Buffers::for_job(piece);
    let compressed = Buffers::for_job(compressor.room(piece));
    ordered::run(
        threads,
        window(threads, piece),
        jobs(input, &read, &check),
        || compressor.encoder(),
        |encoder, Job { offset, data, length }| {
            let (mut data, zeros) = match data {
                Some(data) => (data, false),
                None => {
                    let mut data = read.take();
                    let hole = fetch(input, &mut data[..length], offset)?;
                    (data, hole)
                }
            };
            let padded = length.next_multiple_of(block_size);
            data[length..padded].fill(0);
            let blocks = if zeros { Data::Zeros(padded) } else { Data::Bytes(&data[..padded]) };
            let room = compressed.take();
            let mut piece = compressor.compress(encoder, input.name(), offset, blocks, room)?;
            piece.input = length as u64;
            Ok(piece)
        },
        |piece| {
            assembly.append(&piece, &check)?;
            progress.advance(piece.input);
            Ok(())
        },
        &check,
    )?;
    assembly.finish(&check)
}

/// Bytes of whole blocks that are compressed in one piece.
fn piece_size(block_size: u32) -> usize {
    (PIECE.max(block_size) / block_size * block_size) as usize
}

/// The pieces of the input in order, those of a pipe already read.
fn jobs<'a>(
    input: &'a Input,
    buffers: &'a Arc<Buffers>,
    check: &'a (dyn Fn() -> Result<()> + Sync),
) -> impl FnMut() -> Result<Option<Job>> + Send + 'a {
    let piece = buffers.length();
    let mut offset = 0;
    let mut ended = false;
    move || {
        if ended {
            return Ok(None);
        }
        let job = match &input.source {
            Source::Storage(_) => {
                let left = input.size().unwrap_or(0) - offset;
                Job { offset, data: None, length: left.min(piece as u64) as usize }
            }
            Source::Pipe(file) => {
                let mut data = buffers.take();
                let length = fill(input.name(), file, &mut data, check)?;
                Job { offset, data: Some(data), length }
            }
        };
        offset += job.length as u64;
        ended = job.length < piece;
        Ok((job.length > 0).then_some(job))
    }
}
