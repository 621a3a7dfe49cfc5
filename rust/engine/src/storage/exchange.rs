//! A file that can be exchanged while it is in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, RwLock};

use rustix::io::Errno;

use super::{FileStorage, Storage};

/// A place that holds a file, or for a while none: requests wait then.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    name: String,
    /// Read-locked by each request for as long as it lasts.
    file: RwLock<Option<FileStorage>>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Requests fail instead of waiting.
    given_up: bool,
}

impl Slot {
    /// A slot with `file` in it, which was opened by `path`.
    pub fn new(file: FileStorage, path: &Path) -> Slot {
        Slot {
            path: path.to_path_buf(),
            name: file.name().to_string(),
            file: RwLock::new(Some(file)),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The path that the file is opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file out, once no request uses it any more.
    pub fn take(&self) -> Option<FileStorage> {
        self.file.write().expect("no panic while locked").take()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.file.read().expect("no panic while locked").is_none()
    }

    /// Puts a file in; requests that waited go on with it.
    pub fn put(&self, file: FileStorage) {
        let mut waiting = self.waiting.lock().expect("no panic while locked");
        *self.file.write().expect("no panic while locked") = Some(file);
        waiting.given_up = false;
        self.changed.notify_all();
    }

    /// Requests that wait for a file, or find none, fail from now on.
    pub fn give_up(&self) {
        self.waiting.lock().expect("no panic while locked").given_up = true;
        self.changed.notify_all();
    }

    fn with<T>(&self, request: impl Fn(&FileStorage) -> io::Result<T>) -> io::Result<T> {
        loop {
            if let Some(file) = &*self.file.read().expect("no panic while locked") {
                return request(file);
            }
            let waiting = self.waiting.lock().expect("no panic while locked");
            // Asked again under the lock that `put` takes: no wake-up is missed.
            if self.is_empty() {
                if waiting.given_up {
                    return Err(Errno::NOMEDIUM.into());
                }
                drop(self.changed.wait(waiting).expect("no panic while locked"));
            }
        }
    }
}

impl Storage for Slot {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> io::Result<u64> {
        self.with(FileStorage::len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let buf = std::cell::RefCell::new(buf);
        self.with(|file| file.read_at(&mut buf.borrow_mut(), offset))
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

    fn share_blocks_with(&self, target: &FileStorage) -> io::Result<()> {
        self.with(|file| file.share_blocks_with(target))
    }

    fn abandon(&self) {
        // Held at the fork by a thread of the parent, it is held for good.
        if let Ok(mut file) = self.file.try_write() {
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
