//! Figures about an image.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::codec::Codec;

use super::CloopImage;
use crate::format::cloop::Layout;

/// What an image holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CloopInfo {
    /// `cloop` or `uzip`; a `V2.0` image is `mkuzip`'s when its script says so.
    pub format: &'static str,
    /// The signature that it begins with.
    pub version: &'static str,
    /// Where header and index are.
    #[serde(serialize_with = "as_text")]
    pub layout: Layout,
    /// Bytes of a block, decoded.
    pub block_size: u32,
    /// How many blocks there are.
    pub blocks: u64,
    /// Bytes of the device.
    pub size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of the index in the file.
    pub index_bytes: u64,
    /// Bytes of all stored blocks, each counted once.
    pub compressed_bytes: u64,
    /// Compressed bytes per byte of the device; 0 for an empty one.
    pub ratio: f64,
    /// Stored blocks of each codec.
    #[serde(serialize_with = "by_name")]
    pub codecs: BTreeMap<Codec, u64>,
    /// Blocks of zeros: those that take no bytes, and those whose stream is known to be
    /// zeros.
    pub zero_blocks: u64,
    /// Blocks whose bytes are those of an earlier block.
    pub shared_blocks: u64,
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn by_name<S: Serializer>(codecs: &BTreeMap<Codec, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(codecs.iter().map(|(codec, blocks)| (codec.name(), blocks)))
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
        let size = self.header.size();
        CloopInfo {
            format: if self.header.is_uzip() { "uzip" } else { "cloop" },
            version: self.header.kind.version(),
            layout: self.header.layout,
            block_size: self.block_size(),
            blocks: self.block_count(),
            size,
            file_size: self.header.file_size,
            index_bytes: self.header.index_bytes(),
            compressed_bytes,
            ratio: if size == 0 { 0.0 } else { compressed_bytes as f64 / size as f64 },
            codecs,
            zero_blocks,
            shared_blocks: self.decoder().index().shared_blocks(),
        }
    }
}
