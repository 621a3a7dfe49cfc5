//! A range on its way, for all who wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::cache::CHUNK;
use crate::failure::Failure;
use crate::interrupt;

/// Chunks that one request fetches.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The first chunk, and the one after the last.
    pub first: u64,
    pub end: u64,
    pub begun: Instant,
    /// A reader waits for it: it goes first, and is tried again when it fails.
    wanted: AtomicBool,
    promoted: Notify,
    /// Its bytes were found wrong.
    spoilt: AtomicBool,
    outcome: Mutex<Option<Result<Bytes, Failure>>>,
    landed: Condvar,
}

impl Flight {
    pub fn new(first: u64, end: u64, wanted: bool) -> Flight {
        Flight {
            first,
            end,
            begun: Instant::now(),
            wanted: AtomicBool::new(wanted),
            promoted: Notify::new(),
            spoilt: AtomicBool::new(false),
            outcome: Mutex::default(),
            landed: Condvar::new(),
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// A reader waits for it from now on.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.promoted.notify_one();
        }
    }

    /// Returns once a reader waits for it.
    pub async fn until_wanted(&self) {
        while !self.is_wanted() {
            self.promoted.notified().await;
        }
    }

    /// Its bytes were found wrong.
    pub fn spoil(&self) {
        self.spoilt.store(true, Ordering::Release);
    }

    pub fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }

    /// Whether its bytes have come.
    pub fn has_bytes(&self) -> bool {
        matches!(&*self.outcome.lock(), Some(Ok(_)))
    }

    /// Waits for the outcome, but not longer than until `until`, nor beyond an interrupt.
    pub fn wait(&self, until: Instant) -> Option<Result<Bytes, Failure>> {
        let mut outcome = self.outcome.lock();
        while outcome.is_none() && Instant::now() < until {
            if interrupt::raised() {
                return Some(Err(Failure::interrupted()));
            }
            let next = until.min(Instant::now() + interrupt::TICK);
            self.landed.wait_until(&mut outcome, next);
        }
        outcome.clone()
    }

    /// Tells the outcome to all who wait; the first one counts.
    pub fn land(&self, outcome: impl FnOnce() -> Result<Bytes, Failure>) {
        self.outcome.lock().get_or_insert_with(outcome);
        self.landed.notify_all();
    }

    /// Copies bytes from `offset` on, as far as these chunks have them; how many.
    pub fn copy(&self, bytes: &Bytes, buf: &mut [u8], offset: u64) -> usize {
        let from = (offset - self.first * CHUNK) as usize;
        let source = bytes.get(from..).unwrap_or_default();
        let n = source.len().min(buf.len());
        buf[..n].copy_from_slice(&source[..n]);
        n
    }
}
