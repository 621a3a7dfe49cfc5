//! cloop images and their uzip relatives: read-only devices that are compressed
//! block by block.

mod info;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::format::cloop::{BlockLocation, Header, Index};
use crate::layer::{join_extents, ExtentSink};
use crate::read::{BlockReader, Decoder, ReaderOptions, ZeroFinder};
use crate::storage::Storage;
use crate::{Error, ErrorKind, Extent, ExtentKind, Layer, LayerCounters, Result};

use super::ImageOptions;
use crate::read::{BadBlock, StoredBlock};
pub use info::CloopInfo;

/// A cloop or uzip image: what its header says, and a reader of its blocks.
#[derive(Debug)]
pub struct CloopImage {
    header: Header,
    reader: Arc<BlockReader>,
}

impl CloopImage {
    /// Opens an image that must be of this family; reads and checks its index.
    ///
    /// # Errors
    /// `Format`: not a cloop image, or one that is damaged, cut short or absurd;
    /// `Unsupported`: a version or codec that is not read; `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<CloopImage>> {
        match Header::find(&*storage)? {
            Some(header) => Self::with_header(storage, header, options),
            None => Err(Error::new(
                ErrorKind::Format,
                storage.name(),
                "not a cloop image: it has no cloop header at its beginning or end",
            )),
        }
    }

    pub(super) fn with_header(
        storage: Arc<dyn Storage>,
        header: Header,
        options: &ImageOptions,
    ) -> Result<Arc<CloopImage>> {
        let index = Index::read(&*storage, &header)?;
        let last_may_be_short = header.kind.last_may_be_short();
        let decoder = Decoder::new(storage, index, header.block_size, last_may_be_short);
        let ImageOptions { cache_bytes, threads, strict, shared } = *options;
        let options = ReaderOptions { cache_bytes, threads, strict, shared };
        let reader = BlockReader::new(decoder, options);
        Ok(Arc::new(CloopImage { header, reader }))
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        self.decoder().name()
    }

    /// The header, whose fields agree with the file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of a block, decoded.
    pub fn block_size(&self) -> u32 {
        self.header.block_size
    }

    /// Number of blocks.
    pub fn block_count(&self) -> u64 {
        self.decoder().block_count()
    }

    /// Where a block's compressed bytes are.
    ///
    /// # Panics
    /// When `block` is not below [`block_count`](Self::block_count).
    pub(crate) fn location(&self, block: u64) -> BlockLocation {
        self.decoder().location(block)
    }

    /// Brings a block into the cache, to stay, unless it is there or on its way: for one that
    /// readers will want. Does nothing of a block that cannot be had.
    ///
    /// # Panics
    /// As [`location`](Self::location).
    pub(super) fn bring_in(&self, block: u64) {
        self.reader.bring_in(block);
    }

    /// Reads blocks and says what is wrong with which, past the cache and earlier findings.
    /// `scratch` is working space that may be reused.
    pub fn check_blocks(&self, blocks: &[u64], scratch: &mut Vec<u8>) -> Vec<BadBlock> {
        self.decoder().check(blocks, scratch)
    }

    /// Reads a block's compressed bytes as they are, and says why they cannot be read.
    ///
    /// # Errors
    /// The block, as a bad one.
    pub(crate) fn read_stored(
        &self,
        stored: &StoredBlock,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), BadBlock> {
        let read = self.decoder().read_compressed(stored.block, bytes);
        read.map_err(|error| stored.bad(&error.into()))
    }

    /// Reads a block's compressed bytes as they are; none for a block of zeros
    /// that is not stored.
    ///
    /// # Errors
    /// `Io`.
    pub fn read_compressed(&self, block: u64, bytes: &mut Vec<u8>) -> Result<()> {
        self.decoder().read_compressed(block, bytes).map_err(|error| {
            let offset = self.location(block).offset;
            let message = format!("cannot read block {block} at offset {offset}");
            Error::io(self.name(), message, error)
        })
    }

    /// What is known of a block without reading it.
    ///
    /// # Panics
    /// As [`location`](Self::location).
    pub(crate) fn stored_block(&self, block: u64) -> StoredBlock {
        self.decoder().stored(block)
    }

    fn decoder(&self) -> &Decoder {
        self.reader.blocks().decoder()
    }

    /// A walk over blocks below `end` that tells which are zeros.
    fn zero_finder(&self, end: u64) -> ZeroFinder<'_> {
        ZeroFinder::new(self.reader.blocks(), end)
    }
}

impl Layer for CloopImage {
    fn size(&self) -> u64 {
        self.header.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reader.read(buf, offset)
    }

    fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reader.read_checked(buf, offset)
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let block_size = u64::from(self.block_size());
        let end = offset + length;
        let mut finder = self.zero_finder(end.div_ceil(block_size));
        join_extents(sink, |sink| {
            let mut at = offset;
            while at < end {
                let block = at / block_size;
                let to = ((block + 1) * block_size).min(end);
                let kind = if finder.is_zero(block) { ExtentKind::Zero } else { ExtentKind::Data };
                if sink(Extent { offset: at, length: to - at, kind }).is_break() {
                    break;
                }
                at = to;
            }
            Ok(())
        })
    }

    fn read_unit(&self) -> u64 {
        u64::from(self.header.block_size)
    }

    /// Has a worker decode the blocks of the range into the cache, as far as they fit it
    /// well. Does nothing before [`start`](Layer::start).
    fn prefetch(&self, offset: u64, length: u64) {
        self.reader.prefetch(offset, length);
    }

    fn start(&self) {
        self.reader.start();
    }

    /// SHA-256 over the size of the file, its header and its index.
    fn identity(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"cloop\0");
        hash.update(self.header.file_size.to_le_bytes());
        hash.update(self.header.bytes);
        let mut bytes = [0; 4096];
        for entries in self.decoder().index().entries().chunks(bytes.len() / 8) {
            for (entry, place) in entries.iter().zip(bytes.chunks_exact_mut(8)) {
                place.copy_from_slice(&entry.to_be_bytes());
            }
            hash.update(&bytes[..entries.len() * 8]);
        }
        Ok(hash.finalize().into())
    }

    fn counters(&self) -> LayerCounters {
        self.reader.counters()
    }
}

#[cfg(test)]
mod tests;
