//! Making a cowfile, and opening one for a device.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rustix::process::{getrlimit, Resource};

use super::at_rest::AtRest;
use super::fingerprint;
use super::head::{Head, HEAD_SECTOR, MAPUNIT, VERSION_OPEN};
use super::health::Health;
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
    /// driver did not close it, or a merge of it was interrupted; `Damaged` when head,
    /// bitmap and length contradict each other; `Io` when it was left in use and what was
    /// written last did not reach its medium; and whatever reading the base brings.
    pub fn open(storage: Arc<dyn Storage>, base: &dyn Layer, access: Access) -> Result<Cowfile> {
        let cow = AtRest::check(storage, access)?;
        cow.refuse_merging()?;
        let identity = cow.belongs_to(base)?;
        let AtRest { storage, head, sector, bitmap } = cow;
        if access == Access::Writable {
            check_length(&*storage, &head)?;
        }
        let state = match access {
            Access::ReadOnly => State::ReadOnly,
            Access::Writable => State::Writable,
        };
        // Where the cache could not be emptied, a bit may be missing on the medium that is set
        // here, and a length that is seen may not be there: the first flush writes all bits.
        let inherited = head.version == VERSION_OPEN;
        let length = match inherited {
            true => head.doffset + bitmap.last().map_or(0, |last| (last + 1) * MAPUNIT),
            false => storage
                .len()
                .map_err(|error| Error::io(storage.name(), "cannot read the length", error))?,
        };
        if inherited && access == Access::Writable {
            bitmap.mark_all_changed();
        }
        let cow = Cowfile {
            doffset: head.doffset,
            blocks: head.rdoblocks,
            bitmap,
            length: AtomicU64::new(length),
            ranges: RangeLocks::default(),
            head: Mutex::new((head, sector)),
            base: (base.size(), identity),
            in_use: AtomicBool::new(false),
            state: AtomicU8::new(state as u8),
            changes: AtomicU64::new(u64::from(inherited)),
            durable: AtomicU64::new(0),
            rounds: Rounds::default(),
            counters: Counters::default(),
            health: Health::default(),
            quota: OnceLock::new(),
            snapshots: Mutex::default(),
            has_a_name_to_lose: access == Access::Writable && storage.has_name().unwrap_or(false),
            told_removed: AtomicBool::new(false),
            copying: RwLock::default(),
            storage,
        };
        if access == Access::Writable {
            cow.warn_of_little_space();
        }
        Ok(cow)
    }
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
