//! What has been asked of a server, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

use cowcloop_engine::storage::FetchCounters;

/// Counts of one image, which survive a fork and the threads of a link.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    renewals: AtomicU64,
}

impl Counts {
    /// A request is made.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes of an answer's body have come.
    pub fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What has failed is tried again.
    pub fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A read has failed.
    pub fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// What was fetched, or kept, was wrong.
    pub fn renewal(&self) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, of an image of which so many bytes are kept.
    pub fn all(&self, kept_bytes: u64) -> FetchCounters {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FetchCounters {
            requests: of(&self.requests),
            bytes: of(&self.bytes),
            retries: of(&self.retries),
            failures: of(&self.failures),
            renewals: of(&self.renewals),
            kept_bytes,
        }
    }
}
