//! A tree made while the hashes of a file's blocks come in, in order.

use super::{hash_block, Digest, Hash, Shape, BLOCK, HASH};
use crate::Result;

/// Takes a block of the tree, and its place there in bytes.
type Sink<'a> = Box<dyn FnMut(&[u8], u64) -> Result<()> + 'a>;

/// Makes a tree in the memory of one block a level.
pub(crate) struct Builder<'a> {
    shape: Shape,
    sink: Sink<'a>,
    /// The block of each level that is being filled, and its number.
    open: Vec<(Vec<u8>, u64)>,
    /// All zeros for an empty file.
    root: Hash,
}

impl<'a> Builder<'a> {
    /// A tree of this shape; `sink` is given each of its blocks once.
    pub(crate) fn new(
        shape: Shape,
        sink: impl FnMut(&[u8], u64) -> Result<()> + 'a,
    ) -> Builder<'a> {
        let open = shape.levels.iter().map(|_| (Vec::with_capacity(BLOCK), 0)).collect();
        Builder { shape, sink: Box::new(sink), open, root: [0; HASH] }
    }

    /// Adds the hash of the file's next block.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn push(&mut self, hash: &Hash) -> Result<()> {
        self.push_at(0, *hash)
    }

    /// The digest, when the hash of the last block has been added.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish(mut self) -> Result<Digest> {
        for level in 0..self.open.len() {
            if !self.open[level].0.is_empty() {
                self.close(level)?;
            }
        }
        Ok(Digest::of(self.shape.size(), &self.root))
    }

    fn push_at(&mut self, level: usize, hash: Hash) -> Result<()> {
        let Some((block, _)) = self.open.get_mut(level) else {
            self.root = hash;
            return Ok(());
        };
        block.extend_from_slice(&hash);
        if block.len() == BLOCK {
            self.close(level)?;
        }
        Ok(())
    }

    /// Hands on a block as it is, filled up with zeros.
    fn close(&mut self, level: usize) -> Result<()> {
        let (block, number) = &mut self.open[level];
        block.resize(BLOCK, 0);
        (self.sink)(block, self.shape.place(level, *number))?;
        let hash = hash_block(block);
        block.clear();
        *number += 1;
        self.push_at(level + 1, hash)
    }
}
