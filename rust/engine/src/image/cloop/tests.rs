//! Images built byte by byte from the format page, and read.

use std::sync::Arc;

use super::*;
use crate::codec::tests::{encode, sample};
use crate::codec::Codec;
use crate::format::cloop::Layout;
use crate::image::Image;
use crate::storage::MemoryStorage;
use crate::{Extent, ExtentKind};

mod ending;
mod faulty;
mod keeping;
mod malformed;
mod medium;
mod partial;
mod racing;
mod reading;
mod shared;

/// Puts an image together; every part can be made wrong.
#[derive(Clone)]
struct Builder {
    signature: &'static [u8; 4],
    script: &'static [u8],
    block_size: u32,
    /// Compressed bytes and V4.0 flag of each block.
    blocks: Vec<(Vec<u8>, u64)>,
    /// Entries in place of those that follow from `blocks`; offsets count from the data.
    entries: Option<Vec<u64>>,
    num_blocks: Option<u32>,
    footer: bool,
    gap: usize,
    padding: usize,
}

impl Builder {
    fn new(signature: &'static [u8; 4], block_size: u32) -> Self {
        Builder {
            signature,
            script: b" Format\nexit 1\n",
            block_size,
            blocks: Vec::new(),
            entries: None,
            num_blocks: None,
            footer: false,
            gap: 0,
            padding: 0,
        }
    }

    fn block(mut self, codec: Codec, data: &[u8]) -> Self {
        let flag = match self.signature {
            b"V4.0" => codec.v4_flag().expect("a codec of V4.0"),
            _ => 0,
        };
        self.blocks.push((encode(codec, data), flag));
        self
    }

    fn bytes_block(mut self, bytes: &[u8], flag: u64) -> Self {
        self.blocks.push((bytes.to_vec(), flag));
        self
    }

    fn header(&self) -> Vec<u8> {
        let mut header = b"#!/bin/sh\n#".to_vec();
        header.extend(self.signature);
        header.extend(self.script);
        header.resize(128, 0);
        header.extend(self.block_size.to_be_bytes());
        let entries = self.entries.as_ref().map_or(self.blocks.len(), |entries| entries.len() - 1);
        header.extend(self.num_blocks.unwrap_or(entries as u32).to_be_bytes());
        header
    }

    fn index(&self, data_at: u64) -> Vec<u8> {
        let mut at = 0;
        let mut entries: Vec<u64> = Vec::new();
        match &self.entries {
            Some(given) => entries.extend(given.iter().map(|entry| entry.wrapping_add(data_at))),
            None => {
                for (bytes, flag) in &self.blocks {
                    entries.push((data_at + at) | (flag << 60));
                    at += bytes.len() as u64;
                }
                entries.push(data_at + at);
            }
        }
        entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
    }

    fn build(&self) -> Vec<u8> {
        let data: Vec<u8> = self.blocks.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut image = Vec::new();
        if self.footer {
            image.resize(self.gap, 0x55);
            image.extend(data);
            image.resize(image.len() + self.padding, 0x55);
            image.extend(self.index(self.gap as u64));
            image.extend(self.header());
        } else {
            image.extend(self.header());
            let entries = self.entries.as_ref().map_or(self.blocks.len() + 1, Vec::len);
            let data_at = image.len() + 8 * entries + self.gap;
            image.extend(self.index(data_at as u64));
            image.resize(data_at, 0x55);
            image.extend(data);
            image.resize(image.len() + self.padding, 0x55);
        }
        image
    }
}

fn storage(bytes: &[u8]) -> Arc<dyn Storage> {
    let storage = MemoryStorage::new("test.img", u64::MAX);
    storage.write_all_at(bytes, 0).unwrap();
    Arc::new(storage)
}

fn open(bytes: &[u8]) -> Result<Arc<CloopImage>> {
    CloopImage::open(storage(bytes), &ImageOptions::default())
}

fn open_error(bytes: &[u8]) -> String {
    match Image::open(storage(bytes), &ImageOptions::default()) {
        Ok(image) => panic!("opened: {image:?}"),
        Err(error) => error.to_string(),
    }
}

/// The whole device.
fn content(image: &CloopImage) -> Vec<u8> {
    let mut bytes = vec![0xaa; image.size() as usize];
    image.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn extents_of(image: &dyn Layer, offset: u64, length: u64) -> Vec<Extent> {
    let mut found = Vec::new();
    image
        .extents(offset, length, &mut |extent| {
            found.push(extent);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    found
}
