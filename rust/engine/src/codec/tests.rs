use std::io::Write;

use super::*;

/// Text that repeats itself, with some noise in it.
pub(crate) fn sample(length: usize) -> Vec<u8> {
    let mut state = 12345_u32;
    (0..length)
        .map(|i| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            match state >> 28 {
                0 => (state >> 16) as u8,
                _ => b"the quick brown fox jumps over the lazy dog. "[i % 45],
            }
        })
        .collect()
}

pub(crate) fn encode(codec: Codec, data: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Zlib => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Stored => data.to_vec(),
        Codec::Xz => {
            let check = liblzma::stream::Check::Crc32;
            let stream = liblzma::stream::Stream::new_easy_encoder(6, check).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Lz4 => lz4_flex::block::compress(data),
        Codec::Lzo => lzokay_native::compress(data).unwrap(),
        Codec::Lzma => {
            let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Zstd => ::zstd::bulk::compress(data, 19).unwrap(),
    }
}

/// Whether the codec's streams carry a checksum in this module's encodings.
fn checked(codec: Codec) -> bool {
    matches!(codec, Codec::Zlib | Codec::Xz)
}

/// Whether the codec's streams say where they end.
fn self_ending(codec: Codec) -> bool {
    !matches!(codec, Codec::Stored | Codec::Lz4)
}

#[test]
fn each_codec_gives_back_what_went_in() {
    for codec in Codec::ALL {
        for data in [sample(65536), vec![0; 65536], sample(512), sample(100_000)] {
            let mut output = vec![0xaa; data.len()];
            codec.decode_block(&encode(codec, &data), &mut output, false).unwrap();
            assert!(output == data, "{codec} {}", data.len());
        }
    }
}

#[test]
fn noise_survives_lzo() {
    // Incompressible data and long runs use the instructions that text does not.
    let mut data = Vec::new();
    let mut state = 1_u64;
    for run in 0..400 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let length = (state >> 50) as usize % 900;
        match run % 3 {
            0 => data.extend((0..length).map(|i| (state >> (i % 57)) as u8)),
            1 => data.extend(std::iter::repeat_n(run as u8, length)),
            _ => {
                let from = data.len().saturating_sub(40_000);
                let again = data[from..(from + length).min(data.len())].to_vec();
                data.extend(again);
            }
        }
    }
    let mut output = vec![0; data.len()];
    Codec::Lzo.decode_block(&encode(Codec::Lzo, &data), &mut output, false).unwrap();
    assert!(output == data);
}

#[test]
fn bytes_after_a_stream_are_ignored() {
    let data = sample(4096);
    for codec in Codec::ALL.into_iter().filter(|codec| self_ending(*codec)) {
        for padding in [vec![0; 511], vec![0xff; 7]] {
            let mut input = encode(codec, &data);
            input.extend(padding);
            let mut output = vec![0; data.len()];
            codec.decode_block(&input, &mut output, false).unwrap();
            assert!(output == data, "{codec}");
        }
    }
}

#[test]
fn a_short_stream_is_refused_or_filled_with_zeros() {
    let data = sample(4096);
    for codec in Codec::ALL {
        let input = encode(codec, &data);
        let mut output = vec![0xaa; 8192];
        let error = codec.decode_block(&input, &mut output, false).unwrap_err();
        assert_eq!(error.to_string(), "it decodes to 4096 bytes, not 8192", "{codec}");
        let mut output = vec![0xaa; 8192];
        codec.decode_block(&input, &mut output, true).unwrap();
        assert!(output[..4096] == data && output[4096..].iter().all(|b| *b == 0), "{codec}");
    }
}

#[test]
fn an_over_long_stream_is_refused() {
    for codec in Codec::ALL {
        for length in [4097, 8192, 1 << 16] {
            let input = encode(codec, &sample(length));
            let error = codec.decode_block(&input, &mut [0; 4096], true).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("more than 4096") || text.contains("too small"),
                "{codec} {length}: {text}"
            );
        }
    }
}

#[test]
fn a_bomb_is_refused_without_growing() {
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::Stored) {
        let input = encode(codec, &vec![0; 1 << 20]);
        assert!(codec.decode_block(&input, &mut [0; 4096], true).is_err(), "{codec}");
    }
}

#[test]
fn a_truncated_stream_is_refused_at_every_length() {
    let data = sample(2048);
    for codec in Codec::ALL {
        let input = encode(codec, &data);
        for length in 0..input.len() {
            let mut output = vec![0; data.len()];
            let result = codec.decode_block(&input[..length], &mut output, false);
            assert!(result.is_err(), "{codec} cut to {length} of {}", input.len());
        }
    }
}

#[test]
fn corruption_is_an_error_or_other_bytes_never_a_panic() {
    let data = sample(2048);
    for codec in Codec::ALL {
        let input = encode(codec, &data);
        for at in 0..input.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = input.clone();
                bad[at] ^= flip;
                let mut output = vec![0; data.len()];
                let result = codec.decode_block(&bad, &mut output, false);
                // An xz stream's padding and its index are not the block's bytes.
                if checked(codec) && result.is_ok() {
                    assert!(output == data, "{codec}: byte {at} flipped by {flip:#x}");
                }
            }
        }
    }
}

#[test]
fn a_bad_adler_names_itself() {
    let data = sample(4096);
    let mut input = encode(Codec::Zlib, &data);
    *input.last_mut().unwrap() ^= 1;
    let error = Codec::Zlib.decode_block(&input, &mut [0; 4096], false).unwrap_err();
    assert_eq!(error.to_string(), "zlib: incorrect data check");
}

#[test]
fn a_dictionary_beyond_the_memory_limit_is_refused() {
    // An .lzma header that asks for 2 GiB.
    let mut input = encode(Codec::Lzma, &sample(4096));
    input[1..5].copy_from_slice(&(2_u32 << 30).to_le_bytes());
    let error = Codec::Lzma.decode_block(&input, &mut [0; 4096], false).unwrap_err();
    assert_eq!(error.to_string(), "lzma: decoding would take more than 96 MiB of memory");
}

/// Inflates `step` bytes after each other, from `chunk` bytes of input at a time. Returns
/// whether the stream ended.
fn piecewise(
    input: &[u8],
    output: &mut [u8],
    step: usize,
    chunk: usize,
) -> Result<bool, DecodeError> {
    let mut stream = zlib::Stream::new();
    let (mut from, mut upto, mut done) = (0, 0, 0);
    loop {
        let stop = (done < output.len()).then_some((done + step).min(output.len()));
        match stream.inflate(&input[from..upto], output, stop) {
            Ok(zlib::Prefix::Ends(length)) => return Ok(length == output.len()),
            Ok(zlib::Prefix::GoesOn(length)) => done = length,
            Err(error) if upto == input.len() => return Err(error),
            Err(_) => {
                from += stream.take_used();
                upto = (upto + chunk).min(input.len());
            }
        }
    }
}

#[test]
fn a_piecewise_inflate_agrees_with_a_whole_one() {
    let data = sample(65536);
    let input = encode(Codec::Zlib, &data);
    for step in [1, 100, 4096, 40_000, 65536] {
        for chunk in [1, 1000, 1 << 20] {
            let mut output = vec![0; data.len()];
            assert_eq!(piecewise(&input, &mut output, step, chunk), Ok(true));
            assert!(output == data, "step {step}, chunk {chunk}");
        }
    }
}

#[test]
fn a_piecewise_inflate_finds_a_bad_end() {
    let data = sample(65536);
    let mut input = encode(Codec::Zlib, &data);
    let mut output = vec![0; data.len() / 2];
    let error = piecewise(&input, &mut output, 4096, 4096).unwrap_err();
    assert_eq!(error, DecodeError::too_long(output.len()));
    let mut output = vec![0; data.len()];
    let error = piecewise(&input[..input.len() - 1], &mut output, 4096, 4096).unwrap_err();
    assert_eq!(error, DecodeError::truncated());
    *input.last_mut().unwrap() ^= 1;
    let error = piecewise(&input, &mut output, 4096, 4096).unwrap_err();
    assert_eq!(error.to_string(), "zlib: incorrect data check");
}

#[test]
fn blocks_together_are_what_they_are_alone() {
    let (long, short) = (sample(65536), sample(4096));
    for count in 0..9 {
        let mut cases = Vec::new();
        for number in 0..count {
            let codec = if number % 3 == 2 { Codec::Lz4 } else { Codec::Zlib };
            let data = if number % 4 == 3 { &short } else { &long };
            let mut input = encode(codec, data);
            if number % 5 == 4 {
                *input.last_mut().unwrap() ^= 1;
            }
            cases.push((codec, input, number % 2 == 1));
        }
        let mut alone = vec![vec![0xaa; 65536]; count];
        let results = cases.iter().zip(&mut alone);
        let results: Vec<_> = results
            .map(|((codec, input, short), output)| codec.decode_block(input, output, *short))
            .collect();
        let mut together = vec![vec![0xaa; 65536]; count];
        let tasks = cases.iter().zip(&mut together);
        let mut tasks: Vec<_> = tasks
            .map(|((codec, input, short), output)| Task {
                codec: *codec,
                input,
                output,
                short: *short,
            })
            .collect();
        assert_eq!(decode_blocks(&mut tasks), results);
        for (result, (alone, together)) in results.iter().zip(alone.iter().zip(&together)) {
            assert!(result.is_err() || alone == together);
        }
    }
}

#[test]
fn a_prefix_is_right_wherever_it_ends() {
    let runs: Vec<u8> = (0..65536).map(|i: usize| (i / 700) as u8).collect();
    // Does not compress, so that the stream holds it as it is.
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise: Vec<u8> = (0..65536).map(|_| random()).collect();
    for data in [sample(65536), runs, noise, vec![0; 65536]] {
        let input = encode(Codec::Zlib, &data);
        let ends = (1..2000).chain((2000..65536).step_by(97));
        for end in ends {
            for room in [end, data.len()] {
                let mut output = vec![0xaa; room];
                match zlib::Stream::new().inflate(&input, &mut output, Some(end)) {
                    Ok(zlib::Prefix::GoesOn(length)) if length >= end => {
                        assert!(output[..length] == data[..length], "{end}");
                    }
                    other => panic!("{other:?} at {end}"),
                }
            }
        }
        let mut output = vec![0; data.len() + 1];
        let whole = zlib::Stream::new().inflate(&input, &mut output, Some(data.len() + 1));
        assert_eq!(whole, Ok(zlib::Prefix::Ends(data.len())));
    }
}

#[test]
fn a_prefix_of_a_stream_that_is_damaged_later_is_right_or_refused() {
    let data = sample(65536);
    let mut input = encode(Codec::Zlib, &data);
    let damaged_at = input.len() / 2;
    input[damaged_at..].fill(0xff);
    for end in (1000..65536).step_by(997) {
        let mut output = vec![0; end];
        let result = zlib::Stream::new().inflate(&input, &mut output, Some(end));
        if end < data.len() / 3 {
            assert_eq!(result, Ok(zlib::Prefix::GoesOn(end)));
            assert!(output[..end] == data[..end], "{end}");
        }
        assert_ne!(result, Ok(zlib::Prefix::Ends(data.len())));
    }
    let mut output = vec![0; 65536];
    let cut = &input[..damaged_at];
    assert!(zlib::Stream::new().inflate(cut, &mut output, Some(65536)).is_err());
}
