//! Packing, unpacking and merging of cowfiles.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::jobs::{self, merge, PackSummary, Replace};
use cowcloop_engine::overlay;
use cowcloop_engine::progress::{NoProgress, Progress};
use cowcloop_engine::{ErrorKind, Remedy, Result};

const SIZE: u64 = 40 << 20;

fn pack(cow: &Path, out: &Path, gzip: bool, progress: &dyn Progress) -> Result<PackSummary> {
    jobs::pack(cow, out, gzip, Replace::Anything, progress)
}

fn unpack(packed: &Path, out: &Path, progress: &dyn Progress) -> Result<PackSummary> {
    jobs::unpack(packed, out, Replace::Anything, progress)
}

struct Files {
    dir: tempfile::TempDir,
    base: PathBuf,
    cow: PathBuf,
    /// What the device holds.
    device: Vec<u8>,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A base, and a closed cowfile with data at both ends, a hole, and a block of zeros.
fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (base, cow) = (dir.path().join("base"), dir.path().join("my.cow"));
    let mut bytes: Vec<u8> = (0..SIZE).map(|i| (i / 1000) as u8 | 1).collect();
    fs::write(&base, &bytes).unwrap();
    let device = open(&base, &cow).unwrap();
    for (at, length, byte) in [(500, 3000, 7), (30 << 20, 5 << 10, 9), (SIZE - 100, 100, 11)] {
        device.write_at(&vec![byte; length], at).unwrap();
        bytes[at as usize..at as usize + length].fill(byte);
    }
    device.write_zeroes(20 << 20, 8 << 10, false).unwrap();
    bytes[20 << 20..(20 << 20) + (8 << 10)].fill(0);
    device.close().unwrap();
    Files { dir, base, cow, device: bytes }
}

fn open(base: &Path, cow: &Path) -> cowcloop_engine::Result<Device> {
    let options = DeviceOptions { create: true, ..DeviceOptions::default() };
    Device::open(base, &[cow.to_path_buf()], &options)
}

fn content(device: &Device) -> Vec<u8> {
    let mut bytes = vec![0; device.size() as usize];
    device.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_packed_cowfile_comes_back_the_same() {
    let files = files();
    let (packed, back) = (files.path("packed"), files.path("back.cow"));
    let summary = pack(&files.cow, &packed, false, &NoProgress).unwrap();
    // Head, bitmap and gap, and blocks 0-3, 8 of zeros, 5 and the last.
    assert_eq!(summary.blocks_used, 4 + 8 + 5 + 1);
    assert_eq!(fs::metadata(&packed).unwrap().len(), 8192 + 18 * 1024);
    unpack(&packed, &back, &NoProgress).unwrap();
    assert!(fs::read(&back).unwrap() == fs::read(&files.cow).unwrap());
    assert!(fs::metadata(&back).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    assert!(content(&open(&files.base, &back).unwrap()) == files.device);
}

/// What is compressed in a gzip file.
fn unzipped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn zip(bytes: &[u8], system: u8) -> Vec<u8> {
    let mut gzip = flate2::GzBuilder::new()
        .operating_system(system)
        .write(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The compact layout of a cowfile that was packed without gzip.
fn compact(padded: &[u8], fields: usize, mapsize: usize, doffset: usize) -> Vec<u8> {
    [&padded[..fields], &padded[1024..1024 + mapsize], &padded[doffset..]].concat()
}

#[test]
fn gzip_has_the_compact_layout_and_keeps_the_mark() {
    let files = files();
    let (plain, gzipped, back) = (files.path("p"), files.path("p.gz"), files.path("back.cow"));
    pack(&files.cow, &plain, false, &NoProgress).unwrap();
    let summary = pack(&files.cow, &gzipped, true, &NoProgress).unwrap();
    let padded = fs::read(&plain).unwrap();
    assert!(unzipped(&gzipped) == compact(&padded, 56, 5120, 8192));
    assert_eq!(summary.bytes, 56 + 5120 + 18 * 1024);
    unpack(&gzipped, &back, &NoProgress).unwrap();
    assert!(fs::read(&back).unwrap() == fs::read(&files.cow).unwrap());
    // The original leaves no mark, and other programs may compress the stream anew.
    fs::write(&gzipped, zip(&compact(&padded, 56, 5120, 8192), 3)).unwrap();
    unpack(&gzipped, &back, &NoProgress).unwrap();
    let mut bare = fs::read(&files.cow).unwrap();
    bare[128..256].fill(0);
    assert!(fs::read(&back).unwrap() == bare);
}

#[test]
fn both_layouts_are_read_however_they_are_compressed() {
    let files = files();
    let (plain, gzipped, back) = (files.path("p"), files.path("p.gz"), files.path("back.cow"));
    pack(&files.cow, &plain, false, &NoProgress).unwrap();
    let mut padded = fs::read(&plain).unwrap();
    let mut want = fs::read(&files.cow).unwrap();
    for mark in [true, false] {
        if !mark {
            padded[128..256].fill(0);
            want[128..256].fill(0);
        }
        // 255: as early versions of this program wrote it.
        for bytes in [zip(&padded, 255), zip(&padded, 3), padded.clone()] {
            fs::write(&gzipped, bytes).unwrap();
            unpack(&gzipped, &back, &NoProgress).unwrap();
            assert!(fs::read(&back).unwrap() == want);
        }
    }
    let compact = compact(&padded, 56, 5120, 8192);
    for bytes in [zip(&compact, 255), zip(&compact, 3), compact] {
        fs::write(&gzipped, bytes).unwrap();
        unpack(&gzipped, &back, &NoProgress).unwrap();
        assert!(fs::read(&back).unwrap() == want);
    }
}

#[test]
fn layouts_that_fit_both_ways_are_told_by_their_maker() {
    // One block of zeros far behind: its bit is set wherever the bitmap is taken to begin.
    let dir = tempfile::tempdir().unwrap();
    let (base, cow) = (dir.path().join("base"), dir.path().join("my.cow"));
    fs::write(&base, vec![7; SIZE as usize]).unwrap();
    let device = open(&base, &cow).unwrap();
    device.write_zeroes(20 << 20, 1024, false).unwrap();
    device.close().unwrap();
    drop(device);
    let (packed, back) = (dir.path().join("p"), dir.path().join("back.cow"));
    pack(&cow, &packed, false, &NoProgress).unwrap();
    let mut padded = fs::read(&packed).unwrap();
    padded[128..256].fill(0);
    let mut want = fs::read(&cow).unwrap();
    want[128..256].fill(0);
    for bytes in [zip(&padded, 255), zip(&compact(&padded, 56, 5120, 8192), 3)] {
        fs::write(&packed, bytes).unwrap();
        unpack(&packed, &back, &NoProgress).unwrap();
        assert!(fs::read(&back).unwrap() == want);
    }
}

#[test]
fn a_gzip_stream_may_have_members_and_must_have_its_sums() {
    let files = files();
    let (gzipped, back) = (files.path("p.gz"), files.path("back.cow"));
    pack(&files.cow, &gzipped, true, &NoProgress).unwrap();
    let whole = fs::read(&gzipped).unwrap();
    let content = unzipped(&gzipped);
    let members = [zip(&content[..30], 3), zip(&content[30..9000], 3), zip(&content[9000..], 3)];
    fs::write(&gzipped, members.concat()).unwrap();
    unpack(&gzipped, &back, &NoProgress).unwrap();
    assert!(fs::read(&back).unwrap()[256..] == fs::read(&files.cow).unwrap()[256..]);
    fs::remove_file(&back).unwrap();
    let mut bad = whole.clone();
    let at = bad.len() - 6;
    bad[at] ^= 1;
    for bytes in [&bad[..], &whole[..whole.len() - 1], &whole[..whole.len() - 8]] {
        fs::write(&gzipped, bytes).unwrap();
        assert_eq!(unpack(&gzipped, &back, &NoProgress).unwrap_err().kind(), ErrorKind::Damaged);
        assert!(!back.exists());
    }
}

#[test]
fn a_packed_file_that_is_cut_short_is_refused_and_leaves_nothing() {
    let files = files();
    let (packed, back) = (files.path("packed"), files.path("back.cow"));
    pack(&files.cow, &packed, false, &NoProgress).unwrap();
    let whole = fs::read(&packed).unwrap();
    for length in [0, 100, 1024, 3000, 8191, 8192, whole.len() - 1] {
        fs::write(&packed, &whole[..length]).unwrap();
        let error = unpack(&packed, &back, &NoProgress).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Format), "{error}");
        assert!(!back.exists());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    fs::write(&packed, &gzip[..gzip.len() / 2]).unwrap();
    assert_eq!(unpack(&packed, &back, &NoProgress).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn packed_and_plain_are_told_apart() {
    let files = files();
    let packed = files.path("packed");
    pack(&files.cow, &packed, false, &NoProgress).unwrap();
    let error = pack(&packed, &files.path("twice"), false, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("is packed"));
    let error = unpack(&files.cow, &files.path("back"), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("not packed"));
    let error = open(&files.base, &packed).err().unwrap();
    assert_eq!(error.remedy(), Some(Remedy::Unpack));
    let error = merge(&files.base, &packed, &NoProgress).unwrap_err();
    assert_eq!(error.remedy(), Some(Remedy::Unpack));
}

#[test]
fn a_merge_makes_the_base_the_device() {
    let files = files();
    let summary = merge(&files.base, &files.cow, &NoProgress).unwrap();
    assert_eq!((summary.blocks, summary.resumed), (18, false));
    assert!(fs::read(&files.base).unwrap() == files.device);
}

/// Asks to stop after some bytes.
struct Stop(AtomicU64);

impl Progress for Stop {
    fn advance(&self, bytes: u64) {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(bytes)).ok();
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 4096
    }
}

#[test]
fn an_interrupted_merge_is_completed_by_another() {
    let files = files();
    let stop = Stop(AtomicU64::new(8 << 10));
    assert_eq!(merge(&files.base, &files.cow, &stop).unwrap_err().kind(), ErrorKind::Cancelled);
    let half = fs::read(&files.base).unwrap();
    assert!(half != files.device && half[1000] == 7, "some of it is merged");
    // Its fingerprint is another one by now; the cowfile remembers.
    let summary = merge(&files.base, &files.cow, &NoProgress).unwrap();
    assert!(summary.resumed);
    assert!(fs::read(&files.base).unwrap() == files.device);
}

/// Interrupts a merge; the base and the cowfile are left as that does.
fn interrupted() -> Files {
    let files = files();
    let stop = Stop(AtomicU64::new(8 << 10));
    assert_eq!(merge(&files.base, &files.cow, &stop).unwrap_err().kind(), ErrorKind::Cancelled);
    files
}

#[test]
fn an_interrupted_merge_is_completed_with_its_own_base_alone() {
    let files = interrupted();
    let half = fs::read(&files.base).unwrap();
    let with = |at: usize, byte: u8| {
        let mut other = half.clone();
        other[at] = byte;
        other
    };
    let others = [
        vec![5; half.len()],
        // In a block that the merge leaves alone, near the beginning.
        with(50_000, 1),
        // In a sector that it replaces, and has replaced already.
        with(1030, 3),
    ];
    let other = files.path("other");
    for bytes in others {
        fs::write(&other, &bytes).unwrap();
        let error = merge(&other, &files.cow, &NoProgress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(fs::read(&other).unwrap() == bytes);
    }
    // Whatever its name, and whichever of the sectors have reached the medium.
    fs::rename(&files.base, &other).unwrap();
    let mut torn = half;
    torn[1024..1536].fill(1);
    fs::write(&other, torn).unwrap();
    assert!(merge(&other, &files.cow, &NoProgress).unwrap().resumed);
    assert!(fs::read(&other).unwrap() == files.device);
}

#[test]
fn a_cowfile_whose_merge_was_interrupted_is_left_to_the_merge() {
    let files = interrupted();
    let errors = [
        open(&files.base, &files.cow).map(|_| ()),
        pack(&files.cow, &files.path("packed"), false, &NoProgress).map(|_| ()),
        overlay::copy(&files.cow, &files.path("copy"), &NoProgress).map(|_| ()),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Dirty);
        assert_eq!(error.remedy(), Some(Remedy::CompleteMerge), "{error}");
    }
}

#[test]
fn an_upper_cowfile_is_not_merged_without_the_lower_one() {
    let files = files();
    let before = fs::read(&files.base).unwrap();
    let upper = files.path("upper.cow");
    let options = DeviceOptions { create: true, ..DeviceOptions::default() };
    let cows = [files.cow.clone(), upper.clone()];
    let device = Device::open(&files.base, &cows, &options).unwrap();
    device.write_at(&[9; 1024], 4096).unwrap();
    device.close().unwrap();
    drop(device);
    let error = merge(&files.base, &upper, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("a lower cowfile is missing"), "{error}");
    assert!(fs::read(&files.base).unwrap() == before);
}

/// The original fingerprint is that of the first blocks alone.
#[test]
fn a_merge_refuses_a_base_of_the_same_fingerprint() {
    let files = files();
    let mut other = fs::read(&files.base).unwrap();
    let last = other.len() - 100;
    other[last] ^= 1;
    fs::write(files.path("other"), &other).unwrap();
    let error = merge(&files.path("other"), &files.cow, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(fs::read(files.path("other")).unwrap() == other);
}

#[test]
fn a_merge_refuses_another_base_and_changes_nothing() {
    let files = files();
    let other = files.path("other");
    fs::write(&other, vec![5; SIZE as usize]).unwrap();
    let error = merge(&other, &files.cow, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("another content"), "{error}");
    assert!(fs::read(&other).unwrap().iter().all(|byte| *byte == 5));
    fs::write(&other, vec![5; 1 << 20]).unwrap();
    assert_eq!(merge(&other, &files.cow, &NoProgress).unwrap_err().kind(), ErrorKind::Mismatch);

    let cow = fs::OpenOptions::new().write(true).open(&files.cow).unwrap();
    cow.write_all_at(&[1, 0, 1, 0], 4).unwrap();
    assert_eq!(merge(&files.base, &files.cow, &NoProgress).unwrap_err().kind(), ErrorKind::Dirty);
}

/// All tools must refuse the cowfile, with these words, and leave the base as it is.
fn refused_by_all(files: &Files, words: &str) {
    let before = fs::read(&files.base).unwrap();
    let cow = &files.cow;
    let errors = [
        merge(&files.base, cow, &NoProgress).map(|_| ()),
        pack(cow, &files.path("packed"), false, &NoProgress).map(|_| ()),
        overlay::copy(cow, &files.path("copy"), &NoProgress).map(|_| ()),
        open(&files.base, cow).map(|_| ()),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(fs::read(&files.base).unwrap() == before);
}

#[test]
fn a_cowfile_that_was_cut_short_is_refused_before_anything_is_written() {
    let files = files();
    fs::OpenOptions::new().write(true).open(&files.cow).unwrap().set_len(20 << 20).unwrap();
    refused_by_all(&files, "a cut copy?");
}

#[test]
fn a_block_beyond_the_device_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (base, cow) = (dir.path().join("base"), dir.path().join("my.cow"));
    fs::write(&base, vec![7; 10 << 10]).unwrap();
    let device = open(&base, &cow).unwrap();
    device.write_at(&[1; 1024], 0).unwrap();
    device.close().unwrap();
    drop(device);
    // One more bit, of block 100 of 10, in the bitmap at 1024, and the count at 48 with it.
    let file = fs::OpenOptions::new().write(true).open(&cow).unwrap();
    file.write_all_at(&[1 << (100 % 8)], 1024 + 100 / 8).unwrap();
    file.write_all_at(&2_u64.to_le_bytes(), 48).unwrap();
    file.write_all_at(&[9; 1024], 4096 + 100 * 1024).unwrap();
    refused_by_all(&Files { dir, base, cow, device: Vec::new() }, "is set, but the device has");
}
