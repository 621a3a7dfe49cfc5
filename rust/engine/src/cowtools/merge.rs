//! Merging a cowfile into the raw base that it was made for.

use std::path::Path;
use std::sync::Arc;

use crate::cowfile::bitmap::Bitmap;
use crate::cowfile::head::{Head, HEAD_SECTOR, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use crate::cowfile::mark::Mark;
use crate::cowfile::{check_bitmap, files, fingerprint, read_head, refuse_dirty, Access};
use crate::image::{Image, ImageOptions};
use crate::progress::{check, Progress};
use crate::storage::{FileStorage, Storage};
use crate::{Error, ErrorKind, Layer, Result};

/// Bytes that are copied in one go.
const CHUNK: u64 = 1 << 20;

/// What was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
/// The cowfile says durably that a merge is under way before the first block is
/// written, and says so no more once all of them are durable: an interrupted
/// merge is completed by running it again. A base that is the cowfile's no longer, but
/// holds all of its blocks, has been merged into before.
///
/// # Errors
/// `Mismatch` when size or fingerprint of the base are not the cowfile's;
/// `Unsupported` for a compressed base or a packed cowfile; `Dirty`, `Busy`.
pub fn merge(base: &Path, cow: &Path, progress: &dyn Progress) -> Result<MergeSummary> {
    let storage = files::open(cow, Access::Writable)?;
    let name = storage.name();
    let (head, sector) = read_head(&*storage)?;
    if head.packed {
        let message = "this cowfile is packed; unpack it first with `cowcloop cow unpack`";
        return Err(Error::new(ErrorKind::Unsupported, name, message));
    }
    refuse_dirty(name, &head)?;
    let failed = |error| Error::io(name, "cannot read the cowfile", error);
    let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(failed)?;
    check_bitmap(&*storage, &head, &bitmap)?;

    let base_name = base.display().to_string();
    let base_failed = |error| Error::io(&base_name, "cannot open the base for writing", error);
    let target = Arc::new(FileStorage::open_alone(base).map_err(base_failed)?);
    if !target.try_lock(true).map_err(base_failed)? {
        return Err(Error::new(ErrorKind::Busy, base_name, "the base is in use"));
    }
    let raw = match Image::open(target.clone(), &ImageOptions::default())? {
        Image::Raw(raw) => raw,
        Image::Cloop(_) => {
            let message = "a compressed image cannot be merged into; make a new one with \
                           `cowcloop commit`";
            return Err(Error::new(ErrorKind::Unsupported, base_name, message));
        }
    };
    let resumed = head.mark.as_ref().is_some_and(|mark| mark.merging);
    if let Err(mismatch) = check_base(name, &head, &*raw, resumed) {
        let same_size = head.rdoblocks == raw.size() / MAPUNIT;
        return match same_size && holds(&*raw, &*storage, &head, &bitmap, progress)? {
            true => Ok(MergeSummary { blocks: 0, already: true, resumed }),
            false => Err(mismatch),
        };
    }

    let mut file = MergedFile { storage: &*storage, sector };
    let mut open = head.clone();
    let mark = match open.mark.take() {
        Some(mark) => mark,
        None => Mark::new(raw.size(), raw.identity()?)?,
    };
    open.mark = Some(Mark { merging: true, ..mark.clone() });
    (open.version, open.dirty) = (VERSION_OPEN, true);
    file.write_head(&open)?;

    progress.total(bitmap.count() * MAPUNIT);
    let mut buf = vec![0; CHUNK as usize];
    for (at, length) in pieces(&bitmap) {
        if progress.cancelled() {
            let message = "stopped before the merge was complete; run it again to complete it";
            return Err(Error::new(ErrorKind::Cancelled, base_name, message));
        }
        let piece = &mut buf[..length];
        storage.read_exact_at(piece, head.doffset + at).map_err(failed)?;
        target
            .write_all_at(piece, at)
            .map_err(|error| Error::io(&base_name, format!("cannot write at {at}"), error))?;
        progress.advance(length as u64);
    }
    target.sync().map_err(|error| Error::io(&base_name, "sync failed", error))?;

    let closed = Head {
        version: VERSION_CLOSED,
        dirty: false,
        cowused: bitmap.count(),
        mark: Some(Mark { merging: false, ..mark }),
        ..head
    };
    file.write_head(&closed)?;
    Ok(MergeSummary { blocks: bitmap.count(), already: false, resumed })
}

/// Whether the base has the cowfile's bytes in each block that lives in the cowfile. Zeros
/// alone are not taken for a proof of that.
fn holds(
    base: &dyn Layer,
    storage: &dyn Storage,
    head: &Head,
    bitmap: &Bitmap,
    progress: &dyn Progress,
) -> Result<bool> {
    let failed = |error| Error::io(storage.name(), "cannot read the cowfile", error);
    let mut told = false;
    let mut buffers = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    for (at, length) in pieces(bitmap) {
        check(progress, storage.name())?;
        let (ours, theirs) = (&mut buffers.0[..length], &mut buffers.1[..length]);
        storage.read_exact_at(ours, head.doffset + at).map_err(failed)?;
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

/// By size and fingerprint; a base that holds a part of the blocks already has
/// no fingerprint to go by.
fn check_base(name: &str, head: &Head, base: &dyn Layer, resumed: bool) -> Result<()> {
    let blocks = base.size() / MAPUNIT;
    let mismatch = |message: String| {
        let message = format!("this cowfile belongs to another base ({message}); use that one");
        Err(Error::new(ErrorKind::Mismatch, name, message))
    };
    let size = head.device_size();
    if size > base.size() && head.mark.as_ref().is_some_and(|mark| mark.base_size == base.size()) {
        let message = format!(
            "its device was made larger than this base, {size} instead of {} bytes, and merge \
             leaves the size as it is: make a new image with `cowcloop extract`",
            base.size()
        );
        return Err(Error::new(ErrorKind::Unsupported, name, message));
    }
    if head.rdoblocks != blocks {
        return mismatch(format!("of {} blocks, not {blocks}", head.rdoblocks));
    }
    if resumed {
        return Ok(());
    }
    let found = fingerprint(base, blocks)?;
    if head.fingerprint != found {
        let stored = head.fingerprint;
        return mismatch(format!("with fingerprint {stored:#010x}, not {found:#010x}"));
    }
    Ok(())
}

struct MergedFile<'a> {
    storage: &'a dyn Storage,
    sector: [u8; HEAD_SECTOR],
}

impl MergedFile<'_> {
    fn write_head(&mut self, head: &Head) -> Result<()> {
        head.encode_into(&mut self.sector);
        self.storage.write_all_at(&self.sector, 0).and_then(|()| self.storage.sync()).map_err(
            |error| Error::io(self.storage.name(), "cannot write the cowfile's head", error),
        )
    }
}
