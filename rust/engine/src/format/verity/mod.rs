//! The digest of a file as Linux's fs-verity has it: a Merkle tree of SHA-256 over blocks of
//! 4 KiB, without salt, and a descriptor over its root and the file's size.
//!
//! The format is that of the kernel's Documentation/filesystems/fsverity.rst and of
//! `struct fsverity_descriptor` in `<linux/fsverity.h>`; a tree on the medium is laid out as
//! `fsverity digest --out-merkle-tree` writes it: the level of the root first.

mod builder;
mod seen;
mod tree;
mod verified;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

pub(crate) use builder::Builder;
pub use tree::check_pin;
use tree::Tree;
pub(crate) use verified::Verified;
pub use verified::VerityStatus;

/// Bytes of a block, of the file and of the tree alike.
pub(crate) const BLOCK: usize = 4096;

/// Bytes of a hash.
const HASH: usize = 32;

/// Hashes that a block of the tree has room for.
const PER_BLOCK: usize = BLOCK / HASH;

/// The SHA-256 of a block.
pub(crate) type Hash = [u8; HASH];

/// The hash of a block; the last of a file may be shorter, and zeros fill it up.
pub(crate) fn hash_block(bytes: &[u8]) -> Hash {
    debug_assert!(bytes.len() <= BLOCK);
    let mut hash = Sha256::new();
    hash.update(bytes);
    if bytes.len() < BLOCK {
        hash.update(&[0; BLOCK][bytes.len()..]);
    }
    hash.finalize().into()
}

/// The digest of a file: what `fsverity digest` prints, and `--verity` pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; HASH]);

impl Digest {
    /// The digest of a file of `size` bytes whose tree has this root.
    pub(crate) fn of(size: u64, root: &Hash) -> Digest {
        // version, hash algorithm (SHA-256), the block size's logarithm, the salt's length.
        let mut descriptor = [0; 256];
        descriptor[..4].copy_from_slice(&[1, 1, 12, 0]);
        descriptor[8..16].copy_from_slice(&size.to_le_bytes());
        descriptor[16..16 + HASH].copy_from_slice(root);
        Digest(Sha256::digest(descriptor).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDigest;

impl fmt::Display for NoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a digest as `fsverity digest` prints it: sha256: and 64 hexadecimal digits",
        )
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    /// With or without `sha256:` before the digits.
    fn from_str(text: &str) -> Result<Digest, NoDigest> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut bytes = [0; HASH];
        if digits.len() != 2 * HASH {
            return Err(NoDigest);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(NoDigest);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Ok(Digest(bytes))
    }
}

/// Where each level of a file's tree lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    size: u64,
    /// The level above the file's own blocks first. None for a file of one block at most,
    /// whose hash is the root.
    levels: Vec<Level>,
}

/// A level of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    /// Where it begins in the tree, in bytes.
    offset: u64,
    /// How many blocks of the tree it takes.
    blocks: u64,
}

impl Shape {
    /// The tree of a file of `size` bytes.
    pub(crate) fn of(size: u64) -> Shape {
        let mut levels = Vec::new();
        let mut blocks = size.div_ceil(BLOCK as u64);
        while blocks > 1 {
            blocks = blocks.div_ceil(PER_BLOCK as u64);
            levels.push(Level { offset: 0, blocks });
        }
        let mut offset = 0;
        for level in levels.iter_mut().rev() {
            level.offset = offset;
            offset += level.blocks * BLOCK as u64;
        }
        Shape { size, levels }
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the tree.
    pub(crate) fn tree_size(&self) -> u64 {
        self.levels.iter().map(|level| level.blocks * BLOCK as u64).sum()
    }

    /// Where a block of a level lies in the tree, in bytes.
    fn place(&self, level: usize, block: u64) -> u64 {
        self.levels[level].offset + block * BLOCK as u64
    }
}

#[cfg(test)]
mod tests;
