//! Reading a packed cowfile, from front to back.

use std::io::{self, BufReader, Read};
use std::ops::Range;

use flate2::GzHeader;

use super::beginning::{read_up_to, Beginning};
use super::members::Members;
use super::EXTRA_ID;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, HEAD_BYTES, HEAD_SECTOR, VERSION_OPEN};
use crate::format::cowfile::mark::{MARK_AT, MARK_END};
use crate::format::cowfile::{check_bits, refuse_dirty, GZIP_MAGIC};
use crate::{Error, ErrorKind, Result};

/// The system in the gzip headers of early versions of this program: unknown.
const EARLY_SYSTEM: u8 = 255;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// The largest head's fields.
const MOST_FIELDS: usize = 56;

/// Our mark's bytes in a gzip header.
fn mark_in(header: &GzHeader) -> Option<&[u8]> {
    let mut rest = header.extra()?;
    while let [first, second, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let field = more.get(..length)?;
        if [*first, *second] == EXTRA_ID && length == MARK_END - MARK_AT {
            return Some(field);
        }
        rest = &more[length..];
    }
    None
}

/// The source of the bytes: a file or standard input, gzipped or not.
enum Source {
    Plain(Box<dyn Read>),
    Gzip(Box<Members<Box<dyn Read>>>),
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(reader) => reader.read(buf),
            Source::Gzip(members) => members.read(buf),
        }
    }
}

/// The beginning of a packed cowfile that was read and checked.
pub(crate) struct Opened {
    /// Its name in messages.
    shown: String,
    source: Source,
    /// The head's fields, and the bytes read behind them.
    first: [u8; MOST_FIELDS],
    pub(crate) head: Head,
    /// Unlike a block device, which goes on with its earlier content.
    has_end: bool,
}

/// A packed cowfile whose head and bitmap were read.
pub(crate) struct Packed {
    /// The first KiB of the unpacked file, but for the packed flag.
    pub(crate) first: [u8; HEAD_BYTES as usize],
    pub(crate) head: Head,
    pub(crate) bitmap: Bitmap,
    pub(crate) blocks: Blocks,
}

/// The blocks of a packed cowfile, and what follows them.
pub(crate) struct Blocks {
    shown: String,
    /// The bytes read beyond the bitmap.
    ahead: io::Cursor<Vec<u8>>,
    source: Source,
    has_end: bool,
}

impl Opened {
    /// Reads the head of the packed cowfile that `raw` is; `has_end`: the bytes behind its
    /// last block, if any, are part of the file.
    ///
    /// # Errors
    /// `Format` for what is no packed cowfile; `Damaged` for a broken gzip stream.
    pub(crate) fn read(shown: String, raw: Box<dyn Read>, has_end: bool) -> Result<Opened> {
        let failed = |error| read_failed(&shown, error);
        let mut raw = BufReader::with_capacity(CHUNK, raw);
        let mut magic = [0; GZIP_MAGIC.len()];
        let read = read_up_to(&mut raw, &mut magic).map_err(failed)?;
        let whole: Box<dyn Read> = Box::new(io::Cursor::new(magic).take(read as u64).chain(raw));
        let mut source = if magic == GZIP_MAGIC {
            Source::Gzip(Box::new(Members::new(whole)))
        } else {
            Source::Plain(whole)
        };
        let mut first = [0; MOST_FIELDS];
        let read = read_up_to(&mut source, &mut first).map_err(failed)?;
        if read < first.len() {
            let message = format!("not a packed cowfile: it has only {read} bytes");
            return Err(Error::new(ErrorKind::Format, &shown, message));
        }
        let mut sector = [0; HEAD_SECTOR];
        sector[..first.len()].copy_from_slice(&first);
        if let Some(mark) = source.header().and_then(mark_in) {
            sector[MARK_AT..MARK_END].copy_from_slice(mark);
        }
        let head = Head::parse(&shown, &sector)?;
        if !head.packed || head.version == VERSION_OPEN {
            return Err(Error::new(ErrorKind::Format, &shown, "this cowfile is not packed"));
        }
        refuse_dirty(&shown, &head)?;
        Ok(Opened { source, first, head, has_end, shown })
    }

    /// Reads the bitmap, which decides which form this is.
    ///
    /// # Errors
    /// `Damaged` when the stream ends too early or head and bitmap contradict each other.
    pub(crate) fn bitmap(self) -> Result<Packed> {
        let Opened { shown, mut source, first: fields, mut head, has_end } = self;
        let failed = |error| read_failed(&shown, error);
        let mapsize = head.mapsize;
        let (before, more) = fields.split_at(head.encoding.field_bytes());
        // From the end of the fields to where the padded form's bitmap ends.
        let padding = HEAD_BYTES - before.len() as u64;
        let beginning = Beginning::read(&mut more.chain(&mut source), padding + mapsize);
        let beginning = beginning.map_err(failed)?;
        let compact = is_compact(&head, &beginning, padding, source.header());
        let start = if compact { 0 } else { padding };
        let bitmap = Bitmap::read_from(&mut beginning.at(start), mapsize).map_err(failed)?;
        check_bits(&shown, &head, &bitmap)?;

        let mut first = [0; HEAD_BYTES as usize];
        first[..before.len()].copy_from_slice(before);
        let mut ahead = Vec::new();
        if compact {
            let mark = source.header().and_then(mark_in);
            first[MARK_AT..MARK_END].copy_from_slice(mark.unwrap_or(&[0; MARK_END - MARK_AT]));
            beginning.at(mapsize).read_to_end(&mut ahead).map_err(failed)?;
        } else {
            beginning.at(0).read_exact(&mut first[before.len()..]).map_err(failed)?;
            let sector = first.first_chunk().expect("the head is longer than a sector");
            head = Head::parse(&shown, sector)?;
            let gap = head.doffset - HEAD_BYTES - mapsize;
            let skipped = io::copy(&mut source.by_ref().take(gap), &mut io::sink());
            if skipped.map_err(failed)? < gap {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let blocks = Blocks { shown, ahead: io::Cursor::new(ahead), source, has_end };
        Ok(Packed { first, head, bitmap, blocks })
    }
}

impl Source {
    fn header(&self) -> Option<&GzHeader> {
        match self {
            Source::Plain(_) => None,
            Source::Gzip(members) => members.first_header(),
        }
    }
}

/// Whether the bitmap immediately follows the head's fields: it does if it has the bits
/// that the head counts there, and none beyond the device. If both places qualify, the
/// maker in the gzip header decides.
fn is_compact(head: &Head, beginning: &Beginning, padding: u64, header: Option<&GzHeader>) -> bool {
    let beyond = head.rdoblocks.div_ceil(8);
    let fits = |bitmap: Range<u64>| {
        beginning.len() >= bitmap.end
            && beginning.ones(bitmap.clone()) == head.cowused
            && beginning.ones(bitmap.start + beyond..bitmap.end) == 0
    };
    let by_maker = header.is_some_and(|header| header.operating_system() != EARLY_SYSTEM);
    match (fits(0..head.mapsize), fits(padding..padding + head.mapsize)) {
        (true, true) | (false, false) => by_maker,
        (compact, _) => compact,
    }
}

impl Blocks {
    /// The next bytes.
    ///
    /// # Errors
    /// `Damaged` when they end too early.
    pub(crate) fn read_exact(&mut self, buf: &mut [u8]) -> Result<()> {
        let mut reader = (&mut self.ahead).chain(&mut self.source);
        reader.read_exact(buf).map_err(|error| read_failed(&self.shown, error))
    }

    /// Checks the end of a gzip stream, and reports bytes behind the last block: the
    /// original never truncates a file that it packs into.
    ///
    /// # Errors
    /// `Damaged` when the stream's checksum is wrong.
    pub(crate) fn end(&mut self) -> Result<()> {
        if !self.has_end {
            return Ok(());
        }
        let ahead = self.ahead.get_ref().len() as u64 > self.ahead.position();
        let behind = match &mut self.source {
            Source::Plain(reader) => read_up_to(reader, &mut [0]).map(|n| n > 0),
            // All of it: its checksum comes last.
            Source::Gzip(members) => io::copy(members, &mut io::sink())
                .map(|bytes| bytes > 0 || members.something_behind()),
        };
        if behind.map_err(|error| read_failed(&self.shown, error))? || ahead {
            log::warn!(
                "{}: goes on behind the last block of the packed cowfile; that part was left out",
                self.shown
            );
        }
        Ok(())
    }
}

pub(crate) fn read_failed(shown: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::Damaged, shown, "the packed cowfile ends too early")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Damaged, shown, format!("damaged gzip stream: {error}"))
        }
        _ => Error::io(shown, "cannot read the packed cowfile", error),
    }
}
