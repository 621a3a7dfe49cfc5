use super::*;
use crate::storage::{MemoryStorage, Storage};

fn store(bitmap: &Bitmap) -> MemoryStorage {
    let storage = MemoryStorage::new("m", u64::MAX);
    storage.write_all_at(&[0], HEAD_BYTES + bitmap.mapsize - 1).unwrap();
    for copy in bitmap.pages() {
        storage.write_all_at(&copy.bytes, copy.offset).unwrap();
    }
    storage
}

#[test]
fn runs_agree_with_single_bits() {
    let bits = 204_800;
    let bitmap = Bitmap::new(bits / 8);
    let ranges = [(0, 1), (3, 61), (64, 64), (200, 1), (24_575, 2), (57_343, 70_000)];
    for (block, length) in ranges {
        bitmap.set(block, length);
    }
    let expected = |b: u64| ranges.iter().any(|(s, n)| (*s..s + n).contains(&b));
    let mut block = 0;
    let mut ones = 0;
    while block < bits {
        let (set, length) = bitmap.run(block, bits - block);
        assert!(length > 0);
        for b in block..block + length {
            assert_eq!(set, expected(b), "block {b}");
        }
        if block + length < bits {
            assert_ne!(set, expected(block + length), "a run ends where the bits change");
        }
        ones += if set { length } else { 0 };
        block += length;
    }
    assert_eq!(bitmap.count(), ones);
    assert_eq!(bitmap.last(), Some(57_343 + 70_000 - 1));
    assert_eq!(bitmap.run(10, 5), (true, 5), "a limit cuts a run");
    assert!(bitmap.get(10) && !bitmap.get(1));
}

#[test]
fn what_is_cleared_is_written_too() {
    for border in [0, 1, 63, 64, 24_576, 57_344, 100_000, 204_799] {
        let mut bitmap = Bitmap::new(204_800 / 8);
        for (block, length) in [(0, 70), (24_570, 10), (57_340, 70_000), (204_799, 1)] {
            bitmap.set(block, length);
        }
        bitmap.take_changed();
        let kept = (0..border).filter(|block| bitmap.get(*block)).count() as u64;
        let storage = store(&bitmap);
        bitmap.clear_from(border);
        assert_eq!(bitmap.count(), kept, "from {border}");
        for copy in bitmap.take_changed() {
            storage.write_all_at(&copy.bytes, copy.offset).unwrap();
        }
        let loaded = Bitmap::load(&storage, bitmap.mapsize).unwrap();
        assert_eq!(loaded.count(), kept, "from {border}");
        assert!(loaded.last().is_none_or(|last| last < border));
    }
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let bitmap = Bitmap::new(8192);
    bitmap.set(0, 1);
    bitmap.set(10, 1);
    bitmap.set(8 * 3072, 1);
    let copies = bitmap.take_changed();
    let places: Vec<_> = copies.iter().map(|c| (c.offset, c.bytes.len())).collect();
    assert_eq!(places, [(1024, 3072), (4096, 4096)]);
    assert_eq!(copies[0].bytes[..2], [1, 4]);
    assert_eq!(copies[1].bytes[0], 1);
    assert!(bitmap.take_changed().is_empty());
    bitmap.put_back(&copies[1..]);
    assert_eq!(bitmap.take_changed().len(), 1);
}

#[test]
fn what_was_stored_is_loaded() {
    let bitmap = Bitmap::new(102_400);
    for (block, length) in [(5, 9), (40_000, 3), (700_000, 1234), (819_199, 1)] {
        bitmap.set(block, length);
    }
    let loaded = Bitmap::load(&store(&bitmap), 102_400).unwrap();
    assert_eq!(loaded.count(), bitmap.count());
    let mut block = 0;
    while block < 819_200 {
        let run = bitmap.run(block, 819_200 - block);
        assert_eq!(loaded.run(block, 819_200 - block), run);
        block += run.1;
    }
}
