//! A server's process, which may be killed between any two of its calls on the cowfile and the
//! kept file.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::format::cowfile::head::HEAD_BYTES;
use cowcloop_engine::storage::Storage;

/// A life that was given no end.
const LONG: u64 = u64::MAX;

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Calls until it is killed.
    left: AtomicU64,
    /// A sync has failed: a kill before the next call would come between that and the note of it,
    /// which no rule covers.
    spared: AtomicBool,
    /// The kept file has no room for another bit.
    full: AtomicBool,
    /// The test itself is looking.
    inspected: AtomicBool,
}

impl Process {
    pub fn new() -> Arc<Process> {
        Arc::new(Process {
            left: AtomicU64::new(LONG),
            spared: AtomicBool::new(false),
            full: AtomicBool::new(false),
            inspected: AtomicBool::new(false),
        })
    }

    /// It is to be killed after so many calls more.
    pub fn kill_after(&self, calls: u64) {
        self.left.store(calls, Ordering::Relaxed);
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Whether the kept file has room for bits that are not in it.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Runs `look`, whose calls do not count.
    pub fn inspect<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = self.inspected.swap(true, Ordering::Relaxed);
        let found = look();
        self.inspected.store(before, Ordering::Relaxed);
        found
    }

    fn call(&self) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        if self.inspected.load(Ordering::Relaxed) || left == LONG {
            return Ok(());
        }
        if left == 0 && !self.spared.swap(false, Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        Ok(())
    }
}

/// A file as a process has it open.
#[derive(Debug)]
pub struct Mortal {
    pub process: Arc<Process>,
    pub inner: Arc<dyn Storage>,
    /// It is the kept file.
    pub kept: bool,
}

impl Storage for Mortal {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> io::Result<u64> {
        self.process.call()?;
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.process.call()?;
        self.inner.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.process.call()?;
        if self.kept && offset >= HEAD_BYTES && self.process.full.load(Ordering::Relaxed) {
            // A short write.
            self.inner.write_all_at(&buf[..buf.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.process.call()?;
        self.inner.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.process.call()?;
        let outcome = self.inner.sync();
        self.process.spared.store(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.process.call()?;
        self.inner.drop_cache()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.process.call()?;
        self.inner.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.process.call()?;
        self.inner.next_hole(offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.process.call()?;
        self.inner.allocated()
    }
}
