//! Unpacking a cowfile.

use std::fs::File;
use std::io;
use std::path::Path;

use super::PackSummary;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, HEAD_SECTOR, MAPUNIT};
use crate::format::cowfile::packed::{read_failed, Blocks, Opened};
use crate::jobs::{Output, Replace, STANDARD_INPUT};
use crate::progress::{check, Progress};
use crate::storage::FileIdentity;
use crate::{Error, ErrorKind, Result};

/// Bytes of data that are moved at once.
const CHUNK: u64 = 1 << 20;

/// Reads the head of a packed cowfile, gzipped or not.
///
/// # Errors
/// `Format` for a file that is none; `Damaged` for a broken gzip stream.
pub fn packed_head(path: &Path) -> Result<Head> {
    open(path).map(|(opened, _)| opened.head)
}

/// Unpacks `source`, gzipped or not, into the cowfile `target`, which replaces what
/// `replace` allows.
///
/// # Errors
/// `Format` for a file that is no packed cowfile, `Damaged` for one that is cut short or
/// contradicts itself; nothing is left at `target` then.
pub fn unpack(
    source: &Path,
    target: &Path,
    replace: Replace,
    progress: &dyn Progress,
) -> Result<PackSummary> {
    let (opened, inputs) = open(source)?;
    let mut packed = opened.bitmap()?;
    let mut head = packed.head.clone();
    head.packed = false;
    let sector: &mut [u8; HEAD_SECTOR] =
        packed.first.first_chunk_mut().expect("the head is longer than a sector");
    head.encode_into(sector);
    let output = Output::open_private(target, &inputs, replace)?;
    if output.is_pipe() || output.is_block_device() {
        let message = "a cowfile is a sparse file, no pipe or block device: name a file";
        return Err(Error::new(ErrorKind::InvalidInput, output.name(), message));
    }
    let (bitmap, blocks) = (&packed.bitmap, &mut packed.blocks);
    progress.total(bitmap.count() * MAPUNIT);
    output.set_size(head.doffset + bitmap.last().map_or(0, |last| (last + 1) * MAPUNIT))?;
    output.write_at(&packed.first, 0)?;
    for page in bitmap.pages() {
        output.write_at(&page.bytes, page.offset)?;
    }
    write_blocks(blocks, bitmap, &head, &output, progress)?;
    blocks.end()?;
    let target = output.name().to_string();
    output.finish(&|| check(progress, &target))?;
    let blocks_used = bitmap.count();
    Ok(PackSummary { blocks_used, bytes: head.doffset + blocks_used * MAPUNIT })
}

/// Opens a packed cowfile, `-` for standard input, and tells the files that the output must
/// not be.
fn open(path: &Path) -> Result<(Opened, Vec<FileIdentity>)> {
    if path == Path::new(STANDARD_INPUT) {
        let opened = Opened::read("standard input".into(), Box::new(io::stdin()), true)?;
        return Ok((opened, Vec::new()));
    }
    let shown = path.display().to_string();
    let failed = |error| read_failed(&shown, error);
    let file = File::open(path).map_err(failed)?;
    let identity = FileIdentity::of(&file.metadata().map_err(failed)?);
    let has_end = !matches!(identity, FileIdentity::BlockDevice(_));
    Ok((Opened::read(shown, Box::new(file), has_end)?, vec![identity]))
}

fn write_blocks(
    blocks: &mut Blocks,
    bitmap: &Bitmap,
    head: &Head,
    output: &Output,
    progress: &dyn Progress,
) -> Result<()> {
    let mut buf = vec![0; CHUNK as usize];
    for (first, length) in bitmap.runs() {
        let (mut at, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        while at < end {
            check(progress, output.name())?;
            let piece = &mut buf[..CHUNK.min(end - at) as usize];
            blocks.read_exact(piece)?;
            for (i, block) in piece.chunks(MAPUNIT as usize).enumerate() {
                // A block of zeros stays a hole.
                if block.iter().any(|byte| *byte != 0) {
                    output.write_at(block, head.doffset + at + i as u64 * MAPUNIT)?;
                }
            }
            progress.advance(piece.len() as u64);
            at += piece.len() as u64;
        }
    }
    Ok(())
}
