//! Which file a path stands for.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Tells files apart whatever their paths: by device and inode number, block
/// devices by the device that they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileIdentity {
    /// A file of any kind but a block device: device and inode number.
    File(u64, u64),
    /// A block device's number.
    BlockDevice(u64),
}

impl FileIdentity {
    /// The identity of what `metadata` describes.
    pub fn of(metadata: &fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            FileIdentity::BlockDevice(metadata.rdev())
        } else {
            FileIdentity::File(metadata.dev(), metadata.ino())
        }
    }

    /// The identity of what lies at `path`, symbolic links followed.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}
