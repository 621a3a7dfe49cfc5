//! A file that appears under its name when it is whole.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid, CWD};
use rustix::io::Errno;

use crate::storage::directory::{parent, sync_directory};

/// A file that is not yet in its place.
#[derive(Debug)]
pub(super) struct Pending {
    pub directory: PathBuf,
    handle: File,
    /// The passing name that the file has, if any. While it has none nothing is left of
    /// it, whatever ends this process.
    temporary: Option<String>,
    place: PathBuf,
    /// Mode that the file gets in the end; `None`: that which it was made with.
    mode: Option<Mode>,
    /// The file that is replaced, locked: nobody begins to use it meanwhile.
    replaced: Option<File>,
}

impl Pending {
    /// A file that is to get the name `place`, where one of the metadata `replaced` may be.
    ///
    /// # Errors
    /// `ResourceBusy` when that one is locked: a cowfile in use.
    pub fn create(place: &Path, replaced: Option<&fs::Metadata>) -> io::Result<(File, Self)> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let file_name = place.file_name().ok_or_else(no_name)?;
        let directory = parent(place).to_path_buf();
        let handle = File::open(&directory)?;
        let held = hold(&handle, Path::new(file_name))?;
        // What replaces a private file is private from its first byte on.
        let mode = Mode::from(if replaced.is_some() { 0o600 } else { 0o666 });
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let (file, temporary) = match Self::unnamed(&handle, flags, mode) {
            Some(file) => (file, None),
            None => {
                let name = temporary_name()?;
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                (rustix::fs::openat(&handle, &name, flags, mode)?.into(), Some(name))
            }
        };
        let pending = Pending {
            directory,
            handle,
            temporary,
            place: PathBuf::from(file_name),
            mode: replaced.map(|metadata| Mode::from(metadata.mode() & 0o777)),
            replaced: held,
        };
        if let Some(old) = replaced {
            // For root, whom the file would belong to otherwise; nobody else may.
            let (owner, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
            let _ = rustix::fs::fchown(&file, Some(owner), Some(group));
        }
        Ok((file, pending))
    }

    /// A file without a name, where the file system has such files and lets this process
    /// give them one later, which is tried with another one.
    fn unnamed(directory: &File, flags: OFlags, mode: Mode) -> Option<File> {
        let make = || rustix::fs::openat(directory, ".", flags | OFlags::TMPFILE, mode);
        let trial = make().ok()?.into();
        let name = temporary_name().ok()?;
        give_name(&trial, directory, Path::new(&name)).ok()?;
        rustix::fs::unlinkat(directory, &name, AtFlags::empty()).ok()?;
        Some(make().ok()?.into())
    }

    pub fn make_durable(&self, file: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(file, mode)?;
        }
        file.sync_all()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// As [`create`](Self::create): another file may have got the name meanwhile.
    pub fn settle(mut self, file: &File) -> io::Result<()> {
        if self.temporary.is_none() {
            match give_name(file, &self.handle, &self.place) {
                // By a name of its own first: only a rename takes the place of a file.
                Err(Errno::EXIST) => {
                    let name = temporary_name()?;
                    give_name(file, &self.handle, Path::new(&name))?;
                    self.temporary = Some(name);
                }
                other => other?,
            }
        }
        if let Some(name) = &self.temporary {
            // Let go of first: it may be the one that is held already.
            self.replaced = None;
            let _held = hold(&self.handle, &self.place)?;
            rustix::fs::renameat(&self.handle, name, &self.handle, &self.place)?;
            self.temporary = None;
        }
        // Where a name is made durable with what it is the name of.
        let durable = file.sync_all().and_then(|()| sync_directory(&self.handle));
        durable.map_err(|error| {
            let message = format!("it is in its place, but may not stay there: {error}");
            io::Error::new(error.kind(), message)
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = rustix::fs::unlinkat(&self.handle, name, AtFlags::empty());
        }
    }
}

/// Takes the lock of the file that a name stands for, so that nobody begins to use it.
/// `None`: there is none, or it cannot be locked, and then nobody can use it either.
fn hold(directory: &File, name: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) else {
        return Ok(None);
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::ResourceBusy.into()),
        _ => Ok(Some(file.into())),
    }
}

/// Gives a file that has no name its first one, where none may be yet.
fn give_name(file: &File, directory: &File, name: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// A name that nobody can foresee.
pub(super) fn temporary_name() -> io::Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(".cowcloop-{digits}.part"))
}
