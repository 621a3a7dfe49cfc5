//! The digest tree of an image, as fs-verity has it, made on all cores.

use std::sync::Arc;

use super::{ordered, thread_count, window, Output};
use crate::format::verity::{hash_block, Builder, Digest, Hash, Shape, BLOCK};
use crate::progress::{check, Progress};
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

/// Bytes that one thread hashes before it asks for more.
const PIECE: usize = 1 << 20;

/// Bytes of a tree that are kept until they are written.
const GATHERED: usize = 256 << 10;

/// The digest of an image's bytes as they lie in its file, and their number; its tree goes to
/// `tree`.
///
/// # Errors
/// `InvalidInput` for a `tree` that is a pipe; `Io`, `Cancelled`.
pub fn digest(
    image: &Arc<dyn Storage>,
    tree: Option<Output>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(Digest, u64)> {
    let name = image.name();
    let size = image.len().map_err(|error| Error::io(name, "cannot read its size", error))?;
    let shape = Shape::of(size);
    if let Some(tree) = &tree {
        if tree.is_pipe() {
            let message = "a digest tree is not written in order: name a file";
            return Err(Error::new(ErrorKind::InvalidInput, tree.name(), message));
        }
        tree.set_size(shape.tree_size())?;
    }
    progress.total(size);
    let check = || check(progress, name);
    let mut writer = tree.as_ref().map(Writer::new);
    let mut builder = Builder::new(shape.clone(), |block, place| match &mut writer {
        Some(writer) => writer.put(block, place),
        None => Ok(()),
    });
    hash_all(image, size, threads, progress, &check, &mut builder)?;
    let digest = builder.finish()?;
    if let Some(writer) = writer {
        writer.finish()?;
    }
    match tree {
        Some(tree) => tree.finish_sized(shape.tree_size(), &check)?,
        None => check()?,
    }
    Ok((digest, size))
}

fn hash_all(
    image: &Arc<dyn Storage>,
    size: u64,
    threads: usize,
    progress: &dyn Progress,
    check: &dyn Fn() -> Result<()>,
    builder: &mut Builder<'_>,
) -> Result<()> {
    let threads = thread_count(threads);
    let mut next = 0;
    ordered::run(
        threads,
        window(threads, PIECE),
        || {
            let at = next;
            next = size.min(at + PIECE as u64);
            Ok((at < size).then_some((at, (next - at) as usize)))
        },
        || vec![0; PIECE],
        |bytes, (at, length)| {
            let bytes = &mut bytes[..length];
            image.read_exact_at(bytes, at).map_err(|error| {
                Error::io(image.name(), format!("cannot read at offset {at}"), error).at(at)
            })?;
            Ok((length, bytes.chunks(BLOCK).map(hash_block).collect::<Vec<Hash>>()))
        },
        |(length, hashes)| {
            progress.advance(length as u64);
            hashes.iter().try_for_each(|hash| builder.push(hash))
        },
        check,
    )
}

/// Writes blocks of a tree, those that follow each other together.
struct Writer<'a> {
    tree: &'a Output,
    place: u64,
    gathered: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(tree: &'a Output) -> Writer<'a> {
        Writer { tree, place: 0, gathered: Vec::with_capacity(GATHERED) }
    }

    fn put(&mut self, block: &[u8], place: u64) -> Result<()> {
        let follows = self.place + self.gathered.len() as u64 == place;
        if !follows || self.gathered.len() >= GATHERED {
            self.write()?;
            self.place = place;
        }
        self.gathered.extend_from_slice(block);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.tree.write_at(&self.gathered, self.place)?;
        self.place += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.write()
    }
}
