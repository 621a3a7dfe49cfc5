//! What the promise allows: every value that a sector has held since the last flush.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::medium::{Sector, SECTOR};

/// The device as its user knows it, at the sectors that the test looks at.
#[derive(Debug, Clone)]
pub struct Model {
    /// By sector: the values since the last flush, oldest first; the last is current.
    sectors: BTreeMap<u64, Vec<Sector>>,
}

impl Model {
    /// A device that holds what `read` finds in the given sectors.
    pub fn new(sectors: impl Iterator<Item = u64>, mut read: impl FnMut(u64, &mut [u8])) -> Model {
        let load = |number| {
            let mut sector = [0; SECTOR as usize];
            read(number * SECTOR, &mut sector);
            (number, vec![Arc::new(sector)])
        };
        Model { sectors: sectors.map(load).collect() }
    }

    /// A write of `length` bytes at `offset` is under way: `byte(i)` is the i-th.
    pub fn write(&mut self, offset: u64, length: u64, byte: impl Fn(u64) -> u8) {
        let end = offset + length;
        for (number, values) in self.sectors.range_mut(offset / SECTOR..end.div_ceil(SECTOR)) {
            let mut sector = **values.last().expect("a sector has a value");
            for (i, slot) in sector.iter_mut().enumerate() {
                let at = number * SECTOR + i as u64;
                if (offset..end).contains(&at) {
                    *slot = byte(at - offset);
                }
            }
            values.push(Arc::new(sector));
        }
    }

    /// A write failed: each sector of it has the value that `read` finds, every byte of
    /// which must be the one before or the one written, unless something was given up.
    pub fn settle(
        &mut self,
        offset: u64,
        length: u64,
        lossy: bool,
        mut read: impl FnMut(u64, &mut [u8]),
    ) {
        let end = offset + length;
        for (number, values) in self.sectors.range_mut(offset / SECTOR..end.div_ceil(SECTOR)) {
            let mut found = [0; SECTOR as usize];
            read(number * SECTOR, &mut found);
            let [.., before, written] = &values[..] else { unreachable!("it was written to") };
            let mut bytes = found.iter().zip(before.iter().zip(written.iter()));
            assert!(
                lossy
                    || bytes.all(|(found, (before, written))| found == before || found == written),
                "sector {number} is neither as before nor as written after a failed write"
            );
            values.push(Arc::new(found));
        }
    }

    /// A flush was acknowledged: only the current values are allowed from now on.
    pub fn flush(&mut self) {
        for values in self.sectors.values_mut() {
            values.drain(..values.len() - 1);
        }
    }

    /// What is shown may be another value of those allowed, after something was lost in memory:
    /// it is the current one from now on. The first sector that shows something else.
    pub fn adopt(&mut self, mut read: impl FnMut(u64, &mut [u8])) -> Option<u64> {
        let violation = self.violation(&mut read);
        for (number, values) in &mut self.sectors {
            let mut found = [0; SECTOR as usize];
            read(number * SECTOR, &mut found);
            let allowed = values.iter().any(|value| **value == found);
            if allowed && values.last().is_some_and(|value| **value != found) {
                values.push(Arc::new(found));
            }
        }
        violation
    }

    /// The first sector that `read` finds to hold something not allowed.
    pub fn violation(&self, mut read: impl FnMut(u64, &mut [u8])) -> Option<u64> {
        let mut found = [0; SECTOR as usize];
        self.sectors.iter().find_map(|(number, values)| {
            read(number * SECTOR, &mut found);
            values.iter().all(|value| **value != found).then_some(*number)
        })
    }

    /// The first sector that `read` finds to hold something else than the current value.
    pub fn difference(&self, mut read: impl FnMut(u64, &mut [u8])) -> Option<u64> {
        let mut found = [0; SECTOR as usize];
        self.sectors.iter().find_map(|(number, values)| {
            read(number * SECTOR, &mut found);
            (**values.last().expect("a sector has a value") != found).then_some(*number)
        })
    }
}
