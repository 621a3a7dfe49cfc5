//! Files without a name, until they are whole: nothing is left of one, whatever ends the process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, CWD};

/// A file without a name, where the file system has such files and lets this process
/// give them one later, which is tried with another one.
pub(crate) fn create(directory: &File, mode: Mode) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    let make = || rustix::fs::openat(directory, ".", flags, mode);
    let trial = make().ok()?.into();
    let name = passing_name().ok()?;
    give_name(&trial, directory, Path::new(&name)).ok()?;
    rustix::fs::unlinkat(directory, &name, AtFlags::empty()).ok()?;
    Some(make().ok()?.into())
}

/// Gives a file that has no name its first one, where none may be yet.
pub(crate) fn give_name(file: &File, directory: &File, name: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// A name that cannot be foreseen, for a file that is not whole.
pub(crate) fn passing_name() -> io::Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(".cowcloop-{digits}.part"))
}
