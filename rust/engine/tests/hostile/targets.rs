//! What is done with hostile bytes. Each function takes any
//! bytes and must neither panic nor take more memory than they warrant; what
//! can be opened must behave. Used by the tests here and by the fuzzers.

use std::ops::ControlFlow;
use std::sync::Arc;

use cowcloop_engine::codec::Codec;
use cowcloop_engine::format::cowfile::head::{Head, HEAD_SECTOR, MAPUNIT};
use cowcloop_engine::format::cowfile::mark::{Mark, Merging, WITNESSES};
use cowcloop_engine::format::cowfile::Access;
use cowcloop_engine::image::{Image, ImageOptions};
use cowcloop_engine::overlay::{Cowfile, Overlay};
use cowcloop_engine::storage::{MemoryStorage, Storage};
use cowcloop_engine::Layer;

/// Bytes of an image that are read at most, and of blocks that are checked.
const READ: u64 = 256 << 10;

fn storage(data: &[u8]) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("hostile", 64 << 20));
    storage.write_all_at(data, 0).expect("the limit is far");
    storage
}

/// An image: header, index, and reads of both ends.
pub fn image(data: &[u8]) {
    let options = ImageOptions { cache_bytes: 4 << 20, threads: 1, ..Default::default() };
    let Ok(image) = Image::open(storage(data), &options) else { return };
    let cloop = match &image {
        Image::Cloop(cloop) => Some(cloop.clone()),
        Image::Raw(_) | Image::Other(_) => None,
    };
    let layer = image.layer();
    let size = layer.size();
    let length = size.min(READ);
    // Small reads may inflate a part of a block; the whole must agree with them.
    let places = [length / 2, length / 3 * 2, length / 5].map(|at| at.min(length.max(64) - 64));
    let small = places.map(|at| {
        let mut buf = vec![0x55; length.min(64) as usize];
        layer.read_at(&mut buf, at).is_ok().then_some((at, buf))
    });
    let mut first = vec![0xaa; length as usize];
    let whole = layer.read_at(&mut first, 0);
    let mut last = vec![0xaa; length.min(4096) as usize];
    let near_end = size - last.len() as u64;
    let _ = layer.read_at(&mut last, near_end);
    // What was read once reads the same again, in pieces too.
    if whole.is_ok() {
        for (at, bytes) in small.iter().map(|read| read.as_ref().expect("the whole can be read")) {
            assert!(first[*at as usize..][..bytes.len()] == bytes[..]);
        }
        for (i, piece) in first.chunks(1000).enumerate() {
            let mut again = vec![0x55; piece.len()];
            layer.read_at(&mut again, i as u64 * 1000).expect("it could be read before");
            assert!(again == piece);
        }
    }
    let mut at = 0;
    let mut check = |extent: cowcloop_engine::Extent| {
        assert!(extent.offset == at && extent.length > 0);
        at = extent.end();
        ControlFlow::Continue(())
    };
    if layer.extents(0, length, &mut check).is_ok() {
        assert_eq!(at, length);
    }
    if let Some(cloop) = cloop {
        let blocks = (READ / u64::from(cloop.block_size())).clamp(1, 32);
        let blocks: Vec<_> = (0..cloop.block_count().min(blocks)).collect();
        cloop.check_blocks(&blocks, &mut Vec::new());
        cloop.info();
    }
}

/// An image whose header is right, so that its index and blocks are reached: three bytes
/// choose kind, block size and number of blocks, then come the entries of the index, each a
/// byte of flags and two of where it points in what follows.
pub fn index(data: &[u8]) {
    const KINDS: [&[u8; 4]; 8] =
        [b"V2.0", b"V4.0", b"L3.0", b"Z4.0", b"v3.0", b"l3.0", b"z4.0", b"v2.0"];
    let [kind, size, count, rest @ ..] = data else { return };
    let count = 1 + usize::from(*count) % 40;
    let (Some(entries), Some(blocks)) = (rest.get(..3 * (count + 1)), rest.get(3 * (count + 1)..))
    else {
        return;
    };
    let footer = kind & 0x80 != 0;
    let at = if footer { 0 } else { 136 + 8 * (count as u64 + 1) };
    let mut header = vec![0; 128];
    header[..11].copy_from_slice(b"#!/bin/sh\n#");
    header[11..15].copy_from_slice(KINDS[usize::from(*kind) % KINDS.len()]);
    header.extend((512 * [1_u32, 2, 8, 3, 32, 128, 300][usize::from(*size) % 7]).to_be_bytes());
    header.extend((count as u32).to_be_bytes());
    let index = entries.chunks(3).flat_map(|entry| {
        let offset = at + u64::from(u16::from_le_bytes([entry[1], entry[2]]));
        (u64::from(entry[0] >> 4) << 60 | offset).to_be_bytes()
    });
    let index: Vec<u8> = index.collect();
    image(&if footer {
        [blocks, &index, &header].concat()
    } else {
        [&header, &index, blocks].concat()
    });
}

/// A compressed block: the first byte names the codec, the next two the size.
pub fn codec(data: &[u8]) {
    const CODECS: [Codec; 7] =
        [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo, Codec::Lzma, Codec::Zstd];
    let [kind, low, high, input @ ..] = data else { return };
    let size = (1 + usize::from(u16::from_le_bytes([*low, *high])) % 128) * 512;
    let mut output = vec![0xaa; size];
    let codec = CODECS[usize::from(*kind) % CODECS.len()];
    if let Ok(n) = codec.decode(input, &mut output) {
        assert!(n <= size);
    }
}

/// A cowfile: its head, its bitmap, and, where it can be opened, requests.
pub fn cowfile(data: &[u8]) {
    let mut data = data.to_vec();
    let Some(sector) = data.first_chunk_mut::<HEAD_SECTOR>() else {
        let opened = Cowfile::open(storage(&data), &Base(1024, [0; 32]), Access::Writable, None);
        assert!(opened.is_err());
        return;
    };
    // No fuzzer guesses a checksum: a mark that begins as one gets the right one.
    if sector[128..].starts_with(b"cowcloop") {
        let field = |at: usize| u64::from_le_bytes(sector[at..][..8].try_into().expect("8 bytes"));
        let mark = Mark {
            id: sector[144..160].try_into().expect("16 bytes"),
            generation: field(160),
            base_size: field(168),
            base_identity: sector[176..208].try_into().expect("32 bytes"),
            merging: (sector[208] == 1)
                .then_some(Merging { untouched: [0; 14], before: [0; WITNESSES] }),
        };
        mark.encode_into(sector);
    }
    // The base that the head asks for, so that the rest is reached.
    let Ok(head) = Head::parse("hostile", sector) else { return };
    let (size, identity) = match &head.mark {
        Some(mark) => (mark.base_size, mark.base_identity),
        None => (head.device_size(), [0; 32]),
    };
    if size > 1 << 40 {
        return;
    }
    let storage = storage(&data);
    let base: Arc<dyn Layer> = Arc::new(Base(size, identity));
    let Ok(overlay) = Overlay::open(storage.clone(), base.clone(), Access::Writable) else {
        return;
    };
    let end = overlay.size();
    let length = end.min(5000);
    let mut before = vec![0; length as usize];
    let readable = overlay.read_at(&mut before, 0).is_ok();
    overlay.write_at(&[0x77; 100], end - 100).expect("the end can be written");
    overlay.write_zeroes(0, length.min(MAPUNIT), false).expect("the beginning can be zeroed");
    overlay.flush().expect("memory can be synced");
    overlay.close().expect("memory can be synced");
    drop(overlay);
    let again = Overlay::open(storage, base, Access::ReadOnly).expect("it was closed cleanly");
    let mut tail = [0; 100];
    again.read_at(&mut tail, end - 100).expect("it was written");
    if end >= length + 100 {
        assert_eq!(tail, [0x77; 100]);
    }
    if readable {
        let mut after = vec![0; length as usize];
        again.read_at(&mut after, 0).expect("it could be read before");
        before[..length.min(MAPUNIT) as usize].fill(0);
        if end >= length + 100 {
            assert!(before == after);
        }
    }
}

/// A base of any size, without a byte in it: all zeros, and not known to be.
struct Base(u64, [u8; 32]);

impl Layer for Base {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> cowcloop_engine::Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        sink: cowcloop_engine::layer::ExtentSink<'_>,
    ) -> cowcloop_engine::Result<()> {
        let kind = cowcloop_engine::ExtentKind::Zero;
        let _ = sink(cowcloop_engine::Extent { offset, length, kind });
        Ok(())
    }

    fn identity(&self) -> cowcloop_engine::Result<[u8; 32]> {
        Ok(self.1)
    }
}
