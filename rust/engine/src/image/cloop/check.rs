//! Checking, when nobody waits, the blocks that were served in part.
//!
//! A checksum covers a whole block, so bytes from the beginning of a block can
//! be given out before it could be checked. Such blocks are queued here and
//! checked by a thread that lives while there are some: at once when the image
//! is idle, slowly when it is not. A block that was found right is not queued
//! again; one that is damaged is logged and fails from then on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use super::zeros::Known;
use super::CloopImage;

/// Blocks that wait at most; beyond that the oldest leaves the cache, and its next
/// reader finds out.
const WAITING: usize = 4096;
/// How long nobody may have read for the image to be idle.
const PAUSE: Duration = Duration::from_millis(5);
/// Pauses after which one block is checked though the image is not idle.
const PATIENCE: u32 = 4;

/// Blocks to be checked.
#[derive(Debug, Default)]
pub(super) struct Unchecked {
    waiting: Mutex<VecDeque<u64>>,
    running: AtomicBool,
}

impl Unchecked {
    /// Whether what waits is being checked.
    pub(super) fn running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Adds a block; returns the one that it takes the place of.
    fn push(&self, block: u64) -> Option<u64> {
        let mut waiting = self.waiting.lock().expect("no panic while locked");
        let pushed_out = if waiting.len() == WAITING { waiting.pop_front() } else { None };
        waiting.push_back(block);
        pushed_out
    }

    fn pop(&self) -> Option<u64> {
        self.waiting.lock().expect("no panic while locked").pop_front()
    }
}

impl CloopImage {
    /// Has a block checked later; nobody does it before there may be threads.
    pub(super) fn check_later(&self, block: u64) {
        if !self.workers.started() {
            return;
        }
        if let Some(pushed_out) = self.unchecked.push(block) {
            self.forget(pushed_out);
        }
        if self.unchecked.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let image = self.me.clone();
        let thread = std::thread::Builder::new().name("cowcloop-check".into());
        if thread.spawn(move || check_all(&image)).is_err() {
            self.unchecked.running.store(false, Ordering::Release);
        }
    }

    /// Decodes a block and forgets it again, but for whether it is right.
    fn check_now(&self, block: u64) {
        if self.states.get(block) == Known::Nothing {
            let mut output = self.buffers.take();
            if self.load_whole(block, self.location(block), &mut output).is_err() {
                // Also when it cannot be read now: its next reader finds out.
                self.forget(block);
            }
        }
    }

    /// Lets go of what the cache has of a block.
    pub(super) fn forget(&self, block: u64) {
        if let Some(entry) = self.cache.peek(block) {
            self.cache.remove(block, &entry);
        }
    }
}

fn check_all(image: &Weak<CloopImage>) {
    let mut reads = None;
    let mut pauses = 0;
    loop {
        std::thread::sleep(PAUSE);
        let Some(image) = Weak::upgrade(image) else { return };
        let now = Some(image.counters.misses.load(Ordering::Relaxed));
        let mut idle = image.workers.busy() == 0 && reads == now;
        pauses += 1;
        while idle || pauses >= PATIENCE {
            pauses = 0;
            let Some(block) = image.unchecked.pop() else {
                image.unchecked.running.store(false, Ordering::Release);
                // Somebody may have come between the look and the store.
                let late =
                    !image.unchecked.waiting.lock().expect("no panic while locked").is_empty();
                if !late || image.unchecked.running.swap(true, Ordering::AcqRel) {
                    return;
                }
                break;
            };
            image.check_now(block);
            idle &= image.workers.busy() == 0
                && now == Some(image.counters.misses.load(Ordering::Relaxed));
        }
        reads = Some(image.counters.misses.load(Ordering::Relaxed));
    }
}
