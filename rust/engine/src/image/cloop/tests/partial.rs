//! Blocks that are decoded in part, ahead, or by several threads.

use super::medium::random;
use super::*;

const BLOCK: usize = 65536;

fn options(strict: bool) -> ImageOptions {
    ImageOptions { strict, threads: 2, ..Default::default() }
}

fn image(block_size: usize, blocks: usize) -> (Builder, Vec<u8>) {
    let bytes = sample(block_size * blocks);
    let mut builder = Builder::new(b"V2.0", block_size as u32);
    for block in bytes.chunks(block_size) {
        builder = builder.block(Codec::Zlib, block);
    }
    (builder, bytes)
}

fn read(image: &CloopImage, offset: usize, length: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; length];
    image.read_at(&mut buf, offset as u64).map(|()| buf)
}

/// Waits for the background, which has no other sign, for up to ten seconds.
fn eventually(mut done: impl FnMut() -> bool) -> bool {
    (0..2000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        done()
    })
}

#[test]
fn a_small_read_decodes_a_part_and_a_second_one_the_rest() {
    let (builder, bytes) = image(BLOCK, 3);
    let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
    assert!(read(&image, BLOCK + 5000, 100).unwrap() == bytes[BLOCK + 5000..][..100]);
    let available = || match &image.reader.cached(1).unwrap().data {
        crate::read::Data::Growing(growing) => growing.available(),
        crate::read::Data::Whole(bytes) => bytes.len(),
    };
    let first = available();
    assert!((5100..12_000).contains(&first), "{first}");
    // Without a checker, the reads that follow have all of it checked.
    for _ in 0..4 {
        assert!(read(&image, BLOCK + 10, 100).unwrap() == bytes[BLOCK + 10..][..100]);
    }
    assert_eq!(image.reader.blocks().state(1), crate::read::Known::Data);
    assert!(read(&image, 2 * BLOCK - 100, 100).unwrap() == bytes[2 * BLOCK - 100..][..100]);
    assert_eq!((available(), image.counters().cache_misses), (BLOCK, 1));
    // At its end a block is decoded and checked whole at once.
    assert!(read(&image, 3 * BLOCK - 100, 100).unwrap() == bytes[3 * BLOCK - 100..][..100]);
    assert_eq!(image.reader.blocks().state(2), crate::read::Known::Data);
    // So a reader of all of it finds it.
    assert!(read(&image, BLOCK, 2 * BLOCK).unwrap() == bytes[BLOCK..]);
    assert_eq!(image.counters().cache_misses, 2);
}

#[test]
fn a_strict_image_decodes_whole_blocks() {
    let (builder, _) = image(BLOCK, 1);
    let image = CloopImage::open(storage(&builder.build()), &options(true)).unwrap();
    read(&image, 0, 1).unwrap();
    assert!(image.counters().cache_bytes >= BLOCK as u64);
}

/// An image whose block 1 has a wrong Adler-32, and nothing else wrong.
fn with_bad_end(block_size: usize) -> (Vec<u8>, Vec<u8>) {
    let (builder, bytes) = image(block_size, 3);
    let mut built = builder.build();
    let end = open(&built).unwrap().location(1).end() as usize;
    built[end - 1] ^= 1;
    (built, bytes)
}

#[test]
fn a_strict_image_gives_out_no_byte_of_a_damaged_block() {
    for block_size in [BLOCK, 1 << 20] {
        let (built, _) = with_bad_end(block_size);
        let image = CloopImage::open(storage(&built), &options(true)).unwrap();
        let error = read(&image, block_size, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}

#[test]
fn readers_that_wait_for_a_damaged_block_do_not_decode_it_again() {
    let (built, _) = with_bad_end(1 << 20);
    let image = CloopImage::open(storage(&built), &options(true)).unwrap();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(read(&image, 1 << 20, 1).unwrap_err().kind(), ErrorKind::Damaged);
            });
        }
    });
    assert_eq!(image.counters().base_reads, 1);
}

#[test]
fn damage_at_the_end_is_found_by_the_second_read() {
    for block_size in [BLOCK, 1 << 20] {
        let (built, bytes) = with_bad_end(block_size);
        let image = CloopImage::open(storage(&built), &options(false)).unwrap();
        assert!(read(&image, block_size, 100).unwrap() == bytes[block_size..][..100]);
        let mut failed = 0;
        for _ in 0..20 {
            failed += usize::from(read(&image, block_size, 100).is_err());
        }
        assert!(failed >= 15, "{failed} of 20 at {block_size}");
        assert!(image.reader.cached(1).is_none(), "what is of no use takes no memory");
        assert!(read(&image, 2 * block_size - 1, 1).is_err());
        assert!(read(&image, block_size - 1, 1).unwrap() == bytes[block_size - 1..][..1]);
        assert!(read(&image, 2 * block_size, 1).unwrap() == bytes[2 * block_size..][..1]);
    }
}

#[test]
fn damage_at_the_end_is_found_in_the_background() {
    for block_size in [BLOCK, 1 << 20] {
        let (built, bytes) = with_bad_end(block_size);
        let image = CloopImage::open(storage(&built), &options(false)).unwrap();
        image.start();
        // Not in order, which would have them decoded whole.
        for block in [1, 0] {
            let offset = block * block_size;
            assert!(read(&image, offset, 100).unwrap() == bytes[offset..][..100]);
        }
        let damaged = || image.reader.blocks().state(1) == crate::read::Known::Damaged;
        assert!(eventually(damaged), "block size {block_size}");
        assert!(read(&image, block_size, 100).is_err());
        assert!(eventually(|| image.reader.blocks().state(0) == crate::read::Known::Data));
        assert!(read(&image, 0, 100).unwrap() == bytes[..100]);
    }
}

#[test]
fn a_large_block_grows_with_what_is_asked_for() {
    let (builder, bytes) = image(4 << 20, 2);
    let built = builder.build();
    let image = CloopImage::open(storage(&built), &options(false)).unwrap();
    assert!(read(&image, 1000, 100).unwrap() == bytes[1000..1100]);
    let first = image.counters().base_read_bytes;
    assert!(first < built.len() as u64 / 8, "{first} of {} read", built.len());
    for at in [2000, 300_000, 290_000, 1_000_000, 4_000_000, 70, (4 << 20) - 100] {
        assert!(read(&image, at, 100).unwrap() == bytes[at..at + 100], "{at}");
    }
    assert_eq!(image.counters().cache_misses, 1, "one inflate did it all");
    assert_eq!(image.reader.blocks().state(0), crate::read::Known::Data, "and it was checked");
}

#[test]
fn the_smallest_cache_keeps_a_large_block() {
    let (builder, bytes) = image(1 << 20, 2);
    let options = ImageOptions { cache_bytes: 0, ..options(false) };
    let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
    for at in [0, 70_000, 10, 500_000, 300] {
        assert!(read(&image, at, 100).unwrap() == bytes[at..at + 100], "{at}");
    }
    assert_eq!(image.counters().cache_misses, 1);
    assert!(image.counters().cache_bytes > 1 << 20);
}

#[test]
fn a_large_block_that_is_too_short_or_too_long_is_damaged() {
    let bytes = sample(1 << 20);
    for length in [(1 << 20) - 1, 1 << 19] {
        let builder = Builder::new(b"V4.0", 1 << 20).block(Codec::Zlib, &bytes[..length]);
        let image = open(&builder.build()).unwrap();
        assert!(read(&image, 0, 10).is_ok());
        assert!((0..20).filter(|_| read(&image, 0, 10).is_err()).count() >= 15);
    }
    let long = [bytes.clone(), vec![7]].concat();
    let image = open(&Builder::new(b"V4.0", 1 << 20).block(Codec::Zlib, &long).build()).unwrap();
    assert!(read(&image, 0, 10).is_ok());
    assert!((0..20).filter(|_| read(&image, 0, 10).is_err()).count() >= 15);
}

#[test]
fn a_short_last_large_block_ends_in_zeros() {
    let bytes = sample(700_000);
    let builder = Builder::new(b"V2.0", 1 << 20).block(Codec::Zlib, &bytes);
    let image = open(&builder.build()).unwrap();
    let expected = [bytes, vec![0; (1 << 20) - 700_000]].concat();
    for at in [10, 600_000, 699_990, 710_000, (1 << 20) - 50] {
        assert!(read(&image, at, 50).unwrap() == expected[at..at + 50], "{at}");
    }
}

#[test]
fn reading_in_order_finds_blocks_decoded() {
    let (builder, bytes) = image(BLOCK, 64);
    for size in [4096, 10_000, BLOCK, 3 * BLOCK, 16 * BLOCK] {
        let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
        image.start();
        for at in (0..bytes.len()).step_by(size) {
            let n = size.min(bytes.len() - at);
            assert!(read(&image, at, n).unwrap() == bytes[at..at + n], "{at} of {size}");
        }
        let misses = image.counters().cache_misses;
        assert!((64..=72).contains(&misses), "{misses} blocks decoded, size {size}");
    }
}

#[test]
fn read_ahead_follows_a_reader() {
    let (builder, _) = image(BLOCK, 64);
    let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
    image.start();
    for block in 0..4 {
        read(&image, block * BLOCK, BLOCK).unwrap();
    }
    assert!(eventually(|| image.reader.cached(10).is_some()));
    assert!(image.reader.cached(40).is_none());
}

#[test]
fn prefetch_fills_the_cache() {
    let (builder, _) = image(BLOCK, 16);
    let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
    image.prefetch(0, u64::MAX);
    image.start();
    image.prefetch(2 * BLOCK as u64 + 1, BLOCK as u64);
    assert!(eventually(|| (2..4).all(|block| image.reader.cached(block).is_some())));
    assert!(image.reader.cached(1).is_none() && image.reader.cached(4).is_none());
}

#[test]
fn a_large_request_meets_damage_as_a_small_one_does() {
    let (builder, bytes) = image(BLOCK, 16);
    let mut built = builder.build();
    let bad = open(&built).unwrap().location(9);
    built[bad.offset as usize + 100] ^= 0xff;
    let image = CloopImage::open(storage(&built), &options(false)).unwrap();
    image.start();
    assert_eq!(read(&image, 0, 16 * BLOCK).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(read(&image, 0, 9 * BLOCK).unwrap() == bytes[..9 * BLOCK]);
    assert!(read(&image, 10 * BLOCK, 6 * BLOCK).unwrap() == bytes[10 * BLOCK..]);
}

#[test]
fn of_damaged_blocks_the_first_is_told() {
    let (builder, _) = image(BLOCK, 16);
    let mut built = builder.build();
    for block in [3, 5] {
        let at = open(&built).unwrap().location(block).offset as usize + 100;
        built[at] ^= 0xff;
    }
    let image = CloopImage::open(storage(&built), &options(false)).unwrap();
    // The second one is known already.
    read(&image, 5 * BLOCK, BLOCK).unwrap_err();
    let error = read(&image, 0, 16 * BLOCK).unwrap_err().to_string();
    assert!(error.contains("block 3 at"), "{error}");
}

#[test]
fn random_reads_by_many_threads_agree_with_the_bytes() {
    for (block_size, blocks, strict, cache_bytes) in
        [(BLOCK, 40, false, 1 << 20), (BLOCK, 40, true, 1 << 20), (512 << 10, 6, false, 2 << 20)]
    {
        let (builder, bytes) = image(block_size, blocks);
        let zero = vec![0; block_size];
        let builder = builder.block(Codec::Zlib, &zero).block(Codec::Zlib, &[1; 3]);
        let bytes = [bytes, zero, vec![1; 3], vec![0; block_size - 3]].concat();
        let options = ImageOptions { cache_bytes, ..options(strict) };
        let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
        std::thread::scope(|scope| {
            for thread in 1..=6_u64 {
                let (image, bytes) = (&image, &bytes);
                scope.spawn(move || {
                    let mut random = random(thread);
                    for round in 0..600 {
                        if round == 200 {
                            image.start();
                        }
                        let length = [100, 4096, block_size, 4 * block_size][random(4)];
                        let length = 1 + random(length);
                        let at = match random(3) {
                            0 => random(bytes.len() / block_size) * block_size,
                            _ => random(bytes.len()),
                        };
                        let length = length.min(bytes.len() - at);
                        assert!(read(image, at, length).unwrap() == bytes[at..at + length]);
                        assert!(image.counters().cache_bytes <= image.counters().cache_limit);
                    }
                });
            }
        });
    }
}

#[test]
fn a_scan_leaves_what_is_in_use() {
    let (builder, bytes) = image(BLOCK, 128);
    let options = ImageOptions { cache_bytes: 2 << 20, ..options(false) };
    let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
    let in_use = || (0..16).map(|block| block * 8 * BLOCK + 30_000);
    for _ in 0..6 {
        for at in in_use() {
            assert!(read(&image, at, 100).unwrap() == bytes[at..at + 100]);
        }
    }
    for size in [4096, BLOCK] {
        for at in (0..bytes.len()).step_by(size) {
            read(&image, at, size).unwrap();
        }
    }
    let before = image.counters().cache_misses;
    in_use().for_each(|at| drop(read(&image, at, 100)));
    let misses = image.counters().cache_misses - before;
    assert!(misses <= 4, "{misses} of 16 were pushed out");
}

#[test]
fn what_is_read_in_order_once_is_not_kept_and_twice_is() {
    let (builder, bytes) = image(BLOCK, 64);
    for (size, first) in [(4096, 0), (3 * BLOCK / 2, 0), (2 * BLOCK, 1000), (BLOCK, 0)] {
        let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
        let scan = || {
            for at in (first..bytes.len()).step_by(size) {
                let n = size.min(bytes.len() - at);
                assert!(read(&image, at, n).unwrap() == bytes[at..at + n]);
            }
            image.counters()
        };
        let once = scan();
        assert!(once.cache_bytes < 4 * BLOCK as u64, "{size}: {once:?}");
        let twice = scan();
        assert!(twice.cache_bytes > 50 * BLOCK as u64, "{size}: {twice:?}");
        let thrice = scan();
        assert!(thrice.cache_misses < twice.cache_misses + 8, "{size}: {twice:?} {thrice:?}");
    }
}

#[test]
fn a_block_that_is_read_in_pieces_is_kept_until_all_were_had() {
    let (builder, bytes) = image(BLOCK, 4);
    let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
    let piece = |at: usize, end: usize| {
        let at = BLOCK + at;
        assert!(read(&image, at, BLOCK + end - at).unwrap() == bytes[at..BLOCK + end]);
    };
    // The next block is one that is read in order.
    read(&image, BLOCK - 100, 100).unwrap();
    piece(30_000, 60_000);
    piece(60_000, BLOCK);
    piece(0, 10_000);
    assert_eq!(image.counters().cache_misses, 2);
    piece(10_000, 30_000);
    assert!(image.reader.cached(1).is_none());
}

#[test]
fn what_a_reader_has_had_is_not_decoded_ahead_again_unless_asked_for() {
    let (builder, bytes) = image(BLOCK, 16);
    for size in [4096, 2 * BLOCK] {
        let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
        for at in (0..8 * BLOCK).step_by(size) {
            assert!(read(&image, at, size).unwrap() == bytes[at..at + size]);
        }
        image.reader.decode_ahead(4..6, false);
        assert!(image.reader.cached(4).is_none(), "{size}");
        image.reader.decode_ahead(4..6, true);
        assert!(image.reader.cached(4).is_some(), "{size}");
        image.reader.decode_ahead(10..12, false);
        assert!(image.reader.cached(11).is_some(), "{size}");
    }
}

#[test]
fn jumps_in_a_neighbourhood_have_its_blocks_decoded_whole_and_ahead() {
    let (builder, bytes) = image(BLOCK, 64);
    let image = CloopImage::open(storage(&builder.build()), &options(false)).unwrap();
    image.start();
    let whole = |block| match &image.reader.cached(block).unwrap().data {
        crate::read::Data::Whole(_) => true,
        crate::read::Data::Growing(_) => false,
    };
    for block in [40, 7, 3, 5] {
        assert!(read(&image, block * BLOCK, 100).unwrap() == bytes[block * BLOCK..][..100]);
    }
    assert_eq!([40, 7, 3, 5].map(whole), [false, false, false, true]);
    assert!(eventually(|| (8..10).all(|block| image.reader.cached(block).is_some())));
    assert!(image.reader.cached(41).is_none());
}
