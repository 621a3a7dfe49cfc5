//! An image that many readers share, as in a classroom where all machines boot at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;

use super::medium::random;
use super::*;
use crate::image::as_reader;

const BLOCK: usize = 65536;
const BLOCKS: usize = 24;
const READERS: u64 = 60;

fn image(shared: bool, cache_bytes: u64, bytes: &[u8]) -> Arc<CloopImage> {
    let mut builder = Builder::new(b"V2.0", BLOCK as u32);
    for block in bytes.chunks(BLOCK) {
        builder = builder.block(Codec::Zlib, block);
    }
    let options = ImageOptions { cache_bytes, threads: 2, shared, ..Default::default() };
    let image = CloopImage::open(storage(&builder.build()), &options).unwrap();
    image.start();
    image
}

/// Has sixty readers read all of the image at once, each in requests of its own sizes and from
/// its own place on; returns how many blocks were decoded for that.
fn storm(image: &CloopImage, bytes: &[u8]) -> u64 {
    let barrier = Barrier::new(READERS as usize);
    std::thread::scope(|scope| {
        for reader in 1..=READERS {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut random = random(reader);
                barrier.wait();
                as_reader(reader, || {
                    let mut at = if reader % 2 == 0 { 0 } else { random(BLOCKS) * BLOCK };
                    let mut left = bytes.len();
                    while left > 0 {
                        let length = [4096, 4096, 32768, BLOCK, 3 * BLOCK][random(5)];
                        let length = length.min(left).min(bytes.len() - at);
                        let mut buf = vec![0xaa; length];
                        image.read_at(&mut buf, at as u64).unwrap();
                        assert!(buf == bytes[at..at + length], "{at}+{length}");
                        at = (at + length) % bytes.len();
                        left -= length;
                    }
                });
            });
        }
    });
    image.counters().cache_misses
}

#[test]
fn each_block_is_decoded_once_for_all() {
    let bytes = sample(BLOCKS * BLOCK);
    let decoded = storm(&image(true, 64 << 20, &bytes), &bytes);
    // Blocks of zeros are known after the first, and looked at once.
    assert!(decoded as usize <= BLOCKS, "{decoded} of {BLOCKS}");
    // What the same readers cost an image that is read for one of them.
    let alone = storm(&image(false, 64 << 20, &bytes), &bytes);
    assert!(alone > decoded, "{alone}, and {decoded} shared");
}

#[test]
fn a_reader_with_many_requests_holds_up_no_other() {
    let bytes = sample(BLOCKS * BLOCK);
    // A cache of two blocks: almost every read decodes one.
    let image = image(true, 0, &bytes);
    let greedy = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..12_usize {
            let (image, greedy, done, bytes) = (&image, &greedy, &done, &bytes);
            scope.spawn(move || {
                as_reader(1, || {
                    let mut block = thread;
                    while done.load(Ordering::Acquire) == 0 {
                        block = (block + 7) % BLOCKS;
                        let at = block * BLOCK;
                        let mut buf = vec![0; BLOCK];
                        image.read_at(&mut buf, at as u64).unwrap();
                        assert!(buf == bytes[at..at + BLOCK]);
                        greedy.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        while greedy.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        // It comes to its end while the other one never stops.
        as_reader(2, || {
            for (number, block) in bytes.chunks(BLOCK).enumerate() {
                let mut buf = vec![0; BLOCK];
                image.read_at(&mut buf, (number * BLOCK) as u64).unwrap();
                assert!(buf == block);
            }
        });
        done.store(1, Ordering::Release);
    });
}
