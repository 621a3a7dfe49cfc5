//! Bits that survive the server: each is in the kept file before its write is acknowledged.
//!
//! A bit says that a block of the cowfile holds what was written to it. In the kept file it does
//! so for a server that takes over on the same machine; for a power cut only a flush counts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::format::cowfile::bitmap::Bitmap;
use crate::format::cowfile::head::{Head, VERSION_OPEN};
use crate::format::cowfile::kept::{make_anew, read_bits, KeptHead};
use crate::format::cowfile::mark::Mark;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

/// Parts of the bitmap, by page, in which bits are kept one thread at a time.
const TURNS: usize = 16;

/// Where the bits of a cowfile are kept while it is in use.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// The kept file, of which the caller has the lock.
    pub storage: Arc<dyn Storage>,
    /// This boot of the machine: bits that another one has kept mean nothing.
    pub boot: [u8; 16],
}

impl Keeping {
    /// Refuses a cowfile in `storage` that is another one than that whose bits are kept here, and
    /// would be lost if it began with none.
    ///
    /// # Errors
    /// `Mismatch`; `Format` when it is neither empty nor a kept file; the system's.
    pub fn refuse_other(&self, storage: &dyn Storage) -> Result<()> {
        let file = file_of(storage)?;
        match KeptHead::read(&*self.storage)? {
            Some(head) if head.valid && head.boot == self.boot && head.file != file => {
                let message = "is not the cowfile that the device has: put that one back";
                Err(Error::new(ErrorKind::Mismatch, storage.name(), message))
            }
            _ => Ok(()),
        }
    }
}

/// Device and inode number of a cowfile.
fn file_of(storage: &dyn Storage) -> Result<(u64, u64)> {
    let failed = |error| Error::io(storage.name(), "cannot tell which file it is", error);
    Ok(storage.file_id().map_err(failed)?.unwrap_or_default())
}

/// The kept file of an open cowfile.
#[derive(Debug)]
pub(super) struct Kept {
    storage: Arc<dyn Storage>,
    head: Mutex<KeptHead>,
    /// A server on this machine has left bits in it, of this cowfile.
    found: bool,
    /// Blocks that came from the kept file when it was opened.
    joined: AtomicU64,
    /// The mark that the cowfile is to get with its next head, until it has it.
    next: Mutex<Option<Mark>>,
    turns: [Mutex<()>; TURNS],
    /// What the bits stand for may be lost.
    given_up: AtomicBool,
    /// The log has said that there is no room.
    told: AtomicBool,
}

impl Kept {
    /// Looks at the kept file, before the cowfile in `storage` is settled.
    ///
    /// # Errors
    /// `Format` when it is neither empty nor a kept file; the system's.
    pub(super) fn look(keeping: Keeping, storage: &dyn Storage) -> Result<Kept> {
        let file = file_of(storage)?;
        let here = |head: &KeptHead| (head.boot, head.file) == (keeping.boot, file);
        let found = KeptHead::read(&*keeping.storage)?;
        let valid = found.as_ref().is_some_and(|head| head.valid && here(head));
        let head = found.filter(here).unwrap_or(KeptHead {
            boot: keeping.boot,
            file,
            doffset: 0,
            blocks: 0,
            marks: [[0; 16]; 2],
            valid: false,
        });
        Ok(Kept {
            storage: keeping.storage,
            head: Mutex::new(head),
            found: valid,
            joined: AtomicU64::new(0),
            next: Mutex::default(),
            turns: Default::default(),
            given_up: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// The cowfile could not be settled: see [`give_up`](Self::give_up).
    pub(super) fn not_settled(&self) {
        if self.found {
            self.give_up();
        }
    }

    /// Takes the bits over that a server has left, or begins with none.
    ///
    /// `length`: of the cowfile in bytes.
    ///
    /// # Errors
    /// `Damaged` when the kept bits are not such as the cowfile may have; the system's.
    pub(super) fn take_over(&self, cow: &Head, bitmap: &Bitmap, length: u64) -> Result<()> {
        let mut head = self.head.lock();
        if head.is_of(cow) {
            let bits = read_bits(&*self.storage, cow, length)?;
            self.joined.store(bitmap.join(&bits), Ordering::Relaxed);
            return Ok(());
        }
        head.valid = false;
        (head.blocks, head.doffset) = (cow.rdoblocks, cow.doffset);
        make_anew(&*self.storage, cow.mapsize).map_err(|error| self.failed(error))
    }

    /// The mark of the cowfile's next head. The bits count under it, and still under the present
    /// one: a kill may come between.
    pub(super) fn bind(&self, cow: &Head, next: impl FnOnce() -> Result<Mark>) -> Result<Mark> {
        let mut planned = self.next.lock();
        let mark = match planned.take() {
            // An earlier attempt failed, and its head may be on the medium all the same.
            Some(mark) => mark,
            None => next()?,
        };
        *planned = Some(mark.clone());
        let present = cow.mark.as_ref().filter(|_| cow.version == VERSION_OPEN);
        let mut head = self.head.lock();
        head.marks = [present.map_or(mark.id, |present| present.id), mark.id];
        head.valid = !self.given_up.load(Ordering::Acquire);
        head.write(&*self.storage).map_err(|error| self.failed(error))?;
        Ok(mark)
    }

    /// The head with the mark is on the medium.
    pub(super) fn bound(&self) {
        *self.next.lock() = None;
    }

    /// Keeps the bits of `length` blocks from `block` on, and then sets them in `bitmap`.
    pub(super) fn set(&self, bitmap: &Bitmap, block: u64, length: u64) -> io::Result<()> {
        let end = block + length;
        let mut at = block;
        while at < end {
            let (page, next) = Bitmap::page_of(at);
            let n = next.min(end) - at;
            // A bit that is set here was kept, or is in the cowfile.
            if bitmap.run(at, n) != (true, n) {
                let _turn = self.turns[page as usize % TURNS].lock();
                let (offset, words) = bitmap.words_with(at, n);
                self.storage.write_all_at(&words, offset)?;
                bitmap.set(at, n);
            }
            at += n;
        }
        Ok(())
    }

    /// The cowfile was closed: nothing here counts any more.
    pub(super) fn void(&self) {
        let mut head = self.head.lock();
        head.valid = false;
        if let Err(error) = head.write(&*self.storage) {
            log::error!("{}", self.failed(error));
        }
    }

    /// What was written to the cowfile may be lost: no bit of it counts, for good.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.void();
    }

    /// Says once that bits cannot be kept.
    pub(super) fn tell(&self, error: io::Error) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let error = self.failed(error);
            log::warn!("{error}; until it can, each write to a new block waits for the medium");
        }
    }

    /// See [`Storage::abandon`].
    pub(super) fn abandon(&self) {
        self.storage.abandon();
    }

    pub(super) fn status(&self) -> KeptStatus {
        KeptStatus {
            path: self.storage.name().to_string(),
            taken_over: self.joined.load(Ordering::Relaxed),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(self.storage.name(), "cannot write the kept file", error)
    }
}

/// What is kept of a cowfile for a server that takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeptStatus {
    /// The kept file.
    pub path: String,
    /// Blocks of 1 KiB that the server found in it, and not in the cowfile's own bitmap.
    pub taken_over: u64,
}
