//! A tree on its medium: nothing of it is believed before it leads up to the root.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{hash_block, Digest, Hash, Shape, BLOCK, HASH, PER_BLOCK};
use crate::error::Unverified;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Remedy, Result};

/// Blocks of a tree that are kept, 1 MiB in all: a block of the lowest level stands for
/// 512 KiB of the file.
const KEPT: usize = 256;

type Block = [u8; BLOCK];

/// A block that has been verified, and where it lies in the tree.
type Kept = Option<(u64, Arc<Block>)>;

/// The tree of one file.
#[derive(Debug)]
pub(super) struct Tree {
    storage: Arc<dyn Storage>,
    shape: Shape,
    root: Hash,
    kept: Box<[Mutex<Kept>]>,
}

impl Tree {
    /// The tree in `storage` of a file of `size` bytes; what it comes to has to be `pinned`.
    ///
    /// # Errors
    /// `Mismatch` when the tree is not as long as that of such a file, or comes to another
    /// digest; `Io`.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        size: u64,
        pinned: Option<Digest>,
    ) -> Result<Tree> {
        let shape = Shape::of(size);
        let name = storage.name();
        let failed = |error| Error::io(name, "cannot read the digest tree", error);
        let (found, wanted) = (storage.len().map_err(failed)?, shape.tree_size());
        if found != wanted {
            let message = format!(
                "has {found} bytes, and the digest tree of an image of {size} bytes has {wanted}: \
                 it is cut, or another image's"
            );
            return Err(
                Error::new(ErrorKind::Mismatch, name, message).with_remedy(Remedy::MakeTree)
            );
        }
        let mut top = [0; BLOCK];
        let root = if wanted == 0 {
            [0; HASH]
        } else {
            storage.read_exact_at(&mut top, 0).map_err(failed)?;
            hash_block(&top)
        };
        check_pin(name, Digest::of(size, &root), pinned.filter(|_| wanted > 0))?;
        let kept = (0..KEPT).map(|_| Mutex::default()).collect();
        Ok(Tree { storage, shape, root, kept })
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &str {
        self.storage.name()
    }

    /// See [`Storage::start`].
    pub(super) fn start(&self) {
        self.storage.start();
    }

    /// See [`Storage::give_up`].
    pub(super) fn give_up(&self) {
        self.storage.give_up();
    }

    /// The digest that it comes to.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.shape.size(), &self.root)
    }

    /// What the block of the file of this number has to come to.
    pub(super) fn hash(&self, block: u64) -> io::Result<Hash> {
        self.hash_in(0, block)
    }

    /// The hash of a block of the level below `level`.
    fn hash_in(&self, level: usize, below: u64) -> io::Result<Hash> {
        if level == self.shape.levels.len() {
            return Ok(self.root);
        }
        let block = self.block(level, below / PER_BLOCK as u64)?;
        let at = (below % PER_BLOCK as u64) as usize * HASH;
        let mut hash = [0; HASH];
        hash.copy_from_slice(&block[at..at + HASH]);
        Ok(hash)
    }

    /// A block of the tree that leads up to the root.
    fn block(&self, level: usize, number: u64) -> io::Result<Arc<Block>> {
        let place = self.shape.place(level, number);
        let slot = &self.kept[(place / BLOCK as u64) as usize % KEPT];
        if let Some((_, block)) = slot.lock().as_ref().filter(|(kept, _)| *kept == place) {
            return Ok(block.clone());
        }
        let wanted = self.hash_in(level + 1, number)?;
        let mut block = [0; BLOCK];
        self.storage.read_exact_at(&mut block, place).map_err(|error| self.unreadable(error))?;
        if hash_block(&block) != wanted && !self.fetched_again(&mut block, place, &wanted)? {
            return Err(io::Error::other(Unverified::Tree {
                tree: self.name().to_string(),
                offset: place,
            }));
        }
        let block = Arc::new(block);
        *slot.lock() = Some((place, block.clone()));
        Ok(block)
    }

    fn fetched_again(&self, block: &mut Block, place: u64, wanted: &Hash) -> io::Result<bool> {
        if !self.storage.renew(place, BLOCK as u64) {
            return Ok(false);
        }
        self.storage.read_exact_at(block, place).map_err(|error| self.unreadable(error))?;
        Ok(hash_block(block) == *wanted)
    }

    /// The system's error, with the name of the tree; it says more of the medium than of the
    /// image, whose name the caller adds.
    fn unreadable(&self, error: io::Error) -> io::Error {
        if error.get_ref().is_some() {
            return error;
        }
        io::Error::new(error.kind(), format!("its digest tree {}: {error}", self.name()))
    }
}

/// Refuses a digest that is not the one that was asked for.
///
/// # Errors
/// `Mismatch`.
pub fn check_pin(name: &str, found: Digest, pinned: Option<Digest>) -> Result<()> {
    match pinned {
        Some(pinned) if pinned != found => {
            let message = format!("comes to {found}, and {pinned} is asked for");
            Err(Error::new(ErrorKind::Mismatch, name, message).with_remedy(Remedy::OtherDigest))
        }
        _ => Ok(()),
    }
}
