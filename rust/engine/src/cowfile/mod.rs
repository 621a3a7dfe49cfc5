//! Cowfiles: the sparse files in which AT Computing's cowloop driver kept the
//! blocks that were written, and the rules by which we change them.
//!
//! The order in which things reach the medium is argued in
//! `docs/crash-safety.md`; in short:
//!
//! 1. before the first change, the head says "in use" (version 2), durably;
//! 2. a flush makes data durable, then the pages of the bitmap that were taken
//!    before, so that a bit on the medium always has its data there too;
//! 3. a clean close flushes, and then only writes the head of version 1.

pub mod bitmap;
pub mod files;
mod fingerprint;
mod flush;
pub mod head;
pub mod mark;
mod quota;
mod ranges;
mod snapshot;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use sha2::{Digest, Sha256};

use crate::storage::Storage;
use crate::{Error, ErrorKind, Layer, Result};
use bitmap::Bitmap;
use flush::Rounds;
use head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use mark::Mark;
use quota::Quota;
use ranges::{RangeGuard, RangeLocks};
use snapshot::Snapshot;

pub use fingerprint::fingerprint;
pub use snapshot::{copy, SnapshotSummary};

/// What may be done with a cowfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Writable,
    ReadOnly,
    /// Closed cleanly: no more changes.
    Closed,
    /// A sync failed: what is on the medium is unknown.
    Failed,
}

impl State {
    fn from_u8(value: u8) -> State {
        [State::Writable, State::ReadOnly, State::Closed, State::Failed][value as usize]
    }
}

/// What a cowfile did so far.
#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
}

/// An open cowfile.
#[derive(Debug)]
pub struct Cowfile {
    storage: Arc<dyn Storage>,
    doffset: u64,
    blocks: u64,
    bitmap: Bitmap,
    ranges: RangeLocks,
    head: Mutex<(Head, [u8; HEAD_SECTOR])>,
    /// Size and strong identity of the base, for the mark.
    base: (u64, [u8; 32]),
    /// The head on the medium says that we have the file in use.
    in_use: AtomicBool,
    state: AtomicU8,
    /// Changes that have come to their end, well or badly.
    changes: AtomicU64,
    /// How many of them are durable.
    durable: AtomicU64,
    rounds: Rounds,
    counters: Counters,
    quota: OnceLock<Quota>,
    /// Held by the one snapshot that is being made.
    snapshots: Mutex<()>,
    /// The snapshot that changes have to save their blocks for.
    copying: RwLock<Option<Arc<Snapshot>>>,
}

/// How a cowfile is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing in the file is changed.
    ReadOnly,
    /// Blocks are written, and the head and bitmap with them.
    Writable,
}

impl Cowfile {
    /// Writes the head of a new cowfile for a device of `size` bytes on `base`
    /// into empty `storage`, and makes it durable.
    ///
    /// # Errors
    /// `InvalidInput` when the device has no whole block.
    pub fn create(storage: &dyn Storage, base: &dyn Layer, size: u64) -> Result<()> {
        let name = storage.name();
        let blocks = size / MAPUNIT;
        if blocks == 0 {
            let message = format!("the base has {size} bytes, less than one block of {MAPUNIT}");
            return Err(Error::new(ErrorKind::InvalidInput, name, message));
        }
        let mark = Mark::new(base.size(), base.identity()?)?;
        let head = Head::new(blocks, fingerprint(base, blocks)?, mark);
        check_length(storage, &head)?;
        let mut sector = [0; HEAD_SECTOR];
        head.encode_into(&mut sector);
        // The last byte before the data fixes the length; what lies between is a hole.
        storage
            .write_all_at(&[0], head.doffset - 1)
            .and_then(|()| storage.write_all_at(&sector, 0))
            .and_then(|()| storage.sync())
            .map_err(|error| Error::io(name, "cannot write a new cowfile", error))
    }

    /// Opens the cowfile in `storage`: checks its head, that it belongs to
    /// `base`, and its bitmap.
    ///
    /// # Errors
    /// `Format` and `Unsupported` for what is no cowfile of ours or the original
    /// driver's; `Mismatch` for one of another base; `Dirty` when the original
    /// driver did not close it; `Damaged` when head, bitmap and length
    /// contradict each other; and whatever reading the base brings.
    pub fn open(storage: Arc<dyn Storage>, base: &dyn Layer, access: Access) -> Result<Cowfile> {
        let (head, sector) = read_head(&*storage)?;
        let name = storage.name();
        if head.packed {
            let message = "this cowfile is packed; unpack it with `cowcloop cow unpack`";
            return Err(Error::new(ErrorKind::Unsupported, name, message));
        }
        if head.version == VERSION_CLOSED && head.dirty {
            let message = "the original cowloop driver did not close this cowfile, so its bitmap \
                           is not up to date; repair it with --repair or `cowcloop cow repair`";
            return Err(Error::new(ErrorKind::Dirty, name, message));
        }
        let identity = base.identity()?;
        check_base(name, &head, base, identity)?;
        if access == Access::Writable {
            check_length(&*storage, &head)?;
        }
        let failed = |error| Error::io(name, "cannot read the cowfile's bitmap", error);
        let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(failed)?;
        let used = bitmap.count();
        if head.version == VERSION_CLOSED && head.cowused != used {
            let message = format!(
                "cowfile head: cowused is {}, but its bitmap has {used} blocks; \
                 repair it with `cowcloop cow repair --force`",
                head.cowused
            );
            return Err(Error::new(ErrorKind::Damaged, name, message));
        }
        if let Some(last) = bitmap.last() {
            if last >= head.rdoblocks {
                let message = format!(
                    "cowfile bitmap: block {last} is set, but the device has {} blocks",
                    head.rdoblocks
                );
                return Err(Error::new(ErrorKind::Damaged, name, message));
            }
            let (length, needed) =
                (storage.len().map_err(failed)?, head.doffset + (last + 1) * MAPUNIT);
            if length < needed {
                let message = format!(
                    "the cowfile is {length} bytes long, but block {last} ends at {needed}: \
                     a cut copy? Take a whole one"
                );
                return Err(Error::new(ErrorKind::Damaged, name, message));
            }
        }
        let state = match access {
            Access::ReadOnly => State::ReadOnly,
            Access::Writable => State::Writable,
        };
        Ok(Cowfile {
            doffset: head.doffset,
            blocks: head.rdoblocks,
            bitmap,
            ranges: RangeLocks::default(),
            head: Mutex::new((head, sector)),
            base: (base.size(), identity),
            in_use: AtomicBool::new(false),
            state: AtomicU8::new(state as u8),
            changes: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            rounds: Rounds::default(),
            counters: Counters::default(),
            quota: OnceLock::new(),
            snapshots: Mutex::default(),
            copying: RwLock::default(),
            storage,
        })
    }

    /// The strong identity of the device that this cowfile makes of a base of
    /// identity `base`: another one each time that the file is changed.
    pub fn identity(&self, base: [u8; 32]) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"cowcloop cowfile\n");
        hash.update(base);
        let (head, sector) = &*self.head.lock().expect("no panic while locked");
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

    /// What messages call it.
    pub fn name(&self) -> &str {
        self.storage.name()
    }

    /// Blocks of the device, 1024 bytes each.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The bitmap.
    pub fn bitmap(&self) -> &Bitmap {
        &self.bitmap
    }

    /// A copy of the head as it is on the medium.
    pub fn head(&self) -> Head {
        self.head.lock().expect("no panic while locked").0.clone()
    }

    fn state(&self) -> &'static str {
        match self.current() {
            State::ReadOnly => "read-only",
            State::Closed => "closed",
            State::Failed => "failed",
            State::Writable if self.head().version == VERSION_OPEN => "dirty",
            State::Writable => "clean",
        }
    }

    /// State and counters.
    pub fn status(&self) -> CowfileStatus {
        CowfileStatus {
            path: self.name().to_string(),
            state: self.state(),
            blocks_used: self.bitmap.count(),
            blocks_total: self.blocks,
            bitmap_bytes: head::mapsize(self.blocks),
            allocated: self.storage.allocated().unwrap_or(0),
            reads: self.counters.reads.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
            flushes: self.counters.flushes.load(Ordering::Relaxed),
        }
    }

    /// Limits the space, in bytes, that data may take on the medium: writes
    /// beyond fail with `NoSpace`. To be called once, before the first write.
    pub fn limit_space(&self, bytes: u64) {
        self.quota.get_or_init(|| Quota::new(bytes));
    }

    fn current(&self) -> State {
        State::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Whether changes are refused for good.
    pub fn is_read_only(&self) -> bool {
        self.current() == State::ReadOnly
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

    /// Begins a change of the blocks from `first` up to `end`, alone on them.
    ///
    /// # Errors
    /// `ReadOnly`; `Poisoned` after a failed sync; what writing the head brings.
    pub fn change(&self, first: u64, end: u64) -> Result<Change<'_>> {
        let guard = self.ranges.lock(first..end);
        // Asked after the range is had: who closes the file has all ranges first.
        self.check_writable()?;
        self.put_in_use()?;
        if let Some(snapshot) = &*self.copying.read().expect("no panic while locked") {
            snapshot.preserve(first, end);
        }
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(Change { cow: self, _guard: guard })
    }

    fn check_writable(&self) -> Result<()> {
        let refuse = |kind, message: &str| Err(Error::new(kind, self.name(), message));
        match self.current() {
            State::Writable => Ok(()),
            State::ReadOnly => refuse(ErrorKind::ReadOnly, "the cowfile is open read-only"),
            State::Closed => refuse(ErrorKind::ReadOnly, "the cowfile is closed"),
            State::Failed => refuse(
                ErrorKind::Poisoned,
                "an earlier sync failed, so what reached the medium is unknown; detach and attach again",
            ),
        }
    }

    /// Before the first change: makes the head say so, durably.
    fn put_in_use(&self) -> Result<()> {
        if self.in_use.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut head = self.head.lock().expect("no panic while locked");
        if self.in_use.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut next = head.0.clone();
        next.dirty = true;
        let mark = match next.mark {
            Some(mark) => mark,
            None => Mark::new(self.base.0, self.base.1)?,
        };
        next.mark = Some(Mark { generation: mark.generation.wrapping_add(1), ..mark });
        next.version = VERSION_OPEN;
        self.write_head(&mut head, next)?;
        self.in_use.store(true, Ordering::Release);
        Ok(())
    }

    fn write_head(&self, head: &mut (Head, [u8; HEAD_SECTOR]), next: Head) -> Result<()> {
        let mut sector = head.1;
        next.encode_into(&mut sector);
        self.storage
            .write_all_at(&sector, 0)
            .map_err(|error| Error::io(self.name(), "cannot write the cowfile's head", error))?;
        self.sync()?;
        *head = (next, sector);
        Ok(())
    }

    /// Syncs; a failure leaves the state of the medium unknown, for good.
    fn sync(&self) -> Result<()> {
        self.storage.sync().map_err(|error| {
            let error = Error::io(
                self.name(),
                "sync failed; writes are refused until the device is detached and attached again",
                error,
            );
            if self.state.swap(State::Failed as u8, Ordering::AcqRel) != State::Failed as u8 {
                log::error!("{error}");
            }
            error
        })
    }

    /// Returns once every change that was finished before the call is durable,
    /// and its blocks reachable. Calls at the same time share syncs.
    ///
    /// # Errors
    /// The system's, and `Poisoned` after a failed sync. When writing the bitmap
    /// fails, for want of space say, a later flush may succeed.
    pub fn flush(&self) -> Result<()> {
        match self.current() {
            State::ReadOnly | State::Closed => Ok(()),
            State::Writable | State::Failed => self.rounds.join(|| self.flush_now()),
        }
    }

    fn flush_now(&self) -> Result<()> {
        self.check_writable()?;
        let changes = self.changes.load(Ordering::Acquire);
        if changes == self.durable.load(Ordering::Acquire) {
            return Ok(());
        }
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        // The pages are copied before the data is synced: a bit that is set
        // later may belong to data that this sync does not cover.
        let pages = self.bitmap.take_changed();
        if let Err(error) = self.sync().and_then(|()| self.write_pages(&pages)) {
            self.bitmap.put_back(&pages);
            return Err(error);
        }
        if !pages.is_empty() {
            self.sync()?;
        }
        self.durable.store(changes, Ordering::Release);
        Ok(())
    }

    /// Writes pages of the bitmap, neighbours in one go.
    fn write_pages(&self, pages: &[bitmap::PageCopy]) -> Result<()> {
        let neighbours = |a: &bitmap::PageCopy, b: &bitmap::PageCopy| {
            a.offset + a.bytes.len() as u64 == b.offset
        };
        for run in pages.chunk_by(neighbours) {
            let joined;
            let bytes = match run {
                [page] => &page.bytes,
                _ => {
                    joined = run.iter().flat_map(|page| page.bytes.iter().copied()).collect();
                    &joined
                }
            };
            self.storage.write_all_at(bytes, run[0].offset).map_err(|error| {
                Error::io(self.name(), "cannot write the cowfile's bitmap", error)
            })?;
        }
        Ok(())
    }

    /// Waits for changes under way, flushes, and marks the file as clean.
    /// Later changes are refused. May be repeated.
    pub fn close(&self) -> Result<()> {
        self.end(State::Closed)
    }

    /// Closes the file and goes on with it read-only: its medium can then be
    /// made read-only or, mounted, shut down.
    pub fn make_read_only(&self) -> Result<()> {
        self.end(State::ReadOnly)?;
        self.storage
            .reopen_read_only()
            .map_err(|error| Error::io(self.name(), "cannot open it read-only", error))
    }

    fn end(&self, state: State) -> Result<()> {
        let _alone = self.ranges.lock(0..u64::MAX);
        if matches!(self.current(), State::ReadOnly | State::Closed) {
            return Ok(());
        }
        self.flush()?;
        let mut head = self.head.lock().expect("no panic while locked");
        // Even when writing the head fails it may be there: a later change says again,
        // before anything else, that the file is in use.
        self.in_use.store(false, Ordering::Release);
        if head.0.version == VERSION_OPEN {
            let mut next = head.0.clone();
            next.version = VERSION_CLOSED;
            next.dirty = false;
            next.cowused = self.bitmap.count();
            self.write_head(&mut head, next)?;
        }
        self.state.store(state as u8, Ordering::Release);
        Ok(())
    }
}

/// A cowfile's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CowfileStatus {
    /// Its name.
    pub path: String,
    /// `clean`, `dirty`, `read-only`, `closed` or `failed`.
    pub state: &'static str,
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks_used: u64,
    /// Blocks of 1 KiB of the device.
    pub blocks_total: u64,
    /// Bytes of bitmap.
    pub bitmap_bytes: u64,
    /// Bytes that the file takes on its medium; 0 when that cannot be told.
    pub allocated: u64,
    /// Read requests that it served.
    pub reads: u64,
    /// Write requests, with zeros and discards.
    pub writes: u64,
    /// Flushes that had something to make durable.
    pub flushes: u64,
}

/// A change under way: holds its blocks, and counts as finished when dropped.
#[derive(Debug)]
pub struct Change<'a> {
    cow: &'a Cowfile,
    _guard: RangeGuard<'a>,
}

impl Change<'_> {
    /// Writes bytes of the device into the cowfile; sets no bit.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let cow = self.cow;
        let failed = |error| Error::io(cow.name(), format!("cannot write at {offset}"), error);
        let _promise = match cow.quota.get() {
            None => None,
            Some(quota) => {
                let admitted = quota
                    .admit(&*cow.storage, cow.doffset + offset, bytes.len() as u64)
                    .map_err(failed)?;
                if admitted.is_none() {
                    let message = format!("its quota of {} bytes is used up", quota.limit());
                    return Err(Error::new(ErrorKind::NoSpace, cow.name(), message));
                }
                admitted
            }
        };
        cow.storage.write_all_at(bytes, cow.doffset + offset).map_err(failed)
    }

    /// Makes `length` blocks from `first` on zeros in the cowfile, where it can
    /// by punching a hole; sets no bit.
    ///
    /// # Errors
    /// `Unsupported` when `fast` and the medium cannot punch holes.
    pub fn zero(&self, first: u64, length: u64, fast: bool) -> Result<()> {
        let cow = self.cow;
        let failed = |error| Error::io(cow.name(), format!("cannot zero block {first}"), error);
        let (start, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        match cow.storage.punch_hole(cow.doffset + start, end - start) {
            Ok(()) => {
                // A block that lives in the cowfile lies within its length: so a
                // copy that was cut short is known by it.
                if cow.storage.len().map_err(failed)? < cow.doffset + end {
                    self.write(&[0; MAPUNIT as usize], end - MAPUNIT)?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported && fast => {
                let message = "the medium of the cowfile cannot punch holes";
                Err(Error::new(ErrorKind::Unsupported, cow.name(), message))
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let zeros = vec![0; (end - start).min(1 << 20) as usize];
                let mut at = start;
                while at < end {
                    let n = zeros.len().min((end - at) as usize);
                    self.write(&zeros[..n], at)?;
                    at += n as u64;
                }
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes blocks live in the cowfile, once their data is in it.
    pub fn set(&self, first: u64, length: u64) {
        self.cow.bitmap.set(first, length);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Failed changes count too: a part of them may be in the file.
        self.cow.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// Refuses a cowfile that could not become as long as its last block needs.
fn check_length(storage: &dyn Storage, head: &Head) -> Result<()> {
    let name = storage.name();
    let needed = head.doffset + head.rdoblocks * MAPUNIT;
    match storage.can_be_long(needed) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = format!(
                "the cowfile can become {needed} bytes long, and a file must not be as long here \
                 (on FAT: 4 GiB less one byte); put it on another file system"
            );
            Err(Error::new(ErrorKind::NoSpace, name, message))
        }
        Err(error) => Err(Error::io(name, "cannot find out how long it may become", error)),
    }
}

/// Reads and checks a cowfile's head.
pub fn read_head(storage: &dyn Storage) -> Result<(Head, [u8; HEAD_SECTOR])> {
    let name = storage.name();
    let mut sector = [0; HEAD_SECTOR];
    let n = storage
        .read_at(&mut sector, 0)
        .map_err(|error| Error::io(name, "cannot read the cowfile's head", error))?;
    let length = storage.len().map_err(|error| Error::io(name, "cannot read the length", error))?;
    if n < HEAD_SECTOR || length < HEAD_BYTES {
        let message = format!("not a cowfile: it has only {length} bytes");
        return Err(Error::new(ErrorKind::Format, name, message));
    }
    Ok((Head::parse(name, &sector)?, sector))
}

/// Checks that a cowfile was made for `base`.
///
/// Our mark in the head knows the base by its strong identity; a file without
/// the mark is taken by the original driver's rule, size and fingerprint.
fn check_base(name: &str, head: &Head, base: &dyn Layer, identity: [u8; 32]) -> Result<()> {
    let mismatch = |message: String| {
        let message = format!("this cowfile belongs to another base ({message}); use that one");
        Err(Error::new(ErrorKind::Mismatch, name, message))
    };
    let size = base.size();
    if let Some(mark) = &head.mark {
        if mark.base_size != size {
            return mismatch(format!("of {} bytes, not {size}", mark.base_size));
        }
        if mark.base_identity != identity {
            return mismatch("its identity differs".into());
        }
        return Ok(());
    }
    let blocks = size / MAPUNIT;
    if head.rdoblocks != blocks {
        return mismatch(format!("of {} blocks, not {blocks}", head.rdoblocks));
    }
    let found = fingerprint(base, blocks)?;
    if head.fingerprint != found {
        let stored = head.fingerprint;
        return mismatch(format!("with fingerprint {stored:#010x}, not {found:#010x}"));
    }
    Ok(())
}
