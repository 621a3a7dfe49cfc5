use super::*;
use crate::codec::Codec;
use crate::ErrorKind;

const CODECS: [Codec; 5] = [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo];

fn v4(codec: Codec) -> CreateOptions {
    CreateOptions { codec, format: Format::V4, ..CreateOptions::default() }
}

fn u32_at(image: &[u8], at: usize) -> usize {
    u32::from_be_bytes(image[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

/// Reads an image by the format page alone, codecs aside.
fn decode(image: &[u8]) -> Vec<u8> {
    let v4 = |at: usize| image.get(at + 11..at + 15) == Some(b"V4.0");
    let footer = !image.starts_with(b"#!");
    let header = if footer { image.len() - 136 } else { 0 };
    assert!(image[header..].starts_with(b"#!/bin/sh\n#V"));
    let (block_size, blocks) = (u32_at(image, header + 128), u32_at(image, header + 132));
    let index = if footer { header - 8 * (blocks + 1) } else { 136 };
    let mask = if v4(header) { (1 << 60) - 1 } else { u64::MAX };
    let mut data = Vec::new();
    for block in 0..blocks {
        let entry = u64_at(image, index + 8 * block);
        let next = u64_at(image, index + 8 * (block + 1));
        let stream = &image[(entry & mask) as usize..(next & mask) as usize];
        assert!(!stream.is_empty(), "block {block} has no bytes");
        let codec = match entry & !mask {
            0 => Codec::Zlib,
            flags => CODECS[(flags >> 60) as usize],
        };
        let mut decoded = vec![0; block_size];
        assert_eq!(codec.decode(stream, &mut decoded), Ok(block_size), "block {block}");
        data.extend_from_slice(&decoded);
    }
    let end = (u64_at(image, index + 8 * blocks) & mask) as usize;
    if footer {
        assert_eq!(end, index);
    } else {
        assert!(image.len() - end < 512 && image.len().is_multiple_of(512));
        assert!(image[end..].iter().all(|byte| *byte == 0));
    }
    data
}

#[track_caller]
fn check_image(image: &[u8], data: &[u8], block_size: usize) {
    let decoded = decode(image);
    assert_eq!(decoded.len(), data.len().next_multiple_of(block_size));
    assert!(decoded[..data.len()] == *data, "the content differs");
    assert!(decoded[data.len()..].iter().all(|byte| *byte == 0), "the end is not zeros");
}

/// The image of `data`, made from a file into a file.
fn image_of(data: &[u8], options: &CreateOptions) -> Vec<u8> {
    let directory = directory();
    let source = write(&directory, "source", data);
    let path = directory.path().join("image");
    let summary = create(&file_in(&source), open(&path), options, &NoProgress).unwrap();
    let image = std::fs::read(&path).unwrap();
    let block_size = u64::from(options.block_size);
    assert_eq!(summary.input_size, data.len() as u64);
    assert_eq!(summary.size, (data.len() as u64).next_multiple_of(block_size));
    assert_eq!(summary.blocks, summary.size / block_size);
    assert_eq!(summary.file_size, image.len() as u64);
    assert_eq!(names(directory.path()), ["image", "source"]);
    image
}

#[test]
fn every_codec_and_layout_holds_the_data() {
    let data = sample(700_001, 1);
    for codec in CODECS {
        for footer in [false, true] {
            let options = CreateOptions { footer, block_size: 32768, ..v4(codec) };
            let image = image_of(&data, &options);
            check_image(&image, &data, 32768);
            let header = if footer { image.len() - 136 } else { 0 };
            assert_eq!(&image[header + 11..header + 15], b"V4.0");
            if footer {
                assert!(!image.starts_with(b"#!"));
            }
        }
    }
}

#[test]
fn sizes_around_a_block_are_padded() {
    let options = CreateOptions { block_size: 1024, ..CreateOptions::default() };
    for length in [1, 511, 1023, 1024, 1025, 2048, 524_287, 524_288, 524_289, 1_048_576] {
        let data = sample(length, length as u64);
        check_image(&image_of(&data, &options), &data, 1024);
    }
}

#[test]
fn every_level_holds_the_data() {
    let data = sample(300_000, 3);
    let levels = (1..=9).map(|n| Level::new(n).unwrap()).chain([Level::BEST]);
    for level in levels {
        for codec in [Codec::Zlib, Codec::Xz] {
            check_image(&image_of(&data, &CreateOptions { level, ..v4(codec) }), &data, 65536);
        }
    }
    assert!(Level::new(0).is_none() && Level::new(10).is_none());
}

#[test]
fn incompressible_data_fits() {
    let mut data = vec![0; 1 << 20];
    getrandom::fill(&mut data).unwrap();
    for codec in CODECS {
        for block_size in [512, 65536, 1 << 20] {
            let image = image_of(&data, &CreateOptions { block_size, ..v4(codec) });
            check_image(&image, &data, block_size as usize);
        }
    }
}

#[test]
fn a_block_of_zeros_is_an_ordinary_stream_and_compressed_once() {
    let mut data = vec![0; 10 * 65536];
    data[3 * 65536 + 5] = 1;
    for codec in CODECS {
        check_image(&image_of(&data, &v4(codec)), &data, 65536);
    }
    // A hole is not read, and gives the same image.
    let directory = directory();
    let path = directory.path().join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(10 * 65536).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 3 * 65536 + 5).unwrap();
    let image = directory.path().join("image");
    create(&file_in(&path), open(&image), &CreateOptions::default(), &NoProgress).unwrap();
    assert!(std::fs::read(image).unwrap() == image_of(&data, &CreateOptions::default()));
}

#[test]
fn the_result_depends_on_nothing_else() {
    for (length, options) in [
        (5_000_000, CreateOptions::default()),
        (5_000_000, CreateOptions { footer: true, ..v4(Codec::Lz4) }),
        (1_100_000, v4(Codec::Xz)),
        (1_100_000, v4(Codec::Lzo)),
    ] {
        let data = sample(length, 4);
        let image = image_of(&data, &options);
        for threads in [1, 5] {
            let options = CreateOptions { threads, ..options.clone() };
            assert!(image_of(&data, &options) == image, "{threads} threads");

            let directory = directory();
            let path = directory.path().join("image");
            let input = pipe_in(data.clone());
            create(&input, open(&path), &options, &NoProgress).unwrap();
            assert!(std::fs::read(&path).unwrap() == image, "from a pipe");
            assert_eq!(names(directory.path()), ["image"]);

            let (output, reader) = pipe_out(&directory);
            create(&pipe_in(data.clone()), output, &options, &NoProgress).unwrap();
            assert!(reader.join().unwrap() == image, "from pipe to pipe");
        }
    }
}

#[test]
fn a_file_as_standard_input_has_a_size() {
    use std::io::Seek;
    let directory = directory();
    let data = sample(100_000, 5);
    let path = write(&directory, "source", &data);
    let mut file = File::open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(1000)).unwrap();
    let input = Input::pipe("standard input", file).unwrap();
    assert_eq!(input.size(), Some(99_000));
    let image = directory.path().join("image");
    create(&input, open(&image), &CreateOptions::default(), &NoProgress).unwrap();
    check_image(&std::fs::read(image).unwrap(), &data[1000..], 65536);
}

#[test]
fn progress_counts_the_input() {
    let directory = directory();
    let source = write(&directory, "source", &sample(1_234_567, 6));
    let count = Count::default();
    let output = open(&directory.path().join("image"));
    create(&file_in(&source), output, &CreateOptions::default(), &count).unwrap();
    assert_eq!(count.total.into_inner(), 1_234_567);
    assert_eq!(count.done.into_inner(), 1_234_567);
}

#[test]
fn nothing_to_compress_is_an_error() {
    let directory = directory();
    let source = write(&directory, "source", b"");
    let path = directory.path().join("image");
    for input in [file_in(&source), pipe_in(Vec::new())] {
        let error = create(&input, open(&path), &CreateOptions::default(), &NoProgress);
        assert_eq!(
            line(error),
            format!("{}: is empty: there is nothing to compress", input.name())
        );
    }
    assert_eq!(names(directory.path()), ["source"]);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let directory = directory();
    let source = write(&directory, "source", b"data");
    let default = CreateOptions::default;
    for (options, message) in [
        (CreateOptions { block_size: 0, ..default() }, "the block size 0 is not a multiple of 512"),
        (
            CreateOptions { block_size: 1000, ..default() },
            "the block size 1000 is not a multiple of 512",
        ),
        (
            CreateOptions { block_size: (64 << 20) + 512, ..default() },
            "the block size 67109376 is above 67108864",
        ),
        (CreateOptions { codec: Codec::Xz, ..default() }, "the codec xz needs the format v4"),
        (CreateOptions { footer: true, ..default() }, "a footer needs the format v4"),
        (v4(Codec::Zstd), "the codec zstd cannot be written"),
    ] {
        let output = open(&directory.path().join("image"));
        let error = create(&file_in(&source), output, &options, &NoProgress);
        assert_eq!(line(error), format!("create: {message}"));
    }
    assert_eq!(names(directory.path()), ["source"]);
}

#[test]
fn more_blocks_than_the_header_can_count_are_refused() {
    let directory = directory();
    let path = directory.path().join("sparse");
    File::create(&path).unwrap().set_len((1 << 41) + 512).unwrap();
    let options = CreateOptions { block_size: 512, ..CreateOptions::default() };
    let output = open(&directory.path().join("image"));
    let message = line(create(&file_in(&path), output, &options, &NoProgress));
    assert!(message.ends_with("more than 4294967295 blocks of 512 bytes: choose larger ones"));
    assert_eq!(names(directory.path()), ["sparse"]);
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    let directory = directory();
    let source = write(&directory, "source", &sample(4_000_000, 7));
    let path = directory.path().join("image");
    let progress = StopAfter::new(1_000_000);
    let error =
        create(&file_in(&source), open(&path), &CreateOptions::default(), &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(names(directory.path()), ["source"]);
}

#[test]
fn a_silent_pipe_can_be_cancelled() {
    let (reader, writer) = std::io::pipe().unwrap();
    let input = Input::pipe("pipe", File::from(std::os::fd::OwnedFd::from(reader))).unwrap();
    let directory = directory();
    let output = open(&directory.path().join("image"));
    let error = create(&input, output, &CreateOptions::default(), &StopAfter::new(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    drop(writer);
}

#[test]
fn a_full_disk_is_told() {
    let directory = directory();
    let source = write(&directory, "source", &sample(1_000_000, 8));
    let options = CreateOptions::default();
    let error =
        create(&file_in(&source), open(Path::new("/dev/full")), &options, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let text = error.to_string();
    assert_eq!(text, "/dev/full: cannot be written at byte 0: No space left on device");
}

#[test]
fn a_reader_that_leaves_is_told() {
    let directory = directory();
    let source = write(&directory, "source", &sample(4_000_000, 9));
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let output = open(Path::new(&path));
    drop((reader, writer));
    let options = CreateOptions { codec: Codec::Stored, ..v4(Codec::Stored) };
    let message = line(create(&file_in(&source), output, &options, &NoProgress));
    assert!(message.ends_with("Broken pipe"), "{message}");
}

#[test]
fn an_input_cut_short_meanwhile_is_an_error() {
    let directory = directory();
    let source = write(&directory, "source", &sample(1_000_000, 10));
    let input = file_in(&source);
    File::options().write(true).open(&source).unwrap().set_len(600_000).unwrap();
    let output = open(&directory.path().join("image"));
    assert!(create(&input, output, &CreateOptions::default(), &NoProgress).is_err());
    assert_eq!(names(directory.path()), ["source"]);
}
