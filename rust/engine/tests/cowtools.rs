//! Packing, unpacking and merging of cowfiles.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cowcloop_engine::cowfile;
use cowcloop_engine::cowtools::{merge, pack, unpack};
use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::pipeline::{NoProgress, Progress};
use cowcloop_engine::ErrorKind;

const SIZE: u64 = 40 << 20;

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
    assert_eq!(summary.blocks, 4 + 8 + 5 + 1);
    assert_eq!(fs::metadata(&packed).unwrap().len(), 8192 + 18 * 1024);
    unpack(&packed, &back, &NoProgress).unwrap();
    assert!(fs::read(&back).unwrap() == fs::read(&files.cow).unwrap());
    assert!(fs::metadata(&back).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    assert!(content(&open(&files.base, &back).unwrap()) == files.device);
}

#[test]
fn gzip_is_the_same_stream_compressed() {
    let files = files();
    let (plain, gzipped, back) = (files.path("p"), files.path("p.gz"), files.path("back.cow"));
    pack(&files.cow, &plain, false, &NoProgress).unwrap();
    pack(&files.cow, &gzipped, true, &NoProgress).unwrap();
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(&gzipped).unwrap())
        .read_to_end(&mut unzipped)
        .unwrap();
    assert!(unzipped == fs::read(&plain).unwrap());
    unpack(&gzipped, &back, &NoProgress).unwrap();
    assert!(fs::read(&back).unwrap() == fs::read(&files.cow).unwrap());
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
    assert!(error.to_string().contains("packed already"));
    let error = unpack(&files.cow, &files.path("back"), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("not packed"));
    let error = open(&files.base, &packed).err().unwrap();
    assert!(error.to_string().contains("cow unpack"));
    let error = merge(&files.base, &packed, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("cow unpack"));
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

#[test]
fn a_merge_refuses_another_base_and_changes_nothing() {
    let files = files();
    let other = files.path("other");
    fs::write(&other, vec![5; SIZE as usize]).unwrap();
    let error = merge(&other, &files.cow, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("fingerprint"), "{error}");
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
        cowfile::copy(cow, &files.path("copy"), &NoProgress).map(|_| ()),
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
