//! Where bytes live: the one door between the engine and files.
//!
//! The base and the cowfile are read through the same trait, so that tests can put a
//! simulated disk under the real code, and so that a base may one day lie elsewhere than in
//! a local file.

mod background;
mod beneath;
pub(crate) mod directory;
mod exchange;
mod file;
mod identity;
mod memory;
pub(crate) mod publish;
mod reader;
mod rounded;
mod slice;

pub use background::{as_background, in_background};
pub(crate) use exchange::Exchange;
pub use file::FileStorage;
pub use identity::FileIdentity;
pub use memory::MemoryStorage;
pub(crate) use reader::StorageReader;
pub(crate) use rounded::Rounded;
pub(crate) use slice::Slice;

use std::fmt;
use std::io;

use serde::Serialize;

/// What storage that is far away has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FetchCounters {
    /// Requests to the server.
    pub requests: u64,
    /// Bytes that came in answers.
    pub bytes: u64,
    /// Requests that were made again after a failure.
    pub retries: u64,
    /// Reads that failed for good.
    pub failures: u64,
    /// Ranges that were found to be wrong and fetched anew.
    pub renewals: u64,
    /// Bytes of it that are kept on this machine.
    pub kept_bytes: u64,
}

/// How storage that is far away is best asked for what will be read soon; all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPace {
    /// What comes together, at multiples of it.
    pub chunk: u64,
    /// What is worth a request.
    pub request: u64,
    /// What may be on its way, so that the line is in use all the time, and no more.
    pub window: u64,
}

/// Bytes that can be read at any offset and, when writable, written and synced.
///
/// Every method may be called from any thread at any time. Offsets and lengths are in
/// bytes, and need no alignment.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The storage's name in messages, usually the path as the user gave it.
    fn name(&self) -> &str;

    /// Length in bytes, asked anew each time.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buf.len()` bytes; fewer only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the storage ends earlier.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buf, offset)? == buf.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the data"))
        }
    }

    /// Writes all of `buf`, growing the storage when it ends earlier.
    ///
    /// On an error any part of `buf` may have been written.
    ///
    /// # Errors
    /// `ReadOnlyFilesystem` of storage that is only read.
    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Makes a range read as zeros and frees its space; does not grow the storage.
    ///
    /// # Errors
    /// `Unsupported` when the medium cannot, and `ReadOnlyFilesystem` of storage that is only
    /// read; nothing has changed then.
    fn punch_hole(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Whether the storage may grow to a length at all, free space aside.
    fn can_be_long(&self, _length: u64) -> io::Result<bool> {
        Ok(true)
    }

    /// Returns once everything that was written or punched before the call is durable, with
    /// the length and whatever else is needed to read it back.
    fn sync(&self) -> io::Result<()>;

    /// Lets the system forget what it holds in memory of data that was synced, or could not
    /// be: later reads come from the medium. A page that another program has mapped, or is
    /// reading at this moment, may stay.
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    /// The first offset at or after `offset` that may hold data; `None` when
    /// only holes follow. Holes read as zeros.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// The first offset at or after `offset`, itself in data, where a hole or
    /// the end begins.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;

    /// Bytes that the storage takes on its medium.
    fn allocated(&self) -> io::Result<u64>;

    /// Bytes that are free on its medium for this process; `None` where there is no such
    /// number.
    fn available(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Whether it still has a name to be found by once it is closed here.
    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Device and inode number, the same for two paths of one file; `None` of what is no file.
    fn file_id(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// Makes the file `target` share all of this one's blocks.
    ///
    /// # Errors
    /// `Unsupported`, or the system's error, where that cannot be done.
    fn share_blocks_with(&self, _target: &FileStorage) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Closes the file and does nothing else, unless a request is using it: for a forked
    /// process, whose parent goes on with it.
    fn abandon(&self) {}

    /// Gives up every right to write, so that the medium can become read-only.
    fn reopen_read_only(&self) -> io::Result<()> {
        Ok(())
    }

    /// Lets storage that is far away use threads of its own from now on. Must not be called
    /// before the process forks.
    fn start(&self) {}

    /// A hint that a range will be read soon: storage that is far away begins to fetch it.
    /// Returns at once.
    fn expect(&self, _offset: u64, _length: u64) {}

    /// Whether a range can be read without waiting for what is far away.
    fn is_near(&self, _offset: u64, _length: u64) -> bool {
        true
    }

    /// Whether what it keeps of something far away may have changed in its place: what has a
    /// checksum is compared with that before it is used.
    fn may_rot(&self) -> bool {
        false
    }

    /// Reads all of `buf` from what is kept for good, and says which edition of it that is: within
    /// one, what was read stays the same. `None`: not all of it is kept, or it is changing.
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at).
    fn read_kept(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<u64>> {
        if self.may_rot() {
            return Ok(None);
        }
        self.read_exact_at(buf, offset).map(|()| Some(0))
    }

    /// Throws away what is kept of a range that was found to be wrong. `true`: it was kept, and
    /// the next read fetches it anew.
    fn renew(&self, _offset: u64, _length: u64) -> bool {
        false
    }

    /// How it is best asked for what will be read soon; `None` where nothing is far away, or
    /// nothing can be asked for.
    fn pace(&self) -> Option<FetchPace> {
        None
    }

    /// What has been fetched; `None` where nothing is far away.
    fn fetched(&self) -> Option<FetchCounters> {
        None
    }

    /// Fails the reads that wait for what is far away, from now on: the device is closing.
    fn give_up(&self) {}
}
