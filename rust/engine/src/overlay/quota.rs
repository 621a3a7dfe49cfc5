//! A limit on the space that a cowfile takes on its medium.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::Storage;

/// The unit in which file systems usually allocate space, in bytes.
const GRAIN: u64 = 4096;

/// The space that a cowfile may take, and what writes under way may add to it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    promised: AtomicU64,
}

/// Space promised to a write, until it is dropped.
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    quota: &'a Quota,
    bytes: u64,
}

impl Quota {
    /// A quota of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Quota {
        Quota { limit, promised: AtomicU64::new(0) }
    }

    /// Bytes that the cowfile may take on its medium.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Asks to write `length` bytes at `offset` of `storage`; `None` when that may exceed
    /// the limit. Ranges that have their space already may always be written again.
    pub(crate) fn admit(
        &self,
        storage: &dyn Storage,
        offset: u64,
        length: u64,
    ) -> io::Result<Option<Promise<'_>>> {
        let end = offset + length;
        let bytes = end.next_multiple_of(GRAIN) - offset / GRAIN * GRAIN;
        let promised = self.promised.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // Returns the promised space on every way out that does not keep it.
        let promise = Promise { quota: self, bytes };
        let fits = storage.allocated()?.saturating_add(promised) <= self.limit;
        let overwrites = || -> io::Result<bool> {
            Ok(storage.next_data(offset)? == Some(offset) && storage.next_hole(offset)? >= end)
        };
        Ok((fits || overwrites()?).then_some(promise))
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.quota.promised.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn the_limit_holds_for_new_space_only() {
        let storage = MemoryStorage::new("m", 1 << 30);
        let quota = Quota::new(3 * GRAIN);
        let write = |offset: u64, length: usize| {
            let promise = quota.admit(&storage, offset, length as u64).unwrap();
            promise.is_some_and(|_| storage.write_all_at(&vec![1; length], offset).is_ok())
        };
        assert!(write(0, 4096));
        assert!(write(4096, 8192));
        assert!(!write(12288, 1));
        assert!(write(100, 12000), "an overwrite needs no space");
        assert!(!write(100, 12288), "its tail would");
        storage.punch_hole(0, 4096).unwrap();
        assert!(write(12288, 1024), "freed space may be used again");
        assert!(!write(0, 512));
    }

    #[test]
    fn writes_under_way_count() {
        let storage = MemoryStorage::new("m", 1 << 30);
        let quota = Quota::new(2 * GRAIN);
        let first = quota.admit(&storage, 0, 4096).unwrap();
        let second = quota.admit(&storage, 4096, 4096).unwrap();
        assert!(first.is_some() && second.is_some());
        assert!(quota.admit(&storage, 8192, 1).unwrap().is_none());
        drop(first);
        assert!(quota.admit(&storage, 8192, 1).unwrap().is_some());
    }
}
