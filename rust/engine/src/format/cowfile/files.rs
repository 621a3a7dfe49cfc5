//! Cowfiles in the file system: opened under a lock, created whole or not at all.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Mode;

use super::Access;
use crate::storage::directory::sync_name;
use crate::storage::publish::Unpublished;
use crate::storage::{Exchange, FileStorage, Storage};
use crate::{Error, ErrorKind, Layer, Remedy, Result};

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
    Ok(Arc::new(Exchange::new(storage, path)))
}

/// An empty file, mode 0600, that is to be called `path` once it is a whole cowfile.
pub(crate) fn begin(path: &Path) -> io::Result<(Unpublished, FileStorage)> {
    let unpublished = Unpublished::create(path, Mode::from(0o600))?;
    let storage = unpublished.storage(path)?;
    Ok((unpublished, storage))
}

fn lock(storage: &FileStorage, access: Access) -> Result<()> {
    let name = storage.name();
    match storage.try_lock(access == Access::Writable) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let error = Error::new(ErrorKind::Busy, name, "this cowfile is in use");
            Err(error.with_remedy(Remedy::Detach))
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
        let forbidden = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        let forbidden = forbidden.contains(&error.kind());
        let error = Error::io(&name, "cannot create the cowfile", error);
        if forbidden {
            error.with_remedy(Remedy::KeepElsewhere)
        } else {
            error
        }
    };
    let (unpublished, storage) = begin(path).map_err(failed)?;
    lock(&storage, Access::Writable)?;
    super::create(&storage, base, size)?;
    warn_of_no_holes(path, size).map_err(failed)?;
    match unpublished.publish_new() {
        // Another process was quicker: its file is the cowfile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return open(path, Access::Writable);
        }
        other => other.map_err(failed)?,
    }
    Ok(Arc::new(Exchange::new(storage, path)))
}

/// Removes a cowfile that is not in use, and what was written to it; nothing where there is none.
/// Durable on return.
///
/// # Errors
/// `Busy` when it is in use, or the system's.
pub fn remove(path: &Path) -> Result<()> {
    match FileStorage::open_writable(path) {
        Ok(storage) => {
            // Held until the name is gone.
            lock(&storage, Access::Writable)?;
            remove_own(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(path.display().to_string(), "cannot open the cowfile", error)),
    }
}

/// Removes a cowfile that the caller has in use; nothing where there is none.
///
/// # Errors
/// The system's.
pub fn remove_own(path: &Path) -> Result<()> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    removed
        .and_then(|()| sync_name(path))
        .map_err(|error| Error::io(path.display().to_string(), "cannot remove the cowfile", error))
}

/// Makes a new cowfile of an empty file that is open and locked, as the original driver
/// does. The file keeps its owner, its mode and its other names.
///
/// # Errors
/// The system's; the file may be a part of a cowfile then.
pub(crate) fn begin_if_empty(
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
    let (_trial, file) = begin(path)?;
    match file.write_all_at(&[0], HOLE - 1) {
        Ok(()) => Ok(file.allocated()? < HOLE),
        // No room for the trial: the first write to the cowfile will say so.
        Err(_) => Ok(true),
    }
}
