use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::layer::ExtentSink;
use crate::{Error, ErrorKind, Extent, ExtentKind, Layer};

/// A device in memory that knows which of its blocks are zeros, and has some
/// that cannot be read.
struct Device {
    data: Vec<u8>,
    block_size: usize,
    damaged: Vec<usize>,
}

impl Device {
    fn new(data: Vec<u8>, block_size: usize) -> Self {
        Device { data, block_size, damaged: Vec::new() }
    }
}

impl Layer for Device {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let start = offset as usize;
        let end = start + buf.len();
        let blocks = start / self.block_size..end.div_ceil(self.block_size);
        if let Some(block) = self.damaged.iter().filter(|block| blocks.contains(block)).min() {
            return Err(Error::new(ErrorKind::Damaged, "device", format!("block {block}")));
        }
        buf.copy_from_slice(&self.data[start..end]);
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let mut at = offset;
        while at < offset + length {
            let block = at / self.block_size as u64 * self.block_size as u64;
            let end = (block + self.block_size as u64).min(offset + length);
            let zero = self.data[at as usize..end as usize].iter().all(|byte| *byte == 0);
            let kind = if zero { ExtentKind::Zero } else { ExtentKind::Data };
            if sink(Extent { offset: at, length: end - at, kind }) == ControlFlow::Break(()) {
                break;
            }
            at = end;
        }
        Ok(())
    }

    fn read_unit(&self) -> u64 {
        self.block_size as u64
    }

    fn identity(&self) -> Result<[u8; 32]> {
        Ok([0; 32])
    }
}

fn options(threads: usize) -> ExtractOptions {
    ExtractOptions { threads, ..ExtractOptions::default() }
}

/// Data with zeros of every length, in place and out of step with blocks.
fn holey(length: usize) -> Vec<u8> {
    let mut data = sample(length, 1);
    for (start, end) in [(0, 5000), (70_000, 300_000), (1 << 20, 3 << 20), (3_500_001, 3_600_001)] {
        data[start.min(length)..end.min(length)].fill(0);
    }
    data
}

#[test]
fn the_content_arrives_whatever_the_block_size() {
    let directory = directory();
    let path = directory.path().join("out");
    for block_size in [512, 1536, 65536, 99_840, 2 << 20] {
        for length in [1, 4096, 65537, 4_000_001] {
            let device = Device::new(holey(length), block_size);
            for threads in [1, 3] {
                let count = Count::default();
                let summary = extract(&device, open(&path), &options(threads), &count).unwrap();
                assert!(std::fs::read(&path).unwrap() == device.data, "{block_size} {length}");
                assert_eq!(summary.size, length as u64);
                assert_eq!(count.total.into_inner(), length as u64);
                assert_eq!(count.done.into_inner(), length as u64);
            }
            let (output, reader) = pipe_out(&directory);
            extract(&device, output, &options(2), &NoProgress).unwrap();
            assert!(reader.join().unwrap() == device.data, "{block_size} {length}");
        }
    }
    assert_eq!(names(directory.path()), ["out", "pipe-out"]);
}

#[test]
fn zeros_are_holes() {
    let directory = directory();
    let path = directory.path().join("out");
    let mut data = vec![0; 8 << 20];
    data[100_000..110_000].fill(1);
    // Zeros that the device does not know of.
    let device = Device::new(data, 8 << 20);
    let summary = extract(&device, open(&path), &options(0), &NoProgress).unwrap();
    let written = (8 << 20) - summary.holes;
    assert_eq!(written, 110_592 - 98_304);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 8 << 20);
    assert!(metadata.blocks() * 512 < 256 << 10, "{} blocks", metadata.blocks());

    let full = ExtractOptions { sparse: false, ..options(0) };
    let summary = extract(&device, open(&path), &full, &NoProgress).unwrap();
    assert_eq!(summary.holes, 0);
    assert!(std::fs::read(&path).unwrap() == device.data);
}

#[test]
fn the_first_damaged_block_is_told_and_nothing_is_left() {
    let directory = directory();
    let mut device = Device::new(sample(6 << 20, 2), 65536);
    device.damaged = vec![50, 49, 90];
    for threads in [1, 4] {
        let output = open(&directory.path().join("out"));
        let error = extract(&device, output, &options(threads), &NoProgress).unwrap_err();
        assert_eq!(error.to_string(), "device: block 49");
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn a_cancelled_job_leaves_the_old_file() {
    let directory = directory();
    let path = write(&directory, "out", b"old");
    let device = Device::new(sample(8 << 20, 3), 65536);
    let error = extract(&device, open(&path), &options(2), &StopAfter::new(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(directory.path()), ["out"]);
}

#[test]
fn a_full_disk_is_told() {
    let device = Device::new(sample(1 << 20, 4), 65536);
    let error =
        extract(&device, open(Path::new("/dev/full")), &options(2), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    extract(&device, open(Path::new("/dev/null")), &options(2), &NoProgress).unwrap();
}
