//! The files and devices that a block device stands for, so that a lock of one locks the others.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor, OFlags};

/// Device mapper on device mapper on loop devices: no system is stacked deeper.
const DEEPEST: u32 = 8;

/// What lies beneath an open block device, opened for reading: the disk of a partition, the
/// devices of a mapped one, the file of a loop device. Whatever cannot be found or opened
/// is left out.
pub(super) fn files(device: &File) -> Vec<File> {
    let mut found = Vec::new();
    add(device, DEEPEST, &mut found);
    found
}

fn add(device: &File, depth: u32, found: &mut Vec<File>) {
    let Ok(metadata) = device.metadata() else { return };
    if !metadata.file_type().is_block_device() || depth == 0 {
        return;
    }
    let number = metadata.rdev();
    let folder = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
    for path in beneath(&folder) {
        let flags = OFlags::NONBLOCK.bits() as i32;
        if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) {
            add(&file, depth - 1, found);
            found.push(file);
        }
    }
}

/// Found in the device's folder in sysfs.
fn beneath(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Ok(mut file) = fs::read(folder.join("loop/backing_file")) {
        if file.last() == Some(&b'\n') {
            file.pop();
        }
        paths.push(PathBuf::from(std::ffi::OsString::from_vec(file)));
    }
    let mut names = Vec::new();
    if folder.join("partition").exists() {
        let disk = fs::canonicalize(folder).ok();
        names.extend(disk.iter().filter_map(|path| path.parent()?.file_name()).map(Into::into));
    }
    for slave in fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten() {
        names.push(slave.file_name());
    }
    // The kernel writes an exclamation mark where the name of a device has a slash.
    let device = |name: std::ffi::OsString| {
        let bytes = name.into_vec().into_iter().map(|byte| if byte == b'!' { b'/' } else { byte });
        Path::new("/dev").join(std::ffi::OsString::from_vec(bytes.collect()))
    };
    paths.extend(names.into_iter().map(device));
    paths
}
