//! What the tests read from, and where.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::storage::Storage;

/// A medium that may take its time or fail, and notes where it is read.
#[derive(Debug)]
pub(super) struct Medium {
    inner: Arc<dyn Storage>,
    delay: Duration,
    /// Reads until one fails; below 0: none does.
    left: AtomicI64,
    reads: Mutex<Vec<u64>>,
    bytes_read: AtomicU64,
}

impl Medium {
    pub(super) fn over(inner: Arc<dyn Storage>) -> Arc<Medium> {
        Self::slow(inner, Duration::ZERO)
    }

    /// One that takes so long for each read.
    pub(super) fn slow(inner: Arc<dyn Storage>, delay: Duration) -> Arc<Medium> {
        let (reads, bytes_read) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Medium { inner, delay, left: AtomicI64::new(-1), reads, bytes_read })
    }

    /// Has the read after the next `reads` fail, and no other.
    pub(super) fn fail_after(&self, reads: i64) {
        self.left.store(reads, Ordering::SeqCst);
    }

    /// Where it was read, in order.
    pub(super) fn reads(&self) -> Vec<u64> {
        self.reads.lock().unwrap().clone()
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::SeqCst)
    }
}

impl Storage for Medium {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.lock().unwrap().push(offset);
        self.bytes_read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::Error::from_raw_os_error(5)),
            _ => self.inner.read_at(buf, offset),
        }
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(buf, offset)
    }
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.punch_hole(offset, length)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
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
}

/// Numbers below what is asked for, the same for the same seed, which is not 0.
pub(super) fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}
