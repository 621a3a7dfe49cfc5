//! Reading ahead: workers decode the next blocks of readers that go through the image in order.
//!
//! A sequence is a reader that was seen to go from one block to the next. Its window, the
//! blocks that are decoded ahead of it, begins small and doubles with each step. A worker
//! asks for the next two blocks of a sequence each time, so that nothing is left to do when
//! the reader goes elsewhere: a few jumps that belong to no sequence put all others to sleep
//! until their readers come back.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::workers::Workers;

/// Blocks that a worker decodes together, which takes less time than one after the other.
const TOGETHER: u64 = 2;

/// Hints that wait for a worker at most.
const MOST_HINTS: usize = 256;

/// Decodes blocks before they are wanted.
pub(super) trait LoadAhead: Send + Sync {
    /// Decodes blocks into the cache, except those that are there or on their way, and unless
    /// they were `asked` for those that readers have had lately.
    fn load_ahead(&self, blocks: Range<u64>, asked: bool);
}

/// Sends workers ahead of the readers of one image.
#[derive(Debug)]
pub(super) struct ReadAhead<L> {
    sequences: Sequences,
    blocks: u64,
    hints: AtomicUsize,
    workers: Arc<Workers>,
    loader: Weak<L>,
}

impl<L: LoadAhead + 'static> ReadAhead<L> {
    /// For an image of `blocks` blocks; `cache_bytes` bound how far ahead of a
    /// reader the workers get.
    pub(super) fn new(
        blocks: u64,
        block_size: usize,
        cache_bytes: u64,
        workers: Arc<Workers>,
        loader: Weak<L>,
    ) -> Arc<Self> {
        let sequences = Sequences::new(block_size, cache_bytes);
        Arc::new(ReadAhead { sequences, blocks, hints: AtomicUsize::new(0), workers, loader })
    }

    /// Notes that a reader takes the blocks `[first, end)`: sees whether it reads in order,
    /// and sends workers ahead of it.
    pub(super) fn follow(self: &Arc<Self>, first: u64, end: u64) -> Step {
        let step = self.sequences.step(first, end, self.workers.spare());
        if let Some(id) = step.wanted {
            let this = self.clone();
            self.workers.spawn(move || this.run(id));
        }
        step
    }

    /// Does a worker's part for a sequence.
    fn run(&self, id: u64) {
        while let Some(loader) = self.loader.upgrade() {
            let Some(blocks) = self.sequences.take(id, self.blocks) else { return };
            loader.load_ahead(blocks, false);
        }
    }

    /// Has a range of blocks decoded by a worker. The hint is dropped where there are no
    /// workers yet, or where so many hints wait that their blocks would fill the memory.
    pub(super) fn hint(self: &Arc<Self>, blocks: Range<u64>) {
        let hint = Hint(self.clone());
        if self.hints.fetch_add(1, Ordering::AcqRel) < MOST_HINTS {
            self.workers.spawn(move || {
                for first in blocks.clone().step_by(TOGETHER as usize) {
                    let Some(loader) = hint.0.loader.upgrade() else { return };
                    loader.load_ahead(first..blocks.end.min(first + TOGETHER), true);
                }
            });
        }
    }
}

/// A hint, followed or not: once dropped, it waits no more.
struct Hint<L>(Arc<ReadAhead<L>>);

impl<L> Drop for Hint<L> {
    fn drop(&mut self) {
        self.0.hints.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sequences that are followed at a time.
const SEQUENCES: usize = 16;
/// The window at first, in blocks.
const FIRST_WINDOW: u64 = 2;
/// The largest window, in bytes.
const LARGEST_WINDOW: u64 = 4 << 20;
/// Jumps after which a sequence sleeps.
const PATIENCE: u32 = 2;

/// The readers that are followed.
#[derive(Debug)]
struct Sequences {
    table: Mutex<Vec<Sequence>>,
    largest_window: u64,
    ids: AtomicU64,
}

#[derive(Debug)]
struct Sequence {
    id: u64,
    /// The block that its reader wants next.
    next: u64,
    /// The first block that no worker was sent for.
    ahead: u64,
    /// Blocks to be ahead of the reader.
    window: u64,
    /// Jumps since its reader was last seen.
    jumps: u32,
    /// Workers that decode for it.
    workers: usize,
}

/// The meaning of a reader's step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// It goes on where an earlier one ended.
    pub(super) sequential: bool,
    /// Blocks below this one may be on their way.
    pub(super) ahead: u64,
    /// The sequence, when it needs one more worker.
    pub(super) wanted: Option<u64>,
}

impl Sequences {
    /// `cache_bytes` bound how far ahead a reader can be served.
    fn new(block_size: usize, cache_bytes: u64) -> Self {
        let bytes = LARGEST_WINDOW.min(cache_bytes / 8);
        Sequences {
            table: Mutex::new(Vec::with_capacity(SEQUENCES)),
            largest_window: bytes / block_size as u64,
            ids: AtomicU64::new(0),
        }
    }

    /// Notes that a reader takes the blocks `[first, end)`. `spare` is the number of
    /// workers that could be used.
    fn step(&self, first: u64, end: u64, spare: usize) -> Step {
        let mut table = self.table.lock();
        // Requests of one reader may overtake each other a little.
        let reach = |sequence: &Sequence| sequence.next + sequence.window;
        let found =
            table.iter().position(|sequence| (sequence.next..=reach(sequence)).contains(&first));
        let Some(found) = found else {
            // The block that it just had, once more: neither a step nor a jump.
            if table.iter().any(|sequence| (first + 1, end) == (sequence.next, sequence.next)) {
                return Step::default();
            }
            for sequence in table.iter_mut() {
                sequence.jumps = sequence.jumps.saturating_add(1);
            }
            if table.len() == SEQUENCES {
                table.pop();
            }
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            let sequence = Sequence { id, next: end, ahead: end, window: 0, jumps: 0, workers: 0 };
            table.insert(0, sequence);
            return Step::default();
        };
        // The latest first: the last of the table is forgotten first.
        table[..=found].rotate_right(1);
        let sequence = &mut table[0];
        sequence.next = sequence.next.max(end);
        sequence.ahead = sequence.ahead.max(end);
        sequence.window = (sequence.window * 2).max(FIRST_WINDOW).min(self.largest_window);
        sequence.jumps = 0;
        let wanted = sequence.ahead < sequence.next + sequence.window && sequence.workers < spare;
        if wanted {
            sequence.workers += 1;
        }
        Step { sequential: true, ahead: sequence.ahead, wanted: wanted.then_some(sequence.id) }
    }

    /// The next blocks to decode for a sequence; `None`: the worker is not needed any more.
    fn take(&self, id: u64, blocks: u64) -> Option<Range<u64>> {
        let mut table = self.table.lock();
        let sequence = table.iter_mut().find(|sequence| sequence.id == id)?;
        let end = (sequence.next + sequence.window).min(blocks);
        if sequence.jumps >= PATIENCE || sequence.ahead >= end {
            sequence.workers -= 1;
            return None;
        }
        let first = sequence.ahead;
        sequence.ahead = end.min(first + TOGETHER);
        Some(first..sequence.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences() -> Sequences {
        Sequences::new(65536, 64 << 20)
    }

    #[test]
    fn a_reader_in_order_is_followed_with_a_growing_window() {
        let sequences = sequences();
        assert_eq!(sequences.step(10, 11, 2), Step::default());
        let step = sequences.step(11, 12, 2);
        let id = step.wanted.unwrap();
        assert!(step.sequential);
        assert_eq!([0; 2].map(|_| sequences.take(id, 1000)), [Some(12..14), None]);
        let step = sequences.step(12, 13, 2);
        assert_eq!((step.ahead, step.wanted), (14, Some(id)));
        assert_eq!([0; 2].map(|_| sequences.take(id, 15)), [Some(14..15), None]);
    }

    #[derive(Debug, Default)]
    struct Loader(Mutex<Vec<u64>>);

    impl LoadAhead for Loader {
        fn load_ahead(&self, blocks: Range<u64>, _: bool) {
            self.0.lock().extend(blocks);
        }
    }

    fn ahead_of(loader: &Arc<Loader>) -> Arc<ReadAhead<Loader>> {
        let workers = Arc::new(Workers::new(2));
        workers.start();
        ReadAhead::new(1000, 65536, 64 << 20, workers, Arc::downgrade(loader))
    }

    #[test]
    fn a_reader_in_order_finds_its_next_blocks_loaded() {
        let loader = Arc::new(Loader::default());
        let ahead = ahead_of(&loader);
        ahead.follow(10, 11);
        assert!(ahead.follow(11, 12).sequential);
        while loader.0.lock().len() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(*loader.0.lock(), [12, 13]);
    }

    #[test]
    fn hints_beyond_a_number_are_lost() {
        let loader = Arc::new(Loader::default());
        let ahead = ahead_of(&loader);
        let held = loader.0.lock();
        for _ in 0..20 * MOST_HINTS {
            ahead.hint(5..6);
            assert!(ahead.hints.load(Ordering::SeqCst) <= MOST_HINTS);
        }
        drop(held);
        while ahead.hints.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let loaded = loader.0.lock();
        assert!((1..=MOST_HINTS).contains(&loaded.len()));
        assert!(loaded.iter().all(|block| *block == 5));
    }

    #[test]
    fn the_same_block_again_is_no_jump() {
        let sequences = sequences();
        sequences.step(10, 11, 2);
        assert_eq!(sequences.step(10, 11, 2), Step::default());
        assert!(sequences.step(11, 12, 2).sequential);
    }

    #[test]
    fn jumps_stop_the_workers_and_a_return_starts_them() {
        let sequences = sequences();
        sequences.step(10, 11, 2);
        let id = sequences.step(11, 12, 2).wanted.unwrap();
        assert_eq!(sequences.take(id, 1000), Some(12..14));
        assert_eq!(sequences.step(12, 13, 1), Step { sequential: true, ahead: 14, wanted: None });
        sequences.step(500, 501, 2);
        assert_eq!(sequences.take(id, 1000), Some(14..16));
        sequences.step(700, 701, 2);
        assert_eq!(sequences.take(id, 1000), None);
        let step = sequences.step(13, 14, 2);
        assert!(step.sequential);
        assert_eq!(sequences.take(id, 1000), Some(16..18));
    }

    #[test]
    fn no_worker_is_wanted_when_none_is_spare() {
        let sequences = sequences();
        sequences.step(10, 11, 0);
        let step = sequences.step(11, 12, 0);
        assert_eq!((step.sequential, step.wanted), (true, None));
    }

    #[test]
    fn several_readers_are_told_apart() {
        let sequences = sequences();
        for step in 0..50 {
            for reader in 0..8 {
                let block = reader * 1000 + step;
                assert_eq!(sequences.step(block, block + 1, 0).sequential, step > 0);
            }
        }
    }
}
