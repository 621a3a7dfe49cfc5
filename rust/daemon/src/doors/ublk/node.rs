//! The files of a device below `/dev`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode, OFlags};

/// Where /dev is not the kernel's own, a program makes its files a moment later, and it may be a
/// program that gives them to the user whose device it is.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// From `include/uapi/linux/fs.h`: write back what is in memory, of a file system on it too.
const BLKFLSBUF: libc::Ioctl = 0x1261;

/// The file by which a device's server is reached.
pub fn control_file(id: u32) -> PathBuf {
    format!("/dev/ublkc{id}").into()
}

/// The block device.
pub fn block_device(id: u32) -> PathBuf {
    format!("/dev/ublkb{id}").into()
}

/// The size of a block device in sectors; `None` where there is no sysfs.
pub fn sectors(id: u32) -> Option<u64> {
    let size = std::fs::read_to_string(format!("/sys/block/ublkb{id}/size")).ok()?;
    size.trim().parse().ok()
}

/// Opens a file as soon as it is there, and may be opened.
pub fn open(path: &Path, write: bool) -> io::Result<File> {
    let end = Instant::now() + PATIENCE;
    loop {
        match OpenOptions::new().read(true).write(write).open(path) {
            Err(error) if may_come(error.kind()) && Instant::now() < end => sleep(PAUSE),
            done => return done,
        }
    }
}

fn may_come(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// The folder with the files. A server of the root file system keeps it open: a system that leaves
/// its initramfs may take away what is mounted on `/dev` in the server's own root.
pub fn folder() -> io::Result<OwnedFd> {
    Ok(fs::open("/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes back what the kernel holds in memory for a block device in the folder.
pub fn write_back(folder: &OwnedFd, id: u32) -> io::Result<()> {
    let name = format!("ublkb{id}");
    let device = fs::openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let device = File::from(device);
    // SAFETY: the request takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // It is root's request; a file system is then left to the kernel.
        Some(libc::EACCES | libc::EPERM) => device.sync_all(),
        _ => Err(error),
    }
}
