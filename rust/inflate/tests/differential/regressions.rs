//! Five faults of this crate's prototype, each with the stream that showed it, and zlib's
//! behaviour where the standard leaves a case open.

use cowcloop_inflate::{Container, Error, Inflater, Job};

use crate::encoders::{compress, data};
use crate::guarded::Guarded;
use crate::oracle::{Ours, Random};
use crate::writer::{Codes, Writer};

fn check(stream: Vec<u8>, room: usize) {
    let (mut input, mut output) = (Guarded::new(stream.len() + 1), Guarded::new(room + 1));
    let input = input.copy(&stream, true);
    Ours::new().check_whole(Container::Zlib, input, output.slice(room, true));
}

/// A panic: the rest of a refused header was taken for the state of the next stream.
#[test]
fn a_refused_header_leaves_nothing_behind() {
    let bytes = data(&mut Random(7), 3000);
    let good = compress(Container::Zlib, &bytes, 9);
    let mut bad = vec![good.clone(); 5];
    bad[0][0] = 0x79;
    bad[1].truncate(1);
    bad[2][2] |= 6;
    bad[3].clear();
    bad[4][3..20].fill(0xff);
    for inflater in &mut Ours::new().inflaters {
        for first in &bad {
            for second in bad.iter().chain([&good]) {
                let mut output = vec![0; 3000];
                assert!(inflater.inflate(Container::Zlib, first, &mut output).is_err());
                let mut outputs = vec![vec![0; 3000]; 6];
                let streams = [first, second, first, second, &good, second];
                let pairs = streams.into_iter().zip(&mut outputs);
                let mut jobs: Vec<_> = pairs.map(|(input, out)| Job::new(input, out)).collect();
                inflater.inflate_many(Container::Zlib, &mut jobs);
                for job in jobs {
                    assert_eq!(job.result.is_ok(), *job.input == good);
                    assert!(job.result.is_err() || *job.output == bytes);
                }
            }
        }
    }
}

/// Wrong output: beyond 64 KiB, the mark for a distance that does not exist was taken for
/// 65,535.
#[test]
fn no_distance_is_none_beyond_64_kib_too() {
    // Distances with one code of one bit; the other bit means nothing.
    let mut codes = Codes { literals: vec![0; 286], distances: vec![0, 1] };
    codes.literals[b'a' as usize] = 1;
    codes.literals[256] = 2;
    codes.literals[257] = 2;
    for count in [10, 32_760, 65_530, 65_534, 65_535, 65_536, 65_600, 70_000, 140_000] {
        let mut writer = Writer::new(Container::Zlib);
        writer.dynamic(true, &codes);
        for _ in 0..count {
            writer.symbol(&codes.literals, b'a'.into());
        }
        writer.symbol(&codes.literals, 257);
        writer.put(1, 1);
        for _ in 0..100 {
            writer.symbol(&codes.literals, b'a'.into());
        }
        writer.symbol(&codes.literals, 256);
        writer.written = count + 103;
        let stream = writer.finish(Container::Zlib);
        let result = Inflater::new().inflate(Container::Zlib, &stream, &mut vec![0; count + 103]);
        assert_eq!(result, Err(Error::Distance));
        check(stream, count + 103);
    }
    // The two fixed codes that are no distances.
    for distance in [30, 31] {
        let codes = Codes::fixed();
        let mut writer = Writer::new(Container::Zlib);
        writer.put(3, 3);
        writer.symbol(&codes.literals, b'a'.into());
        for _ in 0..300 {
            writer.symbol(&codes.literals, 285);
            writer.symbol(&codes.distances, 0);
        }
        writer.symbol(&codes.literals, 257);
        writer.symbol(&codes.distances, distance);
        writer.put(0xffff, 13);
        writer.symbol(&codes.literals, 256);
        writer.written = 300 * 258 + 4;
        check(writer.finish(Container::Zlib), 300 * 258 + 4);
    }
}

/// A hang: near the end of the input neither the hot loop nor the careful way moved on.
#[test]
fn the_end_of_the_input_is_reached() {
    let mut random = Random(8);
    for length in 0..80 {
        let bytes = data(&mut random, 200 + length);
        let mut stream = compress(Container::Raw, &bytes, 9);
        for _ in 0..20.min(stream.len()) {
            let mut output = vec![0; 600];
            Ours::new().check_whole(Container::Raw, &stream, &mut output);
            Ours::new().check_stops(Container::Raw, &stream, &mut output, (0..300).step_by(7));
            stream.pop();
        }
    }
}

/// An over-read of 32 bytes behind the literal 255, in the bytes that literals are copied
/// from. Only a sanitizer or Miri sees that; all three places of a step, and all bytes.
#[test]
fn all_literals_in_all_places() {
    let bytes: Vec<u8> = (0..3 * 256u32).map(|i| 255 - (i / 3) as u8).collect();
    for shift in 0..3 {
        let codes = Codes::fixed();
        let mut writer = Writer::new(Container::Zlib);
        writer.put(3, 3);
        for &byte in &bytes[shift..] {
            writer.symbol(&codes.literals, byte.into());
        }
        writer.symbol(&codes.literals, 256);
        writer.written = bytes.len();
        check(writer.finish(Container::Zlib), bytes.len() - shift);
    }
}

/// A use after free: with fewer streams than places, the loop went on with an old stream's
/// buffers.
#[test]
fn fewer_streams_than_places() {
    let bytes = data(&mut Random(9), 60_000);
    let stream = compress(Container::Zlib, &bytes, 9);
    for inflater in &mut Ours::new().inflaters {
        for count in [0, 1, 2, 1, 3, 0, 1] {
            // Buffers that are gone when the next ones are used.
            let mut pairs: Vec<_> =
                (0..count).map(|_| (Guarded::new(60_000), Guarded::new(60_000))).collect();
            let copy = |(input, output): &'_ mut (Guarded, Guarded)| {
                let input = std::ptr::from_mut(input.copy(&stream, true));
                (input, std::ptr::from_mut(output.slice(60_000, true)))
            };
            let slices: Vec<_> = pairs.iter_mut().map(copy).collect();
            let mut jobs: Vec<_> = slices
                .into_iter()
                // SAFETY: the buffers of each pair are separate, and outlive the jobs.
                .map(|(input, output)| unsafe { Job::new(&*input, &mut *output) })
                .collect();
            inflater.inflate_many(Container::Zlib, &mut jobs);
            for job in &jobs {
                assert!(job.result.is_ok() && *job.output == bytes);
            }
            drop(jobs);
            drop(pairs);
        }
    }
}

/// The fixed code has two symbols that mean nothing: they do not end a block.
#[test]
fn the_last_two_fixed_codes_are_none() {
    for symbol in [286, 287] {
        let codes = Codes::fixed();
        let mut writer = Writer::new(Container::Zlib);
        writer.put(3, 3);
        for _ in 0..100 {
            writer.symbol(&codes.literals, b'a'.into());
        }
        writer.symbol(&codes.literals, symbol);
        writer.written = 100;
        let stream = writer.finish(Container::Zlib);
        let result = Inflater::new().inflate(Container::Zlib, &stream, &mut [0; 100]);
        assert_eq!(result, Err(Error::Symbol));
        check(stream, 100);
    }
}

/// Codes that are not complete: zlib accepts one symbol of one bit, and no distances at
/// all.
#[test]
fn incomplete_codes() {
    for (end, distances) in
        [(1, vec![0]), (1, vec![1]), (2, vec![0]), (1, vec![2]), (1, vec![1, 2])]
    {
        let mut codes = Codes { literals: vec![0; 257], distances };
        codes.literals[256] = end;
        let mut writer = Writer::new(Container::Zlib);
        writer.dynamic(true, &codes);
        writer.put(0, end.into());
        check(writer.finish(Container::Zlib), 0);
    }
}

#[test]
fn headers_of_zlib() {
    let mut stream = compress(Container::Zlib, &data(&mut Random(10), 2000), 9);
    for method in 0..=255 {
        for flags in 0..=255 {
            (stream[0], stream[1]) = (method, flags);
            Ours::new().check_whole(Container::Zlib, &stream, &mut [0; 2000]);
        }
    }
    for (header, error) in [
        ([0x78, 0xdb], Error::HeaderCheck),
        ([0x77, 0x09], Error::Method),
        ([0x88, 0x1c], Error::Window),
        ([0x78, 0xf9], Error::Dictionary),
    ] {
        stream[..2].copy_from_slice(&header);
        let result = Inflater::new().inflate(Container::Zlib, &stream, &mut [0; 2000]);
        assert_eq!(result, Err(error), "{header:x?}");
    }
}

#[test]
fn what_the_results_say() {
    let bytes = data(&mut Random(11), 2000);
    let mut stream = compress(Container::Zlib, &bytes, 9);
    let length = stream.len();
    let inflate =
        |stream: &[u8], room| Inflater::new().inflate(Container::Zlib, stream, &mut vec![0; room]);
    assert_eq!(inflate(&stream, 1999), Err(Error::TooLong));
    assert_eq!(inflate(&stream[..length - 1], 2000), Err(Error::Truncated));
    // A stream shorter than the room, and one with bytes behind it: the numbers say so.
    stream.extend([1, 2, 3]);
    let inflated = inflate(&stream, 2001).expect("it is good");
    assert_eq!((inflated.written, inflated.consumed), (2000, length));
    stream[length - 1] ^= 1;
    assert_eq!(inflate(&stream, 2000), Err(Error::Checksum));
}
