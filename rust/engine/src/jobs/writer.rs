//! Writing the cloop format: blocks in order, then the index and the header
//! where they belong.
//!
//! What is buffered where:
//! - the index, 8 bytes per block, in memory, always;
//! - header first, number of blocks known, output seekable: nothing else. Room
//!   for the index is left, and it is written at the end;
//! - header first otherwise (the number of blocks or the output is a pipe's):
//!   all compressed blocks, in an unnamed temporary file: beside the output
//!   when that is a file, else in `$TMPDIR` or /tmp;
//! - footer: nothing else.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use libdeflater::Crc;

use super::output::Output;
use super::spool::{anonymous_file, temporary_directory};
use super::Format;
use crate::codec::Codec;
use crate::image::{CloopImage, ImageOptions};
use crate::{Error, ErrorKind, Result};

/// Bytes of the preamble, block size and number of blocks.
const HEADER: u64 = 136;

/// Bytes before the first block of a footer image: the kernel driver 5.3
/// cannot read block 0 at offset 0.
const FOOTER_PADDING: usize = 512;

/// What a footer image shows in an editor or a pager.
const FOOTER_TEXT: &[u8] = b"A cloop disk image whose index and header are at its end.\n";

/// An image with its header first ends on such a boundary: FreeBSD's md(4) and Linux's loop
/// device leave out a last part of fewer bytes.
const SECTOR: u64 = 512;

/// What qemu knows a V2.0 image by, to the last byte; `create_compressed_fs` writes it too.
const V2_SCRIPT: &str = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 \
                         /dev/cloop $1\n";

/// Offsets of V4.0 images end below the bits that name the codec.
const V4_OFFSET_BITS: u32 = 60;

/// How many bytes of index are made at a time.
const INDEX_PIECE: usize = 64 << 10;

/// A cloop image under way.
pub(super) struct CloopWriter<'a> {
    output: Output,
    format: Format,
    block_size: u32,
    layout: Layout,
    /// Where each block begins, from the first one on, with the codec's bits.
    entries: Vec<u64>,
    /// Bytes of all blocks so far, and their CRC-32.
    data: u64,
    sum: Crc,
    check: &'a dyn Fn() -> Result<()>,
}

enum Layout {
    /// Room for the index of this many blocks is left.
    Reserved {
        blocks: u64,
    },
    /// The blocks are kept aside.
    Spooled {
        file: File,
        name: String,
    },
    Footer,
}

/// What came of it.
pub(super) struct Written {
    pub(super) blocks: u64,
    /// Bytes of all compressed blocks.
    pub(super) compressed: u64,
    /// Bytes of the whole file.
    pub(super) file: u64,
}

impl<'a> CloopWriter<'a> {
    /// Begins an image of `blocks` blocks; `None`: their number is not known yet.
    ///
    /// # Errors
    /// `InvalidInput` when there are more blocks than the format can count, or
    /// for a footer on a block device, which has an end of its own; the system's error.
    pub(super) fn new(
        output: Output,
        format: Format,
        footer: bool,
        block_size: u32,
        blocks: Option<u64>,
        check: &'a dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let layout = if footer {
            if output.is_block_device() {
                let message = "is a block device, where a footer cannot be found: leave it out";
                return Err(Error::new(ErrorKind::InvalidInput, output.name(), message));
            }
            Layout::Footer
        } else {
            match blocks.filter(|_| !output.is_stream()) {
                Some(blocks) => Layout::Reserved { blocks },
                None => {
                    let directory =
                        output.directory().map_or_else(temporary_directory, PathBuf::from);
                    let name = directory.display().to_string();
                    let file = anonymous_file(&directory).map_err(|source| {
                        Error::io(&name, "cannot create a temporary file", source)
                    })?;
                    Layout::Spooled { file, name }
                }
            }
        };
        let mut writer = CloopWriter {
            output,
            format,
            block_size,
            layout,
            entries: Vec::new(),
            data: 0,
            sum: Crc::new(),
            check,
        };
        if let Some(blocks) = blocks {
            writer.check_count(blocks)?;
            writer.entries.reserve_exact(blocks as usize);
        }
        match writer.layout {
            Layout::Reserved { blocks } => writer.output.seek(data_start(blocks)),
            Layout::Spooled { .. } => {}
            Layout::Footer => {
                let mut padding = [0; FOOTER_PADDING];
                padding[..FOOTER_TEXT.len()].copy_from_slice(FOOTER_TEXT);
                writer.output.append(&padding, check)?;
            }
        }
        Ok(writer)
    }

    fn check_count(&self, blocks: u64) -> Result<()> {
        if blocks <= u64::from(u32::MAX) {
            return Ok(());
        }
        let block_size = self.block_size;
        let message =
            format!("more than {} blocks of {block_size} bytes: choose larger ones", u32::MAX);
        Err(Error::new(ErrorKind::InvalidInput, self.output.name(), message))
    }

    /// Appends blocks: their bytes, and the codec and length of each.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` when there are too many blocks.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        blocks: impl IntoIterator<Item = (Codec, u32)>,
    ) -> Result<()> {
        for (codec, length) in blocks {
            self.entries.push(self.data | self.flags(codec));
            self.data += u64::from(length);
        }
        self.check_count(self.entries.len() as u64)?;
        self.sum.update(bytes);
        match &mut self.layout {
            Layout::Spooled { file, name } => file.write_all(bytes).map_err(|source| {
                let message = match self.output.is_stream() {
                    true => "cannot keep the compressed blocks here (TMPDIR names another place)",
                    false => "cannot keep the compressed blocks in a temporary file here",
                };
                Error::io(&*name, message, source)
            }),
            _ => self.output.append(bytes, self.check),
        }
    }

    /// Writes index and header, reads them back where the output can be read,
    /// shows the image to `inspect` then, and puts the output in its place.
    ///
    /// # Errors
    /// The system's error, or that of `inspect`; `InvalidInput` when the number
    /// of blocks is not the one that room was left for.
    pub(super) fn finish(
        mut self,
        inspect: impl FnOnce(&CloopImage) -> Result<()>,
    ) -> Result<Written> {
        let blocks = self.entries.len() as u64;
        let first = match self.layout {
            Layout::Footer => FOOTER_PADDING as u64,
            _ => data_start(blocks),
        };
        if self.format == Format::V4 && first + self.data >= 1 << V4_OFFSET_BITS {
            let message = "is too large for the format V4.0";
            return Err(Error::new(ErrorKind::InvalidInput, self.output.name(), message));
        }
        let header = header(self.format, self.block_size, blocks as u32, self.sum.sum());
        match &mut self.layout {
            Layout::Footer => {
                self.append_index(first)?;
                self.output.append(&header, self.check)?;
            }
            Layout::Reserved { blocks: expected } => {
                if *expected != blocks {
                    let message = "the input changed its size while it was read";
                    return Err(Error::new(ErrorKind::InvalidInput, self.output.name(), message));
                }
                // The header last: on a block device nothing unfinished shall
                // look like an image.
                self.output.append(&padding(first + self.data), self.check)?;
                self.output.seek(HEADER);
                self.append_index(first)?;
                self.output.seek(0);
                self.output.append(&header, self.check)?;
            }
            Layout::Spooled { file, name } => {
                let mut spool = file.try_clone().map_err(|source| {
                    Error::io(&*name, "cannot reopen a temporary file", source)
                })?;
                let name = name.clone();
                self.output.append(&header, self.check)?;
                self.append_index(first)?;
                self.append_spool(&mut spool, &name)?;
                self.output.append(&padding(first + self.data), self.check)?;
            }
        }
        let end = first + self.data;
        let file = match self.layout {
            Layout::Footer => end + 8 * (blocks + 1) + HEADER,
            _ => end + padding(end).len() as u64,
        };
        if let Some(storage) = self.output.storage()? {
            let image = CloopImage::open(storage, &ImageOptions::default())?;
            if (image.block_count(), image.block_size()) != (blocks, self.block_size) {
                let message = "the header does not read back as it was written";
                return Err(Error::new(ErrorKind::Damaged, self.output.name(), message));
            }
            inspect(&image)?;
        }
        self.output.finish_sized(file, self.check)?;
        Ok(Written { blocks, compressed: self.data, file })
    }

    fn append_index(&mut self, first: u64) -> Result<()> {
        let mut piece = Vec::with_capacity(INDEX_PIECE);
        for entry in self.entries.iter().copied().chain([self.data]) {
            // No carry into the codec's bits: the end was checked.
            piece.extend_from_slice(&(entry + first).to_be_bytes());
            if piece.len() == INDEX_PIECE {
                self.output.append(&piece, self.check)?;
                piece.clear();
            }
        }
        self.output.append(&piece, self.check)
    }

    fn append_spool(&mut self, spool: &mut File, name: &str) -> Result<()> {
        let error = |source| Error::io(name, "cannot read a temporary file", source);
        spool.rewind().map_err(error)?;
        let mut buffer = vec![0; 1 << 20];
        let mut left = self.data;
        while left > 0 {
            let n = left.min(buffer.len() as u64) as usize;
            spool.read_exact(&mut buffer[..n]).map_err(error)?;
            (self.check)()?;
            self.output.append(&buffer[..n], self.check)?;
            left -= n as u64;
        }
        Ok(())
    }

    fn flags(&self, codec: Codec) -> u64 {
        match self.format {
            Format::V2 => 0,
            Format::V4 => codec.v4_flag().expect("a codec of V4.0") << V4_OFFSET_BITS,
        }
    }
}

/// Where the first block of a header-first image of ours lies.
fn data_start(blocks: u64) -> u64 {
    HEADER + 8 * (blocks + 1)
}

/// What fills up a file that ends at `end`.
fn padding(end: u64) -> Vec<u8> {
    vec![0; (end.next_multiple_of(SECTOR) - end) as usize]
}

/// Preamble, block size and number of blocks.
///
/// The preamble has the CRC-32 of all compressed blocks: so two images differ in
/// their headers even where each block is as long in the one as in the other, and
/// a cowfile of the one is not taken for a cowfile of the other.
fn header(format: Format, block_size: u32, blocks: u32, sum: u32) -> [u8; HEADER as usize] {
    let script = match format {
        Format::V2 => format!("{V2_SCRIPT}exit $?\n# CRC-32 {sum:08x}\n"),
        // A user that runs the image as a program is told what it is.
        Format::V4 => format!(
            "#!/bin/sh\n#V4.0 Format\n# CRC-32 {sum:08x}\necho \"$0: a cloop disk image, for \
             cowcloop or cloop\" >&2\nexit 1\n"
        ),
    };
    let mut header = [0; HEADER as usize];
    header[..script.len()].copy_from_slice(script.as_bytes());
    header[128..132].copy_from_slice(&block_size.to_be_bytes());
    header[132..].copy_from_slice(&blocks.to_be_bytes());
    header
}
