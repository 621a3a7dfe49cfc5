//! Making a cowfile fit another image of the same device: extracted, or compressed anew.
//!
//! The original driver knows a base by size and fingerprint, and takes any image that has
//! these. Our mark names the image itself, because different contents often have the same
//! fingerprint; so the user has to say when the content is the same.

use std::path::Path;

use serde::Serialize;

use crate::device::Device;
use crate::format::cowfile::{fingerprint, Access, AtRest};
use crate::progress::{check, Progress};
use crate::{Error, ErrorKind, Layer, Result};

/// Bytes that are compared at once.
const CHUNK: u64 = 1 << 20;

/// What a [`rebase()`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RebaseSummary {
    /// Whether the cowfile was changed; it may have fitted before.
    pub changed: bool,
    /// Bytes of the two images that were compared.
    pub compared: u64,
}

/// Makes the cowfile at `cow` one of `base`: an image, with the cowfiles below this one on it.
///
/// `old`: the image that the cowfile was made on, with the same cowfiles on it; the two must be
/// the same, byte for byte. Without it, size and fingerprint must be.
///
/// # Errors
/// `Mismatch` for an image that is not the same, or an `old` that is not the cowfile's;
/// `Busy`, `Dirty` or `Damaged` for a cowfile that is in use or not sound. Nothing has changed.
pub fn rebase(
    base: &Device,
    cow: &Path,
    old: Option<&dyn Layer>,
    progress: &dyn Progress,
) -> Result<RebaseSummary> {
    let mut cow = AtRest::open(cow, Access::Writable)?;
    cow.refuse_merging()?;
    let mut summary = RebaseSummary { changed: false, compared: 0 };
    let identity = base.layer().identity()?;
    let Some(mut mark) = cow.head.mark.clone() else {
        // A cowfile of the original driver: it fits any base of its size and fingerprint.
        cow.belongs_to(&**base.layer())?;
        return Ok(summary);
    };
    if (mark.base_size, mark.base_identity) == (base.size(), identity) {
        return Ok(summary);
    }
    if mark.base_size != base.size() {
        let sizes = format!("of {} bytes, not {}", mark.base_size, base.size());
        return Err(cow.mismatch(&sizes));
    }
    let found = fingerprint(&**base.layer(), cow.head.rdoblocks)?;
    if found != cow.head.fingerprint {
        let stored = cow.head.fingerprint;
        return Err(cow.mismatch(&format!("with fingerprint {stored:#010x}, not {found:#010x}")));
    }
    if let Some(old) = old {
        let mut identity = old.identity()?;
        for lower in base.overlays() {
            identity = lower.cowfile().identity(identity)?;
        }
        if identity != mark.base_identity {
            return Err(cow.mismatch("not the one that is said to be the old one either"));
        }
        summary.compared = compare(old, &**base.base(), cow.name(), progress)?;
    }
    mark.base_identity = identity;
    let mut head = cow.head.clone();
    head.mark = Some(mark);
    cow.write_head(head)?;
    summary.changed = true;
    Ok(summary)
}

/// Compares two images to their last byte; returns their size.
fn compare(old: &dyn Layer, new: &dyn Layer, name: &str, progress: &dyn Progress) -> Result<u64> {
    let differ = |what: String| {
        let message =
            format!("cannot change its base: the two images are not the same device ({what})");
        Err(Error::new(ErrorKind::Mismatch, name, message))
    };
    let size = new.size();
    if old.size() != size {
        return differ(format!("{} bytes, and {size}", old.size()));
    }
    progress.total(size);
    let mut buffers = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    for at in (0..size).step_by(CHUNK as usize) {
        check(progress, name)?;
        let length = CHUNK.min(size - at) as usize;
        let (ours, theirs) = (&mut buffers.0[..length], &mut buffers.1[..length]);
        old.read_at(ours, at)?;
        new.read_at(theirs, at)?;
        if let Some(first) = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b) {
            return differ(format!("byte {} differs", at + first as u64));
        }
        progress.advance(length as u64);
    }
    Ok(size)
}
