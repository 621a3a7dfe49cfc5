//! Readers that want one block at the same time, and readers in a cache that is too small for them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;
use std::time::Duration;

use super::medium::{random, Medium};
use super::*;

const BLOCK: usize = 65536;

/// Has each of `pieces` read by a thread of its own, all at the same time;
/// returns how often the medium was read.
fn at_once(image: &CloopImage, slow: &Medium, bytes: &[u8], pieces: &[(usize, usize)]) -> usize {
    let before = slow.reads().len();
    let barrier = Barrier::new(pieces.len());
    std::thread::scope(|scope| {
        for &(at, length) in pieces {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut buf = vec![0xaa; length];
                barrier.wait();
                image.read_at(&mut buf, at as u64).unwrap();
                assert!(buf == bytes[at..at + length], "{at}+{length}");
            });
        }
    });
    slow.reads().len() - before
}

#[test]
fn of_readers_that_want_one_block_one_decodes_it() {
    let bytes = sample(3 * BLOCK);
    let mut builder = Builder::new(b"V2.0", BLOCK as u32);
    for block in bytes.chunks(BLOCK) {
        builder = builder.block(Codec::Zlib, block);
    }
    for started in [false, true] {
        let slow = Medium::slow(storage(&builder.build()), Duration::from_millis(30));
        let image = CloopImage::open(slow.clone(), &ImageOptions::default()).unwrap();
        let opened = slow.reads().len();
        if started {
            image.start();
        }
        let same: Vec<_> = (0..8).map(|i| (2 * BLOCK + 65_000 + i, 100)).collect();
        assert_eq!(at_once(&image, &slow, &bytes, &same), 1, "all of it");
        // As far as the first of them wants it, and then twice as far each time.
        let growing: Vec<_> = (0..16).map(|i| (2500 * i, 100)).collect();
        let reads = at_once(&image, &slow, &bytes, &growing);
        assert!(reads <= 8, "{reads} reads for sixteen pieces of one block");
        // The first reader of a whole block keeps nothing for the others.
        let whole: Vec<_> = (0..8).map(|_| (BLOCK, BLOCK)).collect();
        let reads = at_once(&image, &slow, &bytes, &whole);
        assert!(reads <= 3, "{reads} reads for one block");
        let index = 0..image.location(0).offset;
        let again = slow.reads().iter().skip(opened).filter(|at| index.contains(at)).count();
        assert_eq!(again, 0, "header and index are read once");
    }
}

#[test]
fn the_smallest_cache_and_damage_bear_many_readers() {
    for block_size in [BLOCK, 1 << 20] {
        let bytes = sample(5 * block_size);
        let mut builder = Builder::new(b"V2.0", block_size as u32);
        for block in bytes.chunks(block_size) {
            builder = builder.block(Codec::Zlib, block);
        }
        let mut built = builder.build();
        // The checksum of block 1.
        let end = open(&built).unwrap().location(1).end() as usize;
        built[end - 1] ^= 1;
        let options = ImageOptions { cache_bytes: 0, threads: 2, ..Default::default() };
        let image = CloopImage::open(storage(&built), &options).unwrap();
        let most = 2 * crate::read::heaviest(block_size) + 16;
        assert!(image.counters().cache_limit <= most);
        let found = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 1..=6_u64 {
                let (image, bytes, found) = (&image, &bytes, &found);
                scope.spawn(move || {
                    let mut random = random(thread);
                    for round in 0..200 {
                        if round == 60 {
                            image.start();
                        }
                        let length = [100, 100, 4096, block_size, 2 * block_size][random(5)];
                        let at = random(bytes.len() / 1024) * 1024;
                        let length = length.min(bytes.len() - at);
                        let damaged = at < 2 * block_size && at + length > block_size;
                        let before = found.load(Ordering::Acquire);
                        let mut buf = vec![0xaa; length];
                        match image.read_at(&mut buf, at as u64) {
                            Ok(()) => {
                                assert!(
                                    !damaged || before == 0,
                                    "{at}+{length}: once found, always"
                                );
                                assert!(buf == bytes[at..at + length], "{at}+{length}");
                            }
                            Err(error) => {
                                assert!(damaged, "{error}");
                                assert_eq!(error.kind(), ErrorKind::Damaged);
                                found.fetch_add(1, Ordering::Release);
                            }
                        }
                        assert!(image.counters().cache_bytes <= most);
                    }
                });
            }
        });
        assert!(found.into_inner() > 0);
    }
}
