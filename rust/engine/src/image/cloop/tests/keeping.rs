//! Bytes of a damaged base that are copied for good: into a cowfile, or an output.

use proptest::prelude::*;

use super::*;
use crate::format::cowfile::{self, Access};
use crate::overlay::Overlay;

const BLOCK: usize = 16 << 10;
const BLOCKS: usize = 4;
const MAPUNIT: usize = 1024;

/// An image of zlib blocks.
fn built(bytes: &[u8], block_size: usize) -> Vec<u8> {
    let mut builder = Builder::new(b"V2.0", block_size as u32);
    for block in bytes.chunks(block_size) {
        builder = builder.block(Codec::Zlib, block);
    }
    builder.build()
}

/// A cowfile over `damaged`, made when that was still `right`.
fn overlay(right: &[u8], damaged: Arc<CloopImage>) -> Overlay {
    let storage = Arc::new(MemoryStorage::new("c.cow", u64::MAX));
    cowfile::create(&*storage, &*open(right).unwrap(), damaged.size()).unwrap();
    Overlay::open(storage, damaged, Access::Writable).unwrap()
}

/// One byte is written to a block whose checksum, at its very end, is wrong: nothing of it may
/// come to live in the cowfile.
fn damage_stays_below(block_size: usize, strict: bool, started: bool, read_first: bool) {
    let bytes = sample(block_size * 2);
    let right = built(&bytes, block_size);
    let mut damaged = right.clone();
    damaged[open(&right).unwrap().location(0).end() as usize - 1] ^= 1;
    let options = ImageOptions { strict, threads: 2, ..Default::default() };
    let image = CloopImage::open(storage(&damaged), &options).unwrap();
    if started {
        image.start();
    }
    let overlay = overlay(&right, image);
    if read_first {
        let _ = overlay.read_at(&mut [0; 100], 2048);
    }
    let error = overlay.write_at(&[1], 3000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("block 0 at offset"), "{error}");
    assert_eq!(overlay.cowfile().bitmap().count(), 0);
    // Whole KiB need nothing from below, and the other block is right.
    overlay.write_at(&[2; MAPUNIT], 2048).unwrap();
    overlay.write_at(&[3], block_size as u64 + 100).unwrap();
}

#[test]
fn a_write_of_a_part_does_not_copy_a_damaged_block() {
    for block_size in [BLOCK, 1 << 20] {
        for flags in 0..8 {
            damage_stays_below(block_size, flags & 1 == 1, flags & 2 == 2, flags & 4 == 4);
        }
    }
}

#[test]
fn a_block_that_was_right_once_is_checked_again_before_it_is_copied() {
    // So large that it is decoded in part, however often it was read.
    const LARGE: usize = 1 << 20;
    let bytes = sample(LARGE * 2);
    let right = built(&bytes, LARGE);
    let medium = storage(&right);
    let image = CloopImage::open(medium.clone(), &ImageOptions::default()).unwrap();
    image.read_at(&mut vec![0; LARGE], 0).unwrap();
    // The medium goes bad, and the cache has nothing of the block.
    let end = image.location(0).end();
    medium.write_all_at(&[!right[end as usize - 1]], end - 1).unwrap();
    assert!(image.reader.cached(0).is_none());
    image.read_at(&mut [0; 100], 2048).unwrap();
    assert_eq!(overlay(&right, image).write_at(&[1], 3000).unwrap_err().kind(), ErrorKind::Damaged);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever byte of the base is wrong, and whatever is read before and at the same time:
    /// a write of a part fails, or what is beside it reads as the right base.
    #[test]
    fn beside_a_write_is_the_right_base(
        block in 0..BLOCKS,
        place in any::<u64>(),
        requests in prop::collection::vec((any::<bool>(), 0..BLOCK * BLOCKS - 3000, 1..3000_usize), 1..12),
        strict in any::<bool>(),
    ) {
        let bytes = sample(BLOCK * BLOCKS);
        let right = built(&bytes, BLOCK);
        let location = open(&right).unwrap().location(block as u64);
        let mut damaged = right.clone();
        damaged[(location.offset + place % u64::from(location.length)) as usize] ^= 0x10;
        let options = ImageOptions { strict, ..Default::default() };
        let overlay = overlay(&right, CloopImage::open(storage(&damaged), &options).unwrap());
        let mut expected = bytes;
        for (write, at, length) in requests {
            if !write {
                let _ = overlay.read_at(&mut vec![0; length], at as u64);
            } else if overlay.write_at(&vec![0xee; length], at as u64).is_ok() {
                expected[at..at + length].fill(0xee);
            }
        }
        for (first, length) in overlay.cowfile().bitmap().runs() {
            let (at, n) = (first as usize * MAPUNIT, length as usize * MAPUNIT);
            let mut found = vec![0; n];
            overlay.read_at(&mut found, at as u64).unwrap();
            for (i, (found, right)) in found.iter().zip(&expected[at..at + n]).enumerate() {
                // A write that failed half-way may have got there as well.
                prop_assert!(found == right || *found == 0xee, "byte {}", at + i);
            }
        }
    }
}
