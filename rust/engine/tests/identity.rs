//! By what a cowfile knows its base.

use std::fs;

use cowcloop_engine::codec::Codec;
use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::jobs::{create, CreateOptions, Format, Input, Output, Replace};
use cowcloop_engine::progress::NoProgress;
use cowcloop_engine::ErrorKind;

/// Two copies of a cowfile go on apart, by as many sessions each: what was made for one does
/// not fit the other. It fits the one that it was made for, and another copy of that.
#[test]
fn copies_that_go_on_apart_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let options = DeviceOptions { create: true, ..DeviceOptions::default() };
    let session = |cows: &[&str], byte: u8| {
        let cows: Vec<_> = cows.iter().map(|name| path(name)).collect();
        let device = Device::open(&path("base"), &cows, &options)?;
        device.write_at(&[byte; 1024], 0)?;
        device.close()
    };
    fs::write(path("base"), vec![7; 1 << 20]).unwrap();
    session(&["one.cow"], 1).unwrap();
    fs::copy(path("one.cow"), path("two.cow")).unwrap();
    session(&["one.cow"], 2).unwrap();
    session(&["two.cow"], 3).unwrap();
    session(&["one.cow", "upper.cow"], 4).unwrap();
    let error = session(&["two.cow", "upper.cow"], 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    fs::copy(path("one.cow"), path("copy.cow")).unwrap();
    session(&["copy.cow", "upper.cow"], 6).unwrap();
}

/// Two images that differ in one byte, and in no length: index and size are equal.
#[test]
fn an_image_of_the_same_lengths_is_another_base() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let options =
        CreateOptions { format: Format::V4, codec: Codec::Stored, ..CreateOptions::default() };
    for (name, byte) in [("one", 1), ("two", 2)] {
        let mut bytes = vec![7; 1 << 20];
        bytes[900_000] = byte;
        fs::write(path("raw"), bytes).unwrap();
        let output = Output::open(&path(name), &[], Replace::Plain).unwrap();
        create(&Input::open(&path("raw")).unwrap(), output, &options, &NoProgress).unwrap();
    }
    let (one, two) = (fs::read(path("one")).unwrap(), fs::read(path("two")).unwrap());
    assert_eq!(one.len(), two.len());
    assert_eq!(one[128..500], two[128..500], "block size, count and index");

    let options = DeviceOptions { create: true, ..DeviceOptions::default() };
    let cows = [path("my.cow")];
    drop(Device::open(&path("one"), &cows, &options).unwrap());
    assert!(Device::open(&path("one"), &cows, &options).is_ok());
    let error = Device::open(&path("two"), &cows, &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
}
