//! Packing a cowfile: see `packed` for the result.

mod beginning;
mod members;
mod packed;
mod unpack;

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};

use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT};
use crate::format::cowfile::{Access, AtRest};
use crate::jobs::{Output, Replace};
use crate::progress::{check, Progress};
use crate::storage::{FileIdentity, Storage};
use crate::{Error, Result};

use packed::GZIP_SYSTEM;
pub use unpack::{packed_head, unpack};

/// Bytes of data that are moved at once.
const CHUNK: u64 = 1 << 20;

/// The outcome of packing or unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSummary {
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks: u64,
    /// Bytes of the result; for gzip, of what was compressed.
    pub bytes: u64,
}

/// Packs the cowfile `source` into `target`, which replaces what `replace` allows.
///
/// # Errors
/// `Busy`, `Dirty` or `Damaged` for a cowfile that is in use or damaged; `Unsupported` for
/// one that is packed already.
pub fn pack(
    source: &Path,
    target: &Path,
    gzip: bool,
    replace: Replace,
    progress: &dyn Progress,
) -> Result<PackSummary> {
    let cow = AtRest::open(source, Access::ReadOnly)?;
    cow.refuse_merging()?;
    let AtRest { storage, head, mut sector, bitmap } = cow;
    let failed = |error| Error::io(storage.name(), "cannot read the cowfile", error);
    let head = Head { packed: true, ..head.closed(bitmap.count()) };
    head.encode_into(&mut sector);

    let identity = FileIdentity::of_path(source).map_err(failed)?;
    let output = Output::open_private(target, &[identity], replace)?;
    let mut output = Appender { output, progress, error: None };
    progress.total(bitmap.count() * MAPUNIT);
    let (storage, blocks) = (&*storage, &bitmap);
    let written = if gzip {
        let mut gzip = GzBuilder::new().operating_system(GZIP_SYSTEM);
        if let Some(mark) = packed::extra_of(&sector) {
            gzip = gzip.extra(mark);
        }
        let mut gzip = gzip.write(&mut output, Compression::default());
        write_compact(storage, &head, &sector, blocks, &mut gzip, progress)
            .and_then(|bytes| gzip.finish().map(|_| bytes))
    } else {
        write_padded(storage, &head, &sector, blocks, &mut output, progress)
    };
    if let Some(error) = output.error {
        return Err(error);
    }
    let bytes = written.map_err(failed)?;
    let shown = output.output.name().to_string();
    output.output.finish(&|| check(progress, &shown))?;
    Ok(PackSummary { blocks: bitmap.count(), bytes })
}

/// Head, bitmap and blocks where a file has them.
fn write_padded(
    storage: &dyn Storage,
    head: &Head,
    sector: &[u8; HEAD_SECTOR],
    bitmap: &Bitmap,
    writer: &mut dyn Write,
    progress: &dyn Progress,
) -> io::Result<u64> {
    let mut first = [0; HEAD_BYTES as usize];
    first[..HEAD_SECTOR].copy_from_slice(sector);
    writer.write_all(&first)?;
    write_bitmap(head, bitmap, writer)?;
    write_zeros(writer, head.doffset - HEAD_BYTES - head.mapsize)?;
    write_blocks(storage, head, bitmap, writer, progress)?;
    Ok(head.doffset + bitmap.count() * MAPUNIT)
}

/// The head's fields, bitmap and blocks, and nothing between them.
fn write_compact(
    storage: &dyn Storage,
    head: &Head,
    sector: &[u8; HEAD_SECTOR],
    bitmap: &Bitmap,
    writer: &mut dyn Write,
    progress: &dyn Progress,
) -> io::Result<u64> {
    let fields = head.layout.field_bytes();
    writer.write_all(&sector[..fields])?;
    write_bitmap(head, bitmap, writer)?;
    write_blocks(storage, head, bitmap, writer, progress)?;
    Ok(fields as u64 + head.mapsize + bitmap.count() * MAPUNIT)
}

fn write_bitmap(head: &Head, bitmap: &Bitmap, writer: &mut dyn Write) -> io::Result<()> {
    let mut at = HEAD_BYTES;
    for page in bitmap.pages() {
        write_zeros(writer, page.offset - at)?;
        writer.write_all(&page.bytes)?;
        at = page.offset + page.bytes.len() as u64;
    }
    write_zeros(writer, HEAD_BYTES + head.mapsize - at)
}

fn write_blocks(
    storage: &dyn Storage,
    head: &Head,
    bitmap: &Bitmap,
    writer: &mut dyn Write,
    progress: &dyn Progress,
) -> io::Result<()> {
    let mut buf = vec![0; CHUNK as usize];
    for (first, length) in bitmap.runs() {
        let (mut at, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        while at < end {
            let piece = &mut buf[..CHUNK.min(end - at) as usize];
            storage.read_exact_at(piece, head.doffset + at)?;
            writer.write_all(piece)?;
            progress.advance(piece.len() as u64);
            at += piece.len() as u64;
        }
    }
    Ok(())
}

fn write_zeros(writer: &mut dyn Write, length: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(length), writer).map(|_| ())
}

/// An output as a stream; keeps the error that says which file it was.
struct Appender<'a> {
    output: Output,
    progress: &'a dyn Progress,
    error: Option<Error>,
}

impl Write for Appender<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let name = self.output.name().to_string();
        let check = || check(self.progress, &name);
        match check().and_then(|()| self.output.append(buf, &check)) {
            Ok(()) => Ok(buf.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the output failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
