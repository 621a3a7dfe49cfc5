//! The directories that files are named in.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// The directory in which `path` names something.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the name of a file durable.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    sync_directory(&File::open(parent(path))?)
}

/// Makes the names in an open directory durable.
pub(crate) fn sync_directory(directory: &File) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        // Some network and FUSE file systems cannot do this; their names are durable at
        // once.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}
