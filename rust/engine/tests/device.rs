//! What can be done to a device while it is in use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver};

use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::format::cowfile::files::create;
use cowcloop_engine::image::ImageOptions;
use cowcloop_engine::layer::{Extent, ExtentSink};
use cowcloop_engine::{ErrorKind, ExtentKind, Layer, Result};

const SIZE: u64 = 24 << 20;

struct Files {
    dir: tempfile::TempDir,
    base: PathBuf,
    cow: PathBuf,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    fs::write(&base, vec![0xbb; SIZE as usize]).unwrap();
    Files { cow: dir.path().join("my.cow"), base, dir }
}

fn options() -> DeviceOptions {
    DeviceOptions { create: true, ..DeviceOptions::default() }
}

fn open(base: &Path, cow: &Path) -> cowcloop_engine::Result<Device> {
    Device::open(base, &[cow.to_path_buf()], &options())
}

fn byte(device: &Device, at: u64) -> u8 {
    let mut byte = [0];
    device.read_at(&mut byte, at).unwrap();
    byte[0]
}

/// Writers put the number of their round into every block of a stripe; a
/// snapshot must never hold a later round in one block than in a block that was
/// written before it.
#[test]
fn a_snapshot_is_of_one_moment_while_writers_go_on() {
    let files = files();
    let device = open(&files.base, &files.cow).unwrap();
    let blocks = 4096_u64;
    for block in 0..blocks {
        device.write_at(&[0; 1024], block * 1024).unwrap();
    }
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=u8::MAX {
                for block in (0..blocks).rev() {
                    device.write_at(&[round; 1024], block * 1024).unwrap();
                }
                rounds.store(u64::from(round), Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for i in 0..4 {
            let copy = files.dir.path().join(format!("snapshot-{i}"));
            let before = rounds.load(Ordering::SeqCst);
            device.snapshot(&copy).unwrap();
            let snapshot = open(&files.base, &copy).unwrap();
            let seen: Vec<u8> = (0..blocks).map(|b| byte(&snapshot, b * 1024)).collect();
            // The writer goes from the last block down: newer ones are at the end.
            assert!(seen.windows(2).all(|w| w[0] <= w[1]), "snapshot {i} is of two moments");
            assert!(seen[0] + 1 >= seen[seen.len() - 1]);
            assert!(u64::from(seen[0]) >= before, "what was written before is in it");
        }
        stop.store(true, Ordering::SeqCst);
    });
    let error = device.snapshot(&files.base).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
}

#[test]
fn a_snapshot_lives_its_own_life() {
    let files = files();
    let copy = files.dir.path().join("copy.cow");
    let device = open(&files.base, &files.cow).unwrap();
    device.write_at(b"both", 5000).unwrap();
    device.write_zeroes(1 << 20, 1 << 20, false).unwrap();
    let summary = device.snapshot(&copy).unwrap();
    assert_eq!(summary.blocks_used, 1 + 1024);
    device.write_at(b"mine", 9000).unwrap();
    let other = open(&files.base, &copy).unwrap();
    assert_eq!((byte(&other, 5000), byte(&other, 9000), byte(&other, 1 << 20)), (b'b', 0xbb, 0));
    other.write_at(b"his", 9000).unwrap();
    assert_eq!((byte(&device, 9000), byte(&other, 9000)), (b'm', b'h'));
    other.close().unwrap();
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 256 << 10, "holes stay holes");
    assert!(open(&files.base, &copy).is_err(), "the name is still in use");
    drop(other);
    assert!(open(&files.base, &copy).is_ok());
}

#[test]
fn a_cowfile_made_read_only_is_closed_and_still_read() {
    let files = files();
    let device = open(&files.base, &files.cow).unwrap();
    device.write_at(b"x", 100).unwrap();
    assert!(open(&files.base, &files.cow).is_err());
    device.make_read_only().unwrap();
    device.make_read_only().unwrap();
    assert_eq!(byte(&device, 100), b'x');
    assert!(device.read_only());
    assert_eq!(device.write_at(b"y", 100).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(fs::read(&files.cow).unwrap()[4..8], [1, 0, 0, 0], "version 1, clean");
    // Others may read it too, but none may write.
    let reader = DeviceOptions { read_only: true, ..options() };
    let second = Device::open(&files.base, std::slice::from_ref(&files.cow), &reader).unwrap();
    assert_eq!(byte(&second, 100), b'x');
    assert_eq!(open(&files.base, &files.cow).err().unwrap().kind(), ErrorKind::Busy);
}

#[test]
fn a_cowfile_that_was_replaced_is_not_taken_for_the_old_one() {
    let files = files();
    let device = open(&files.base, &files.cow).unwrap();
    device.write_at(b"x", 100).unwrap();
    fs::rename(&files.cow, files.dir.path().join("away")).unwrap();
    drop(open(&files.base, &files.cow).unwrap());
    let error = device.make_read_only().unwrap_err();
    assert!(error.to_string().contains("another file"), "{error}");
    assert_eq!(byte(&device, 100), b'x', "the one that was opened is still read");
    assert_eq!(device.write_at(b"y", 100).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn a_suspended_device_waits_for_its_own_medium() {
    /// What a caller that waits hears.
    fn told(device: &Device) -> Receiver<bool> {
        let (sender, receiver) = channel();
        device.when_back(move |back| sender.send(back).unwrap());
        receiver
    }

    let files = files();
    // Nothing of the base is cached: a raw base has no cache.
    let device = open(&files.base, &files.cow).unwrap();
    device.write_at(b"cow", 0).unwrap();
    device.suspend().unwrap();
    assert!(device.is_suspended());
    assert_eq!(byte(&device, 0), b'c', "the cowfile is still there");

    let away = files.dir.path().join("away");
    fs::rename(&files.base, &away).unwrap();
    assert!(device.resume().is_err(), "no medium");
    fs::write(&files.base, vec![0xcc; SIZE as usize]).unwrap();
    assert_eq!(device.resume().unwrap_err().kind(), ErrorKind::Mismatch);
    let read = || device.read_at(&mut [0], 1 << 20).map_err(|error| error.kind());
    assert_eq!(read(), Err(ErrorKind::NoMedium), "no thread waits");
    // The block needs the rest of its bytes from below, and keeps no lock meanwhile.
    assert_eq!(device.write_at(b"y", 1 << 20).unwrap_err().kind(), ErrorKind::NoMedium);
    device.write_at(&[b'w'; 1024], 1 << 20).unwrap();
    device.flush().unwrap();
    assert_eq!(device.status().cowfiles[0].failures, 0, "nothing has failed for good");
    let waiting = told(&device);
    assert!(waiting.try_recv().is_err());
    fs::rename(&away, &files.base).unwrap();
    device.resume().unwrap();
    assert_eq!(waiting.try_recv(), Ok(true));
    assert_eq!(told(&device).try_recv(), Ok(true), "it is there already");
    assert_eq!((byte(&device, 1 << 20), byte(&device, 2 << 20)), (b'w', 0xbb));

    device.suspend().unwrap();
    let waiting = told(&device);
    let beside = device.beside(&[], &DeviceOptions::default()).unwrap();
    assert_eq!(beside.suspend().unwrap_err().kind(), ErrorKind::InvalidInput);
    let sharing = told(&beside);
    beside.close().unwrap();
    assert!(sharing.try_recv().is_err(), "the base is another device's");
    device.close().unwrap();
    assert_eq!((waiting.try_recv(), sharing.try_recv()), (Ok(false), Ok(false)));
    assert_eq!(told(&device).try_recv(), Ok(false));
}

#[test]
fn a_device_may_be_larger_than_its_base() {
    let files = files();
    let larger = DeviceOptions { device_size: Some(SIZE + (1 << 20)), ..options() };
    let cows = [files.cow.clone()];
    let device = Device::open(&files.base, &cows, &larger).unwrap();
    assert_eq!(device.size(), SIZE + (1 << 20));
    let mut across = [1; 20];
    device.read_at(&mut across, SIZE - 10).unwrap();
    assert_eq!(across[..10], [0xbb; 10]);
    assert_eq!(across[10..], [0; 10]);
    device.write_at(b"far", SIZE + 5000).unwrap();
    device.close().unwrap();
    drop(device);
    // Its size is its own from then on.
    let device = open(&files.base, &files.cow).unwrap();
    assert_eq!((device.size(), byte(&device, SIZE + 5000)), (SIZE + (1 << 20), b'f'));
    drop(device);

    let smaller = DeviceOptions { device_size: Some(SIZE - 1024), ..options() };
    let other = [files.dir.path().join("other.cow")];
    assert!(Device::open(&files.base, &other, &smaller).is_err());
    assert!(!other[0].exists());
}

#[test]
fn a_cowfile_is_not_taken_for_an_image() {
    let files = files();
    drop(open(&files.base, &files.cow).unwrap());
    let error = Device::open(&files.cow, &[], &options()).err().unwrap();
    assert!(error.to_string().contains("name its image"), "{error}");
}

#[test]
fn an_image_may_lie_inside_another_file() {
    let files = files();
    let outer = files.dir.path().join("outer");
    let mut bytes = vec![1; 10_000];
    bytes.extend([0xaa; 4096]);
    bytes.extend([2; 5000]);
    bytes.extend([0xbb; 8192]);
    fs::write(&outer, &bytes).unwrap();
    let inside = DeviceOptions {
        image: ImageOptions::default(),
        image_ranges: vec![(10_000, 4096), (10_000 + 4096 + 5000, 8192)],
        image_name: Some("outer:/inner".into()),
        ..options()
    };
    let device = Device::open(&outer, std::slice::from_ref(&files.cow), &inside).unwrap();
    assert_eq!(device.size(), 12288);
    assert!(device.description().starts_with("outer:/inner + "), "{}", device.description());
    assert_eq!((byte(&device, 4095), byte(&device, 4096)), (0xaa, 0xbb));
    let beyond = DeviceOptions { image_ranges: vec![(0, 1 << 40)], ..options() };
    let error = Device::open(&outer, &[], &beyond).err().unwrap();
    assert!(error.to_string().contains("outer"), "{error}");
}

/// A base of zeros that looks into a folder when a cowfile is made for it.
struct Watcher {
    folder: PathBuf,
    found: AtomicU64,
}

impl Layer for Watcher {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let _ = sink(Extent { offset, length, kind: ExtentKind::Zero });
        Ok(())
    }

    fn identity(&self) -> Result<[u8; 32]> {
        let names = fs::read_dir(&self.folder).unwrap().count();
        self.found.store(names as u64, Ordering::Relaxed);
        Ok([0; 32])
    }
}

/// A process that is ended in the middle of it, by Ctrl-C for example, leaves nothing behind.
#[test]
fn a_cowfile_has_no_name_until_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let base = Watcher { folder: dir.path().to_path_buf(), found: AtomicU64::new(u64::MAX) };
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let unnamed = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::from(0o600)).is_ok();
    create(&dir.path().join("c"), &base, base.size()).unwrap();
    assert_eq!(base.found.load(Ordering::Relaxed), u64::from(!unnamed));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["c"]);
    // It replaces no other file: that one is the cowfile then.
    fs::write(dir.path().join("other"), b"theirs").unwrap();
    let opened = create(&dir.path().join("other"), &base, base.size()).unwrap();
    assert_eq!(opened.len().unwrap(), 6);
    assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"theirs");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
