//! A file without a name, for what must be kept aside.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::storage::unnamed::passing_name;

/// Makes a file in `directory` that goes away with its handle.
pub(super) fn anonymous_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::from(0o600);
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(file.into()),
        // File systems without such files: FAT, and some on the network.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let handle = File::open(directory)?;
    let name = passing_name()?;
    let file = rustix::fs::openat(&handle, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    rustix::fs::unlinkat(&handle, &name, AtFlags::empty())?;
    Ok(file.into())
}

/// Where temporary files go: `$TMPDIR`, else /tmp.
pub(super) fn temporary_directory() -> PathBuf {
    std::env::temp_dir()
}
