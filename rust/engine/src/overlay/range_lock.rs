//! Exclusive ranges of blocks, granted in the order of the requests.
//!
//! Every change of an overlay holds the range of blocks that it touches. So a
//! read-modify-write cannot undo a write that was acknowledged meanwhile, and the holder of
//! the whole device's range knows that no change is under way.

use std::collections::VecDeque;
use std::ops::Range;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A queue of ranges, each held or waited for.
#[derive(Debug, Default)]
pub(crate) struct RangeLocks {
    queue: Mutex<Queue>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<(u64, Range<u64>)>,
    next: u64,
    waiting: usize,
}

impl Queue {
    /// Whether a caller that came before `ticket` has or wants a part of `range`.
    fn is_blocked(&self, ticket: u64, range: &Range<u64>) -> bool {
        self.entries
            .iter()
            .take_while(|(other, _)| *other < ticket)
            .any(|(_, other)| other.start < range.end && range.start < other.end)
    }
}

/// Holds a range until dropped.
#[derive(Debug)]
pub(crate) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    ticket: u64,
}

impl RangeLocks {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Waits until no earlier caller holds or wants a part of `range`, and takes it.
    pub(crate) fn lock(&self, range: Range<u64>) -> RangeGuard<'_> {
        let mut queue = self.queue();
        let ticket = queue.next;
        queue.next += 1;
        queue.entries.push_back((ticket, range.clone()));
        while queue.is_blocked(ticket, &range) {
            queue.waiting += 1;
            self.released.wait(&mut queue);
            queue.waiting -= 1;
        }
        RangeGuard { locks: self, ticket }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.locks.queue();
        let at = queue.entries.iter().position(|(ticket, _)| *ticket == self.ticket);
        queue.entries.remove(at.expect("an entry stays as long as its guard"));
        if queue.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn overlapping_ranges_exclude_each_other() {
        let locks = RangeLocks::default();
        let cells: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (locks, cells) = (&locks, &cells);
                scope.spawn(move || {
                    for i in 0..2000_u64 {
                        let start = (i * 7 + thread * 3) % 13;
                        let range = start..start + 1 + i % 3;
                        let _guard = locks.lock(range.clone());
                        for cell in &cells[start as usize..range.end as usize] {
                            assert_eq!(cell.swap(thread + 1, Ordering::Relaxed), 0);
                        }
                        for cell in &cells[start as usize..range.end as usize] {
                            cell.store(0, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(locks.queue().entries.is_empty());
    }
}
