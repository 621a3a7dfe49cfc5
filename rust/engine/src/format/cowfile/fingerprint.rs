//! The original driver's fingerprint of a base.

use std::ops::ControlFlow;

use super::head::MAPUNIT;
use crate::{ExtentKind, Layer, Result};

/// Sums that make a fingerprint.
const SUMS: usize = 4;
/// Bytes of the first read; the later ones grow.
const FIRST_READ: u64 = 4096;
const LARGEST_READ: u64 = 1 << 20;

/// The sums, modulo 256, of the first four 1 KiB blocks of `base` whose sum is
/// not 0, the first one lowest; blocks from `blocks` on do not count.
///
/// Ranges that are known to be zeros are passed over without reading them.
pub fn fingerprint(base: &dyn Layer, blocks: u64) -> Result<u32> {
    let end = (blocks * MAPUNIT).min(base.size() / MAPUNIT * MAPUNIT);
    let mut sums: Vec<u8> = Vec::with_capacity(SUMS);
    let mut chunk = FIRST_READ;
    let mut buf = Vec::new();
    // The beginning of the next block to sum: extents need not end with blocks.
    let mut next = 0;
    let mut result = Ok(());
    base.extents(0, end, &mut |extent| {
        if extent.kind == ExtentKind::Zero {
            return ControlFlow::Continue(());
        }
        next = next.max(extent.offset / MAPUNIT * MAPUNIT);
        while next < extent.end() && sums.len() < SUMS {
            let stop = extent.end().next_multiple_of(MAPUNIT).min(end);
            buf.resize((stop - next).min(chunk) as usize, 0);
            if let Err(error) = base.read_at(&mut buf, next) {
                result = Err(error);
                return ControlFlow::Break(());
            }
            let blocks = buf.chunks(MAPUNIT as usize);
            let found =
                blocks.map(|block| block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
            sums.extend(found.filter(|sum| *sum != 0).take(SUMS - sums.len()));
            next += buf.len() as u64;
            chunk = (chunk * 4).min(LARGEST_READ);
        }
        if sums.len() < SUMS {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    result?;
    Ok(sums.iter().rev().fold(0, |value, sum| value << 8 | u32::from(*sum)))
}
