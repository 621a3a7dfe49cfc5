//! A new cloop image out of one and the cowfiles on it.
//!
//! Blocks that no cowfile touches keep their compressed bytes, which are
//! copied without being decoded: a damaged one stays damaged. Every other block
//! is compressed, and decoded again to be compared.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::encode::Scheme;
use super::output::Output;
use super::writer::CloopWriter;
use super::{ordered, thread_count, window};
use crate::buffers::{Buffer, Buffers};
use crate::codec::{Codec, EncodeError, Encoder, Level};
use crate::device::Device;
use crate::format::cloop::{Format, Kind, Layout};
use crate::format::cowfile::head::MAPUNIT;
use crate::image::{CloopImage, Image};
use crate::overlay::Overlay;
use crate::progress::{check, Progress};
use crate::{Error, ErrorKind, Result};

/// Bytes of the device that are handled in one piece, unless one block is more.
const PIECE: u64 = 512 << 10;

/// New blocks that one thread reads back before it asks for more.
const READ_BACK: usize = 8;

/// How changed blocks are compressed.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// How hard to try.
    pub level: Level,
    /// Uncompressed bytes a block where the base is raw; others keep theirs.
    pub block_size: u32,
    /// Threads that compress; 0: one per core. The result does not depend on it.
    pub threads: usize,
}

impl Default for CommitOptions {
    fn default() -> Self {
        CommitOptions { level: Level::default(), block_size: 65536, threads: 0 }
    }
}

/// The outcome of a [`commit()`], in bytes unless it says blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CommitSummary {
    /// Size of the device, before its last block was filled with zeros.
    pub input_size: u64,
    /// Uncompressed bytes per block.
    pub block_size: u32,
    /// Size of the new image's device.
    pub size: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Blocks whose compressed bytes were copied.
    pub copied_blocks: u64,
    /// Size of the image file.
    pub file_size: u64,
}

/// A range of blocks under way.
struct Piece {
    buffer: Buffer,
    blocks: Vec<(Codec, u32)>,
    /// The blocks that were compressed; the others were copied.
    new: Vec<u64>,
    length: u64,
}

/// Writes the content of `device` into a cloop image: V4.0 with the base's layout where the
/// base is one, else V2.0.
///
/// Where the cowfiles leave out the end of the base, less than 1 KiB, it is kept. A file is
/// read back before it gets its name: its header and index are checked, and the new blocks
/// in it.
///
/// # Errors
/// The device's for a range that cannot be read; `Damaged` when the result does not read
/// back; `Cancelled`; the system's. The output's place is unchanged then.
pub fn commit(
    device: &Device,
    output: Output,
    options: &CommitOptions,
    progress: &dyn Progress,
) -> Result<CommitSummary> {
    let job = Job::new(device, options)?;
    let block_size = u64::from(job.block_size);
    let blocks = job.size().div_ceil(block_size);
    if blocks == 0 {
        let message = "is empty: there is nothing to compress";
        return Err(Error::new(ErrorKind::InvalidInput, device.description(), message));
    }
    let name = output.name().to_string();
    let check = || check(progress, &name);
    progress.total(blocks * block_size);
    let footer = job.layout() == Layout::Footer;
    let mut writer =
        CloopWriter::new(output, job.format(), footer, job.block_size, Some(blocks), &check)?;

    let threads = thread_count(options.threads);
    let piece = (PIECE / block_size).max(1);
    let room = piece as usize * job.room_for_block();
    let buffers = Buffers::for_job(room);
    let mut next = 0;
    let mut new_blocks = Runs::default();
    ordered::run(
        threads,
        window(threads, room),
        || {
            let first = next;
            next = (first + piece).min(blocks);
            Ok((first < blocks).then_some(first..next))
        },
        || Scratch::new(&job),
        |scratch, range| job.piece(scratch, range, buffers.take()),
        |piece| {
            let end = piece.blocks.iter().map(|(_, length)| *length as usize).sum();
            writer.append(&piece.buffer[..end], piece.blocks, &check)?;
            piece.new.into_iter().for_each(|block| new_blocks.push(block));
            progress.advance(piece.length);
            Ok(())
        },
        &check,
    )?;
    let copied_blocks = blocks - new_blocks.count();
    let inspect = |image: &CloopImage| read_back(image, &new_blocks, threads, &check);
    let written = writer.finish(inspect, &check)?;
    Ok(CommitSummary {
        input_size: job.size(),
        block_size: job.block_size,
        size: blocks * block_size,
        blocks,
        copied_blocks,
        file_size: written.file,
    })
}

struct Job<'a> {
    base: &'a Image,
    cloop: Option<&'a CloopImage>,
    device: &'a Device,
    block_size: u32,
    scheme: Scheme,
}

/// Working space of a thread.
struct Scratch {
    encoder: Encoder,
    block: Vec<u8>,
    decoded: Vec<u8>,
    compressed: Vec<u8>,
}

impl Scratch {
    fn new(job: &Job<'_>) -> Self {
        let block_size = job.block_size as usize;
        Scratch {
            encoder: job.scheme.encoder(),
            block: vec![0; block_size],
            decoded: vec![0; block_size],
            compressed: Vec::new(),
        }
    }
}

impl<'a> Job<'a> {
    fn new(device: &'a Device, options: &CommitOptions) -> Result<Self> {
        let base = device.base();
        let cloop = match base {
            Image::Cloop(image) => Some(&**image),
            Image::Raw(_) | Image::Other(_) => None,
        };
        let block_size = cloop.map_or(options.block_size, |image| image.block_size());
        let codec = match cloop {
            Some(image) if image.header().kind == Kind::V4 => {
                // The codec of most blocks.
                let codecs = image.info().codecs;
                codecs.into_iter().max_by_key(|(_, n)| *n).map_or(Codec::Zlib, |(codec, _)| codec)
            }
            _ => Codec::Zlib,
        };
        let scheme = Scheme::new(codec, options.level, block_size)?;
        Ok(Job { base, cloop, device, block_size, scheme })
    }

    fn size(&self) -> u64 {
        self.device.size().max(self.base.size())
    }

    fn format(&self) -> Format {
        self.cloop.map_or(Format::V2, |image| Format::of_kind(image.header().kind))
    }

    fn layout(&self) -> Layout {
        match self.cloop {
            Some(image) if image.header().kind == Kind::V4 => image.header().layout,
            _ => Layout::Header,
        }
    }

    /// Room for a block, compressed anew or as the base has it.
    fn room_for_block(&self) -> usize {
        let new = self.scheme.bound();
        let old = |image: &CloopImage| {
            (0..image.block_count()).map(|block| image.location(block).length as usize).max()
        };
        self.cloop.and_then(old).map_or(new, |old| old.max(new))
    }

    /// Whether a block's compressed bytes can be taken as they are.
    fn kept(&self, block: u64) -> Option<&'a CloopImage> {
        let image = self.cloop.filter(|image| block < image.block_count())?;
        let location = image.location(block);
        let codec = self.format() == Format::V4 || location.codec == Codec::Zlib;
        // mkuzip's last block may be short, and may have padding behind it.
        let whole = image.header().kind == Kind::V4 || block + 1 < image.block_count();
        (codec && whole && location.length > 0 && !self.touched(block)).then_some(image)
    }

    /// Whether any cowfile holds a part of the block, or the part of the device beyond the base
    /// begins in it.
    fn touched(&self, block: u64) -> bool {
        let range = self.range(block);
        let touches = |overlay: &Arc<Overlay>| {
            let cow = overlay.cowfile();
            let first = range.start / MAPUNIT;
            let end = range.end.div_ceil(MAPUNIT).min(cow.blocks());
            first < end && {
                let (set, length) = cow.bitmap().run(first, end - first);
                set || length < end - first
            }
        };
        self.device.overlays().iter().any(touches)
    }

    /// The bytes of a block, the end that fills the last one included.
    fn range(&self, block: u64) -> Range<u64> {
        let block_size = u64::from(self.block_size);
        block * block_size..(block + 1) * block_size
    }

    fn piece(&self, scratch: &mut Scratch, range: Range<u64>, buffer: Buffer) -> Result<Piece> {
        let length = (range.end - range.start) * u64::from(self.block_size);
        let mut piece = Piece { buffer, blocks: Vec::new(), new: Vec::new(), length };
        let mut end = 0;
        for block in range {
            let output = &mut piece.buffer[end..];
            let (codec, length) = match self.kept(block) {
                Some(image) => {
                    let bytes = &mut scratch.compressed;
                    image.read_compressed(block, bytes)?;
                    output[..bytes.len()].copy_from_slice(bytes);
                    (image.location(block).codec, bytes.len())
                }
                None => {
                    piece.new.push(block);
                    (self.scheme.codec, self.compress(scratch, block, output)?)
                }
            };
            piece.blocks.push((codec, length as u32));
            end += length;
        }
        Ok(piece)
    }

    fn compress(&self, scratch: &mut Scratch, block: u64, output: &mut [u8]) -> Result<usize> {
        let Scratch { encoder, block: data, decoded, .. } = scratch;
        let fail = |reason: String| {
            let message = format!("block {block} cannot be compressed: {reason}");
            Error::new(ErrorKind::Damaged, self.device.description(), message)
        };
        self.read(block, data)?;
        let length = self
            .scheme
            .encode(encoder, Some(data), output)
            .map_err(|EncodeError(reason)| fail(reason))?;
        self.scheme
            .codec
            .decode_block(&output[..length], decoded, false)
            .map_err(|reason| fail(reason.to_string()))?;
        if decoded == data {
            Ok(length)
        } else {
            Err(fail("what comes out again is not what went in".into()))
        }
    }

    /// A block as the device has it, then the base, then zeros.
    fn read(&self, block: u64, data: &mut [u8]) -> Result<()> {
        let range = self.range(block);
        let part = |size: u64| size.clamp(range.start, range.end);
        let device = part(self.device.size());
        let base = part(self.base.size()).max(device);
        let (from_device, rest) = data.split_at_mut((device - range.start) as usize);
        let (from_base, beyond) = rest.split_at_mut((base - device) as usize);
        if !from_device.is_empty() {
            self.device.layer().read_checked(from_device, range.start)?;
        }
        if !from_base.is_empty() {
            self.base.read_checked(from_base, device)?;
        }
        beyond.fill(0);
        Ok(())
    }
}

/// Numbers of blocks in rising order, as runs.
#[derive(Default)]
struct Runs(Vec<Range<u64>>);

impl Runs {
    fn push(&mut self, block: u64) {
        match self.0.last_mut() {
            Some(last) if last.end == block => last.end += 1,
            _ => self.0.push(block..block + 1),
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().cloned().flatten()
    }
}

/// Decodes the new blocks in the file that was written.
fn read_back(
    image: &CloopImage,
    new: &Runs,
    threads: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut new = new.iter();
    ordered::run(
        threads,
        8 * threads,
        || {
            let blocks: Vec<_> = new.by_ref().take(READ_BACK).collect();
            Ok((!blocks.is_empty()).then_some(blocks))
        },
        Vec::new,
        |scratch, blocks| match image.check_blocks(&blocks, scratch).first() {
            None => Ok(()),
            Some(bad) => {
                let message = format!(
                    "block {} at offset {} does not read back: {}",
                    bad.block, bad.offset, bad.reason
                );
                Err(Error::new(ErrorKind::Damaged, image.name(), message))
            }
        },
        |()| Ok(()),
        check,
    )
}
