//! Trees of files in memory, whole and damaged. That they are those of fs-verity is tested
//! beside its own program, in `tests/verity`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use super::*;
use crate::error::Unverified;
use crate::storage::{MemoryStorage, Storage};
use crate::ErrorKind;

/// Sizes on both sides of where a tree grows a block or a level.
const SIZES: [usize; 10] = [
    0,
    1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    5 * BLOCK - 7,
    128 * BLOCK - 1,
    128 * BLOCK,
    128 * BLOCK + 1,
    300 * BLOCK + 99,
];

fn sample(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(step).collect()
}

fn storage(name: &str, bytes: &[u8]) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new(name, u64::MAX);
    storage.write_all_at(bytes, 0).unwrap();
    Arc::new(storage)
}

fn tree_of(bytes: &[u8]) -> (Vec<u8>, Digest) {
    let shape = Shape::of(bytes.len() as u64);
    let mut tree = vec![0xaa; shape.tree_size() as usize];
    let mut builder = Builder::new(shape, |block, place| {
        tree[place as usize..][..BLOCK].copy_from_slice(block);
        Ok(())
    });
    bytes.chunks(BLOCK).for_each(|block| builder.push(&hash_block(block)).unwrap());
    let digest = builder.finish().unwrap();
    (tree, digest)
}

fn verified(image: &[u8], tree: &[u8], pin: Option<Digest>) -> crate::Result<Verified> {
    Verified::new(storage("a.img", image), Some(storage("a.img.verity", tree)), pin)
}

fn refused(error: io::Error) -> Unverified {
    error.get_ref().and_then(|inner| inner.downcast_ref()).cloned().expect("an Unverified")
}

#[test]
fn digests_are_those_that_fsverity_prints() {
    let digest = |bytes: &[u8]| tree_of(bytes).1.to_string();
    let empty = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
    let x = "sha256:dbbdfa9d606f7adeaa7f16dcfb0d49161c4cfb82d9d51cfb5cb43fa3dacb9e5b";
    assert_eq!((digest(b""), digest(b"x")), (empty.into(), x.into()));
    for text in [x, x.trim_start_matches("sha256:"), &x.replace("dbbd", "DBBD")] {
        assert_eq!(text.parse(), Ok(tree_of(b"x").1));
    }
    for text in ["", "sha256:", "sha256:00", &x[..70], &format!("{x}0"), &x.replace('d', "g")] {
        assert_eq!(text.parse::<Digest>(), Err(NoDigest), "{text}");
    }
    assert!("é".repeat(32).parse::<Digest>().is_err());
}

#[test]
fn the_shape_of_the_largest_file_there_could_be_is_no_overflow() {
    let shape = Shape::of(u64::MAX);
    assert_eq!(shape.levels.len(), 8);
    assert!(shape.tree_size() > u64::MAX / 129);
}

#[test]
fn what_is_right_is_read_from_any_place() {
    for size in SIZES {
        let image = sample(size);
        let (tree, digest) = tree_of(&image);
        let verified = verified(&image, &tree, Some(digest)).unwrap();
        assert_eq!(verified.status().digest, digest.to_string());
        for (at, length) in [(0, 1), (size / 2, 3), (size / 3, 9000), (size.max(1) - 1, 10)] {
            let mut buf = vec![0; length];
            let n = verified.read_at(&mut buf, at as u64).unwrap();
            assert_eq!(buf[..n], image[at.min(size)..size.min(at + length)], "{size} {at}");
        }
        let before = verified.status().verified_bytes;
        assert!(size < 20 * BLOCK || before < 10 * BLOCK as u64, "only what was read: {before}");
        let mut all = vec![0; size];
        for _ in 0..2 {
            verified.read_exact_at(&mut all, 0).unwrap();
            assert_eq!(all, image);
            let blocks = size.next_multiple_of(BLOCK) as u64;
            assert_eq!(verified.status().verified_bytes, blocks, "each once");
        }
        assert_eq!(verified.read_at(&mut [0; 4], size as u64 + 1).unwrap(), 0);
        assert_eq!(verified.status().failures, 0);
    }
}

#[test]
fn a_flipped_bit_of_the_image_is_found_and_nothing_else_suffers() {
    let image = sample(300 * BLOCK + 99);
    let (tree, digest) = tree_of(&image);
    for at in [0, 4095, 4096, 128 * BLOCK - 1, 128 * BLOCK, 300 * BLOCK, 300 * BLOCK + 98] {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        let verified = verified(&damaged, &tree, Some(digest)).unwrap();
        let block = at / BLOCK * BLOCK;
        for _ in 0..2 {
            let error = verified.read_exact_at(&mut [0; 1], (block + 50) as u64).unwrap_err();
            let wanted = Unverified::Image { tree: "a.img.verity".into(), offset: block as u64 };
            assert_eq!(refused(error), wanted);
        }
        assert_eq!(verified.status().failures, 2);
        let mut rest = vec![0; image.len()];
        assert!(verified.read_exact_at(&mut rest, 0).is_err());
        verified.read_exact_at(&mut rest[..block], 0).unwrap();
        assert_eq!(rest[..block], image[..block]);
    }
}

#[test]
fn a_flipped_bit_of_the_tree_is_found() {
    let image = sample(300 * BLOCK);
    let (tree, digest) = tree_of(&image);
    // The root's block, and each of the three below it.
    for at in [0, 95, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 44 * HASH - 1] {
        let mut damaged = tree.clone();
        damaged[at] ^= 1;
        if at < BLOCK {
            let error = verified(&image, &damaged, Some(digest)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            let text = error.to_string();
            assert!(text.starts_with("a.img.verity: comes to sha256:"), "{text}");
        }
        let verified = verified(&image, &damaged, None).unwrap();
        let error = verified.read_exact_at(&mut vec![0; image.len()], 0).unwrap_err();
        // Without a pin the root's block is what it is, and does not fit what lies below it.
        let block = if at < BLOCK { 1 + at / HASH } else { at / BLOCK };
        let offset = (block * BLOCK) as u64;
        assert_eq!(refused(error), Unverified::Tree { tree: "a.img.verity".into(), offset });
    }
}

#[test]
fn a_tree_of_another_length_is_refused() {
    let image = sample(5 * BLOCK);
    let (tree, _) = tree_of(&image);
    for wrong in [&tree[..0], &tree[..100], &[tree.clone(), vec![0]].concat()] {
        let error = verified(&image, wrong, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("of 20480 bytes has 4096"), "{error}");
    }
    let error = verified(&sample(9), &tree, None).unwrap_err();
    assert!(error.to_string().contains("of 9 bytes has 0"), "{error}");
}

#[test]
fn a_pin_needs_a_tree_unless_the_file_is_one_block() {
    let small = sample(100);
    let (_, digest) = tree_of(&small);
    let alone = |pin| Verified::new(storage("a.img", &small), None, pin);
    alone(Some(digest)).unwrap().read_exact_at(&mut [0; 100], 0).unwrap();
    let error = alone(Some(tree_of(b"x").1)).unwrap_err();
    assert!(error.to_string().starts_with("a.img: comes to sha256:"), "{error}");
    let error = Verified::new(storage("a.img", &sample(BLOCK + 1)), None, Some(digest));
    assert!(error.unwrap_err().to_string().contains("a digest is verified by its tree"));
}

#[test]
fn a_file_that_is_too_long_is_refused_before_any_memory_is_taken() {
    let long = storage("a.img", &[]);
    long.write_all_at(&[1], 1 << 62).unwrap();
    let error = Verified::new(long, Some(storage("t", &[])), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_hole_is_zeros_only_where_the_tree_says_so() {
    let mut image = sample(600 * BLOCK);
    image[BLOCK..300 * BLOCK].fill(0);
    let (tree, digest) = tree_of(&image);
    let base = storage("a.img", &image);
    base.punch_hole(BLOCK as u64, 299 * BLOCK as u64).unwrap();
    let open = |base| Verified::new(base, Some(storage("t", &tree)), Some(digest)).unwrap();
    let verified = open(base.clone());
    let at = |block: usize| (block * BLOCK) as u64;
    assert_eq!(verified.next_data(0).unwrap(), Some(0));
    assert_eq!(verified.next_data(at(1)).unwrap(), Some(at(300)));
    assert_eq!(verified.next_data(at(600)).unwrap(), None);
    // Data that was lost: to be read, and to fail.
    base.punch_hole(at(400), at(200)).unwrap();
    let verified = open(base);
    assert_eq!(verified.next_data(at(400)).unwrap(), Some(at(400)));
    assert!(verified.read_exact_at(&mut [0], at(400)).is_err());
}

/// Wrong until it is renewed.
#[derive(Debug)]
struct Stale {
    good: Arc<MemoryStorage>,
    fetched: AtomicBool,
    heals: bool,
    rots: bool,
    edition: Option<AtomicU64>,
}

impl Storage for Stale {
    fn name(&self) -> &str {
        self.good.name()
    }
    fn len(&self) -> io::Result<u64> {
        self.good.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = self.good.read_at(buf, offset)?;
        if !(self.heals && self.fetched.load(Ordering::SeqCst)) {
            buf[0] ^= 1;
        }
        Ok(n)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("read only")
    }
    fn punch_hole(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("read only")
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.good.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.good.next_hole(offset)
    }
    fn allocated(&self) -> io::Result<u64> {
        self.good.allocated()
    }
    fn may_rot(&self) -> bool {
        self.rots
    }
    fn read_kept(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<u64>> {
        if self.rots && self.edition.is_none() {
            return Ok(None);
        }
        self.read_exact_at(buf, offset)?;
        Ok(Some(self.edition.as_ref().map_or(0, |edition| edition.load(Ordering::SeqCst))))
    }
    fn renew(&self, _: u64, _: u64) -> bool {
        !self.fetched.swap(true, Ordering::SeqCst)
    }
}

#[test]
fn what_was_kept_wrongly_is_fetched_once_more_and_once_only() {
    let bytes = sample(200 * BLOCK);
    let (tree, digest) = tree_of(&bytes);
    for heals in [true, false] {
        let fetched = AtomicBool::new(false);
        let good = storage("a.img", &bytes);
        let stale = Arc::new(Stale { good, fetched, heals, rots: false, edition: None });
        let verified = Verified::new(stale, Some(storage("t", &tree)), Some(digest)).unwrap();
        let mut buf = [0; 10];
        let read = verified.read_exact_at(&mut buf, 0);
        assert_eq!(read.is_ok(), heals);
        assert_eq!(verified.status().failures, 1);
        if heals {
            assert_eq!(buf, bytes[..10]);
        }
    }
}

#[test]
fn what_may_be_other_bytes_the_next_time_is_verified_each_time() {
    let bytes = sample(200 * BLOCK);
    let (tree, digest) = tree_of(&bytes);
    let stale = |fetched: bool| {
        let (good, fetched) = (storage("a.img", &bytes), AtomicBool::new(fetched));
        Arc::new(Stale { good, fetched, heals: true, rots: true, edition: None })
    };
    let base = stale(true);
    let verified = Verified::new(base.clone(), Some(storage("t", &tree)), Some(digest)).unwrap();
    let mut buf = [0; 2 * BLOCK];
    verified.read_exact_at(&mut buf, 0).unwrap();
    // Thrown away, and fetched again: wrong this time, so it is fetched once more.
    base.fetched.store(false, Ordering::SeqCst);
    verified.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, bytes[..2 * BLOCK]);
    assert_eq!(verified.status().failures, 1);
}

#[test]
fn what_is_kept_is_verified_once_and_again_in_another_edition() {
    let bytes = sample(200 * BLOCK);
    let (tree, digest) = tree_of(&bytes);
    let (good, fetched) = (storage("a.img", &bytes), AtomicBool::new(true));
    let edition = Some(AtomicU64::new(2));
    let base = Arc::new(Stale { good, fetched, heals: true, rots: true, edition });
    let verified = Verified::new(base.clone(), Some(storage("t", &tree)), Some(digest)).unwrap();
    let mut buf = vec![0; 10 * BLOCK];
    for _ in 0..3 {
        verified.read_exact_at(&mut buf, 5 * BLOCK as u64).unwrap();
        assert_eq!(buf, bytes[5 * BLOCK..15 * BLOCK]);
        assert_eq!(verified.status().verified_bytes, 10 * BLOCK as u64);
    }
    // Something was thrown away, and other bytes came.
    base.fetched.store(false, Ordering::SeqCst);
    base.edition.as_ref().unwrap().store(4, Ordering::SeqCst);
    verified.read_exact_at(&mut buf, 5 * BLOCK as u64).unwrap();
    assert_eq!(buf, bytes[5 * BLOCK..15 * BLOCK]);
    assert_eq!(verified.status().failures, 1);
}

#[test]
fn what_was_verified_is_verified_again_once_it_is_forgotten() {
    let image = sample(5 * BLOCK);
    let (tree, digest) = tree_of(&image);
    let base = storage("a.img", &image);
    let verified = Verified::new(base.clone(), Some(storage("t", &tree)), Some(digest)).unwrap();
    verified.read_exact_at(&mut [0; 10], 0).unwrap();
    base.write_all_at(&[!image[0]], 0).unwrap();
    verified.read_exact_at(&mut [0; 10], 0).unwrap();
    verified.forget();
    assert!(verified.read_exact_at(&mut [0; 10], 0).is_err());
}
