//! Snapshots: a consistent copy of a cowfile while it is written.
//!
//! At one moment no change is under way, and every earlier change is durable. Where the
//! file system shares blocks between files, the copy is made at that moment. Elsewhere the
//! bitmap of the moment is kept, writers go on, and each block is copied before it is
//! changed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use serde::Serialize;

use super::cowfile::Cowfile;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::files;
use crate::format::cowfile::head::{Head, HEAD_SECTOR, MAPUNIT};
use crate::format::cowfile::mark::Mark;
use crate::format::cowfile::{write_around, Access, AtRest};
use crate::progress::{check, Progress};
use crate::storage::publish::Unpublished;
use crate::storage::{FileStorage, Storage};
use crate::{Error, Result};

/// Blocks that are copied under one lock.
const STEP: u64 = 1024;

/// A snapshot's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    /// Blocks of 1 KiB that live in the snapshot.
    pub blocks_used: u64,
    /// The two files share their blocks; nothing was copied.
    pub shared: bool,
}

/// A snapshot in the making.
#[derive(Debug)]
pub(super) struct Snapshot {
    source: Arc<dyn Storage>,
    target: FileStorage,
    doffset: u64,
    /// The bitmap of the moment.
    taken: Bitmap,
    /// The blocks that are already in the target.
    copied: Bitmap,
    /// The reason why the copy is of no use.
    failure: Mutex<Option<Error>>,
}

impl Snapshot {
    fn new(source: Arc<dyn Storage>, target: FileStorage, head: &Head, taken: Bitmap) -> Snapshot {
        let copied = Bitmap::new(head.mapsize);
        let failure = Mutex::new(None);
        Snapshot { source, target, doffset: head.doffset, taken, copied, failure }
    }

    /// Copies the wanted blocks from `first` up to `end` that are not yet copied. The
    /// caller is alone on them. A failure concerns the snapshot only.
    pub(super) fn preserve(&self, first: u64, end: u64) {
        let mut failure = None;
        let mut block = first;
        while block < end && failure.is_none() {
            let (wanted, length) = self.taken.run(block, end - block);
            let stop = block + length;
            while wanted && block < stop && failure.is_none() {
                let (done, length) = self.copied.run(block, stop - block);
                if !done {
                    failure = self.copy(block, length).err();
                    self.copied.set(block, length);
                }
                block += length;
            }
            block = stop;
        }
        if let Some(error) = failure {
            let error = Error::io(self.target.name(), "cannot copy into the snapshot", error);
            self.failure.lock().get_or_insert(error);
        }
    }

    /// Copies data; holes stay holes.
    fn copy(&self, first: u64, length: u64) -> io::Result<()> {
        let mut at = self.doffset + first * MAPUNIT;
        let end = at + length * MAPUNIT;
        let mut buf = Vec::new();
        while let Some(data) = self.source.next_data(at)?.filter(|data| *data < end) {
            let hole = self.source.next_hole(data)?.clamp(data + 1, end);
            buf.resize((hole - data).min(STEP * MAPUNIT) as usize, 0);
            self.source.read_exact_at(&mut buf, data)?;
            self.target.write_all_at(&buf, data)?;
            at = data + buf.len() as u64;
        }
        Ok(())
    }

    fn failed(&self) -> Result<()> {
        match &*self.failure.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Writes the rest, after which the target is a cleanly closed cowfile.
    fn complete(&self, head: &Head, mut sector: [u8; HEAD_SECTOR]) -> Result<()> {
        self.failed()?;
        // Another file, which changes on its own from here on.
        let mark = match &head.mark {
            Some(mark) => Some(Mark::new(mark.base_size, mark.base_identity)?),
            None => None,
        };
        let closed = Head { mark, ..head.closed(self.taken.count()) };
        write_around(&self.target, &self.taken, &closed, &mut sector)
            .map_err(|error| Error::io(self.target.name(), "cannot write the snapshot", error))
    }
}

/// Makes a copy of the cowfile at `path`, which is not in use, at `new`, where
/// no file may be.
///
/// # Errors
/// `Busy` when it is in use; `Unsupported` when it is packed; `Dirty` when the
/// original driver did not close it, or a merge of it was interrupted;
/// `Cancelled`; the system's. No file is left then.
pub fn copy(path: &Path, new: &Path, progress: &dyn Progress) -> Result<SnapshotSummary> {
    let cow = AtRest::open(path, Access::ReadOnly)?;
    cow.refuse_merging()?;
    let AtRest { storage: source, head, sector, bitmap: taken } = cow;
    let name = source.name().to_string();
    let (unpublished, target) = begin(new)?;
    let shared = source.share_blocks_with(&target).is_ok();
    let snapshot = Snapshot::new(source, target, &head, taken);
    if !shared {
        progress.total(snapshot.taken.count() * MAPUNIT);
        for (first, length) in snapshot.taken.runs() {
            for start in (first..first + length).step_by(STEP as usize) {
                check(progress, &name)?;
                let end = (start + STEP).min(first + length);
                snapshot.preserve(start, end);
                progress.advance((end - start) * MAPUNIT);
            }
        }
    }
    snapshot.complete(&head, sector)?;
    check(progress, &name)?;
    publish(unpublished, new)?;
    Ok(SnapshotSummary { blocks_used: snapshot.taken.count(), shared })
}

/// A new file that is to become the snapshot `path`, where none may be yet.
fn begin(path: &Path) -> Result<(Unpublished, FileStorage)> {
    let failed = |error| cannot_create(path, error);
    if path.symlink_metadata().is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    files::begin(path).map_err(failed)
}

/// Gives a complete snapshot its name, durably.
fn publish(unpublished: Unpublished, path: &Path) -> Result<()> {
    unpublished.publish_new().map_err(|error| cannot_create(path, error))
}

fn cannot_create(path: &Path, error: io::Error) -> Error {
    Error::io(path.display().to_string(), "cannot create the snapshot", error)
}

impl Cowfile {
    /// Makes a copy of the cowfile, as it is at one moment during the call, at `path`,
    /// where no file may be. Changes wait only for that moment.
    ///
    /// # Errors
    /// The system's, and those of [`flush`](Self::flush); no file is left then.
    pub fn snapshot(&self, path: &Path) -> Result<SnapshotSummary> {
        // One at a time; the second waits.
        let _one = self.snapshots.lock();
        let (unpublished, target) = begin(path)?;

        let alone = self.ranges.lock(0..u64::MAX);
        self.flush()?;
        let (head, sector) = self.head.lock().clone();
        let shared = self.storage.share_blocks_with(&target).is_ok();
        let taken = self.bitmap.duplicate();
        let snapshot = Arc::new(Snapshot::new(self.storage.clone(), target, &head, taken));
        if !shared {
            *self.copying.write() = Some(snapshot.clone());
        }
        drop(alone);

        if !shared {
            for (first, length) in snapshot.taken.runs() {
                for start in (first..first + length).step_by(STEP as usize) {
                    let end = (start + STEP).min(first + length);
                    let _alone = self.ranges.lock(start..end);
                    snapshot.preserve(start, end);
                }
            }
            *self.copying.write() = None;
        }
        snapshot.complete(&head, sector)?;
        publish(unpublished, path)?;
        Ok(SnapshotSummary { blocks_used: snapshot.taken.count(), shared })
    }
}
