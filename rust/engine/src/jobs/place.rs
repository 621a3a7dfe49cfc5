//! The place of an output: the files that may lie there, and what happens to them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::replace::Replace;
use crate::format::cowfile::head::is_cowfile;
use crate::storage::directory::parent;
use crate::storage::publish::{self, Unpublished};
use crate::storage::{FileStorage, Storage};

/// The reason why a file cannot take its place.
#[derive(Debug)]
pub(super) enum Refused {
    /// A cowfile that lies there is in use.
    InUse,
    /// The file there is of a kind that would be lost.
    Kept(&'static str),
    /// The system's reason.
    System(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::System(error)
    }
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Refused::System(error.into())
    }
}

/// A file that is not yet in its place.
#[derive(Debug)]
pub(super) struct Pending {
    unpublished: Unpublished,
    place: PathBuf,
    /// The mode that the file gets in the end; `None`: the mode that it was made with.
    mode: Option<Mode>,
    /// The files that may be replaced.
    replace: Replace,
    /// The cowfile that is replaced, locked: no other process begins to use it meanwhile.
    held: Option<File>,
}

impl Pending {
    /// A file that is to get the name `place`, where one of the metadata `replaced` may be;
    /// else it gets `mode`, as far as the process's umask lets it.
    ///
    /// # Errors
    /// [`Refused`] when that is a cowfile in use, or what may not be replaced.
    pub(crate) fn create(
        place: &Path,
        replaced: Option<&fs::Metadata>,
        replace: Replace,
        mode: u32,
    ) -> Result<Self, Refused> {
        let directory = File::open(parent(place))?;
        let held = match place.file_name() {
            Some(name) => hold(&directory, Path::new(name), replace)?,
            None => None,
        };
        // A file that replaces a private one is private from its first byte on.
        let mode = Mode::from(if replaced.is_some() { 0o600 } else { mode });
        let unpublished = Unpublished::create(place, mode)?;
        if let Some(old) = replaced {
            // For root, to whom the file would belong otherwise; other users may not.
            let (owner, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
            let _ = rustix::fs::fchown(unpublished.file(), Some(owner), Some(group));
        }
        let mode = replaced.map(|metadata| Mode::from(metadata.mode() & 0o777));
        Ok(Pending { unpublished, place: place.to_path_buf(), mode, replace, held })
    }

    pub(crate) fn file(&self) -> &File {
        self.unpublished.file()
    }

    /// The directory that the file is made in.
    pub(crate) fn directory(&self) -> &Path {
        parent(&self.place)
    }

    pub(crate) fn make_durable(&self) -> io::Result<()> {
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(self.file(), mode)?;
        }
        self.file().sync_all()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// As [`create`](Self::create): another file may have got the name meanwhile.
    pub(crate) fn settle(self) -> Result<(), Refused> {
        let Pending { unpublished, replace, mut held, .. } = self;
        unpublished.publish_over(|directory, name| {
            if !is_still(held.as_ref(), directory, name)? {
                held = hold(directory, name, replace)?;
            }
            Ok(())
        })
    }
}

/// Whether the name still refers to the file that is held.
fn is_still(held: Option<&File>, directory: &File, name: &Path) -> io::Result<bool> {
    let held = held.map(File::metadata).transpose()?;
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    Ok(held
        .zip(found.ok())
        .is_some_and(|(held, found)| (held.dev(), held.ino()) == (found.st_dev, found.st_ino)))
}

/// Gives the file `whole` the name `place`, in the same directory, in place of the file
/// that has it.
pub(super) fn take_place(whole: &Path, place: &Path) -> Result<(), Refused> {
    let directory = File::open(parent(place))?;
    let _held = hold(&directory, place, Replace::Anything)?;
    Ok(publish::rename_over(whole, place)?)
}

/// Takes the lock of the cowfile that a name stands for, so that no other process begins to use it.
/// `None`: there is nothing, or no cowfile.
fn hold(directory: &File, name: &Path, replace: Replace) -> Result<Option<File>, Refused> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ACCESS) => {
            let message = "it may not be read, so it might be a cowfile in use";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message).into());
        }
        Err(error) => return Err(error.into()),
    };
    let storage = FileStorage::from_file(file, name)?;
    let mut magic = [0; 4];
    let read = storage.read_at(&mut magic, 0).unwrap_or(0);
    if is_cowfile(&magic[..read]) {
        lock(&storage)?;
    }
    if let Some(kind) = replace.refuses(&storage) {
        return Err(Refused::Kept(kind));
    }
    Ok(is_cowfile(&magic[..read]).then(|| storage.into_file()))
}

/// Takes the lock of a cowfile. Over NFS only a process that may write gets an exclusive
/// lock; a shared one meets a server's as well.
fn lock(cowfile: &FileStorage) -> Result<(), Refused> {
    for exclusive in [true, false] {
        match cowfile.try_lock(exclusive) {
            Ok(true) => break,
            Ok(false) => return Err(Refused::InUse),
            Err(_) => {}
        }
    }
    Ok(())
}
