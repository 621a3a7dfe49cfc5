//! Repair of what the original driver leaves behind in a crash: data that its
//! bitmap does not know.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cowcloop_engine::device::{Device, DeviceOptions, Prepare};
use cowcloop_engine::jobs::{
    merge, pack, repair, repair_before_use, unpack, RepairOptions, Replace,
};
use cowcloop_engine::overlay;
use cowcloop_engine::progress::{NoProgress, Progress};
use cowcloop_engine::{ErrorKind, Remedy};

const SIZE: u64 = 300 << 10;

struct Files {
    _dir: tempfile::TempDir,
    base: PathBuf,
    cow: PathBuf,
}

/// A base, and a cowfile as the original driver leaves it: block 3 in data and
/// bitmap, blocks 7 and 250 in the data alone, block 9 written with zeros.
fn crashed() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (base, cow) = (dir.path().join("base"), dir.path().join("my.cow"));
    fs::write(&base, vec![0xbb; SIZE as usize]).unwrap();
    let device = open(&base, &cow, false).unwrap();
    device.write_at(&[3; 1024], 3 << 10).unwrap();
    device.close().unwrap();
    drop(device);
    let file = fs::OpenOptions::new().write(true).open(&cow).unwrap();
    file.write_all_at(&[7; 1024], 4096 + (7 << 10)).unwrap();
    file.write_all_at(&[0; 1024], 4096 + (9 << 10)).unwrap();
    file.write_all_at(&[0, 0, 0, 25], 4096 + (250 << 10)).unwrap();
    // Version 1, dirty.
    file.write_all_at(&[1, 0, 1, 0], 4).unwrap();
    Files { _dir: dir, base, cow }
}

fn open(base: &Path, cow: &Path, repair: bool) -> cowcloop_engine::Result<Device> {
    let prepare = repair.then_some(repair_before_use as Prepare);
    let options = DeviceOptions { create: true, prepare, ..DeviceOptions::default() };
    Device::open(base, &[cow.to_path_buf()], &options)
}

fn first_byte(device: &Device, block: u64) -> u8 {
    let mut byte = [0];
    device.read_at(&mut byte, (block << 10) + 3).unwrap();
    byte[0]
}

#[test]
fn a_dirty_cowfile_is_refused_and_repaired_when_asked() {
    let files = crashed();
    let error = open(&files.base, &files.cow, false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Dirty);
    assert!(error.to_string().contains("repair it first"), "{error}");
    assert_eq!(error.remedy(), Some(Remedy::Repair));

    let device = open(&files.base, &files.cow, true).unwrap();
    let found: Vec<u8> = [3, 7, 9, 250, 8].map(|block| first_byte(&device, block)).into();
    // Block 9 cannot be known: it shows the base.
    assert_eq!(found, [3, 7, 0xbb, 25, 0xbb]);
    device.close().unwrap();
    drop(device);
    assert!(open(&files.base, &files.cow, false).is_ok());
}

/// A clean cowfile whose bitmap has blocks 3 and 200 to 203, cut to `length`.
fn cut(length: u64) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (base, cow) = (dir.path().join("base"), dir.path().join("my.cow"));
    fs::write(&base, vec![0xbb; SIZE as usize]).unwrap();
    let device = open(&base, &cow, false).unwrap();
    device.write_at(&[3; 1024], 3 << 10).unwrap();
    device.write_at(&[20; 4096], 200 << 10).unwrap();
    device.close().unwrap();
    drop(device);
    fs::OpenOptions::new().write(true).open(&cow).unwrap().set_len(length).unwrap();
    Files { _dir: dir, base, cow }
}

#[test]
fn blocks_behind_the_end_are_given_up_and_the_refusal_says_how() {
    let at = |block: u64| 4096 + (block << 10);
    for (length, missing) in [(at(203), 1), (at(202) + 512, 1), (at(200), 4), (at(100), 4)] {
        let files = cut(length);
        let before = fs::read(&files.cow).unwrap();
        let error = open(&files.base, &files.cow, false).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(error.remedy(), Some(Remedy::RepairGivesUp), "{error}");
        assert!(error.to_string().contains("block 203 ends at"), "{error}");
        let dry = RepairOptions { dry_run: true, ..RepairOptions::default() };
        let report = repair(&files.cow, dry, &NoProgress).unwrap();
        assert_eq!((report.needed, report.missing, report.changed), (true, missing, false));
        assert!(fs::read(&files.cow).unwrap() == before);

        let report = repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap();
        assert_eq!((report.known, report.found, report.missing), (5, 0, missing));
        assert!(report.summary(&files.cow).contains("given up"));
        assert!(fs::read(report.backup.unwrap()).unwrap() == before[..4096]);
        let device = open(&files.base, &files.cow, false).unwrap();
        let found: Vec<u8> = [3, 200, 201, 202, 203].map(|block| first_byte(&device, block)).into();
        let kept = 4 - missing as usize;
        let expected = [vec![3], vec![20; kept], vec![0xbb; 4 - kept]].concat();
        assert_eq!(found, expected, "cut to {length}");
        device.close().unwrap();
        drop(device);
        assert!(!repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap().needed);
    }
}

#[test]
fn a_dirty_file_that_ends_early_gives_up_the_same_blocks() {
    let files = cut(4096 + (202 << 10));
    let file = fs::OpenOptions::new().write(true).open(&files.cow).unwrap();
    file.write_all_at(&[1, 0, 1, 0], 4).unwrap();
    file.write_all_at(&[7; 1024], 4096 + (7 << 10)).unwrap();
    let report = repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap();
    assert_eq!((report.known, report.found, report.missing), (5, 1, 2));
    let device = open(&files.base, &files.cow, false).unwrap();
    assert_eq!([7, 201, 202].map(|block| first_byte(&device, block)), [7, 20, 0xbb]);
}

#[test]
fn a_file_that_ends_within_its_last_block_reads_zeros_there() {
    for length in [1, 512, 1023] {
        let files = cut(4096 + (203 << 10) + length);
        assert!(!repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap().needed);
        let device = open(&files.base, &files.cow, false).unwrap();
        let mut block = [0xaa; 1024];
        device.read_at(&mut block, 203 << 10).unwrap();
        let (data, zeros) = block.split_at(length as usize);
        assert!(data.iter().all(|byte| *byte == 20) && zeros.iter().all(|byte| *byte == 0));
        // Written in part, in front and behind, and opened again.
        device.write_at(&[8; 10], 203 << 10).unwrap();
        device.write_at(&[9; 1], (203 << 10) + 1020).unwrap();
        device.write_at(&[1; 1024], 100 << 10).unwrap();
        block[..10].fill(8);
        block[1020] = 9;
        device.close().unwrap();
        drop(device);
        let device = open(&files.base, &files.cow, false).unwrap();
        let mut again = [0; 1024];
        device.read_at(&mut again, 203 << 10).unwrap();
        assert!(again == block, "cut to {length}");
    }
}

#[test]
fn the_tools_take_a_file_that_ends_within_its_last_block() {
    let whole = {
        let files = cut(4096 + (203 << 10) + 512);
        let mut bytes = fs::read(&files.base).unwrap();
        let device = open(&files.base, &files.cow, false).unwrap();
        device.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let files = cut(4096 + (203 << 10) + 512);
    let beside = |name: &str| files.cow.with_file_name(name);
    let (packed, copy) = (beside("packed"), beside("copy.cow"));
    for gzip in [false, true] {
        pack(&files.cow, &packed, gzip, Replace::Anything, &NoProgress).unwrap();
        unpack(&packed, &copy, Replace::Anything, &NoProgress).unwrap();
        let mut bytes = vec![0; whole.len()];
        open(&files.base, &copy, false).unwrap().read_at(&mut bytes, 0).unwrap();
        assert!(bytes == whole);
    }
    fs::remove_file(&copy).unwrap();
    overlay::copy(&files.cow, &copy, &NoProgress).unwrap();
    for cow in [&copy, &files.cow] {
        let base = beside("merged");
        fs::copy(&files.base, &base).unwrap();
        merge(&base, cow, &NoProgress).unwrap();
        assert!(fs::read(&base).unwrap() == whole);
    }
}

#[test]
fn a_file_of_ours_that_was_cut_needs_a_whole_copy() {
    let files = cut(4096 + (204 << 10));
    let device = open(&files.base, &files.cow, false).unwrap();
    device.write_at(&[1; 5], 0).unwrap();
    device.flush().unwrap();
    let crashed = files.cow.with_file_name("crashed.cow");
    fs::copy(&files.cow, &crashed).unwrap();
    fs::OpenOptions::new().write(true).open(&crashed).unwrap().set_len(8192).unwrap();
    let errors = [
        open(&files.base, &crashed, false).err().unwrap(),
        repair(&crashed, RepairOptions::default(), &NoProgress).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().ends_with("a cut copy? Take a whole one"), "{error}");
    }
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let files = crashed();
    let before = fs::read(&files.cow).unwrap();
    let options = RepairOptions { dry_run: true, ..RepairOptions::default() };
    let report = repair(&files.cow, options, &NoProgress).unwrap();
    assert_eq!((report.known, report.found), (1, 2));
    assert!(report.needed && !report.changed && report.backup.is_none());
    assert!(fs::read(&files.cow).unwrap() == before);
}

#[test]
fn a_cancelled_repair_changes_nothing() {
    struct Stop;
    impl Progress for Stop {
        fn advance(&self, _bytes: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let files = crashed();
    let before = fs::read(&files.cow).unwrap();
    let error = repair(&files.cow, RepairOptions::default(), &Stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(fs::read(&files.cow).unwrap() == before);
    assert_eq!(fs::read_dir(files.cow.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn head_and_bitmap_are_kept_as_they_were() {
    let files = crashed();
    let before = fs::read(&files.cow).unwrap();
    let report = repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap();
    let backup = report.backup.unwrap();
    assert!(fs::read(&backup).unwrap()[..2048] == before[..2048]);
    // Data is never touched; only the last block, which was cut short, is made whole.
    let after = fs::read(&files.cow).unwrap();
    assert!(after[4096..].starts_with(&before[4096..]));
    assert_eq!(after.len(), 4096 + (251 << 10));
    // Once more, by force: another copy, and nothing new to find.
    let options = RepairOptions { force: true, ..RepairOptions::default() };
    let again = repair(&files.cow, options, &NoProgress).unwrap();
    assert_eq!((again.known, again.found), (3, 0));
    assert_ne!(again.backup.unwrap(), backup);
}

#[test]
fn what_needs_no_repair_is_left_alone() {
    let files = crashed();
    repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap();
    let before = fs::read(&files.cow).unwrap();
    assert!(!repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap().needed);
    // A crash of ours: the bitmap is right as of the last flush.
    let device = open(&files.base, &files.cow, false).unwrap();
    assert_eq!(
        repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap_err().kind(),
        ErrorKind::Busy
    );
    device.write_at(&[1; 5], 0).unwrap();
    drop(device);
    let options = RepairOptions { force: true, ..RepairOptions::default() };
    assert!(!repair(&files.cow, options, &NoProgress).unwrap().needed);
    assert_eq!(fs::read(&files.cow).unwrap()[4], 2);
    assert_eq!(before[4], 1);
}

#[test]
fn a_cowfile_above_a_repaired_one_is_refused() {
    let files = crashed();
    let upper = files.cow.with_file_name("upper.cow");
    // The upper one is made while the lower one is as it was before its crash.
    let crashed = fs::read(&files.cow).unwrap();
    let head = fs::OpenOptions::new().write(true).open(&files.cow).unwrap();
    head.write_all_at(&[1, 0, 0, 0], 4).unwrap();
    let stack = [files.cow.clone(), upper];
    let options = DeviceOptions { create: true, ..DeviceOptions::default() };
    Device::open(&files.base, &stack, &options).unwrap().close().unwrap();
    drop(Device::open(&files.base, &stack, &options).unwrap());

    fs::write(&files.cow, crashed).unwrap();
    repair(&files.cow, RepairOptions::default(), &NoProgress).unwrap();
    let error = Device::open(&files.base, &stack, &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains("upper.cow"), "{error}");
}
