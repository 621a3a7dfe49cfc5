//! How the base of an interrupted merge is recognized.
//!
//! Such a base has neither the identity nor the fingerprint that it had: it holds some of
//! the cowfile's blocks, and a power cut decides which. Two facts still hold for it, and
//! for no other file of its size but by chance or by design:
//!
//! - a block that does not live in the cowfile is as it was when the merge began;
//! - a sector of a block that does is as it was then, or as the cowfile has it.
//!
//! So blocks of the first kind are sampled and one hash of the samples is kept, and sectors
//! of the second kind with a checksum each. The places of the samples follow from the
//! cowfile's bitmap alone, which does not change while a merge is under way.

use sha2::{Digest, Sha256};

use crate::format::cowfile::head::MAPUNIT;
use crate::format::cowfile::mark::{Merging, WITNESSES};
use crate::format::cowfile::AtRest;
use crate::{Layer, Result};

/// Blocks at the beginning that count for the hash, of those that a merge leaves alone.
const FIRST: u64 = 64;
/// Further blocks that count, evenly spaced.
const SPACED: u64 = 256;
/// The smallest unit that a disk writes whole, in bytes.
const SECTOR: usize = 512;

/// The record of `base`, made before the first block of `cow` is written into it.
pub(crate) fn note(cow: &AtRest, base: &dyn Layer) -> Result<Merging> {
    let mut merging = Merging { untouched: untouched(cow, base)?, before: [0; WITNESSES] };
    for (sum, block) in merging.before.iter_mut().zip(witnesses(cow)) {
        *sum = checksum(&sector_of(base, block)?);
    }
    Ok(merging)
}

/// Whether `base`, which has the right size, may be the base of this record.
pub(crate) fn is_of(merging: &Merging, cow: &AtRest, base: &dyn Layer) -> Result<bool> {
    if merging.untouched != untouched(cow, base)? {
        return Ok(false);
    }
    for (sum, block) in merging.before.iter().zip(witnesses(cow)) {
        let sector = sector_of(base, block)?;
        let mut merged = [0; SECTOR];
        cow.read_at(&mut merged, block * MAPUNIT)?;
        if checksum(&sector) != *sum && sector != merged {
            return Ok(false);
        }
    }
    Ok(true)
}

fn untouched(cow: &AtRest, base: &dyn Layer) -> Result<[u8; 14]> {
    let blocks = cow.head.rdoblocks;
    let left = blocks - cow.bitmap.count();
    let spacing = (left / SPACED).max(1);
    let mut hash = Sha256::new();
    hash.update(base.size().to_le_bytes());
    let mut bytes = [0; MAPUNIT as usize];
    // Counts the blocks that do not live in the cowfile.
    let mut rank = 0;
    let mut block = 0;
    while block < blocks {
        let (set, length) = cow.bitmap.run(block, blocks - block);
        if !set {
            let end = rank + length;
            let mut next = rank;
            while next < end {
                base.read_at(&mut bytes, (block + next - rank) * MAPUNIT)?;
                hash.update(bytes);
                next = if next < FIRST { next + 1 } else { (next / spacing + 1) * spacing };
            }
            rank = end;
        }
        block += length;
    }
    let digest: [u8; 32] = hash.finalize().into();
    Ok(digest[..14].try_into().expect("a digest is longer"))
}

/// Blocks that live in the cowfile, evenly spaced.
fn witnesses(cow: &AtRest) -> Vec<u64> {
    let count = cow.bitmap.count();
    let mut ranks = (0..WITNESSES as u64).map(|i| i * count / WITNESSES as u64).peekable();
    let mut found = Vec::new();
    let mut rank = 0;
    for (first, length) in cow.bitmap.runs() {
        while let Some(next) = ranks.next_if(|next| *next < rank + length) {
            found.push(first + next - rank);
        }
        rank += length;
    }
    found
}

fn sector_of(base: &dyn Layer, block: u64) -> Result<[u8; SECTOR]> {
    let mut sector = [0; SECTOR];
    base.read_at(&mut sector, block * MAPUNIT)?;
    Ok(sector)
}

fn checksum(sector: &[u8]) -> u16 {
    libdeflater::crc32(sector) as u16
}
