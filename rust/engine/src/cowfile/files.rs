//! Cowfiles in the file system: opened under a lock, created whole or not at all.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{RenameFlags, CWD};
use rustix::io::Errno;

use super::{Access, Cowfile};
use crate::storage::directory::{parent, sync_name};
use crate::storage::{FileStorage, Slot, Storage};
use crate::{Error, ErrorKind, Layer, Result};

/// Opens an existing cowfile and takes its lock: shared for reading, else exclusive.
///
/// # Errors
/// `Busy` when somebody else has it in use.
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
/// `Busy` when somebody else has made it meanwhile, and has it in use.
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
    let unfinished = Unfinished::new(path).map_err(failed)?;
    let storage = FileStorage::create_new(&unfinished.path).map_err(failed)?.named(path);
    lock(&storage, Access::Writable)?;
    Cowfile::create(&storage, base, size)?;
    if !keeps_holes(path).map_err(failed)? {
        log::warn!(
            "{name}: its file system has no holes, so the cowfile takes the space of the whole \
             device, up to {size} bytes, however little is written"
        );
    }
    match unfinished.publish(path) {
        // Somebody else was quicker: theirs is the cowfile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return open(path, Access::Writable);
        }
        other => other.map_err(failed)?,
    }
    sync_name(path).map_err(failed)?;
    Ok(Arc::new(Slot::new(storage, path)))
}

/// Whether the file system of `path` leaves holes where nothing was written:
/// tried with a small file of its own.
fn keeps_holes(path: &Path) -> io::Result<bool> {
    const HOLE: u64 = 1 << 20;
    let trial = Unfinished::new(path)?;
    let file = FileStorage::create_new(&trial.path)?;
    match file.write_all_at(&[0], HOLE - 1) {
        Ok(()) => Ok(file.allocated()? < HOLE),
        // Writing will tell: about room, not about holes.
        Err(_) => Ok(true),
    }
}

/// A file under a name of its own, removed unless it is published.
pub(super) struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// A name beside `path`; no file is made yet.
    pub(super) fn new(path: &Path) -> io::Result<Unfinished> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let file_name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = OsString::from(".");
        hidden.push(file_name);
        hidden.push(format!(".{:016x}.new", u64::from_le_bytes(random)));
        Ok(Unfinished { path: parent(path).join(hidden) })
    }

    /// The name until then.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, unless there is one of that name.
    pub(super) fn publish(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                // A file system without NOREPLACE. A hard link does not replace
                // either; Drop removes the first name.
                match std::fs::hard_link(&self.path, path) {
                    Err(error) if has_no_links(&error) => self.publish_over_empty(path),
                    other => other,
                }
            }
            other => Ok(other?),
        }
    }

    /// Takes the name with an empty file first, so that nobody else's is replaced.
    fn publish_over_empty(&self, path: &Path) -> io::Result<()> {
        FileStorage::create_new(path)?;
        std::fs::rename(&self.path, path).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }
}

/// Whether the error is that of a file system without hard links: FAT over FUSE, say.
fn has_no_links(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Published: the name is gone, and this says so.
        let _ = std::fs::remove_file(&self.path);
    }
}
