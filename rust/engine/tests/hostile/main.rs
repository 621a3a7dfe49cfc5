//! Damaged and hostile files: sound ones with random damage, and what the
//! fuzzers (`make fuzz`) have collected. Nothing may panic.

mod targets;

use std::fs;
use std::io::Write;
use std::path::Path;

use cowcloop_engine::format::cowfile::head::{Head, HEAD_SECTOR};
use cowcloop_engine::format::cowfile::mark::Mark;

/// What a fuzzer does with the bytes that it thinks of.
type Target = fn(&[u8]);

/// Damaged copies of each sound file that are tried.
const COPIES: u64 = 4000;

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// Changes a few bytes, mostly near the beginning where the fields are, to
/// values that are most often wrong; now and then cuts the end off.
fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..1 + numbers.below(4) {
        let near = if numbers.below(3) > 0 { bytes.len().min(220) } else { bytes.len() };
        let at = numbers.below(near);
        bytes[at] = match numbers.below(4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ (1 << numbers.below(8)),
            _ => numbers.below(256) as u8,
        };
    }
    if numbers.below(8) == 0 {
        bytes.truncate(1 + numbers.below(bytes.len()));
    }
}

fn try_damaged(sound: &[u8], target: Target, seed: u64) {
    target(sound);
    let mut numbers = Numbers(seed);
    for _ in 0..COPIES {
        let mut bytes = sound.to_vec();
        damage(&mut bytes, &mut numbers);
        target(&bytes);
    }
}

fn zlib(block: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(block).unwrap();
    encoder.finish().unwrap()
}

fn xz(block: &[u8]) -> Vec<u8> {
    let check = liblzma::stream::Check::Crc32;
    let stream = liblzma::stream::Stream::new_easy_encoder(6, check).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(block).unwrap();
    encoder.finish().unwrap()
}

fn zstd(block: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(block, 3).unwrap()
}

/// A cloop image of four blocks of 1 KiB, the index before or behind the data.
fn cloop(version: &[u8], footer: bool) -> Vec<u8> {
    let compress = match version[0].to_ascii_lowercase() {
        b'l' => xz,
        b'z' => zstd,
        _ => zlib,
    };
    let blocks: Vec<_> =
        [[1; 1024], [0; 1024], [0; 1024], [7; 1024]].iter().map(|b| compress(b)).collect();
    let mut header = vec![0; 128];
    header[..11].copy_from_slice(b"#!/bin/sh\n#");
    header[11..15].copy_from_slice(version);
    header.extend(1024_u32.to_be_bytes());
    header.extend(4_u32.to_be_bytes());
    let mut at = if footer { 512 } else { 136 + 5 * 8 };
    let mut index = Vec::new();
    for block in &blocks {
        index.extend((at as u64).to_be_bytes());
        at += block.len();
    }
    index.extend((at as u64).to_be_bytes());
    let data = blocks.concat();
    if footer {
        [vec![0; 512], data, index, header].concat()
    } else {
        [header, index, data].concat()
    }
}

fn cowfile() -> Vec<u8> {
    let mark = Mark::new(100 << 10, [3; 32]).unwrap();
    let mut head = Head::new(100, 0x0102_0304, mark);
    head.cowused = 3;
    let mut bytes = vec![0; head.doffset as usize + (50 << 10)];
    let sector: &mut [u8; HEAD_SECTOR] = bytes.first_chunk_mut().unwrap();
    head.encode_into(sector);
    bytes[1024] = 0b11;
    bytes[1024 + 6] = 2;
    bytes
}

#[test]
fn damaged_images_are_errors() {
    for (seed, version) in
        [b"V2.0", b"V4.0", b"v3.0", b"L3.0", b"l3.0", b"Z4.0"].into_iter().enumerate()
    {
        try_damaged(&cloop(version, false), targets::image, seed as u64);
    }
    try_damaged(&cloop(b"V4.0", true), targets::image, 99);
}

/// What the target of the same name makes an image of: three blocks of 1 KiB.
fn indexed(kind: u8) -> Vec<u8> {
    let stream = zlib(&[7; 1024]);
    let mut bytes = vec![kind, 1, 2];
    for number in 0..4 {
        bytes.push(0);
        bytes.extend((number * stream.len() as u16).to_le_bytes());
    }
    bytes.extend(stream.repeat(3));
    bytes
}

#[test]
fn damaged_indexes_are_errors() {
    for kind in [0, 1, 4, 0x81] {
        try_damaged(&indexed(kind), targets::index, u64::from(kind));
    }
}

#[test]
fn damaged_cowfiles_are_errors() {
    try_damaged(&cowfile(), targets::cowfile, 5);
    // Damage that leaves the mark whole is the rarer kind: without a mark.
    let mut bare = cowfile();
    bare[128..256].fill(0);
    try_damaged(&bare, targets::cowfile, 6);
}

#[test]
fn damaged_streams_are_errors() {
    let text: Vec<u8> = (0..3000_u32).map(|i| (i / 7 * i) as u8).collect();
    let streams = [
        zlib(&text),
        text.clone(),
        xz(&text),
        lz4_flex::block::compress(&text),
        lzokay_native::compress(&text).unwrap(),
        Vec::from(*b"\x5d\0\0\x80\0"),
        zstd(&text),
    ];
    for (kind, stream) in streams.into_iter().enumerate() {
        let mut input = vec![kind as u8, 6, 0];
        input.extend(stream);
        try_damaged(&input, targets::codec, kind as u64);
    }
}

#[test]
fn what_the_fuzzers_found_stays_found() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let all: [(&str, Target); 4] = [
        ("image", targets::image),
        ("index", targets::index),
        ("codec", targets::codec),
        ("cowfile", targets::cowfile),
    ];
    for (name, target) in all {
        let files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().collect();
        assert!(!files.is_empty(), "no corpus for {name}");
        for file in files {
            target(&fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// Writes the sound files as a corpus for the fuzzers to start from.
#[test]
#[ignore = "writes into the source tree; run it to begin a corpus anew"]
fn begin_a_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target)).unwrap();
        fs::write(corpus.join(target).join(name), bytes).unwrap();
    };
    put("image", "v2", &cloop(b"V2.0", false));
    put("image", "v4-footer", &cloop(b"V4.0", true));
    put("image", "uzip-deduplicated", &cloop(b"v3.0", false));
    put("image", "uzip-xz", &cloop(b"L3.0", false));
    put("index", "v2", &indexed(0));
    put("index", "v4-footer", &indexed(0x81));
    put("cowfile", "clean", &cowfile());
    put("codec", "zlib", &[&[0, 2, 0], &zlib(&[5; 1000])[..]].concat());
    put("codec", "lz4", &[&[3, 2, 0], &lz4_flex::block::compress(&[5; 1000])[..]].concat());
    put("codec", "zstd", &[&[6, 2, 0], &zstd(&[5; 1000])[..]].concat());
}
