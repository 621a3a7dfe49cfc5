//! A cowfile in use: the written blocks, and the rules by which they change.
//!
//! The order in which changes reach the medium is argued in `docs/crash-safety.md`; in
//! short:
//!
//! 1. before the first change, the head says "in use" (version 2), durably;
//! 2. a flush makes data durable, then the pages of the bitmap that were taken before, so
//!    that a bit on the medium always has its data there too;
//! 3. a clean close flushes, and then only writes the head of version 1.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::group_commit::GroupCommit;
use super::health::Health;
use super::kept::{Kept, KeptStatus};
use super::quota::Quota;
use super::range_lock::RangeLocks;
use super::snapshot::Snapshot;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{mapsize, Head, HEAD_SECTOR, VERSION_OPEN};
use crate::format::cowfile::mark::random;
use crate::format::cowfile::CowState;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Remedy, Result};

/// The changes that a cowfile allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Writable,
    ReadOnly,
    /// Closed cleanly: no more changes.
    Closed,
    /// A sync failed: the state of the medium is unknown.
    Failed,
}

impl State {
    fn from_u8(value: u8) -> State {
        [State::Writable, State::ReadOnly, State::Closed, State::Failed][value as usize]
    }
}

/// What has been asked of a cowfile since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) base_reads: AtomicU64,
    pub(super) base_read_bytes: AtomicU64,
}

/// A cowfile in use: its lock is held until it is dropped.
#[derive(Debug)]
pub struct Cowfile {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) doffset: u64,
    pub(super) blocks: u64,
    pub(super) bitmap: Bitmap,
    /// Where its bits are kept for a server that takes over.
    pub(super) kept: Option<Kept>,
    /// The file is at least so long, or will be after the next sync.
    pub(super) length: AtomicU64,
    pub(super) ranges: RangeLocks,
    pub(super) head: Mutex<(Head, [u8; HEAD_SECTOR])>,
    /// Size and strong identity of the base, for the mark.
    pub(super) base: (u64, [u8; 32]),
    /// The head on the medium says that we have the file in use.
    pub(super) in_use: AtomicBool,
    pub(super) state: AtomicU8,
    /// Changes that have ended, well or badly.
    pub(super) changes: AtomicU64,
    /// How many of them are durable.
    pub(super) durable: AtomicU64,
    /// At least so many bits of the bitmap are durable.
    pub(super) durable_bits: AtomicU64,
    pub(super) rounds: GroupCommit,
    pub(super) counters: Counters,
    pub(super) health: Health,
    pub(super) quota: OnceLock<Quota>,
    /// Held by the one snapshot that is being made.
    pub(super) snapshots: Mutex<()>,
    /// It had a name when it was opened for writing: without one, what is written here is
    /// lost when the file is closed.
    pub(super) has_a_name_to_lose: bool,
    /// The log has said that it was lost.
    pub(super) told_removed: AtomicBool,
    /// The snapshot for which changes have to save their blocks.
    pub(super) copying: RwLock<Option<Arc<Snapshot>>>,
}

impl Cowfile {
    /// The strong identity of the device that this cowfile makes of a base of identity
    /// `base`: a different one each time that the file has changed.
    pub fn identity(&self, base: [u8; 32]) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"cowcloop cowfile\n");
        hash.update(base);
        let (head, sector) = &*self.head.lock();
        match &head.mark {
            Some(mark) => {
                hash.update(mark.id);
                hash.update(mark.generation.to_le_bytes());
            }
            None => {
                hash.update(sector);
                let mut block = 0;
                while block < self.blocks {
                    let (set, length) = self.bitmap.run(block, self.blocks - block);
                    hash.update([u8::from(set)]);
                    hash.update(length.to_le_bytes());
                    block += length;
                }
            }
        }
        Ok(hash.finalize().into())
    }

    /// See [`Storage::abandon`].
    pub fn abandon(&self) {
        self.storage.abandon();
        if let Some(kept) = &self.kept {
            kept.abandon();
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        self.storage.name()
    }

    /// Device and inode number of its file, or random bytes of what is no file.
    pub(crate) fn place(&self) -> Result<[u8; 16]> {
        let failed = |error| Error::io(self.name(), "cannot tell which file it is", error);
        match self.storage.file_id().map_err(failed)? {
            Some((device, inode)) => {
                let mut place = [0; 16];
                place[..8].copy_from_slice(&device.to_le_bytes());
                place[8..].copy_from_slice(&inode.to_le_bytes());
                Ok(place)
            }
            None => random(),
        }
    }

    /// Blocks of the device, 1024 bytes each.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Which blocks live in it.
    pub fn bitmap(&self) -> &Bitmap {
        &self.bitmap
    }

    /// A copy of the head as it is on the medium.
    pub fn head(&self) -> Head {
        self.head.lock().0.clone()
    }

    fn state(&self) -> CowState {
        match self.current() {
            State::Closed => CowState::Closed,
            _ if self.check_kept().is_err() => CowState::Removed,
            State::ReadOnly => CowState::ReadOnly,
            State::Failed => CowState::Failed,
            State::Writable if self.head().version == VERSION_OPEN => CowState::Dirty,
            State::Writable => CowState::Clean,
        }
    }

    /// Refuses a file that was removed, or replaced by another, while it is open here.
    ///
    /// # Errors
    /// `Damaged`: the file ends when it is closed here, even if all of it was synced.
    pub fn check_kept(&self) -> Result<()> {
        // If that cannot be found out, there is no reason for an alarm.
        if !self.has_a_name_to_lose || self.storage.has_name().unwrap_or(true) {
            return Ok(());
        }
        let message = "removed or replaced while it is in use: what is written to it is lost at \
                       the end";
        let error = Error::new(ErrorKind::Damaged, self.name(), message);
        Err(error.with_remedy(Remedy::Snapshot))
    }

    /// Bits that the next flush makes durable.
    fn pending(&self) -> u64 {
        let durable = self.durable_bits.load(Ordering::Relaxed);
        self.bitmap.count().saturating_sub(durable)
    }

    /// State and counters.
    pub fn status(&self) -> CowfileStatus {
        CowfileStatus {
            path: self.name().to_string(),
            state: self.state(),
            blocks_used: self.bitmap.count(),
            blocks_total: self.blocks,
            pending: self.pending(),
            bitmap_bytes: mapsize(self.blocks),
            allocated: self.storage.allocated().unwrap_or(0),
            reads: self.counters.reads.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
            flushes: self.counters.flushes.load(Ordering::Relaxed),
            base_reads: self.counters.base_reads.load(Ordering::Relaxed),
            base_read_bytes: self.counters.base_read_bytes.load(Ordering::Relaxed),
            failures: self.health.failures(),
            kept: self.kept.as_ref().map(Kept::status),
        }
    }

    /// Limits the space, in bytes, that data may take on the medium: writes
    /// beyond fail with `NoSpace`. To be called once, before the first write.
    pub fn limit_space(&self, bytes: u64) {
        self.quota.get_or_init(|| Quota::new(bytes));
    }

    pub(super) fn current(&self) -> State {
        State::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Whether changes are refused for good.
    pub(crate) fn is_read_only(&self) -> bool {
        self.current() == State::ReadOnly
    }

    /// Counts a read of the layer below, through this cowfile.
    pub(crate) fn count_base_read(&self, bytes: usize) {
        self.counters.base_reads.fetch_add(1, Ordering::Relaxed);
        self.counters.base_read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Reads bytes of the device that live in the cowfile.
    ///
    /// # Errors
    /// `Damaged` when the file has become too short.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.storage.read_exact_at(buf, self.doffset + offset).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::UnexpectedEof => ErrorKind::Damaged,
                _ => return Error::io(self.name(), format!("cannot read at {offset}"), error),
            };
            Error::new(
                kind,
                self.name(),
                format!("the cowfile ends before byte {offset} of the device"),
            )
        })
    }

    /// Walks `[offset, offset + length)` of the device, all of which lives in
    /// the cowfile: `sink` gets each piece's length and whether it is a hole.
    pub fn holes(
        &self,
        offset: u64,
        length: u64,
        sink: &mut dyn FnMut(u64, bool) -> bool,
    ) -> Result<()> {
        let failed = |error| Error::io(self.name(), "cannot look for holes", error);
        let end = self.doffset + offset + length;
        let mut at = self.doffset + offset;
        while at < end {
            let data = self.storage.next_data(at).map_err(failed)?.unwrap_or(end).min(end);
            if data > at && !sink(data - at, true) {
                return Ok(());
            }
            if data == end {
                return Ok(());
            }
            let hole = self.storage.next_hole(data).map_err(failed)?.clamp(data + 1, end);
            if !sink(hole - data, false) {
                return Ok(());
            }
            at = hole;
        }
        Ok(())
    }
}

/// A cowfile's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CowfileStatus {
    /// Its path as it was given; what is not UTF-8 in it is replaced.
    pub path: String,
    /// Clean, dirty, read-only, closed, failed or removed.
    pub state: CowState,
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks_used: u64,
    /// Blocks of 1 KiB of the device.
    pub blocks_total: u64,
    /// Of the blocks that live in the cowfile, those that the next flush makes durable there.
    pub pending: u64,
    /// Bytes that the bitmap has in the file.
    pub bitmap_bytes: u64,
    /// Bytes that the file takes on its medium; 0 when that cannot be told.
    pub allocated: u64,
    /// Read requests that it served.
    pub reads: u64,
    /// Write requests, with zeros and discards.
    pub writes: u64,
    /// Flushes that had something to make durable.
    pub flushes: u64,
    /// Reads through this cowfile of what lies below it.
    pub base_reads: u64,
    /// Bytes of these reads.
    pub base_read_bytes: u64,
    /// Writes, zeros, discards and flushes that have failed.
    pub failures: u64,
    /// What is kept of it for a server that takes over, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptStatus>,
}
