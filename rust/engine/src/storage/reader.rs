//! A storage as something that is read from front to back.

use std::io::{self, Read};

use super::Storage;

/// Reads a storage from its beginning on.
pub(crate) struct StorageReader<'a> {
    storage: &'a dyn Storage,
    position: u64,
}

impl<'a> StorageReader<'a> {
    pub(crate) fn new(storage: &'a dyn Storage) -> Self {
        StorageReader { storage, position: 0 }
    }
}

impl Read for StorageReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.storage.read_at(buf, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
