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
use std::sync::Arc;

use libdeflater::Crc;

use super::output::Output;
use crate::codec::Codec;
use crate::format::cloop::writer::{data_start, end_padding, footer_padding, FOOTER_PADDING};
use crate::format::cloop::{Format, HEADER_BYTES};
use crate::image::{CloopImage, ImageOptions};
use crate::storage::publish::anonymous;
use crate::{Error, ErrorKind, Result};

/// How many bytes of index are made at a time.
const INDEX_PIECE: usize = 64 << 10;

/// Asked regularly whether to go on.
pub(super) type Check<'a> = &'a dyn Fn() -> Result<()>;

/// A cloop image under way.
pub(super) struct CloopWriter {
    output: Output,
    format: Format,
    block_size: u32,
    index: IndexPlace,
    /// Where each block begins, from the first one on, with the codec's bits.
    entries: Vec<u64>,
    /// Bytes of all blocks so far, and their CRC-32.
    data: u64,
    sum: Crc,
}

/// Where the index goes, which is complete only when all blocks are written.
enum IndexPlace {
    /// In front of the blocks, where room for so many is left.
    Reserved { blocks: u64 },
    /// In front of the blocks, which are kept aside until then.
    Spooled { file: File, name: String },
    /// Behind the blocks.
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

impl CloopWriter {
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
        check: Check<'_>,
    ) -> Result<Self> {
        let index = if footer {
            if output.is_block_device() {
                let message = "is a block device, where a footer cannot be found: leave it out";
                return Err(Error::new(ErrorKind::InvalidInput, output.name(), message));
            }
            IndexPlace::Footer
        } else {
            match blocks.filter(|_| !output.is_pipe()) {
                Some(blocks) => IndexPlace::Reserved { blocks },
                None => {
                    let directory =
                        output.directory().map_or_else(std::env::temp_dir, PathBuf::from);
                    let name = directory.display().to_string();
                    let file = anonymous(&directory).map_err(|source| {
                        Error::io(&name, "cannot create a temporary file", source)
                    })?;
                    IndexPlace::Spooled { file, name }
                }
            }
        };
        let mut writer = CloopWriter {
            output,
            format,
            block_size,
            index,
            entries: Vec::new(),
            data: 0,
            sum: Crc::new(),
        };
        if let Some(blocks) = blocks {
            writer.check_count(blocks)?;
            writer.entries.reserve_exact(blocks as usize);
        }
        match writer.index {
            IndexPlace::Reserved { blocks } => writer.output.seek(data_start(blocks)),
            IndexPlace::Spooled { .. } => {}
            IndexPlace::Footer => {
                writer.output.append(&footer_padding(), check)?;
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
        check: Check<'_>,
    ) -> Result<()> {
        for (codec, length) in blocks {
            self.entries.push(self.data | self.flags(codec));
            self.data += u64::from(length);
        }
        self.check_count(self.entries.len() as u64)?;
        self.sum.update(bytes);
        match &mut self.index {
            IndexPlace::Spooled { file, name } => file.write_all(bytes).map_err(|source| {
                let message = if self.output.is_pipe() {
                    "cannot keep the compressed blocks here (TMPDIR names another place)"
                } else {
                    "cannot keep the compressed blocks in a temporary file here"
                };
                Error::io(&*name, message, source)
            }),
            _ => self.output.append(bytes, check),
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
        check: Check<'_>,
    ) -> Result<Written> {
        let blocks = self.entries.len() as u64;
        let first = match self.index {
            IndexPlace::Footer => FOOTER_PADDING as u64,
            _ => data_start(blocks),
        };
        if first + self.data >= self.format.data_limit() {
            let message = "is too large for its format";
            return Err(Error::new(ErrorKind::InvalidInput, self.output.name(), message));
        }
        let header = self.format.header(self.block_size, blocks as u32, self.sum.sum());
        match &mut self.index {
            IndexPlace::Footer => {
                self.append_index(first, check)?;
                self.output.append(&header, check)?;
            }
            IndexPlace::Reserved { blocks: expected } => {
                if *expected != blocks {
                    let message = "the input changed its size while it was read";
                    return Err(Error::new(ErrorKind::InvalidInput, self.output.name(), message));
                }
                // The header last: on a block device nothing unfinished shall
                // look like an image.
                self.output.append(&end_padding(first + self.data), check)?;
                self.output.seek(HEADER_BYTES);
                self.append_index(first, check)?;
                self.output.seek(0);
                self.output.append(&header, check)?;
            }
            IndexPlace::Spooled { file, name } => {
                let mut spool = file.try_clone().map_err(|source| {
                    Error::io(&*name, "cannot reopen a temporary file", source)
                })?;
                let name = name.clone();
                self.output.append(&header, check)?;
                self.append_index(first, check)?;
                self.append_spool(&mut spool, &name, check)?;
                self.output.append(&end_padding(first + self.data), check)?;
            }
        }
        let end = first + self.data;
        let file = match self.index {
            IndexPlace::Footer => end + 8 * (blocks + 1) + HEADER_BYTES,
            _ => end + end_padding(end).len() as u64,
        };
        if let Some(image) = self.read_back()? {
            inspect(&image)?;
        }
        self.output.finish_sized(file, check)?;
        Ok(Written { blocks, compressed: self.data, file })
    }

    /// The image as it was written; `None` where the output cannot be read.
    fn read_back(&self) -> Result<Option<Arc<CloopImage>>> {
        let Some(storage) = self.output.storage()? else { return Ok(None) };
        let image = CloopImage::open(storage, &ImageOptions::default())?;
        let written = (self.entries.len() as u64, self.block_size);
        if (image.block_count(), image.block_size()) != written {
            let message = "the header does not read back as it was written";
            return Err(Error::new(ErrorKind::Damaged, self.output.name(), message));
        }
        Ok(Some(image))
    }

    fn append_index(&mut self, first: u64, check: Check<'_>) -> Result<()> {
        let mut piece = Vec::with_capacity(INDEX_PIECE);
        for entry in self.entries.iter().copied().chain([self.data]) {
            // No carry into the codec's bits: the end was checked.
            piece.extend_from_slice(&(entry + first).to_be_bytes());
            if piece.len() == INDEX_PIECE {
                self.output.append(&piece, check)?;
                piece.clear();
            }
        }
        self.output.append(&piece, check)
    }

    fn append_spool(&mut self, spool: &mut File, name: &str, check: Check<'_>) -> Result<()> {
        let error = |source| Error::io(name, "cannot read a temporary file", source);
        spool.rewind().map_err(error)?;
        let mut buffer = vec![0; 1 << 20];
        let mut left = self.data;
        while left > 0 {
            let n = left.min(buffer.len() as u64) as usize;
            spool.read_exact(&mut buffer[..n]).map_err(error)?;
            check()?;
            self.output.append(&buffer[..n], check)?;
            left -= n as u64;
        }
        Ok(())
    }

    fn flags(&self, codec: Codec) -> u64 {
        self.format.flags(codec).expect("a codec that the format has")
    }
}
