//! The device: a base, the cowfiles on it, and every request that a block
//! device answers.

use std::path::{Path, PathBuf};

use crate::image::ImageOptions;
use crate::layer::ExtentSink;
use crate::Result;

/// How a device is put together.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// How the base is read.
    pub image: ImageOptions,
    /// Open the last cowfile read-only too.
    pub read_only: bool,
    /// Create the last cowfile when it is missing.
    pub create: bool,
    /// Repair the last cowfile when the original driver left it dirty.
    pub repair: bool,
    /// Bytes that a `:memory:` overlay may take; `None`: half of the machine's memory.
    pub memory_limit: Option<u64>,
    /// Size in bytes of the device of a cowfile that is created, when larger than its base.
    pub device_size: Option<u64>,
}

/// A block device: any number of threads may call any method at any time.
pub struct Device {}

impl Device {
    /// Opens `image` with `cows` on top, the last one writable.
    ///
    /// A cow named `:memory:` is an overlay in memory.
    pub fn open(_image: &Path, _cows: &[PathBuf], _options: &DeviceOptions) -> Result<Device> {
        todo!()
    }
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        todo!()
    }
    /// One line for people: image, cowfiles and size.
    pub fn description(&self) -> String {
        todo!()
    }
    /// Fills `buf` from `offset` on.
    pub fn read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        todo!()
    }
    /// Writes `buf` at `offset`; durable only after a [`flush`](Self::flush).
    pub fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        todo!()
    }
    /// Makes a range read as zeros. `fast`: fail with `Unsupported` rather than
    /// write the zeros out.
    pub fn write_zeroes(&self, _offset: u64, _length: u64, _fast: bool) -> Result<()> {
        todo!()
    }
    /// Discards a range, which reads as zeros afterwards.
    pub fn trim(&self, _offset: u64, _length: u64) -> Result<()> {
        todo!()
    }
    /// Returns once everything acknowledged before the call is durable.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
    /// Walks a range: see [`Layer::extents`](crate::Layer::extents).
    pub fn extents(&self, _offset: u64, _length: u64, _sink: ExtentSink<'_>) -> Result<()> {
        todo!()
    }
    /// A hint that a range will be read soon.
    pub fn prefetch(&self, _offset: u64, _length: u64) {}
    /// What has happened so far.
    pub fn status(&self) -> DeviceStatus {
        todo!()
    }
    /// Flushes and closes the cowfile cleanly; later writes are refused. May be repeated.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
}

/// A snapshot of a device's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The image's name.
    pub image: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Reads of the base: requests and bytes.
    pub base_reads: u64,
    /// Bytes read from the base.
    pub base_read_bytes: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks that had to be inflated.
    pub cache_misses: u64,
    /// Bytes that the cache holds.
    pub cache_bytes: u64,
    /// The cowfiles, lowest first.
    pub cowfiles: Vec<CowfileStatus>,
}

/// A cowfile's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CowfileStatus {
    /// Its name.
    pub path: String,
    /// `clean`, `dirty`, `failed`, or `read-only`.
    pub state: String,
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks_used: u64,
    /// Blocks of 1 KiB of the device.
    pub blocks_total: u64,
    /// Bytes of bitmap.
    pub bitmap_bytes: u64,
    /// Bytes that the file takes on its medium.
    pub allocated: u64,
    /// Read requests that it served.
    pub reads: u64,
    /// Write requests (with zeros and discards).
    pub writes: u64,
    /// Flushes that reached the medium.
    pub flushes: u64,
}
