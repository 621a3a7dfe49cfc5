//! Files and block devices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{beneath, Storage};

/// A file or block device on this machine.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    name: String,
    /// The locked devices and files beneath a block device.
    beneath: OnceLock<Vec<File>>,
}

impl FileStorage {
    /// Opens a file or block device for reading only.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, OpenOptions::new().read(true))
    }

    /// Opens an existing file for reading and writing.
    pub(crate) fn open_writable(path: &Path) -> io::Result<Self> {
        Self::with(path, OpenOptions::new().read(true).write(true))
    }

    /// Opens an existing file for reading and writing; a block device only if it is not
    /// mounted or claimed otherwise (`ResourceBusy`).
    pub(crate) fn open_alone(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK | OFlags::EXCL;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(flags.bits() as i32).open(path)?;
        Self::from_file(file, path)
    }

    /// Creates a file, mode 0600, that must not exist before.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        Self::with(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))
    }

    fn with(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        // NONBLOCK: opening a FIFO must fail, not wait for its other end.
        let file = options.custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        Self::from_file(file, path)
    }

    /// Takes over an open file or block device, called `path` in messages.
    pub fn from_file(file: File, path: &Path) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        }
        Ok(FileStorage { file, name: path.display().to_string(), beneath: OnceLock::new() })
    }

    /// The open file.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Takes the file's advisory lock, exclusive or shared, until it is closed; for a block
    /// device also the locks of what it stands for. `false`: another holder stands in the
    /// way.
    pub(crate) fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        let operation = if exclusive {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match rustix::fs::flock(&self.file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let beneath = self.beneath.get_or_init(|| beneath::files(&self.file));
        // A file system without locks has no holder.
        let free = |file| rustix::fs::flock(file, operation) != Err(Errno::WOULDBLOCK);
        Ok(beneath.iter().all(free))
    }
}

impl Storage for FileStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_block_device() {
            // Reads and writes are positional, so this may move the file position.
            return Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?);
        }
        Ok(metadata.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            return match rustix::fs::fallocate(&self.file, flags, offset, length) {
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                    Err(io::ErrorKind::Unsupported.into())
                }
                other => Ok(other?),
            };
        }
    }

    fn can_be_long(&self, length: u64) -> io::Result<bool> {
        if self.file.metadata()?.file_type().is_block_device() {
            return Ok(true);
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| limit < length) {
            return Ok(false);
        }
        // The kernel knows how long a file may be on each file system, and seeks no
        // further.
        match rustix::fs::seek(&self.file, SeekFrom::Start(length)) {
            Err(Errno::INVAL) => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            // Block devices and a few file systems do not report holes.
            Err(Errno::INVAL) => Ok((offset < self.len()?).then_some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
            Ok(found) => Ok(found),
            Err(Errno::NXIO) => Ok(offset),
            Err(Errno::INVAL) => Ok(self.len()?.max(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn available(&self) -> io::Result<Option<u64>> {
        let medium = rustix::fs::fstatvfs(&self.file)?;
        // File systems without a size, such as ramfs, do not report free space.
        let free = medium.f_bavail.saturating_mul(medium.f_frsize);
        Ok((medium.f_blocks > 0).then_some(free))
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    fn file_id(&self) -> io::Result<Option<(u64, u64)>> {
        let metadata = self.file.metadata()?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }

    fn share_blocks_with(&self, target: &FileStorage) -> io::Result<()> {
        Ok(rustix::fs::ioctl_ficlone(&target.file, &self.file)?)
    }
}
