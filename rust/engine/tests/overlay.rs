//! Overlays against plain byte arrays.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use cowcloop_engine::format::cowfile::{self, Access};
use cowcloop_engine::image::{self, ImageOptions};
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::storage::{MemoryStorage, Storage};
use cowcloop_engine::{ExtentKind, Layer};
use proptest::prelude::*;

const SIZE: usize = 200 << 10;

/// A raw base of 200 KiB (and a bit) with data and holes.
fn base() -> (Arc<dyn Layer>, Vec<u8>) {
    let storage = MemoryStorage::new("base", u64::MAX);
    let mut bytes = vec![0; SIZE + 100];
    for (i, chunk) in bytes.chunks_mut(8192).enumerate() {
        if i % 3 != 1 {
            chunk.iter_mut().enumerate().for_each(|(j, byte)| *byte = (i * 7 + j) as u8);
            storage.write_all_at(chunk, i as u64 * 8192).unwrap();
        }
    }
    storage.write_all_at(&[9], SIZE as u64 + 99).unwrap();
    bytes.truncate(SIZE);
    (image::open(Arc::new(storage), &ImageOptions::default()).unwrap(), bytes)
}

fn new_overlay(lower: &Arc<dyn Layer>) -> (Arc<MemoryStorage>, Overlay) {
    let storage = Arc::new(MemoryStorage::new("cow", u64::MAX));
    cowfile::create(&*storage, &**lower, lower.size()).unwrap();
    let overlay = Overlay::open(storage.clone(), lower.clone(), Access::Writable).unwrap();
    (storage, overlay)
}

#[derive(Debug, Clone)]
enum Op {
    Read(usize, usize),
    Write(usize, usize, u8),
    Zero(usize, usize),
    Flush,
    Reopen,
    /// The overlay becomes the lower layer of a new one.
    Stack,
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..SIZE, 0..9000_usize).prop_map(|(at, length)| (at, length.min(SIZE - at)));
    prop_oneof![
        4 => range().prop_map(|(at, length)| Op::Read(at, length)),
        6 => (range(), any::<u8>()).prop_map(|((at, length), seed)| Op::Write(at, length, seed)),
        3 => range().prop_map(|(at, length)| Op::Zero(at, length)),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => Just(Op::Stack),
    ]
}

/// Extents cover the device, and what they call zero is zero.
fn check_extents(layer: &dyn Layer, expected: &[u8]) {
    let mut at = 0;
    let mut check = |extent: cowcloop_engine::Extent| {
        assert_eq!(extent.offset, at, "extents leave no gap");
        assert!(extent.length > 0);
        at = extent.end();
        if extent.kind == ExtentKind::Zero {
            let range = extent.offset as usize..extent.end() as usize;
            assert!(expected[range].iter().all(|byte| *byte == 0), "{extent:?} is not zero");
        }
        ControlFlow::Continue(())
    };
    layer.extents(0, expected.len() as u64, &mut check).unwrap();
    assert_eq!(at, expected.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn an_overlay_is_a_byte_array(ops in prop::collection::vec(op(), 1..60)) {
        let (base, mut expected) = base();
        let mut lower = base;
        let (mut storage, mut overlay) = new_overlay(&lower);
        for op in ops {
            match op {
                Op::Read(at, length) => {
                    let mut buf = vec![0xaa; length];
                    overlay.read_at(&mut buf, at as u64).unwrap();
                    prop_assert!(buf == expected[at..at + length], "{length} bytes at {at}");
                }
                Op::Write(at, length, seed) => {
                    let bytes: Vec<u8> = (0..length).map(|i| seed.wrapping_add(i as u8)).collect();
                    overlay.write_at(&bytes, at as u64).unwrap();
                    expected[at..at + length].copy_from_slice(&bytes);
                }
                Op::Zero(at, length) => {
                    overlay.write_zeroes(at as u64, length as u64, false).unwrap();
                    expected[at..at + length].fill(0);
                }
                Op::Flush => overlay.flush().unwrap(),
                Op::Reopen => {
                    overlay.close().unwrap();
                    overlay = Overlay::open(storage.clone(), lower.clone(), Access::Writable).unwrap();
                }
                Op::Stack => {
                    overlay.close().unwrap();
                    lower = Arc::new(
                        Overlay::open(storage.clone(), lower.clone(), Access::ReadOnly).unwrap(),
                    );
                    (storage, overlay) = new_overlay(&lower);
                }
            }
        }
        let mut whole = vec![0xaa; SIZE];
        overlay.read_at(&mut whole, 0).unwrap();
        prop_assert!(whole == expected);
        check_extents(&overlay, &expected);
    }
}

#[test]
fn a_read_takes_each_run_of_the_bitmap_at_once() {
    let (base, mut expected) = base();
    let (_, overlay) = new_overlay(&base);
    for (at, length) in [(3000, 5000), (100 << 10, 90 << 10)] {
        overlay.write_at(&vec![0xbb; length], at as u64).unwrap();
        expected[at..at + length].fill(0xbb);
    }
    let before = overlay.cowfile().status().reads;
    let mut found = vec![0; SIZE];
    overlay.read_at(&mut found, 0).unwrap();
    assert!(found == expected);
    assert_eq!(overlay.cowfile().status().reads - before, 2, "for two runs of 6 and 90 blocks");
}

#[test]
fn zeros_over_zeros_take_no_block() {
    let (base, _) = base();
    let (_, overlay) = new_overlay(&base);
    overlay.write_zeroes(8192, 8192, false).unwrap();
    assert_eq!(overlay.cowfile().bitmap().count(), 0, "the base has zeros there already");
    overlay.write_zeroes(0, 16384, false).unwrap();
    assert_eq!(overlay.cowfile().bitmap().count(), 8);
}

#[test]
fn a_cowfile_of_another_base_is_refused() {
    let (base, _) = base();
    let (storage, overlay) = new_overlay(&base);
    overlay.write_at(b"x", 5).unwrap();
    overlay.close().unwrap();
    let other = MemoryStorage::new("other", u64::MAX);
    other.write_all_at(&[1; SIZE + 100], 0).unwrap();
    let other = image::open(Arc::new(other), &ImageOptions::default()).unwrap();
    let error = Overlay::open(storage.clone(), other, Access::Writable).err().unwrap();
    assert!(error.to_string().contains("another base"), "{error}");

    // And a lower cowfile that has changed since is another base too.
    let lower: Arc<dyn Layer> =
        Arc::new(Overlay::open(storage.clone(), base.clone(), Access::ReadOnly).unwrap());
    let (upper, _) = new_overlay(&lower);
    drop(lower);
    let changed = Overlay::open(storage.clone(), base.clone(), Access::Writable).unwrap();
    changed.write_at(b"y", 5).unwrap();
    changed.close().unwrap();
    let lower = Arc::new(Overlay::open(storage, base, Access::ReadOnly).unwrap());
    let error = Overlay::open(upper, lower, Access::Writable).err().unwrap();
    assert!(error.to_string().contains("another content"), "{error}");
}

/// Writers own the even or the odd half-blocks; a read-modify-write that undid a
/// neighbour's acknowledged write would show.
#[test]
fn unaligned_writers_do_not_undo_each_other() {
    let (base, _) = base();
    let (_, overlay) = new_overlay(&base);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (overlay, stop) = (&overlay, &stop);
        for writer in 0..4_u64 {
            scope.spawn(move || {
                for round in 0..300_u64 {
                    // 256 bytes each of the same 64 blocks.
                    let block = round * 13 % 64;
                    let at = block * 1024 + writer * 256;
                    let mine = [(round % 251) as u8 + 1; 256];
                    overlay.write_at(&mine, at).unwrap();
                    let mut found = [0; 256];
                    overlay.read_at(&mut found, at).unwrap();
                    assert_eq!(found, mine, "writer {writer}, round {round}");
                }
            });
        }
        let flusher = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                overlay.flush().unwrap();
            }
        });
        // Fresh blocks, so that every first write is a read-modify-write, while
        // others write and zero whole blocks beside it.
        for round in 0..600_u64 {
            let at = (100 + round % 100) * 1024;
            std::thread::scope(|inner| {
                inner.spawn(move || overlay.write_at(&[1; 512], at).unwrap());
                inner.spawn(move || overlay.write_at(&[2; 512], at + 512).unwrap());
            });
            let mut block = [0; 1024];
            overlay.read_at(&mut block, at).unwrap();
            assert!(block[..512].iter().all(|b| *b == 1) && block[512..].iter().all(|b| *b == 2));
            if round % 100 == 99 {
                overlay.write_zeroes(100 * 1024, 100 * 1024, false).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        flusher.join().unwrap();
    });
}

#[test]
fn a_full_memory_overlay_says_so_and_stays_readable() {
    let (base, expected) = base();
    let storage = Arc::new(MemoryStorage::new(":memory:", 32 << 10));
    cowfile::create(&*storage, &*base, base.size()).unwrap();
    let overlay = Overlay::open(storage, base, Access::Writable).unwrap();
    let mut error = None;
    for at in (0..SIZE as u64).step_by(4096) {
        if let Err(failed) = overlay.write_at(&[7; 4096], at) {
            error = Some((at, failed));
            break;
        }
    }
    let (at, error) = error.expect("32 KiB do not hold 200 KiB");
    assert_eq!(error.kind(), cowcloop_engine::ErrorKind::NoSpace);
    let mut buf = vec![0; SIZE];
    overlay.read_at(&mut buf, 0).unwrap();
    assert!(buf[..at as usize].iter().all(|byte| *byte == 7));
    assert!(buf[at as usize..] == expected[at as usize..]);
    assert_eq!(overlay.cowfile().status().failures, 1);
    // Space is made again by a discard.
    overlay.write_zeroes(0, 8192, false).unwrap();
    overlay.write_at(&[7; 4096], at).unwrap();
    // What has failed is not forgotten.
    assert_eq!(overlay.cowfile().status().failures, 1);
}

/// A medium as FAT is: without holes, and with a limit to how long a file may be.
#[derive(Debug)]
struct Fat(MemoryStorage);

const FAT_LIMIT: u64 = 300 << 10;

impl Storage for Fat {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn can_be_long(&self, length: u64) -> std::io::Result<bool> {
        Ok(length <= FAT_LIMIT)
    }

    fn punch_hole(&self, _offset: u64, _length: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn next_data(&self, offset: u64) -> std::io::Result<Option<u64>> {
        Ok((offset < self.len()?).then_some(offset))
    }

    fn next_hole(&self, _offset: u64) -> std::io::Result<u64> {
        self.len()
    }

    fn allocated(&self) -> std::io::Result<u64> {
        self.len()
    }
}

#[test]
fn zeros_are_written_where_holes_cannot_be_punched() {
    let (base, mut expected) = base();
    let storage = Arc::new(Fat(MemoryStorage::new("cow", u64::MAX)));
    cowfile::create(&*storage, &*base, base.size()).unwrap();
    for round in 0..2 {
        let overlay = Overlay::open(storage.clone(), base.clone(), Access::Writable).unwrap();
        for (at, length) in [(0, 1024), (5000, 100), (9000, 30_000), (SIZE - 700, 700)] {
            let (at, length) = (at + round * 40_000 % (SIZE - at - length + 1), length);
            overlay.write_at(&vec![0xaa; length + 100][..length], at as u64).unwrap();
            expected[at..at + length].fill(0xaa);
            // Nothing has changed when a fast zero is refused.
            let error = overlay.write_zeroes(0, 4096, true).unwrap_err();
            assert_eq!(error.kind(), cowcloop_engine::ErrorKind::Unsupported);
            assert_eq!(overlay.cowfile().status().failures, 0);
            let half = length / 2;
            overlay.write_zeroes(at as u64, half as u64, false).unwrap();
            expected[at..at + half].fill(0);
        }
        let mut found = vec![0; SIZE];
        overlay.read_at(&mut found, 0).unwrap();
        assert!(found == expected, "round {round}");
        overlay.close().unwrap();
    }
    let overlay = Overlay::open(storage, base, Access::ReadOnly).unwrap();
    let mut found = vec![0; SIZE];
    overlay.read_at(&mut found, 0).unwrap();
    assert!(found == expected);
}

#[test]
fn a_cowfile_that_could_become_too_long_is_refused() {
    let lower = MemoryStorage::new("base", u64::MAX);
    lower.write_all_at(&[1], FAT_LIMIT).unwrap();
    let base = image::open(Arc::new(lower), &ImageOptions::default()).unwrap();
    let fat = Fat(MemoryStorage::new("cow", u64::MAX));
    let error = cowfile::create(&fat, &*base, base.size()).unwrap_err();
    assert_eq!(error.kind(), cowcloop_engine::ErrorKind::NoSpace);
    assert!(error.to_string().contains("FAT"), "{error}");
    assert!(fat.0.is_empty().unwrap());
    // One that came from elsewhere can be read, but not be written.
    let whole = MemoryStorage::new("cow", u64::MAX);
    cowfile::create(&whole, &*base, base.size()).unwrap();
    let moved = Arc::new(Fat(whole));
    assert!(Overlay::open(moved.clone(), base.clone(), Access::Writable).is_err());
    Overlay::open(moved, base, Access::ReadOnly).unwrap();
}

/// Four requests at once on the same few blocks: afterwards they have taken effect in
/// some order, each of them whole, and a reader meanwhile saw nothing else.
#[test]
fn overlapping_requests_take_effect_in_some_order() {
    const AREA: usize = 6 << 10;
    let (base, mut expected) = base();
    let (_, overlay) = new_overlay(&base);
    let mut state = 5_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % bound as u64) as usize
    };
    for round in 0..500_usize {
        // Blocks that were not written yet, for most of the rounds.
        let area = round * 1024 % (SIZE - AREA);
        let mut requests: Vec<(usize, Vec<u8>)> = (0..3_u8)
            .map(|thread| {
                let at = below(AREA - 1);
                let value = (round % 80) as u8 * 3 + thread + 1;
                (area + at, vec![value; 1 + below(AREA - at)])
            })
            .collect();
        // The last one is zeros; whole blocks are one step.
        requests.push((area + 1024 * below(3), vec![0; 1024 * (1 + below(3))]));
        let before = expected[area..area + AREA].to_vec();
        let mut seen = vec![0xaa; AREA];
        std::thread::scope(|scope| {
            for (at, bytes) in &requests {
                let overlay = &overlay;
                scope.spawn(move || match bytes[0] {
                    0 => overlay.write_zeroes(*at as u64, bytes.len() as u64, false).unwrap(),
                    _ => overlay.write_at(bytes, *at as u64).unwrap(),
                });
            }
            scope.spawn(|| overlay.read_at(&mut seen, area as u64).unwrap());
            scope.spawn(|| overlay.flush().unwrap());
        });
        for (i, byte) in seen.iter().enumerate() {
            let written = |(at, bytes): &(usize, Vec<u8>)| {
                (*at..at + bytes.len()).contains(&(area + i)) && bytes[0] == *byte
            };
            assert!(*byte == before[i] || requests.iter().any(written), "round {round}, byte {i}");
        }
        let mut after = vec![0xaa; AREA];
        overlay.read_at(&mut after, area as u64).unwrap();
        let apply = |order: &[usize]| {
            let mut bytes = before.clone();
            for (at, new) in order.iter().map(|i| &requests[*i]) {
                bytes[at - area..at - area + new.len()].copy_from_slice(new);
            }
            bytes
        };
        let orders = (0..256).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]);
        let mut orders = orders.filter(|order| (0..4).all(|i| order.contains(&i)));
        assert!(orders.any(|order| apply(&order) == after), "round {round}: {requests:?}");
        expected[area..area + AREA].copy_from_slice(&after);
    }
    let mut whole = vec![0xaa; SIZE];
    overlay.read_at(&mut whole, 0).unwrap();
    assert!(whole == expected);
}

/// A base that cannot be read for a while.
struct Failing {
    base: Arc<dyn Layer>,
    fails: AtomicBool,
}

impl Layer for Failing {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> cowcloop_engine::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            let error = std::io::Error::from_raw_os_error(5);
            return Err(cowcloop_engine::Error::io("base", "cannot read", error));
        }
        self.base.read_at(buf, offset)
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        sink: cowcloop_engine::layer::ExtentSink<'_>,
    ) -> cowcloop_engine::Result<()> {
        self.base.extents(offset, length, sink)
    }

    fn identity(&self) -> cowcloop_engine::Result<[u8; 32]> {
        self.base.identity()
    }
}

#[test]
fn a_base_that_fails_harms_only_what_needs_it() {
    let (base, mut expected) = base();
    let failing = Arc::new(Failing { base, fails: AtomicBool::new(false) });
    let lower: Arc<dyn Layer> = failing.clone();
    let (storage, overlay) = new_overlay(&lower);
    failing.fails.store(true, Ordering::Relaxed);
    let mut buf = [0; 4096];
    assert!(overlay.read_at(&mut buf, 0).is_err());
    // Whole blocks need nothing from below; parts of one do, and are not begun.
    overlay.write_at(&[1; 4096], 20480).unwrap();
    expected[20480..24576].fill(1);
    overlay.write_at(&[2; 100], 20500).unwrap();
    expected[20500..20600].fill(2);
    assert!(overlay.write_at(&[3; 100], 500).is_err());
    assert!(overlay.write_at(&[3; 1500], 1024).is_err());
    overlay.flush().unwrap();
    overlay.read_at(&mut buf, 20480).unwrap();
    assert!(buf[..] == expected[20480..24576]);
    failing.fails.store(false, Ordering::Relaxed);
    let check = |overlay: &Overlay| {
        let mut whole = vec![0xaa; SIZE];
        overlay.read_at(&mut whole, 0).unwrap();
        // What failed is as before or as written, byte by byte.
        for (at, byte) in whole.iter().enumerate() {
            let failed = (500..600).contains(&at) || (1024..2524).contains(&at);
            assert!(*byte == expected[at] || failed && *byte == 3, "byte {at} is {byte}");
        }
    };
    check(&overlay);
    overlay.close().unwrap();
    drop(overlay);
    check(&Overlay::open(storage, lower, Access::ReadOnly).unwrap());
}

#[test]
fn a_read_of_half_a_block_meets_a_write_of_that_block() {
    let storage = Arc::new(MemoryStorage::new("large", u64::MAX));
    storage.write_all_at(&[7], (64 << 20) - 1).unwrap();
    let lower = image::open(storage, &ImageOptions::default()).unwrap();
    let (_, overlay) = new_overlay(&lower);
    let at = std::sync::atomic::AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for block in 0..60_000 {
                at.store(block, Ordering::Relaxed);
                overlay.write_at(&[1; 1024], block * 1024).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut half = [0; 512];
        while !done.load(Ordering::Relaxed) {
            let block = at.load(Ordering::Relaxed);
            overlay.read_at(&mut half, block * 1024 + 512).unwrap();
            assert!(half == [1; 512] || half == [0; 512]);
        }
    });
}
