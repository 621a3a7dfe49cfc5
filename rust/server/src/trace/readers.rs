//! The reads of clients that are under way, counted while a thread gives way to them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The count.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// A thread looks at the count.
    watched: AtomicBool,
    under_way: AtomicU64,
}

impl Readers {
    /// Counts a read for as long as the result lives, if that is of use.
    pub(crate) fn begin(&self) -> Option<Reading<'_>> {
        self.watched.load(Ordering::Relaxed).then(|| {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            Reading(self)
        })
    }

    /// Has reads counted, or not any more.
    pub(super) fn watch(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Whether any read is under way.
    pub(super) fn any(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

/// A read under way.
pub(crate) struct Reading<'a>(&'a Readers);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_count_while_a_thread_looks() {
        let readers = Readers::default();
        assert!(readers.begin().is_none());
        readers.watch(true);
        let read = readers.begin();
        assert!(readers.any());
        readers.watch(false);
        drop(read);
        assert!(!readers.any() && readers.begin().is_none());
    }
}
