//! Writing a packed cowfile, from front to back.

use std::io::{self, Read, Write};

use flate2::{Compression, GzBuilder};

use super::EXTRA_ID;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT};
use crate::format::cowfile::mark::{Mark, MARK_AT, MARK_END};
use crate::progress::Progress;
use crate::storage::Storage;

/// How a gzip header names Unix as the system.
const GZIP_SYSTEM: u8 = 3;

/// Bytes of data that are moved at once.
const CHUNK: u64 = 1 << 20;

/// A cowfile to be packed.
pub(crate) struct Writer<'a> {
    pub(crate) storage: &'a dyn Storage,
    /// The head of the packed file, also as it is in `sector`.
    pub(crate) head: &'a Head,
    pub(crate) sector: &'a [u8; HEAD_SECTOR],
    pub(crate) bitmap: &'a Bitmap,
    pub(crate) progress: &'a dyn Progress,
}

impl Writer<'_> {
    /// Writes the padded form to `to`; returns how many bytes that were.
    pub(crate) fn padded(&self, to: &mut dyn Write) -> io::Result<u64> {
        let mut first = [0; HEAD_BYTES as usize];
        first[..HEAD_SECTOR].copy_from_slice(self.sector);
        to.write_all(&first)?;
        self.bitmap(to)?;
        write_zeros(to, self.head.doffset - HEAD_BYTES - self.head.mapsize)?;
        self.blocks(to)?;
        Ok(self.head.doffset + self.bitmap.count() * MAPUNIT)
    }

    /// Writes the compact form to `to`; returns how many bytes were compressed.
    pub(crate) fn compact(&self, to: &mut dyn Write) -> io::Result<u64> {
        let mut gzip = GzBuilder::new().operating_system(GZIP_SYSTEM);
        if Mark::parse(self.sector).is_some() {
            let mark = &self.sector[MARK_AT..MARK_END];
            gzip = gzip.extra([&EXTRA_ID[..], &(mark.len() as u16).to_le_bytes(), mark].concat());
        }
        let mut gzip = gzip.write(to, Compression::default());
        let fields = self.head.encoding.field_bytes();
        gzip.write_all(&self.sector[..fields])?;
        self.bitmap(&mut gzip)?;
        self.blocks(&mut gzip)?;
        gzip.finish()?;
        Ok(fields as u64 + self.head.mapsize + self.bitmap.count() * MAPUNIT)
    }

    fn bitmap(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut at = HEAD_BYTES;
        for page in self.bitmap.pages() {
            write_zeros(to, page.offset - at)?;
            to.write_all(&page.bytes)?;
            at = page.offset + page.bytes.len() as u64;
        }
        write_zeros(to, HEAD_BYTES + self.head.mapsize - at)
    }

    fn blocks(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut buf = vec![0; CHUNK as usize];
        for (first, length) in self.bitmap.runs() {
            let (mut at, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
            while at < end {
                let piece = &mut buf[..CHUNK.min(end - at) as usize];
                self.storage.read_exact_at(piece, self.head.doffset + at)?;
                to.write_all(piece)?;
                self.progress.advance(piece.len() as u64);
                at += piece.len() as u64;
            }
        }
        Ok(())
    }
}

fn write_zeros(to: &mut dyn Write, length: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(length), to).map(|_| ())
}
