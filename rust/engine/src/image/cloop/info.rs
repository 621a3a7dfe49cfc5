//! Figures about an image.

use std::collections::BTreeMap;

use crate::codec::Codec;

use super::CloopImage;
use crate::format::cloop::{Kind, Layout};

/// What an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloopInfo {
    /// Which of the family.
    pub kind: Kind,
    /// Whether it is one of FreeBSD's.
    pub uzip: bool,
    /// Where header and index are.
    pub layout: Layout,
    /// Bytes of a block, decoded.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of the device.
    pub size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of the index in the file.
    pub index_bytes: u64,
    /// Bytes of all stored blocks, each counted once.
    pub compressed_bytes: u64,
    /// Stored blocks of each codec.
    pub codecs: BTreeMap<Codec, u64>,
    /// Blocks of zeros: those that take no bytes, and those whose stream is known to be
    /// zeros.
    pub zero_blocks: u64,
    /// Blocks whose bytes are those of an earlier block.
    pub shared_blocks: u64,
}

impl CloopInfo {
    /// `cloop` or `uzip`; a `V2.0` image is `mkuzip`'s when its script says so.
    pub fn format(&self) -> &'static str {
        if self.uzip {
            "uzip"
        } else {
            "cloop"
        }
    }

    /// Compressed bytes per byte of the device; 0 for an empty one.
    pub fn ratio(&self) -> f64 {
        match self.size {
            0 => 0.0,
            size => self.compressed_bytes as f64 / size as f64,
        }
    }
}

impl CloopImage {
    /// Figures about the image, from its header and index; blocks of zeros are counted by
    /// their streams, where those are small enough.
    pub fn info(&self) -> CloopInfo {
        let mut codecs = BTreeMap::new();
        let mut zero_blocks = 0;
        let mut finder = self.zero_finder(self.block_count());
        let mut compressed_bytes = 0;
        let mut stored_end = 0;
        for block in 0..self.block_count() {
            let location = self.location(block);
            zero_blocks += u64::from(finder.is_zero(block));
            if location.length == 0 {
                continue;
            }
            *codecs.entry(location.codec).or_default() += 1;
            // An image's own blocks follow each other; any other block refers back.
            if location.offset >= stored_end {
                compressed_bytes += u64::from(location.length);
                stored_end = location.end();
            }
        }
        CloopInfo {
            kind: self.header.kind,
            uzip: self.header.is_uzip(),
            layout: self.header.layout,
            block_size: self.block_size(),
            blocks: self.block_count(),
            size: self.header.size(),
            file_size: self.header.file_size,
            index_bytes: self.header.index_bytes(),
            compressed_bytes,
            codecs,
            zero_blocks,
            shared_blocks: self.decoder().index().shared_blocks(),
        }
    }
}
