//! Making changes durable, and closing: the order of the writes and syncs that
//! `docs/crash-safety.md` argues.

use std::sync::atomic::Ordering;

use super::cowfile::{Cowfile, State};
use crate::format::cowfile::bitmap::{Bitmap, PageCopy};
use crate::format::cowfile::head::{Head, HEAD_SECTOR, VERSION_OPEN};
use crate::{Error, Result};

/// Pages of the bitmap that are joined for one write.
const PAGES_IN_ONE_GO: usize = 256;

/// Pages of the bitmap that are about to be written. Unless they are, they count as changed again,
/// whatever has gone wrong.
struct Taken<'a> {
    bitmap: &'a Bitmap,
    copies: Vec<PageCopy>,
}

impl<'a> From<&'a Bitmap> for Taken<'a> {
    fn from(bitmap: &'a Bitmap) -> Self {
        Taken { bitmap, copies: bitmap.take_changed() }
    }
}

impl Taken<'_> {
    fn written(mut self) -> Vec<PageCopy> {
        std::mem::take(&mut self.copies)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.bitmap.put_back(&self.copies);
    }
}

impl Cowfile {
    /// Returns once every change that was finished before the call is durable, and its
    /// blocks reachable. Calls at the same time share syncs.
    ///
    /// # Errors
    /// The system's, and `Poisoned` after a failed sync. When writing the bitmap fails, for
    /// want of space for example, a later flush may succeed.
    pub fn flush(&self) -> Result<()> {
        match self.current() {
            State::ReadOnly | State::Closed => Ok(()),
            State::Writable | State::Failed => self.rounds.join(|| self.flush_now()),
        }
    }

    fn flush_now(&self) -> Result<()> {
        if matches!(self.current(), State::ReadOnly | State::Closed) {
            // The end came first, and has made everything durable.
            return Ok(());
        }
        self.check_writable()?;
        let changes = self.changes.load(Ordering::Acquire);
        if changes == self.durable.load(Ordering::Acquire) {
            return Ok(());
        }
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        // What another server has left is about to become durable as it is shown here: bits that
        // were kept for the state before must not join it later.
        self.put_in_use()?;
        // The pages are copied before the data is synced: a bit that is set
        // later may belong to data that this sync does not cover.
        let bits = self.bitmap.count();
        let pages = Taken::from(&self.bitmap);
        self.sync()?;
        self.write_pages(&pages.copies)?;
        if !pages.written().is_empty() {
            self.sync()?;
        }
        self.durable.store(changes, Ordering::Release);
        self.durable_bits.fetch_max(bits, Ordering::Relaxed);
        self.tell_if_removed();
        self.warn_of_little_space();
        Ok(())
    }

    /// Says so once, when the file has no name any more to be found by.
    fn tell_if_removed(&self) {
        if let Err(error) = self.check_kept() {
            if !self.told_removed.swap(true, Ordering::Relaxed) {
                log::warn!("{error}");
            }
        }
    }

    /// Writes pages of the bitmap, up to a number of neighbours at once.
    fn write_pages(&self, pages: &[PageCopy]) -> Result<()> {
        let neighbours = |a: &PageCopy, b: &PageCopy| a.offset + a.bytes.len() as u64 == b.offset;
        for run in pages.chunk_by(neighbours).flat_map(|run| run.chunks(PAGES_IN_ONE_GO)) {
            let joined;
            let bytes = match run {
                [page] => &page.bytes,
                _ => {
                    joined = run.iter().flat_map(|page| page.bytes.iter().copied()).collect();
                    &joined
                }
            };
            self.storage.write_all_at(bytes, run[0].offset).map_err(|error| {
                Error::io(self.name(), "cannot write the cowfile's bitmap", error)
            })?;
        }
        Ok(())
    }

    /// Waits for changes under way, flushes, and marks the file as clean.
    /// Later changes are refused. May be repeated.
    pub fn close(&self) -> Result<()> {
        self.end(State::Closed)
    }

    /// Closes the file and goes on with it read-only: its medium can then be
    /// made read-only or, mounted, shut down.
    pub fn make_read_only(&self) -> Result<()> {
        self.check_kept()?;
        self.end(State::ReadOnly)?;
        self.storage
            .reopen_read_only()
            .map_err(|error| Error::io(self.name(), "cannot open it read-only", error))
    }

    fn end(&self, state: State) -> Result<()> {
        let _alone = self.ranges.lock(0..u64::MAX);
        if matches!(self.current(), State::ReadOnly | State::Closed) {
            return Ok(());
        }
        self.flush()?;
        self.tell_if_removed();
        let mut head = self.head.lock();
        // Even if writing the head fails it may be on the medium: a later change marks the
        // file as in use again, before anything else.
        self.in_use.store(false, Ordering::Release);
        if head.0.version == VERSION_OPEN {
            let next = head.0.closed(self.bitmap.count());
            self.write_head(&mut head, next)?;
        }
        self.state.store(state as u8, Ordering::Release);
        if let Some(kept) = &self.kept {
            kept.void();
        }
        Ok(())
    }

    pub(super) fn write_head(
        &self,
        head: &mut (Head, [u8; HEAD_SECTOR]),
        next: Head,
    ) -> Result<()> {
        let mut sector = head.1;
        next.write(&*self.storage, &mut sector)
            .map_err(|error| Error::io(self.name(), "cannot write the cowfile's head", error))?;
        self.sync()?;
        *head = (next, sector);
        Ok(())
    }

    /// Syncs; a failure leaves the state of the medium unknown, for good.
    fn sync(&self) -> Result<()> {
        self.storage.sync().map_err(|error| {
            // First: a server that takes over must not show what may have been lost.
            if let Some(kept) = &self.kept {
                kept.give_up();
            }
            let error = Error::io(
                self.name(),
                "sync failed; writes are refused until the device is detached and attached again",
                error,
            );
            if self.state.swap(State::Failed as u8, Ordering::AcqRel) != State::Failed as u8 {
                log::error!("{error}");
            }
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::cowfile::{self, Access};
    use crate::image::{self, ImageOptions};
    use crate::overlay::Overlay;
    use crate::storage::{MemoryStorage, Storage};

    fn overlay() -> Overlay {
        let base = MemoryStorage::new("base", u64::MAX);
        base.write_all_at(&[7; 4096], 0).unwrap();
        let base = image::open(Arc::new(base), &ImageOptions::default()).unwrap();
        let cow = Arc::new(MemoryStorage::new("cow", u64::MAX));
        cowfile::create(&*cow, &*base, base.size()).unwrap();
        Overlay::open(cow, base, Access::Writable).unwrap()
    }

    #[test]
    fn a_flush_whose_turn_comes_after_the_end_finds_everything_durable() {
        for end in [Cowfile::close, Cowfile::make_read_only] {
            let overlay = overlay();
            overlay.write_at(&[1; 1024], 0).unwrap();
            end(overlay.cowfile()).unwrap();
            assert!(overlay.cowfile().rounds.join(|| overlay.cowfile().flush_now()).is_ok());
        }
    }

    #[test]
    fn pages_that_were_not_written_are_changed_again() {
        let overlay = overlay();
        let bitmap = overlay.cowfile().bitmap();
        overlay.write_at(&[1; 1024], 0).unwrap();
        let panics = || {
            let _taken = Taken::from(bitmap);
            panic!("expected by the test");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(Taken::from(bitmap).written().len(), 1);
        assert!(bitmap.take_changed().is_empty());
    }
}
