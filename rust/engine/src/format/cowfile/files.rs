//! Cowfiles in the file system: opened under a lock, created whole or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, RenameFlags, CWD};
use rustix::io::Errno;

use super::Access;
use crate::storage::directory::{parent, sync_directory};
use crate::storage::{unnamed, FileStorage, Slot, Storage};
use crate::{Error, ErrorKind, Layer, Result};

/// Opens an existing cowfile and takes its lock: shared for reading, else exclusive.
///
/// # Errors
/// `Busy` when it is in use elsewhere.
pub fn open(path: &Path, access: Access) -> Result<Arc<dyn Storage>> {
    let name = path.display().to_string();
    let opened = match access {
        Access::ReadOnly => FileStorage::open(path),
        Access::Writable => FileStorage::open_writable(path),
    };
    let storage = opened.map_err(|error| Error::io(&name, "cannot open the cowfile", error))?;
    lock(&storage, access)?;
    Ok(Arc::new(Slot::new(storage, path)))
}

fn lock(storage: &FileStorage, access: Access) -> Result<()> {
    let name = storage.name();
    match storage.try_lock(access == Access::Writable) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = "this cowfile is in use; detach the device that has it first \
                           (`cowcloop list` shows it)";
            Err(Error::new(ErrorKind::Busy, name, message))
        }
        Err(error) => Err(Error::io(name, "cannot lock the cowfile", error)),
    }
}

/// Creates a cowfile, mode 0600, for a device of `size` bytes on `base`, and
/// returns it open and locked.
///
/// It gets its name only when it is whole and durable, and never takes the
/// place of a file that is there: the directory is synced too.
///
/// # Errors
/// `Busy` when another process has made it meanwhile, and has it in use.
pub fn create(path: &Path, base: &dyn Layer, size: u64) -> Result<Arc<dyn Storage>> {
    let name = path.display().to_string();
    let failed = |error: io::Error| {
        let message = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "cannot create the cowfile here (name a place where you may write, or :memory:)"
            }
            _ => "cannot create the cowfile",
        };
        Error::io(&name, message, error)
    };
    let (unfinished, storage) = Unfinished::create(path).map_err(failed)?;
    lock(&storage, Access::Writable)?;
    super::create(&storage, base, size)?;
    warn_of_no_holes(path, size).map_err(failed)?;
    match unfinished.publish(&storage, path) {
        // Another process was quicker: its file is the cowfile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return open(path, Access::Writable);
        }
        other => other.map_err(failed)?,
    }
    Ok(Arc::new(Slot::new(storage, path)))
}

/// Makes a new cowfile of an empty file that is open and locked, as the original driver does.
/// It stays the file that it is: its owner, its mode and other names of it.
///
/// # Errors
/// The system's; the file may be a part of a cowfile then.
pub fn begin_if_empty(
    storage: &dyn Storage,
    path: &Path,
    base: &dyn Layer,
    size: u64,
) -> Result<()> {
    let failed = |error| Error::io(storage.name(), "cannot create the cowfile", error);
    if !storage.is_empty().map_err(failed)? {
        return Ok(());
    }
    super::create(storage, base, size)?;
    // The trial needs room of its own beside the file, which may not be there.
    let _ = warn_of_no_holes(path, size);
    Ok(())
}

fn warn_of_no_holes(path: &Path, size: u64) -> io::Result<()> {
    if !keeps_holes(path)? {
        log::warn!(
            "{}: its file system has no holes, so the cowfile takes the space of the whole \
             device, up to {size} bytes, however little is written",
            path.display()
        );
    }
    Ok(())
}

/// Whether the file system of `path` leaves holes where nothing was written:
/// tried with a small file of its own.
fn keeps_holes(path: &Path) -> io::Result<bool> {
    const HOLE: u64 = 1 << 20;
    let (_trial, file) = Unfinished::create(path)?;
    match file.write_all_at(&[0], HOLE - 1) {
        Ok(()) => Ok(file.allocated()? < HOLE),
        // Writing will tell: about room, not about holes.
        Err(_) => Ok(true),
    }
}

/// A file that is not whole: without a name or, where there is no such thing, under one of
/// its own, which is removed unless the file is published.
pub(crate) struct Unfinished {
    directory: File,
    passing: Option<PathBuf>,
}

impl Unfinished {
    /// An empty file, mode 0600, that is to be called `path`.
    pub(crate) fn create(path: &Path) -> io::Result<(Unfinished, FileStorage)> {
        path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = File::open(parent(path))?;
        let (file, passing) = match unnamed::create(&directory, Mode::from(0o600)) {
            Some(file) => (FileStorage::from_file(file, path)?, None),
            None => {
                let passing = parent(path).join(unnamed::passing_name()?);
                (FileStorage::create_new(&passing)?.named(path), Some(passing))
            }
        };
        Ok((Unfinished { directory, passing }, file))
    }

    /// Gives the file its name, durably, unless there is one of that name.
    pub(crate) fn publish(&self, file: &FileStorage, path: &Path) -> io::Result<()> {
        match &self.passing {
            None => {
                let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
                file.give_name(&self.directory, Path::new(name))?;
            }
            Some(passing) => self.rename(passing, path)?,
        }
        sync_directory(&self.directory)
    }

    fn rename(&self, passing: &Path, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, passing, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                // A file system without NOREPLACE. A hard link does not replace
                // either; Drop removes the first name.
                match std::fs::hard_link(passing, path) {
                    Err(error) if has_no_links(&error) => publish_over_empty(passing, path),
                    other => other,
                }
            }
            other => Ok(other?),
        }
    }
}

/// Takes the name with an empty file first, so that no other file is replaced.
fn publish_over_empty(passing: &Path, path: &Path) -> io::Result<()> {
    FileStorage::create_new(path)?;
    std::fs::rename(passing, path).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })
}

/// Whether the error is that of a file system without hard links: FAT over FUSE, say.
fn has_no_links(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(passing) = &self.passing {
            // Published: the name is gone, and this says so.
            let _ = std::fs::remove_file(passing);
        }
    }
}
