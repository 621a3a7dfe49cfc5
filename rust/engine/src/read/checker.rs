//! Checks blocks that were served in part, when no reader waits.
//!
//! A checksum covers a whole block, so bytes from the beginning of a block can be returned
//! before it could be checked. Such blocks are queued here and checked by a thread that
//! lives while the queue holds any: at once when the image is idle, slowly when it is not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

/// The most blocks that may wait.
const WAITING: usize = 4096;
/// The image is idle when no reader has come for this long.
const PAUSE: Duration = Duration::from_millis(5);
/// Blocks that are decoded together, which takes less time than one after the other.
const TOGETHER: usize = 2;
/// Pauses after which blocks are checked even if the image is not idle.
const PATIENCE: u32 = 4;

/// Checks blocks, on behalf of the queue.
pub(super) trait CheckBlock: Send + Sync {
    /// Checks blocks, except those that were checked meanwhile.
    fn check_blocks(&self, blocks: &[u64]);

    /// The decoding done so far for readers, in blocks; `None` while some is going on.
    fn idle_since(&self) -> Option<u64>;
}

/// Blocks to be checked.
#[derive(Debug)]
pub(super) struct Checker<C> {
    waiting: Mutex<VecDeque<u64>>,
    running: AtomicBool,
    target: Weak<C>,
}

impl<C: CheckBlock + 'static> Checker<C> {
    pub(super) fn new(target: Weak<C>) -> Arc<Self> {
        let (waiting, running) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Checker { waiting, running, target })
    }

    /// Whether the blocks that wait are being checked.
    pub(super) fn running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Has a block checked later, by a thread of its own. Returns the block that it
    /// displaces from the queue, which stays unchecked.
    pub(super) fn check_later(self: &Arc<Self>, block: u64) -> Option<u64> {
        let pushed_out = {
            let mut waiting = self.waiting.lock();
            let pushed_out = if waiting.len() == WAITING { waiting.pop_front() } else { None };
            waiting.push_back(block);
            pushed_out
        };
        if !self.running.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            let thread = std::thread::Builder::new().name("cowcloop-check".into());
            if thread.spawn(move || this.run()).is_err() {
                self.running.store(false, Ordering::Release);
            }
        }
        pushed_out
    }

    fn run(&self) {
        let mut seen = None;
        let mut pauses = 0;
        loop {
            std::thread::sleep(PAUSE);
            let Some(target) = self.target.upgrade() else { return };
            let now = target.idle_since();
            let mut idle = now.is_some() && seen == now;
            pauses += 1;
            while idle || pauses >= PATIENCE {
                pauses = 0;
                let blocks: Vec<_> = {
                    let mut waiting = self.waiting.lock();
                    let together = waiting.len().min(TOGETHER);
                    waiting.drain(..together).collect()
                };
                if blocks.is_empty() {
                    if self.stopped() {
                        return;
                    }
                    break;
                }
                target.check_blocks(&blocks);
                idle &= now == target.idle_since();
            }
            seen = target.idle_since();
        }
    }

    /// Ends the thread's turn, unless a block came in between.
    fn stopped(&self) -> bool {
        self.running.store(false, Ordering::Release);
        self.waiting.lock().is_empty() || self.running.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[derive(Debug, Default)]
    struct Target {
        busy: AtomicBool,
        reads: AtomicU64,
        checked: Mutex<Vec<u64>>,
    }

    impl CheckBlock for Target {
        fn check_blocks(&self, blocks: &[u64]) {
            self.checked.lock().extend(blocks);
        }

        fn idle_since(&self) -> Option<u64> {
            let busy = self.busy.load(Ordering::Acquire);
            (!busy).then(|| self.reads.load(Ordering::Acquire))
        }
    }

    fn eventually(condition: impl Fn() -> bool) -> bool {
        (0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            condition()
        })
    }

    #[test]
    fn what_waits_is_checked_in_order_and_the_thread_ends() {
        let target = Arc::new(Target::default());
        let checker = Checker::new(Arc::downgrade(&target));
        for round in 1..3 {
            (0..100).for_each(|block| assert_eq!(checker.check_later(block), None));
            assert!(eventually(|| !checker.running()));
            assert_eq!(target.checked.lock().len(), 100 * round);
        }
        assert!((0..100).eq(target.checked.lock()[..100].iter().copied()));
    }

    #[test]
    fn a_busy_image_is_checked_too() {
        let target = Arc::new(Target { busy: AtomicBool::new(true), ..Target::default() });
        let checker = Checker::new(Arc::downgrade(&target));
        (0..3).for_each(|block| assert_eq!(checker.check_later(block), None));
        assert!(eventually(|| target.checked.lock().len() == 3));
    }

    #[test]
    fn a_full_queue_gives_up_its_oldest_block() {
        let checker = Checker::<Target>::new(Weak::new());
        checker.running.store(true, Ordering::Release);
        let pushed_out: Vec<_> =
            (0..WAITING as u64 + 2).filter_map(|block| checker.check_later(block)).collect();
        assert_eq!(pushed_out, [0, 1]);
    }
}
