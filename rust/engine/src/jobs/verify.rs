//! Reading every block of an image, to find those that cannot be read.
//!
//! Ranges of blocks can be checked by themselves, also on machines that do not see the image:
//! their compressed bytes are taken out of it for them.

use std::ops::Range;

use serde::Serialize;

use super::{ordered, thread_count};
use crate::image::CloopImage;
use crate::progress::{check, Progress};
use crate::read::{BadBlock, StoredBlock};
use crate::Result;

/// How many decoded bytes one thread checks before it asks for more, unless
/// one block is more.
const PIECE: u64 = 1 << 20;

/// What [`verify()`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Blocks that were read: all.
    pub blocks: u64,
    /// How many cannot be read.
    pub bad_blocks: u64,
    /// Those blocks, in order, [`MAX_BAD`] of them at most.
    pub bad: Vec<BadBlock>,
}

/// How many bad blocks are described one by one.
pub(crate) const MAX_BAD: usize = 100_000;

/// Reads and decodes every block, with its checksum where the codec has one.
///
/// Header and index were checked when the image was opened.
///
/// # Errors
/// `Cancelled` alone: a block that cannot be read, for whatever reason, is in
/// the report.
pub fn verify(image: &CloopImage, threads: usize, progress: &dyn Progress) -> Result<VerifyReport> {
    let blocks = image.block_count();
    let block_size = u64::from(image.block_size());
    let piece = (PIECE / block_size).max(1);
    progress.total(blocks * block_size);
    let check = || check(progress, image.name());
    let threads = thread_count(threads);
    let mut next = 0;
    let mut report = VerifyReport { blocks, bad: Vec::new(), bad_blocks: 0 };
    ordered::run(
        threads,
        4 * threads,
        || {
            let first = next;
            next = (first + piece).min(blocks);
            Ok((first < blocks).then_some(first..next))
        },
        Vec::new,
        |scratch, range| {
            let length = (range.end - range.start) * block_size;
            Ok((length, check_range(image, range, scratch)))
        },
        |(length, bad)| {
            report.bad_blocks += bad.len() as u64;
            let room = MAX_BAD - report.bad.len();
            report.bad.extend(bad.into_iter().take(room));
            progress.advance(length);
            Ok(())
        },
        &check,
    )?;
    Ok(report)
}

/// Reads and decodes the blocks of a range, and returns those that cannot be read. `scratch`
/// is working space that may be reused.
///
/// # Panics
/// When the range does not lie in the image.
pub fn check_range(image: &CloopImage, range: Range<u64>, scratch: &mut Vec<u8>) -> Vec<BadBlock> {
    let blocks: Vec<u64> = range.collect();
    image.check_blocks(&blocks, scratch)
}

/// Blocks taken out of an image.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The blocks that have compressed bytes.
    pub blocks: Vec<StoredBlock>,
    /// Their compressed bytes, one after the other.
    pub bytes: Vec<u8>,
    /// Those that could not be read.
    pub bad: Vec<BadBlock>,
}

/// Takes the blocks of a range out of an image, as they are.
///
/// # Panics
/// When the range does not lie in the image.
pub fn take_range(image: &CloopImage, range: Range<u64>) -> Taken {
    let mut taken = Taken::default();
    let mut bytes = Vec::new();
    for block in range.map(|block| image.stored_block(block)) {
        match image.read_stored(&block, &mut bytes) {
            _ if block.location.length == 0 => {}
            Ok(()) => {
                taken.bytes.extend_from_slice(&bytes);
                taken.blocks.push(block);
            }
            Err(bad) => taken.bad.push(bad),
        }
    }
    taken
}

/// Decodes blocks that were taken out of an image with blocks of `block_size` bytes, and
/// returns those that are bad: `None` where `bytes` are not theirs.
pub fn check_taken(
    blocks: &[StoredBlock],
    mut bytes: &[u8],
    block_size: u32,
) -> Option<Vec<BadBlock>> {
    let mut scratch = Vec::new();
    let mut bad = Vec::new();
    for block in blocks {
        let input;
        (input, bytes) = bytes.split_at_checked(block.location.length as usize)?;
        bad.extend(block.check(input, block_size, &mut scratch).err());
    }
    bytes.is_empty().then_some(bad)
}
