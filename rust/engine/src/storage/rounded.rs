//! A file that ends within a unit, read as if zeros filled the unit up.

use std::io;
use std::sync::Arc;

use super::{FileStorage, Storage};

/// Another storage, and zeros behind its end.
#[derive(Debug)]
pub(crate) struct Rounded {
    inner: Arc<dyn Storage>,
    /// The length when it was opened: a file that is shorter now has lost something.
    end: u64,
    least: u64,
}

impl Rounded {
    /// `inner`, which ends at `end`, with zeros up to `least`.
    pub(crate) fn new(inner: Arc<dyn Storage>, end: u64, least: u64) -> Self {
        Rounded { inner, end, least }
    }
}

impl Storage for Rounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> io::Result<u64> {
        let length = self.inner.len()?;
        Ok(if length < self.end { length } else { length.max(self.least) })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.inner.read_at(buf, offset)?;
        let at = offset + read as u64;
        if read == buf.len() || at >= self.least || at < self.end {
            return Ok(read);
        }
        let zeros = (self.least - at).min((buf.len() - read) as u64) as usize;
        buf[read..read + zeros].fill(0);
        Ok(read + zeros)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.punch_hole(offset, length)
    }

    fn can_be_long(&self, length: u64) -> io::Result<bool> {
        self.inner.can_be_long(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.inner.drop_cache()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_hole(offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.inner.allocated()
    }

    fn has_name(&self) -> io::Result<bool> {
        self.inner.has_name()
    }

    fn file_id(&self) -> io::Result<Option<(u64, u64)>> {
        self.inner.file_id()
    }

    fn share_blocks_with(&self, target: &FileStorage) -> io::Result<()> {
        self.inner.share_blocks_with(target)
    }

    fn abandon(&self) {
        self.inner.abandon();
    }

    fn reopen_read_only(&self) -> io::Result<()> {
        self.inner.reopen_read_only()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn zeros_follow_the_end_and_nothing_else() {
        let inner = Arc::new(MemoryStorage::new("inner", u64::MAX));
        inner.write_all_at(b"0123456", 0).unwrap();
        let rounded = Rounded::new(inner.clone(), 7, 10);
        assert_eq!(rounded.len().unwrap(), 10);
        let read = |offset| {
            let mut buf = [b'x'; 5];
            let n = rounded.read_at(&mut buf, offset).unwrap();
            buf[..n].to_vec()
        };
        assert_eq!(read(0), b"01234");
        assert_eq!(read(4), b"456\0\0");
        assert_eq!(read(8), b"\0\0");
        assert_eq!(read(10), b"");
        rounded.write_all_at(b"78", 7).unwrap();
        assert_eq!(read(5), b"5678\0");
        rounded.write_all_at(b"end", 12).unwrap();
        assert_eq!((read(8), rounded.len().unwrap()), (b"8\0\0\0e".to_vec(), 15));
    }

    #[test]
    fn what_a_file_has_lost_since_is_no_zeros() {
        let inner = Arc::new(MemoryStorage::new("inner", u64::MAX));
        inner.write_all_at(b"0123", 0).unwrap();
        let rounded = Rounded::new(inner, 7, 10);
        assert_eq!(rounded.len().unwrap(), 4);
        assert_eq!(rounded.read_at(&mut [0; 5], 2).unwrap(), 2);
        assert!(rounded.read_exact_at(&mut [0; 1], 5).is_err());
    }
}
