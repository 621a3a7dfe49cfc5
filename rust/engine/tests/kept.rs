//! What is kept of a cowfile for a server that takes over, on real files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use cowcloop_engine::device::{Device, DeviceOptions, KeptOptions};
use cowcloop_engine::{ErrorKind, Result};

const SIZE: u64 = 97 << 20;
/// A block that the second page of the bitmap tells of.
const FAR: u64 = 64 << 20;
const THIS_BOOT: [u8; 16] = [1; 16];

struct Files {
    base: PathBuf,
    cow: PathBuf,
    kept: PathBuf,
    _dir: tempfile::TempDir,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let files = Files { base: at("base"), cow: at("my.cow"), kept: at("my.kept"), _dir: dir };
    fs::File::create(&files.base).unwrap().set_len(SIZE).unwrap();
    files
}

impl Files {
    /// Another server; the one before is killed by dropping it.
    fn open(&self, boot: Option<[u8; 16]>) -> Result<Device> {
        let kept = boot.map(|boot| KeptOptions { path: self.kept.clone(), boot });
        let options = DeviceOptions { create: true, kept, ..DeviceOptions::default() };
        Device::open(&self.base, std::slice::from_ref(&self.cow), &options)
    }

    fn keeping(&self) -> Device {
        self.open(Some(THIS_BOOT)).unwrap()
    }

    /// What is at both places, by a server that keeps no bits and changes nothing.
    fn flushed(&self) -> [u8; 2] {
        found(&self.open(None).unwrap())
    }
}

fn found(device: &Device) -> [u8; 2] {
    [0, FAR].map(|at| {
        let mut byte = [0];
        device.read_at(&mut byte, at).unwrap();
        byte[0]
    })
}

fn write(device: &Device, byte: u8) {
    for at in [0, FAR] {
        device.write_at(&[byte; 3000], at).unwrap();
    }
}

fn taken_over(device: &Device) -> u64 {
    device.status().cowfiles[0].kept.as_ref().unwrap().taken_over
}

#[test]
fn what_was_acknowledged_is_there_for_the_next_server_and_the_one_after() {
    let files = files();
    let first = files.keeping();
    write(&first, 7);
    assert_eq!(taken_over(&first), 0);
    drop(first);
    assert_eq!(files.flushed(), [0, 0], "without the kept file it would be lost");

    let second = files.keeping();
    assert_eq!((found(&second), taken_over(&second)), ([7, 7], 6));
    // A change that has nothing to do with them, and another kill.
    second.write_at(&[9], 1 << 20).unwrap();
    drop(second);
    let third = files.keeping();
    assert_eq!(found(&third), [7, 7]);
    third.flush().unwrap();
    drop(third);
    assert_eq!(files.flushed(), [7, 7]);
}

#[test]
fn a_discard_is_kept_too() {
    let files = files();
    fs::write(&files.base, vec![5; SIZE as usize]).unwrap();
    let first = files.keeping();
    first.trim(0, SIZE).unwrap();
    drop(first);
    let second = files.keeping();
    assert_eq!((found(&second), taken_over(&second)), ([0, 0], SIZE / 1024));
}

#[test]
fn bits_of_another_boot_or_of_a_closed_cowfile_count_for_nothing() {
    let files = files();
    let first = files.keeping();
    write(&first, 7);
    drop(first);
    let another_boot = files.open(Some([2; 16])).unwrap();
    assert_eq!(found(&another_boot), [0, 0]);
    drop(another_boot);

    let first = files.keeping();
    write(&first, 8);
    first.close().unwrap();
    drop(first);
    let second = files.keeping();
    assert_eq!((found(&second), taken_over(&second)), ([8, 8], 0));
}

/// A server without the kept file went on with what was flushed, and flushed that.
#[test]
fn what_was_left_behind_does_not_come_back() {
    let files = files();
    let first = files.keeping();
    write(&first, 7);
    drop(first);
    let other = files.open(None).unwrap();
    assert_eq!(found(&other), [0, 0]);
    other.flush().unwrap();
    drop(other);
    assert_eq!(found(&files.keeping()), [0, 0]);
}

/// The cowfile was removed, and another one made in its place.
#[test]
fn bits_of_another_cowfile_count_for_nothing() {
    let files = files();
    let first = files.keeping();
    write(&first, 7);
    // Open, so that the other one cannot get its inode.
    fs::remove_file(&files.cow).unwrap();
    fs::copy(&files.kept, files.kept.with_extension("copy")).unwrap();
    let kept = files.kept.with_extension("copy");
    let options = DeviceOptions {
        create: true,
        kept: Some(KeptOptions { path: kept, boot: THIS_BOOT }),
        ..DeviceOptions::default()
    };
    let other = Device::open(&files.base, std::slice::from_ref(&files.cow), &options).unwrap();
    assert_eq!(found(&other), [0, 0]);
}

#[test]
fn a_file_that_is_none_is_left_alone() {
    let files = files();
    fs::write(&files.kept, "my notes").unwrap();
    let refused = files.open(Some(THIS_BOOT)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Format);
    assert!(refused.to_string().contains("my.kept: neither empty nor"), "{refused}");
    assert_eq!(fs::read(&files.kept).unwrap(), b"my notes");
}

#[test]
fn a_kept_file_that_was_damaged_is_not_guessed_at() {
    type Damage = fn(&fs::File);
    let cases: [(Damage, &str); 4] = [
        (|file| file.set_len(2000).unwrap(), "my.kept: cut"),
        (|file| file.set_len(100).unwrap(), "neither empty nor a whole kept file"),
        (|file| file.write_all_at(&[0xff], 70).unwrap(), "neither empty nor a whole kept file"),
        (
            |file| file.write_all_at(&[1], 1024 + (SIZE >> 13)).unwrap(),
            "block 99328 is set, but the device",
        ),
    ];
    for (damage, words) in cases {
        let files = files();
        let first = files.keeping();
        write(&first, 7);
        drop(first);
        damage(&OpenOptions::new().write(true).open(&files.kept).unwrap());
        let refused = files.open(Some(THIS_BOOT)).err().expect(words).to_string();
        assert!(refused.contains(words), "{refused}");
        // The remedy that the line names.
        fs::remove_file(&files.kept).unwrap();
        assert_eq!(found(&files.keeping()), [0, 0]);
    }
}

#[test]
fn one_kept_file_serves_one_server() {
    let files = files();
    let _first = files.keeping();
    let options = DeviceOptions {
        create: true,
        kept: Some(KeptOptions { path: files.kept.clone(), boot: THIS_BOOT }),
        ..DeviceOptions::default()
    };
    let second = files.cow.with_file_name("second.cow");
    let refused = Device::open(&files.base, &[second], &options).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Busy);
}

#[test]
fn a_device_of_another_size_is_another_one() {
    let files = files();
    let place = |size: Option<u64>| {
        let device_size = size;
        let options = DeviceOptions { create: true, device_size, ..DeviceOptions::default() };
        let device = Device::open(&files.base, std::slice::from_ref(&files.cow), &options).unwrap();
        device.place().unwrap()
    };
    let first = place(None);
    assert_eq!(first, place(None));
    // The same file, begun anew.
    fs::File::create(&files.cow).unwrap();
    assert_ne!(first, place(Some(2 * SIZE)));
}

#[test]
fn a_server_that_takes_over_has_the_cowfile_of_the_kept_bits() {
    let files = files();
    let device = files.keeping();
    write(&device, 1);
    drop(device);
    let takes_over = || {
        let kept = Some(KeptOptions { path: files.kept.clone(), boot: THIS_BOOT });
        let options =
            DeviceOptions { create: true, takes_over: true, kept, ..DeviceOptions::default() };
        Device::open(&files.base, std::slice::from_ref(&files.cow), &options)
    };
    let away = files.cow.with_extension("away");
    fs::rename(&files.cow, &away).unwrap();
    assert!(takes_over().is_err() && !files.cow.exists());
    drop(files.open(None).unwrap());
    let error = takes_over().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    fs::rename(&away, &files.cow).unwrap();
    assert_eq!(found(&takes_over().unwrap()), [1, 1]);
}
