//! Reading every block of an image, to find those that cannot be read.

use serde::Serialize;

use super::{ordered, thread_count};
use crate::image::CloopImage;
use crate::progress::{check, Progress};
use crate::read::BadBlock;
use crate::Result;

/// How many decoded bytes one thread checks before it asks for more, unless
/// one block is more.
const PIECE: u64 = 1 << 20;

/// What [`verify()`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Blocks that were read: all.
    pub blocks: u64,
    /// Those that cannot be read, in order, [`MAX_BAD`] of them at most.
    pub bad: Vec<BadBlock>,
    /// How many cannot be read.
    pub bad_blocks: u64,
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
            let blocks: Vec<u64> = range.collect();
            Ok((length, image.check_blocks(&blocks, scratch)))
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
