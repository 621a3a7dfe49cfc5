//! Streams from all available encoders.

use cowcloop_inflate::Container;

use super::oracle::Random;

/// Bytes of one kind or another.
pub fn data(random: &mut Random, length: usize) -> Vec<u8> {
    match random.below(6) {
        // Text of few words.
        0 => {
            let words: Vec<Vec<u8>> = (0..60)
                .map(|_| (0..1 + random.below(9)).map(|_| b'a' + random.below(26) as u8).collect())
                .collect();
            let mut bytes = Vec::new();
            while bytes.len() < length {
                bytes.extend(&words[random.below(60)]);
                bytes.push(b' ');
            }
            bytes.truncate(length);
            bytes
        }
        // Short periods, with exceptions.
        1 => {
            let period: Vec<u8> =
                (0..1 + random.below(40)).map(|_| random.below(256) as u8).collect();
            let mut bytes: Vec<u8> = period.iter().copied().cycle().take(length).collect();
            for _ in 0..random.below(30) {
                let at = random.below(length);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
            bytes
        }
        // Frequencies that halve from byte to byte: codes of up to 15 bits.
        2 => {
            let step = 1 + random.below(9) as u32;
            let mut skewed = || (random.below(1 << 20) | 1 << 20).trailing_zeros() * step;
            (0..length).map(|_| skewed() as u8).collect()
        }
        // All bytes.
        3 => (0..length).map(|_| random.below(256) as u8).collect(),
        // Repetitions from as far back as there are bytes.
        4 => {
            let far = [32_768, 32_767, 32_500, 20_000][random.below(4)];
            let mut bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            for i in far..length {
                if (i / 100) % 3 != 0 {
                    bytes[i] = bytes[i - far];
                }
            }
            bytes
        }
        // Records: columns, some of which change.
        _ => {
            let width = 4 + random.below(60);
            let mut row = vec![0; width];
            let mut bytes = Vec::new();
            while bytes.len() < length {
                for _ in 0..1 + random.below(4) {
                    row[random.below(width)] = random.below(200) as u8;
                }
                bytes.extend(&row);
            }
            bytes.truncate(length);
            bytes
        }
    }
}

/// The number of ways to compress.
pub const ENCODERS: usize = 10 + 13 + 10 * 5 + 1 + 10;

/// Compresses in the given way.
pub fn compress(container: Container, bytes: &[u8], encoder: usize) -> Vec<u8> {
    match encoder {
        0..10 => ng(container, bytes, encoder as u32),
        10..23 => libdeflate(container, bytes, encoder as i32 - 10),
        23..73 => zlib(container, bytes, (encoder - 23) as i32 / 5, (encoder - 23) as i32 % 5),
        73 => zopfli(container, bytes),
        _ => pieces(container, bytes, encoder as u32 - 74),
    }
}

fn ng(container: Container, bytes: &[u8], level: u32) -> Vec<u8> {
    let zlib = container == Container::Zlib;
    let mut stream = flate2::Compress::new(flate2::Compression::new(level), zlib);
    let mut output = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 200);
    let finish = flate2::FlushCompress::Finish;
    let status = stream.compress_vec(bytes, &mut output, finish);
    assert!(matches!(status, Ok(flate2::Status::StreamEnd)));
    output
}

/// With a flush here and there, each of a different kind: empty blocks, and blocks that end
/// early.
fn pieces(container: Container, bytes: &[u8], level: u32) -> Vec<u8> {
    use flate2::FlushCompress::{Finish, Full, None, Partial, Sync};
    let zlib = container == Container::Zlib;
    let mut stream = flate2::Compress::new(flate2::Compression::new(level), zlib);
    let mut output = Vec::with_capacity(2 * bytes.len() + 70_000);
    let mut flushes = [Sync, None, Full, Partial].into_iter().cycle();
    for piece in bytes.chunks(1 + bytes.len() / 7) {
        let flush = flushes.next().expect("a cycle");
        stream.compress_vec(piece, &mut output, flush).expect("there is room");
    }
    let status = stream.compress_vec(&[], &mut output, Finish);
    assert!(matches!(status, Ok(flate2::Status::StreamEnd)));
    output
}

fn libdeflate(container: Container, bytes: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).expect("a level");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut output = vec![0; compressor.zlib_compress_bound(bytes.len())];
    let length = match container {
        Container::Raw => compressor.deflate_compress(bytes, &mut output),
        Container::Zlib => compressor.zlib_compress(bytes, &mut output),
    };
    output.truncate(length.expect("there is room"));
    output
}

/// zlib itself, by level and strategy.
fn zlib(container: Container, bytes: &[u8], level: i32, strategy: i32) -> Vec<u8> {
    use libz_sys as z;
    let window = if container == Container::Zlib { 15 } else { -15 };
    let mut output = vec![0; bytes.len() + bytes.len() / 8 + 400];
    let mut stream = std::mem::MaybeUninit::<z::z_stream>::zeroed();
    let size = std::mem::size_of::<z::z_stream>() as i32;
    // SAFETY: as zlib's manual requires: a stream of zeros is initialized, and given the
    // buffers.
    let length = unsafe {
        let stream = stream.as_mut_ptr();
        let done = z::deflateInit2_(
            stream,
            level,
            z::Z_DEFLATED,
            window,
            8,
            strategy,
            z::zlibVersion(),
            size,
        );
        assert_eq!(done, z::Z_OK);
        (*stream).next_in = bytes.as_ptr().cast_mut();
        (*stream).avail_in = bytes.len() as _;
        (*stream).next_out = output.as_mut_ptr();
        (*stream).avail_out = output.len() as _;
        assert_eq!(z::deflate(stream, z::Z_FINISH), z::Z_STREAM_END);
        let length = (*stream).total_out as usize;
        z::deflateEnd(stream);
        length
    };
    output.truncate(length);
    output
}

fn zopfli(container: Container, bytes: &[u8]) -> Vec<u8> {
    let format = match container {
        Container::Raw => zopfli::Format::Deflate,
        Container::Zlib => zopfli::Format::Zlib,
    };
    let mut output = Vec::new();
    // This encoder is slow: long inputs are left to zlib.
    if bytes.len() > 8192 {
        return ng(container, bytes, 9);
    }
    let options = zopfli::Options {
        iteration_count: std::num::NonZeroU64::new(2).expect("not zero"),
        ..Default::default()
    };
    zopfli::compress(options, format, bytes, &mut output).expect("a vector takes all");
    output
}
