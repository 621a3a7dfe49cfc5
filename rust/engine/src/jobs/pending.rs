//! A file that appears under its name when it is whole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::replace::Replace;
use crate::format::cowfile::head::is_cowfile;
use crate::storage::directory::{parent, sync_directory};
use crate::storage::{unnamed, FileStorage, Storage};

/// Why the place of a file cannot be had.
#[derive(Debug)]
pub(super) enum Refused {
    /// A cowfile that lies there is in use.
    InUse,
    /// What lies there, by its kind, would be lost.
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
    pub directory: PathBuf,
    handle: File,
    /// The passing name that the file has, if any. While it has none nothing is left of
    /// it, whatever ends this process.
    temporary: Option<String>,
    place: PathBuf,
    /// Mode that the file gets in the end; `None`: that which it was made with.
    mode: Option<Mode>,
    /// What may be replaced.
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
    pub fn create(
        place: &Path,
        replaced: Option<&fs::Metadata>,
        replace: Replace,
        mode: u32,
    ) -> Result<(File, Self), Refused> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let file_name = place.file_name().ok_or_else(no_name)?;
        let directory = parent(place).to_path_buf();
        let handle = File::open(&directory)?;
        let held = hold(&handle, Path::new(file_name), replace)?;
        // What replaces a private file is private from its first byte on.
        let mode = Mode::from(if replaced.is_some() { 0o600 } else { mode });
        let (file, temporary) = match unnamed::create(&handle, mode) {
            Some(file) => (file, None),
            None => {
                let name = unnamed::passing_name()?;
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
                (rustix::fs::openat(&handle, &name, flags, mode)?.into(), Some(name))
            }
        };
        let pending = Pending {
            directory,
            handle,
            temporary,
            place: PathBuf::from(file_name),
            mode: replaced.map(|metadata| Mode::from(metadata.mode() & 0o777)),
            replace,
            held,
        };
        if let Some(old) = replaced {
            // For root, to whom the file would belong otherwise; other users may not.
            let (owner, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
            let _ = rustix::fs::fchown(&file, Some(owner), Some(group));
        }
        Ok((file, pending))
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
    pub fn settle(mut self, file: &File) -> Result<(), Refused> {
        if self.temporary.is_none() {
            match unnamed::give_name(file, &self.handle, &self.place) {
                // By a name of its own first: only a rename takes the place of a file.
                Err(Errno::EXIST) => {
                    let name = unnamed::passing_name()?;
                    unnamed::give_name(file, &self.handle, Path::new(&name))?;
                    self.temporary = Some(name);
                }
                other => other?,
            }
        }
        if let Some(name) = &self.temporary {
            let held = self.held.as_ref().map(fs::File::metadata).transpose()?;
            let found = rustix::fs::statat(&self.handle, &self.place, AtFlags::SYMLINK_NOFOLLOW);
            let same = held.zip(found.ok()).is_some_and(|(held, found)| {
                (held.dev(), held.ino()) == (found.st_dev, found.st_ino)
            });
            if !same {
                self.held = hold(&self.handle, &self.place, self.replace)?;
            }
            rustix::fs::renameat(&self.handle, name, &self.handle, &self.place)?;
            self.temporary = None;
        }
        // Where a name is made durable with what it is the name of.
        let durable = file.sync_all().and_then(|()| sync_directory(&self.handle));
        durable.map_err(|error| {
            let message = format!("it is in its place, but may not stay there: {error}");
            io::Error::new(error.kind(), message).into()
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

/// Gives the file `whole` the name `place`, in the same directory, instead of what has it now.
pub(super) fn take_place(whole: &Path, place: &Path) -> Result<(), Refused> {
    let directory = File::open(parent(place))?;
    let _held = hold(&directory, place, Replace::Anything)?;
    fs::rename(whole, place)?;
    Ok(sync_directory(&directory)?)
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
