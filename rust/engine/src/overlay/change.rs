//! Changes of a cowfile: writing, zeroing, and marking blocks as its own.

use std::io;
use std::sync::atomic::Ordering;

use super::cowfile::{Cowfile, State};
use super::range_lock::RangeGuard;
use crate::format::cowfile::head::MAPUNIT;
use crate::format::cowfile::mark::Mark;
use crate::{Error, ErrorKind, Result};

impl Cowfile {
    /// Begins a change of the blocks from `first` up to `end`, alone on them.
    ///
    /// # Errors
    /// `ReadOnly`; `Poisoned` after a failed sync; those of writing the head.
    pub fn change(&self, first: u64, end: u64) -> Result<Change<'_>> {
        let guard = self.ranges.lock(first..end);
        // Asked with the range held: a close takes all ranges first.
        self.check_writable()?;
        self.put_in_use()?;
        if let Some(snapshot) = &*self.copying.read() {
            snapshot.preserve(first, end);
        }
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(Change { cow: self, _guard: guard })
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        let refuse = |kind, message: &str| Err(Error::new(kind, self.name(), message));
        match self.current() {
            State::Writable => Ok(()),
            State::ReadOnly => refuse(ErrorKind::ReadOnly, "the cowfile is open read-only"),
            State::Closed => refuse(ErrorKind::ReadOnly, "the cowfile is closed"),
            State::Failed => refuse(
                ErrorKind::Poisoned,
                "an earlier sync failed, so what reached the medium is unknown; detach and attach again",
            ),
        }
    }

    /// Before the first change: marks the head as in use, durably.
    pub(super) fn put_in_use(&self) -> Result<()> {
        if self.in_use.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut head = self.head.lock();
        if self.in_use.load(Ordering::Acquire) {
            return Ok(());
        }
        let next = || match &head.0.mark {
            Some(mark) => mark.clone().changed(),
            None => Mark::new(self.base.0, self.base.1)?.changed(),
        };
        let mark = match &self.kept {
            Some(kept) => kept.bind(&head.0, next)?,
            None => next()?,
        };
        let next = head.0.in_use(mark);
        self.write_head(&mut head, next)?;
        if let Some(kept) = &self.kept {
            kept.bound();
        }
        self.in_use.store(true, Ordering::Release);
        Ok(())
    }
}

/// A change under way: holds its blocks, and counts as finished when dropped.
#[derive(Debug)]
pub struct Change<'a> {
    cow: &'a Cowfile,
    _guard: RangeGuard<'a>,
}

impl Change<'_> {
    /// Writes bytes of the device into the cowfile; sets no bit.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let cow = self.cow;
        let failed = |error| Error::io(cow.name(), format!("cannot write at {offset}"), error);
        let _promise = match cow.quota.get() {
            None => None,
            Some(quota) => {
                let admitted = quota
                    .admit(&*cow.storage, cow.doffset + offset, bytes.len() as u64)
                    .map_err(failed)?;
                if admitted.is_none() {
                    let message = format!("its quota of {} bytes is used up", quota.limit());
                    return Err(Error::new(ErrorKind::NoSpace, cow.name(), message));
                }
                admitted
            }
        };
        let start = cow.doffset + offset;
        cow.storage.write_all_at(bytes, start).map_err(failed)?;
        cow.length.fetch_max(start + bytes.len() as u64, Ordering::AcqRel);
        cow.count_written(bytes.len() as u64);
        Ok(())
    }

    /// Makes `length` blocks from `first` on zeros in the cowfile, where it can
    /// by punching a hole; sets no bit.
    ///
    /// # Errors
    /// `Unsupported` when `fast` and the medium cannot punch holes.
    pub fn zero(&self, first: u64, length: u64, fast: bool) -> Result<()> {
        let cow = self.cow;
        let failed = |error| Error::io(cow.name(), format!("cannot zero block {first}"), error);
        let (start, end) = (first * MAPUNIT, (first + length) * MAPUNIT);
        match cow.storage.punch_hole(cow.doffset + start, end - start) {
            Ok(()) => {
                // Every block of the cowfile lies within its length, so a truncated copy is
                // recognized.
                if cow.length.load(Ordering::Acquire) < cow.doffset + end {
                    self.write(&[0; MAPUNIT as usize], end - MAPUNIT)?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported && fast => {
                let message = "the medium of the cowfile cannot punch holes";
                Err(Error::new(ErrorKind::Unsupported, cow.name(), message))
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let zeros = vec![0; (end - start).min(1 << 20) as usize];
                let mut at = start;
                while at < end {
                    let n = zeros.len().min((end - at) as usize);
                    self.write(&zeros[..n], at)?;
                    at += n as u64;
                }
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes blocks live in the cowfile, once their data is in it.
    ///
    /// # Errors
    /// Those of a flush: without room to keep a bit, it is on the medium when this returns.
    pub fn set(&self, first: u64, length: u64) -> Result<()> {
        let cow = self.cow;
        let Some(kept) = &cow.kept else {
            cow.bitmap.set(first, length);
            return Ok(());
        };
        let Err(error) = kept.set(&cow.bitmap, first, length) else { return Ok(()) };
        kept.tell(error);
        cow.bitmap.set(first, length);
        // The flush shall not take it for one that has nothing to do.
        cow.changes.fetch_add(1, Ordering::AcqRel);
        cow.flush()
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Failed changes count too: a part of them may be in the file.
        self.cow.changes.fetch_add(1, Ordering::AcqRel);
    }
}
