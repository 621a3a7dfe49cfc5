//! Opening a cowfile for a device.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::cowfile::{Counters, Cowfile, State};
use super::group_commit::GroupCommit;
use super::health::Health;
use super::kept::{Keeping, Kept};
use super::range_lock::RangeLocks;
use crate::format::cowfile::head::{MAPUNIT, VERSION_OPEN};
use crate::format::cowfile::{check_length, read_head, settle, Access, AtRest};
use crate::storage::Storage;
use crate::{Error, Layer, Result};

impl Cowfile {
    /// Opens the cowfile in `storage`: checks its head, that it belongs to `base`, and its
    /// bitmap.
    ///
    /// # Errors
    /// `Format` and `Unsupported` for a file that is neither our cowfile nor the original
    /// driver's; `Mismatch` for one of another base; `Dirty` when the original driver did
    /// not close it, or a merge of it was interrupted; `Damaged` when head, bitmap and
    /// length contradict each other; `Io` when it was left in use and its last writes did
    /// not reach its medium; those of the kept file; and those of reading the base.
    pub fn open(
        storage: Arc<dyn Storage>,
        base: &dyn Layer,
        access: Access,
        keeping: Option<Keeping>,
    ) -> Result<Cowfile> {
        let kept = keeping.filter(|_| access == Access::Writable);
        let kept = kept.map(|keeping| look_at_kept(keeping, &*storage)).transpose()?;
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
        let length = storage
            .len()
            .map_err(|error| Error::io(storage.name(), "cannot read the length", error))?;
        if let Some(kept) = &kept {
            kept.take_over(&head, &bitmap, length)?;
        }
        // Where the cache could not be emptied, the medium may lack a bit that is set here,
        // and a length that is seen: the first flush writes all bits.
        let inherited = head.version == VERSION_OPEN;
        if inherited && access == Access::Writable {
            bitmap.mark_all_changed();
        }
        let length = if inherited {
            head.doffset + bitmap.last().map_or(0, |last| (last + 1) * MAPUNIT)
        } else {
            length
        };
        let cow = Cowfile {
            doffset: head.doffset,
            blocks: head.rdoblocks,
            durable_bits: AtomicU64::new(if inherited { 0 } else { bitmap.count() }),
            bitmap,
            kept,
            length: AtomicU64::new(length),
            ranges: RangeLocks::default(),
            head: Mutex::new((head, sector)),
            base: (base.size(), identity),
            in_use: AtomicBool::new(false),
            state: AtomicU8::new(state as u8),
            changes: AtomicU64::new(u64::from(inherited)),
            durable: AtomicU64::new(0),
            rounds: GroupCommit::default(),
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

/// The bits that a server before this one has kept. They stand for what was written: it is
/// synced first, and where that fails they are for nothing.
fn look_at_kept(keeping: Keeping, storage: &dyn Storage) -> Result<Kept> {
    let kept = Kept::look(keeping, storage)?;
    if read_head(storage)?.0.version == VERSION_OPEN {
        settle::sync(storage, Access::Writable).inspect_err(|_| kept.not_settled())?;
    }
    Ok(kept)
}
