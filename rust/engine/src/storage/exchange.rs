//! A file that can be exchanged while it is in use.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use rustix::io::Errno;

use super::{FileStorage, Storage};
use crate::error::MediumOut;

/// A place that holds a file, or for a while none: requests fail with [`MediumOut`] then.
#[derive(Debug)]
pub(crate) struct Exchange {
    path: PathBuf,
    name: String,
    /// Read-locked by each request while it runs.
    file: RwLock<Option<FileStorage>>,
}

impl Exchange {
    /// An exchange with `file` in it, which was opened as `path`.
    pub(crate) fn new(file: FileStorage, path: &Path) -> Exchange {
        let name = file.name().to_string();
        Exchange { path: path.to_path_buf(), name, file: RwLock::new(Some(file)) }
    }

    /// The path under which the file is opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file out, once no request uses it any more.
    pub(crate) fn take(&self) -> Option<FileStorage> {
        self.file.write().take()
    }

    /// Puts a file in.
    pub(crate) fn put(&self, file: FileStorage) {
        *self.file.write() = Some(file);
    }

    fn with<T>(&self, request: impl FnOnce(&FileStorage) -> io::Result<T>) -> io::Result<T> {
        match &*self.file.read() {
            Some(file) => request(file),
            None => Err(io::Error::other(MediumOut)),
        }
    }
}

impl Storage for Exchange {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> io::Result<u64> {
        self.with(FileStorage::len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|file| file.read_at(buf, offset))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.with(|file| file.write_all_at(buf, offset))
    }

    fn can_be_long(&self, length: u64) -> io::Result<bool> {
        self.with(|file| file.can_be_long(length))
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(|file| file.punch_hole(offset, length))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(FileStorage::sync)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.with(FileStorage::drop_cache)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.with(|file| file.next_data(offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.with(|file| file.next_hole(offset))
    }

    fn allocated(&self) -> io::Result<u64> {
        self.with(FileStorage::allocated)
    }

    fn available(&self) -> io::Result<Option<u64>> {
        self.with(FileStorage::available)
    }

    fn has_name(&self) -> io::Result<bool> {
        self.with(FileStorage::has_name)
    }

    fn file_id(&self) -> io::Result<Option<(u64, u64)>> {
        self.with(FileStorage::file_id)
    }

    fn share_blocks_with(&self, target: &FileStorage) -> io::Result<()> {
        self.with(|file| file.share_blocks_with(target))
    }

    fn abandon(&self) {
        // Held at the fork by a thread of the parent, it is held for good.
        if let Some(mut file) = self.file.try_write() {
            drop(file.take());
        }
    }

    fn reopen_read_only(&self) -> io::Result<()> {
        let fresh = FileStorage::open(&self.path)?;
        self.with(|file| {
            if fresh.file_id()? != file.file_id()? {
                return Err(io::Error::other("another file has taken its place"));
            }
            // The old descriptor shares its lock before it goes: no writer gets in between.
            if file.try_lock(false)? && fresh.try_lock(false)? {
                Ok(())
            } else {
                Err(Errno::WOULDBLOCK.into())
            }
        })?;
        self.put(fresh);
        Ok(())
    }
}
