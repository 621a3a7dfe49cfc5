//! Packed cowfiles: the used blocks one after the other, for keeping or sending.
//!
//! Layout, as the original `cowpack` has it: the head with its packed flag, the
//! bitmap at 1024, and from `doffset` on the used 1 KiB blocks without gaps, in
//! the order of the blocks; with gzip, all of this as one gzip stream.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::Compression;

use crate::cowfile::bitmap::Bitmap;
use crate::cowfile::head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use crate::cowfile::{check_bitmap, check_bits, files, read_head, refuse_dirty, Access};
use crate::pipeline::{check, FileIdentity, Output, Progress};
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

/// Bytes of data that are moved in one go.
const CHUNK: u64 = 1 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSummary {
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks: u64,
    /// Bytes of the result; for gzip, of what was compressed.
    pub bytes: u64,
}

/// Packs the cowfile `source` into `target` (`-`: standard output).
///
/// # Errors
/// `Busy`, `Dirty` or `Damaged` for a cowfile that is in use or not sound;
/// `Unsupported` for one that is packed already.
pub fn pack(
    source: &Path,
    target: &Path,
    gzip: bool,
    progress: &dyn Progress,
) -> Result<PackSummary> {
    let storage = files::open(source, Access::ReadOnly)?;
    let name = storage.name();
    let (mut head, mut sector) = read_head(&*storage)?;
    if head.packed {
        return Err(Error::new(ErrorKind::Unsupported, name, "this cowfile is packed already"));
    }
    refuse_dirty(name, &head)?;
    let failed = |error| Error::io(name, "cannot read the cowfile", error);
    let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(failed)?;
    check_bitmap(&*storage, &head, &bitmap)?;
    head.version = VERSION_CLOSED;
    head.dirty = false;
    head.packed = true;
    head.cowused = bitmap.count();
    head.encode_into(&mut sector);

    let identity = FileIdentity::of_path(source).map_err(failed)?;
    let mut output =
        Appender { output: Output::open_private(target, &[identity])?, progress, error: None };
    progress.total(bitmap.count() * MAPUNIT);
    let written = if gzip {
        let mut gzip = GzEncoder::new(&mut output, Compression::default());
        write_packed(&*storage, &head, &sector, &bitmap, &mut gzip, progress)
            .and_then(|bytes| gzip.finish().map(|_| bytes))
    } else {
        write_packed(&*storage, &head, &sector, &bitmap, &mut output, progress)
    };
    if let Some(error) = output.error {
        return Err(error);
    }
    let bytes = written.map_err(failed)?;
    let shown = output.output.name().to_string();
    output.output.finish(&|| check(progress, &shown))?;
    Ok(PackSummary { blocks: bitmap.count(), bytes })
}

fn write_packed(
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
    let mut at = HEAD_BYTES;
    for page in bitmap.pages() {
        write_zeros(writer, page.offset - at)?;
        writer.write_all(&page.bytes)?;
        at = page.offset + page.bytes.len() as u64;
    }
    write_zeros(writer, head.doffset - at)?;
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
    Ok(head.doffset + bitmap.count() * MAPUNIT)
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

/// Unpacks `source`, gzipped or not (`-`: standard input), into the cowfile `target`.
///
/// # Errors
/// `Format` for what is no packed cowfile, `Damaged` for one that is cut short
/// or contradicts itself; nothing is left at `target` then.
pub fn unpack(source: &Path, target: &Path, progress: &dyn Progress) -> Result<PackSummary> {
    let standard_input = source == Path::new("-");
    let shown = if standard_input { "standard input".into() } else { source.display().to_string() };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::Damaged, &shown, "the packed cowfile ends too early")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Damaged, &shown, format!("damaged gzip stream: {error}"))
        }
        _ => Error::io(&shown, "cannot read the packed cowfile", error),
    };
    let (raw, inputs): (Box<dyn Read>, Vec<FileIdentity>) = match standard_input {
        true => (Box::new(io::stdin()), Vec::new()),
        false => {
            let file = File::open(source).map_err(failed)?;
            let identity = FileIdentity::of(&file.metadata().map_err(failed)?);
            (Box::new(file), vec![identity])
        }
    };
    // A block device goes on with what it held before.
    let has_end = !matches!(inputs[..], [FileIdentity::BlockDevice(_)]);
    let mut raw = BufReader::with_capacity(CHUNK as usize, raw);
    let mut magic = [0; GZIP_MAGIC.len()];
    let read = read_up_to(&mut raw, &mut magic).map_err(failed)?;
    let whole = io::Cursor::new(magic).take(read as u64).chain(raw);
    let mut reader: Box<dyn Read> = match magic == GZIP_MAGIC {
        true => Box::new(MultiGzDecoder::new(whole)),
        false => Box::new(whole),
    };

    let mut first = [0; HEAD_BYTES as usize];
    let read = read_up_to(&mut *reader, &mut first).map_err(failed)?;
    if read < first.len() {
        let message = format!("not a packed cowfile: it has only {read} bytes");
        return Err(Error::new(ErrorKind::Format, &shown, message));
    }
    let sector = first[..HEAD_SECTOR].try_into().expect("the head is longer than a sector");
    let mut head = Head::parse(&shown, sector)?;
    if !head.packed || head.version == VERSION_OPEN {
        return Err(Error::new(ErrorKind::Format, &shown, "this cowfile is not packed"));
    }
    refuse_dirty(&shown, &head)?;
    let bitmap = Bitmap::read_from(&mut *reader, head.mapsize).map_err(failed)?;
    check_bits(&shown, &head, &bitmap)?;
    let gap = head.doffset - HEAD_BYTES - head.mapsize;
    let skipped = io::copy(&mut reader.by_ref().take(gap), &mut io::sink()).map_err(failed)?;
    if skipped < gap {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }

    head.packed = false;
    let sector: &mut [u8; HEAD_SECTOR] =
        (&mut first[..HEAD_SECTOR]).try_into().expect("the head is longer than a sector");
    head.encode_into(sector);
    let output = Output::open_private(target, &inputs)?;
    if output.is_stream() || output.is_block_device() {
        let message = "a cowfile is a sparse file, no stream or block device: name a file";
        return Err(Error::new(ErrorKind::InvalidInput, output.name(), message));
    }
    progress.total(bitmap.count() * MAPUNIT);
    output.set_size(head.doffset + bitmap.last().map_or(0, |last| (last + 1) * MAPUNIT))?;
    output.write_at(&first, 0)?;
    for page in bitmap.pages() {
        output.write_at(&page.bytes, page.offset)?;
    }
    let mut buf = vec![0; CHUNK as usize];
    for (first, length) in bitmap.runs() {
        let (mut at, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        while at < end {
            check(progress, output.name())?;
            let piece = &mut buf[..CHUNK.min(end - at) as usize];
            reader.read_exact(piece).map_err(failed)?;
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
    // What follows a gzip stream and is none itself is an error of the decoder.
    if has_end && !matches!(read_up_to(&mut *reader, &mut [0]), Ok(0)) {
        let message = "goes on behind the last block of the packed cowfile: it is damaged, or \
                       something was appended to it";
        return Err(Error::new(ErrorKind::Damaged, &shown, message));
    }
    let target = output.name().to_string();
    output.finish(&|| check(progress, &target))?;
    let bytes = head.doffset + bitmap.count() * MAPUNIT;
    Ok(PackSummary { blocks: bitmap.count(), bytes })
}

/// Reads until `buf` is full or the stream ends.
fn read_up_to(reader: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match reader.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
