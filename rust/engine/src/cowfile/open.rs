//! Making a cowfile, and opening one: what is checked before anything is believed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rustix::process::{getrlimit, Resource};

use super::bitmap::Bitmap;
use super::fingerprint;
use super::head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use super::mark::Mark;
use super::ranges::RangeLocks;
use super::rounds::Rounds;
use super::{Counters, Cowfile, State};
use crate::storage::Storage;
use crate::{Error, ErrorKind, Layer, Result};

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
        refuse_dirty(name, &head)?;
        let identity = base.identity()?;
        check_base(name, &head, base, identity)?;
        if access == Access::Writable {
            check_length(&*storage, &head)?;
        }
        let failed = |error| Error::io(name, "cannot read the cowfile's bitmap", error);
        let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(failed)?;
        check_bitmap(&*storage, &head, &bitmap)?;
        let state = match access {
            Access::ReadOnly => State::ReadOnly,
            Access::Writable => State::Writable,
        };
        // What a killed process wrote may be in the system's cache alone: the first flush syncs it.
        let inherited = u64::from(head.version == VERSION_OPEN);
        Ok(Cowfile {
            doffset: head.doffset,
            blocks: head.rdoblocks,
            bitmap,
            ranges: RangeLocks::default(),
            head: Mutex::new((head, sector)),
            base: (base.size(), identity),
            in_use: AtomicBool::new(false),
            state: AtomicU8::new(state as u8),
            changes: AtomicU64::new(inherited),
            durable: AtomicU64::new(0),
            rounds: Rounds::default(),
            counters: Counters::default(),
            quota: OnceLock::new(),
            snapshots: Mutex::default(),
            has_a_name_to_lose: access == Access::Writable && storage.has_name().unwrap_or(false),
            told_removed: AtomicBool::new(false),
            copying: RwLock::default(),
            storage,
        })
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

/// Refuses a cowfile that the original driver did not close: its bitmap is stale.
pub(crate) fn refuse_dirty(name: &str, head: &Head) -> Result<()> {
    if head.version == VERSION_CLOSED && head.dirty {
        let message = "the original cowloop driver did not close this cowfile, so its bitmap is \
                       not up to date; repair it first with `cowcloop cow repair` (or --repair of \
                       serve, attach and mount)";
        return Err(Error::new(ErrorKind::Dirty, name, message));
    }
    Ok(())
}

/// Refuses a cowfile whose head, bitmap and length contradict each other.
pub(crate) fn check_bitmap(storage: &dyn Storage, head: &Head, bitmap: &Bitmap) -> Result<()> {
    let name = storage.name();
    check_bits(name, head, bitmap)?;
    let Some(last) = bitmap.last() else { return Ok(()) };
    let needed = head.doffset + (last + 1) * MAPUNIT;
    let length = storage.len().map_err(|error| Error::io(name, "cannot read the length", error))?;
    if length < needed {
        let message = format!(
            "the cowfile is {length} bytes long, but block {last} ends at {needed}: a cut copy? \
             Take a whole one"
        );
        return Err(Error::new(ErrorKind::Damaged, name, message));
    }
    Ok(())
}

/// Refuses a bitmap that is not the head's.
pub(crate) fn check_bits(name: &str, head: &Head, bitmap: &Bitmap) -> Result<()> {
    if let Some(last) = bitmap.last().filter(|last| *last >= head.rdoblocks) {
        let message = format!(
            "cowfile bitmap: block {last} is set, but the device has {} blocks",
            head.rdoblocks
        );
        return Err(Error::new(ErrorKind::Damaged, name, message));
    }
    let bits = bitmap.count();
    if head.version == VERSION_CLOSED && head.cowused != bits {
        let message = format!(
            "cowfile head: cowused is {}, but its bitmap has {bits} blocks; repair it with \
             `cowcloop cow repair --force`",
            head.cowused
        );
        return Err(Error::new(ErrorKind::Damaged, name, message));
    }
    Ok(())
}

/// Refuses a cowfile that could not become as long as its last block needs.
fn check_length(storage: &dyn Storage, head: &Head) -> Result<()> {
    let name = storage.name();
    let needed = head.doffset + head.rdoblocks * MAPUNIT;
    match storage.can_be_long(needed) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let reason = match getrlimit(Resource::Fsize).current {
                Some(limit) if limit < needed => format!(
                    "no file of this process may be over {limit} bytes (see ulimit -f); raise that"
                ),
                _ => "a file must not be as long here (on FAT: 4 GiB less one byte); put it on \
                      another file system"
                    .into(),
            };
            let message = format!("the cowfile can become {needed} bytes long, and {reason}");
            Err(Error::new(ErrorKind::NoSpace, name, message))
        }
        Err(error) => Err(Error::io(name, "cannot find out how long it may become", error)),
    }
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
