//! A storage whose bytes are verified against a tree before they are given out.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use serde::Serialize;

use super::seen::Seen;
use super::{check_pin, hash_block, Digest, Hash, Tree, BLOCK};
use crate::error::Unverified;
use crate::storage::{FetchCounters, FetchPace, Storage};
use crate::{Error, ErrorKind, Remedy, Result};

/// The longest file that is verified, in bytes: what is remembered of it takes memory.
const LONGEST: u64 = 64 << 40;

/// Bytes that are read and verified at a time.
const PIECE: usize = 256 << 10;

/// Bytes of zeros that are looked up in the tree at a time.
const LOOK: u64 = 64 << 20;

const UNIT: u64 = BLOCK as u64;

thread_local! {
    static WHOLE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Another storage, each block of which is verified when it is first read, and remembered for as
/// long as it is kept; or each time, where what is read again may be other bytes.
#[derive(Debug)]
pub(crate) struct Verified {
    inner: Arc<dyn Storage>,
    /// The length that the tree is for.
    size: u64,
    tree: Option<Tree>,
    digest: Digest,
    /// The hash of a file of one block, which has no tree.
    only: Hash,
    seen: Seen,
    blocks: AtomicU64,
    failures: AtomicU64,
}

/// What has been verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerityStatus {
    /// The digest of the image.
    pub digest: String,
    /// Bytes that were verified.
    pub verified_bytes: u64,
    /// Blocks that were not what the tree says, each time that one was found.
    pub failures: u64,
}

impl Verified {
    /// `inner`, verified against `tree`; the digest has to be `pinned`. A file of one block
    /// needs no tree.
    ///
    /// # Errors
    /// Those of [`Tree::open`]; `Unsupported` for a file of more than 64 TiB.
    pub(crate) fn new(
        inner: Arc<dyn Storage>,
        tree: Option<Arc<dyn Storage>>,
        pinned: Option<Digest>,
    ) -> Result<Verified> {
        let failed = |error| Error::io(inner.name(), "cannot be verified", error);
        let size = inner.len().map_err(failed)?;
        if size > LONGEST {
            let message = format!("has {size} bytes, and no more than {LONGEST} can be verified");
            return Err(Error::new(ErrorKind::Unsupported, inner.name(), message));
        }
        if tree.is_none() && size > UNIT {
            let message = "a digest is verified by its tree, and none is named";
            return Err(Error::new(ErrorKind::InvalidInput, inner.name(), message)
                .with_remedy(Remedy::MakeTree));
        }
        let tree = tree.map(|tree| Tree::open(tree, size, pinned)).transpose()?;
        let mut only = [0; 32];
        if 0 < size && size <= UNIT {
            let mut bytes = vec![0; size as usize];
            inner.read_exact_at(&mut bytes, 0).map_err(failed)?;
            only = hash_block(&bytes);
        }
        let digest = match &tree {
            Some(tree) if size > UNIT => tree.digest(),
            _ => Digest::of(size, &only),
        };
        check_pin(inner.name(), digest, pinned)?;
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let seen = Seen::new(size);
        Ok(Verified { inner, size, tree, digest, only, seen, blocks: counts.0, failures: counts.1 })
    }

    /// What has been verified so far.
    pub(crate) fn status(&self) -> VerityStatus {
        VerityStatus {
            digest: self.digest.to_string(),
            verified_bytes: self.blocks.load(Ordering::Relaxed).saturating_mul(UNIT),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Verifies everything anew from now on: another medium may hold it.
    pub(crate) fn forget(&self) {
        self.seen.clear();
    }

    fn wanted(&self, block: u64) -> io::Result<Hash> {
        match &self.tree {
            Some(tree) if self.size > UNIT => tree.hash(block),
            _ => Ok(self.only),
        }
    }

    /// Fills `buf` from `offset` on, within the size, from blocks that are read whole.
    fn read_unseen(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut whole = WHOLE.take();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let start = at / UNIT * UNIT;
            let wanted = (offset + buf.len() as u64).next_multiple_of(UNIT).min(self.size);
            let end = wanted.min(start + PIECE as u64);
            whole.resize((end - start) as usize, 0);
            let kept = self.inner.read_kept(&mut whole, start)?;
            if kept.is_none() {
                self.inner.read_exact_at(&mut whole, start)?;
            }
            self.verify(&mut whole, start, kept)?;
            let piece = &whole[(at - start) as usize..];
            let n = piece.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&piece[..n]);
            done += n;
        }
        WHOLE.set(whole);
        Ok(())
    }

    /// Verifies blocks that were read at `start`, except for those that were seen before, in the
    /// edition of what is kept that they were read from.
    fn verify(&self, bytes: &mut [u8], start: u64, mut edition: Option<u64>) -> io::Result<()> {
        let first = start / UNIT;
        for (block, at) in (first..).zip((0..bytes.len()).step_by(BLOCK)) {
            if edition.is_some() && self.seen.all(block, block + 1) == edition {
                continue;
            }
            let wanted = self.wanted(block)?;
            if hash_block(first_of(&bytes[at..])) != wanted {
                self.once_more(block, &mut bytes[at..], &wanted)?;
                edition = None;
            }
            self.blocks.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(edition) = edition {
            self.seen.note(first, first + bytes.len().div_ceil(BLOCK) as u64, edition);
        }
        Ok(())
    }

    /// Reads a block again that was not what it should be, where that can help, and `bytes` that
    /// follow it: these may have come with it, and be as wrong.
    #[cold]
    fn once_more(&self, block: u64, bytes: &mut [u8], wanted: &Hash) -> io::Result<()> {
        let offset = block * UNIT;
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.inner.renew(offset, first_of(bytes).len() as u64) {
            self.inner.read_exact_at(bytes, offset)?;
            if hash_block(first_of(bytes)) == *wanted {
                return Ok(());
            }
        }
        Err(io::Error::other(self.damaged(offset)))
    }

    fn damaged(&self, offset: u64) -> Unverified {
        let tree = self.tree.as_ref().map_or(self.name(), Tree::name).to_string();
        Unverified::Image { tree, offset }
    }

    /// Where in a range that reads as zeros the tree has something else; `to` if nowhere.
    fn zeros_end(&self, from: u64, to: u64) -> io::Result<u64> {
        let zeros = hash_block(&[]);
        for block in from / UNIT..to.div_ceil(UNIT) {
            if self.wanted(block)? != zeros {
                return Ok((block * UNIT).max(from));
            }
        }
        Ok(to)
    }
}

/// The first block of what was read.
fn first_of(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(BLOCK)]
}

impl Storage for Verified {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        if length == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..length];
        let end = offset + length as u64;
        let seen = self.seen.all(offset / UNIT, end.div_ceil(UNIT));
        if seen.is_some() && self.inner.read_kept(buf, offset)? == seen {
            return Ok(length);
        }
        self.read_unseen(buf, offset)?;
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// A hole is believed where the tree has zeros too.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let end = match self.inner.next_data(offset)? {
            Some(data) => data,
            None => self.inner.len()?.min(self.size),
        };
        if end <= offset {
            return Ok((offset < self.size).then_some(offset));
        }
        let to = end.min(offset.saturating_add(LOOK));
        let data = self.zeros_end(offset, to)?;
        Ok((data < self.size).then_some(data))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_hole(offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.inner.allocated()
    }

    fn start(&self) {
        self.inner.start();
        self.tree.iter().for_each(Tree::start);
    }

    fn expect(&self, offset: u64, length: u64) {
        self.inner.expect(offset, length);
    }

    fn is_near(&self, offset: u64, length: u64) -> bool {
        self.inner.is_near(offset, length)
    }

    // What has rotted since it was verified gets past the tree.
    fn may_rot(&self) -> bool {
        self.inner.may_rot()
    }

    fn renew(&self, offset: u64, length: u64) -> bool {
        self.inner.renew(offset, length)
    }

    fn pace(&self) -> Option<FetchPace> {
        self.inner.pace()
    }

    fn fetched(&self) -> Option<FetchCounters> {
        self.inner.fetched()
    }

    fn give_up(&self) {
        self.inner.give_up();
        self.tree.iter().for_each(Tree::give_up);
    }
}
