//! How much a cache directory may take, and who goes first when it is full.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cowcloop_engine::storage::FileStorage;
use parking_lot::Mutex;
use rustix::fs::{flock, FlockOperation};

use super::place::{alone, STATE};
use super::state::Head;

/// Bytes that are taken before the directory is looked at again.
const STRIDE: u64 = 16 << 20;
/// The pause before a full directory is looked at again.
const PAUSE: Duration = Duration::from_secs(10);
/// Without a limit, this part of the file system stays free.
const FREE_PART: u64 = 10;

/// The room of a cache directory, shared with other processes.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    limit: Option<u64>,
    left: Mutex<Left>,
    told: AtomicBool,
}

#[derive(Debug)]
struct Left {
    bytes: u64,
    look_again: Option<Instant>,
}

impl Room {
    pub fn new(directory: &Path, limit: Option<u64>) -> Room {
        let left = Mutex::new(Left { bytes: 0, look_again: None });
        Room { directory: directory.to_path_buf(), limit, left, told: AtomicBool::new(false) }
    }

    /// Takes room for so many bytes; `false` where there is none, which is told once.
    pub fn take(&self, bytes: u64) -> bool {
        let mut left = self.left.lock();
        if left.bytes < bytes && left.look_again.is_none_or(|time| time <= Instant::now()) {
            left.bytes = self.make(bytes).unwrap_or(0);
            left.look_again = (left.bytes < bytes).then(|| Instant::now() + PAUSE);
        }
        let fits = left.bytes >= bytes;
        if fits {
            left.bytes -= bytes;
        } else if !self.told.swap(true, Ordering::AcqRel) {
            let directory = self.directory.display();
            log::warn!("{directory}: the cache is full: what is fetched from now on is not kept");
        }
        fits
    }

    /// Looks how much room there is, and has the images go that were not used for longest
    /// where it is too little.
    fn make(&self, bytes: u64) -> io::Result<u64> {
        let most = bytes.max(STRIDE);
        let mut free = self.free()?;
        if free >= bytes {
            return Ok(free.min(most));
        }
        let _alone = alone(&self.directory)?;
        for (_, state) in unused_first(&self.directory)? {
            if evict(&state)? {
                free = self.free()?;
                if free >= bytes {
                    break;
                }
            }
        }
        Ok(free.min(most))
    }

    fn free(&self) -> io::Result<u64> {
        let medium = rustix::fs::statvfs(&self.directory)?;
        let unit = medium.f_frsize;
        let available = medium.f_bavail.saturating_mul(unit);
        let Some(limit) = self.limit else {
            let stays = (medium.f_blocks / FREE_PART).saturating_mul(unit);
            return Ok(available.saturating_sub(stays));
        };
        let mut used = 0_u64;
        for entry in fs::read_dir(&self.directory)? {
            // Another process may have removed it.
            used += entry?.metadata().map_or(0, |found| found.blocks() * 512);
        }
        Ok(limit.saturating_sub(used).min(available))
    }
}

/// The state files of a directory, the one that was not used for longest first.
fn unused_first(directory: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(STATE)) {
            let modified = path.metadata().and_then(|found: Metadata| found.modified());
            found.extend(modified.ok().map(|time| (time, path)));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes an image that no process uses.
fn evict(state: &Path) -> io::Result<bool> {
    let file = match File::open(state) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let storage = FileStorage::from_file(file, state)?;
    let data = Head::read(&storage).map(|head| state.with_file_name(head.data));
    // Without its state a data file is worth nothing; it is the other way round that would
    // vouch for bytes that are not there.
    fs::remove_file(state)?;
    if let Some(data) = data {
        let _ = fs::remove_file(data);
    }
    drop(storage);
    Ok(true)
}
