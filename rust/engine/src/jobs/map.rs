//! The content of a device, place by place: for pictures.

use std::ops::ControlFlow;

use crate::device::Device;
use crate::format::cowfile::head::MAPUNIT;
use crate::image::{CloopImage, Image};
use crate::progress::{check, Progress};
use crate::{ExtentKind, Result};

/// How finely a device can be divided.
pub(crate) const MAX_CELLS: usize = 1 << 20;

/// Bytes of the device between two checks whether to go on.
const STEP: u64 = 1 << 30;

/// The content of one part of a device, in bytes. `zero`, the sum of `data`, and `changed`
/// add up to the part's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Known to be zeros in the base.
    pub zero: u64,
    /// Other bytes of the base, by the compressed size of their blocks: up to a quarter of
    /// their own size, a half, three quarters, more.
    pub data: [u64; 4],
    /// The compressed size of `data` in the image.
    pub stored: u64,
    /// Bytes that live in a cowfile.
    pub changed: u64,
}

/// Divides a device into `cells` parts of the same size (but for rounding; 1 to
/// [`MAX_CELLS`], and at most one per byte) and describes each.
///
/// Costs reading the index, and the compressed bytes that may be zeros.
///
/// # Errors
/// `Cancelled`, and the system's.
pub fn map(device: &Device, cells: usize, progress: &dyn Progress) -> Result<Vec<Cell>> {
    let size = device.size();
    let cells = cells.clamp(1, MAX_CELLS).min(usize::try_from(size).unwrap_or(MAX_CELLS));
    let mut map = Map { size, cells: vec![Cell::default(); cells] };
    progress.total(size);
    let mut at = 0;
    while at < size {
        check(progress, &device.description())?;
        let end = size.min(at + STEP);
        map.walk(device, device.overlays().len(), at, end)?;
        progress.advance(end - at);
        at = end;
    }
    Ok(map.cells)
}

struct Map {
    size: u64,
    cells: Vec<Cell>,
}

impl Map {
    /// The content of a range in the base and the lowest `overlays` of the device.
    fn walk(&mut self, device: &Device, overlays: usize, start: u64, end: u64) -> Result<()> {
        let Some(lower) = overlays.checked_sub(1) else {
            return self.walk_base(device.base(), start, end);
        };
        let cowfile = device.overlays()[lower].cowfile();
        // A device may be larger than the one below it.
        let inside = end.min(cowfile.blocks() * MAPUNIT).max(start);
        let mut at = start;
        while at < inside {
            let block = at / MAPUNIT;
            let (set, length) = cowfile.bitmap().run(block, inside.div_ceil(MAPUNIT) - block);
            let stop = ((block + length) * MAPUNIT).min(inside);
            if set {
                self.spread(at, stop, |cell, bytes| cell.changed += bytes)
            } else {
                self.walk(device, lower, at, stop)?
            }
            at = stop;
        }
        self.spread(inside, end, |cell, bytes| cell.zero += bytes);
        Ok(())
    }

    fn walk_base(&mut self, base: &Image, start: u64, end: u64) -> Result<()> {
        let inside = end.min(base.size()).max(start);
        if start < inside {
            base.extents(start, inside - start, &mut |extent| {
                match (extent.kind, base) {
                    (ExtentKind::Zero, _) => {
                        self.spread(extent.offset, extent.end(), |cell, bytes| cell.zero += bytes)
                    }
                    (ExtentKind::Data, Image::Cloop(image)) => {
                        self.add_blocks(image, extent.offset, extent.end())
                    }
                    (ExtentKind::Data, Image::Raw(_) | Image::Other(_)) => {
                        self.spread(extent.offset, extent.end(), |cell, bytes| {
                            cell.data[3] += bytes;
                            cell.stored += bytes;
                        })
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        self.spread(inside, end, |cell, bytes| cell.zero += bytes);
        Ok(())
    }

    fn add_blocks(&mut self, image: &CloopImage, start: u64, end: u64) {
        let block_size = u64::from(image.block_size());
        let mut at = start;
        while at < end {
            let block = at / block_size;
            let stop = ((block + 1) * block_size).min(end);
            let length = u64::from(image.location(block).length);
            let quarter = (4 * length).div_ceil(block_size).clamp(1, 4) as usize - 1;
            self.spread(at, stop, |cell, bytes| {
                cell.data[quarter] += bytes;
                cell.stored += length * bytes / block_size;
            });
            at = stop;
        }
    }

    /// Gives each cell its share of a range.
    fn spread(&mut self, start: u64, end: u64, mut add: impl FnMut(&mut Cell, u64)) {
        let mut at = start;
        while at < end {
            let cell = self.cell_of(at);
            let stop = self.begin_of(cell + 1).min(end);
            add(&mut self.cells[cell], stop - at);
            at = stop;
        }
    }

    /// The first byte of a cell.
    fn begin_of(&self, cell: usize) -> u64 {
        (cell as u128 * u128::from(self.size) / self.cells.len() as u128) as u64
    }

    /// The cell that a byte lies in.
    fn cell_of(&self, at: u64) -> usize {
        // The last cell that begins at or before it.
        (((u128::from(at) + 1) * self.cells.len() as u128 - 1) / u128::from(self.size)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_lies_in_one_cell() {
        for (size, cells) in [(10, 3), (7, 7), (1 << 20, 1000), (1025, 64)] {
            let map = Map { size, cells: vec![Cell::default(); cells] };
            assert_eq!((map.begin_of(0), map.begin_of(cells)), (0, size));
            for at in 0..size {
                let cell = map.cell_of(at);
                assert!(map.begin_of(cell) <= at && at < map.begin_of(cell + 1), "{at} of {size}");
            }
        }
    }

    #[test]
    fn a_range_is_spread_without_loss() {
        let mut map = Map { size: 1000, cells: vec![Cell::default(); 7] };
        map.spread(3, 991, |cell, bytes| cell.zero += bytes);
        assert_eq!(map.cells.iter().map(|cell| cell.zero).sum::<u64>(), 988);
        assert_eq!(map.cells[3].zero, map.begin_of(4) - map.begin_of(3));
    }
}
