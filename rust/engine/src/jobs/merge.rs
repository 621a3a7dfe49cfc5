//! Merging a cowfile into the raw base that it was made for.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::merging;
use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, MAPUNIT};
use crate::format::cowfile::mark::{Mark, Merging};
use crate::format::cowfile::{Access, AtRest};
use crate::image::{Image, ImageOptions, RawImage};
use crate::progress::{check, Progress};
use crate::storage::{FileStorage, Storage};
use crate::{Error, ErrorKind, Layer, Remedy, Result};

/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;

/// What a [`merge()`] has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MergeSummary {
    /// Blocks of 1 KiB that were written into the base.
    pub blocks: u64,
    /// The base held all of the blocks, so nothing was written.
    pub already: bool,
    /// An earlier merge of this cowfile had been interrupted, and was completed.
    pub resumed: bool,
}

/// Writes every block of the cowfile into the raw file or block device `base`.
///
/// Before the first block is written, the cowfile says durably that a merge is under way
/// and how its base is recognized; once all blocks are durable, it says so no more. An
/// interrupted merge is completed by running it again, with that base only. A base that is
/// no longer the cowfile's, but holds all of its blocks, has been merged into before.
///
/// # Errors
/// `Mismatch` when the base is not the cowfile's; `Unsupported` for a compressed base or a
/// packed cowfile; `Dirty`, `Busy`.
pub fn merge(base: &Path, cow: &Path, progress: &dyn Progress) -> Result<MergeSummary> {
    let mut cow = AtRest::open(cow, Access::Writable)?;
    let (target, raw) = open_base(base)?;
    let begun = cow.head.mark.as_ref().and_then(|mark| mark.merging);
    let resumed = begun.is_some();
    if let Err(mismatch) = check_base(&cow, &*raw, begun) {
        let same_size = cow.head.rdoblocks == raw.size() / MAPUNIT;
        let merged = mismatch.kind() == ErrorKind::Mismatch && !resumed && same_size;
        return if merged && holds(&*raw, &cow, progress)? {
            Ok(MergeSummary { blocks: 0, already: true, resumed })
        } else {
            Err(mismatch)
        };
    }
    let mark = match &cow.head.mark {
        Some(mark) => Mark { merging: None, ..mark.clone() },
        None => Mark::new(raw.size(), raw.identity()?)?,
    };
    if !resumed {
        let merging = Some(merging::note(&cow, &*raw)?);
        cow.write_head(cow.head.in_use(Mark { merging, ..mark.clone() }))?;
    }
    write_blocks(&cow, &target, progress)?;
    let closed = cow.head.closed(cow.bitmap.count());
    cow.write_head(Head { mark: Some(mark), ..closed })?;
    Ok(MergeSummary { blocks: cow.bitmap.count(), already: false, resumed })
}

/// The base alone, both as the file to write to and as the layer to read.
fn open_base(base: &Path) -> Result<(Arc<FileStorage>, Arc<RawImage>)> {
    let name = base.display().to_string();
    let failed = |error| Error::io(&name, "cannot open the base for writing", error);
    let target = Arc::new(FileStorage::open_alone(base).map_err(failed)?);
    if !target.try_lock(true).map_err(failed)? {
        return Err(Error::new(ErrorKind::Busy, name, "the base is in use"));
    }
    match Image::open(target.clone(), &ImageOptions::default())? {
        Image::Raw(raw) => Ok((target, raw)),
        Image::Cloop(_) | Image::Other(_) => {
            let message = "a compressed image cannot be merged into";
            let error = Error::new(ErrorKind::Unsupported, name, message);
            Err(error.with_remedy(Remedy::Commit))
        }
    }
}

/// Copies the blocks of the cowfile, durably.
fn write_blocks(cow: &AtRest, target: &FileStorage, progress: &dyn Progress) -> Result<()> {
    let name = target.name();
    progress.total(cow.bitmap.count() * MAPUNIT);
    let mut buf = vec![0; CHUNK as usize];
    for (at, length) in pieces(&cow.bitmap) {
        if progress.cancelled() {
            let message = "stopped before the merge was complete; run it again to complete it";
            return Err(Error::new(ErrorKind::Cancelled, name, message));
        }
        let piece = &mut buf[..length];
        cow.read_at(piece, at)?;
        target
            .write_all_at(piece, at)
            .map_err(|error| Error::io(name, format!("cannot write at {at}"), error))?;
        progress.advance(length as u64);
    }
    target.sync().map_err(|error| Error::io(name, "sync failed", error))
}

/// Whether the base has the cowfile's bytes in each block that lives in the cowfile. Zeros
/// alone are no proof of that.
fn holds(base: &dyn Layer, cow: &AtRest, progress: &dyn Progress) -> Result<bool> {
    let mut told = false;
    let mut buffers = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    for (at, length) in pieces(&cow.bitmap) {
        check(progress, cow.name())?;
        let (ours, theirs) = (&mut buffers.0[..length], &mut buffers.1[..length]);
        cow.read_at(ours, at)?;
        base.read_at(theirs, at)?;
        if ours != theirs {
            return Ok(false);
        }
        told |= ours.iter().any(|byte| *byte != 0);
    }
    Ok(told)
}

/// The device's ranges that live in the cowfile, as offsets and lengths of at most a chunk.
fn pieces(bitmap: &Bitmap) -> impl Iterator<Item = (u64, usize)> + '_ {
    bitmap.runs().flat_map(|(first, length)| {
        let (start, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        (start..end).step_by(CHUNK as usize).map(move |at| (at, CHUNK.min(end - at) as usize))
    })
}

/// Refuses a base that is not the cowfile's; once a merge has `begun`, the base is a
/// different one.
fn check_base(cow: &AtRest, base: &dyn Layer, begun: Option<Merging>) -> Result<()> {
    let size = cow.head.device_size();
    if size > base.size()
        && cow.head.mark.as_ref().is_some_and(|mark| mark.base_size == base.size())
    {
        let message = format!(
            "its device was made larger than this base, {size} instead of {} bytes, and merge \
             leaves the size as it is",
            base.size()
        );
        let error = Error::new(ErrorKind::Unsupported, cow.name(), message);
        return Err(error.with_remedy(Remedy::Extract));
    }
    let Some(begun) = begun else {
        return cow.belongs_to(base).map(|_| ());
    };
    if cow.head.rdoblocks == base.size() / MAPUNIT && merging::is_of(&begun, cow, base)? {
        return Ok(());
    }
    Err(cow.mismatch("a merge of it was interrupted, and not into this one"))
}
