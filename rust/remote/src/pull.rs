//! All of an image, into the cache or a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowcloop_engine::device::{image_bytes, DeviceOptions, DigestTree, VerityOptions};
use cowcloop_engine::error::Unverified;
use cowcloop_engine::format::verity::{check_pin, Digest};
use cowcloop_engine::jobs;
use cowcloop_engine::progress::Progress;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::{Error, ErrorKind, Result};

use crate::cache::apart::Apart;
use crate::cache::{chunks, CHUNK};
use crate::image::RemoteImage;
use crate::options::RemoteOptions;
use crate::pace;
use crate::verity::tree_beside;

/// Fetches all of the image at `url` that is not there yet, and checks it where `verity` asks for
/// that. `to`: the file that it becomes, once it is whole; without it, the cache has it. Returns
/// where it is.
///
/// # Errors
/// Those of [`RemoteImage::open`] and of reading; `NoSpace` where the cache has no room for it;
/// `Mismatch` when the tree is not of that digest, or, without a tree, the image, of which nothing
/// is kept then; `Io` for bytes that are not those of the tree, which are not kept.
pub fn pull(
    url: &str,
    options: &RemoteOptions,
    verity: &VerityOptions,
    to: Option<&Path>,
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let Some(to) = to else {
        let image = Arc::new(RemoteImage::open(url, options)?);
        let checks = Checks::of(url, options, verity, &image)?;
        return complete(&image, &checks, progress);
    };
    let shown = |path: &Path| path.display().to_string();
    let apart = Apart::new(to).map_err(|error| Error::io(shown(to), "cannot be made", error))?;
    // Of what the cache has of it nothing is used: it may go at any time.
    let options = RemoteOptions { cache_dir: None, ..options.clone() };
    let image = Arc::new(RemoteImage::open_with(url, &options, &|address, version| {
        apart.open(address, version).map_err(|error| Error::io(shown(to), "cannot be made", error))
    })?);
    let checks = Checks::of(url, &options, verity, &image)?;
    complete(&image, &checks, progress)?;
    drop((checks, image));
    apart.finish().map_err(|error| Error::io(shown(to), "cannot be put in its place", error))?;
    Ok(to.to_path_buf())
}

/// How a whole image is checked.
enum Checks {
    None,
    /// What is read of this is verified by a tree.
    Tree(Arc<dyn Storage>),
    /// There is no tree: all of it has this digest.
    Whole(Digest),
}

impl Checks {
    fn of(
        url: &str,
        options: &RemoteOptions,
        verity: &VerityOptions,
        image: &Arc<RemoteImage>,
    ) -> Result<Checks> {
        let mut device = DeviceOptions { verity: verity.clone(), ..DeviceOptions::default() };
        if let Some(tree) = tree_beside(url, options, &device)? {
            device.verity.tree = DigestTree::Open(tree);
        }
        match (&device.verity.tree, verity.root) {
            (DigestTree::Beside, None) => Ok(Checks::None),
            (DigestTree::Beside, Some(root)) => Ok(Checks::Whole(root)),
            _ => image_bytes(image.clone(), Path::new(image.name()), &device).map(Checks::Tree),
        }
    }
}

/// Has all of an image in its cache, durably and checked; where that is.
fn complete(image: &Arc<RemoteImage>, checks: &Checks, progress: &dyn Progress) -> Result<PathBuf> {
    let source: &dyn Storage = match checks {
        Checks::Tree(verified) => &**verified,
        Checks::None | Checks::Whole(_) => &**image,
    };
    // Without a tree it is fetched first, and then all of it is read for its digest.
    let rounds = if matches!(checks, Checks::Whole(_)) { 2 } else { 1 };
    progress.total(rounds * image.remote().version.size);
    let path = image.complete(source, matches!(checks, Checks::Tree(_)), progress)?;
    if let Checks::Whole(wanted) = checks {
        let whole: Arc<dyn Storage> = image.clone();
        let (found, size) = jobs::digest(&whole, None, 0, &Onward(progress))?;
        if let Err(error) = check_pin(image.name(), found, Some(*wanted)) {
            image.remote().forget(0, chunks(size));
            return Err(error);
        }
    }
    Ok(path)
}

/// The progress of one part of a job, whose total has been told.
struct Onward<'a>(&'a dyn Progress);

impl Progress for Onward<'_> {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// Whether a read failed because bytes of the image are not those that its tree has the hash of.
fn is_wrong(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(cause, Some(Unverified::Image { .. }))
}

impl RemoteImage {
    /// Has all of it in the cache, durably; where that is. It is read from `source`, which is
    /// the image or verifies it: of `all` of it, or where the cache has nothing yet. What is found
    /// wrong is not kept, so that no later pull takes it for the image's.
    fn complete(
        &self,
        source: &dyn Storage,
        all: bool,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let size = self.remote().version.size;
        let Some((cache, path)) =
            self.remote().cache.as_ref().and_then(|cache| Some((cache, cache.path()?)))
        else {
            let message = "there is no cache to keep it in: name a file, or another --cache-dir";
            return Err(Error::new(ErrorKind::InvalidInput, self.name(), message));
        };
        let mut scratch = vec![0; pace::MOST as usize];
        let mut at = 0;
        while at < size {
            if progress.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, self.name(), "cancelled"));
            }
            let end = size.min(at + pace::MOST);
            if all || !cache.has_all(at / CHUNK, end.div_ceil(CHUNK)) {
                let buf = &mut scratch[..(end - at) as usize];
                let read = source.read_exact_at(buf, at);
                read.map_err(|error| {
                    if is_wrong(&error) {
                        // What is on its way would be kept after that.
                        self.rest();
                        self.remote().disown(at / CHUNK, end.div_ceil(CHUNK));
                    }
                    Error::io(self.name(), "cannot be fetched", error).at(at)
                })?;
            }
            progress.advance(end - at);
            at = end;
        }
        // What came last may be on its way to the disk.
        self.rest();
        let failed = |error| Error::io(path.display().to_string(), "cannot be synced", error);
        cache.sync().map_err(failed)?;
        if !cache.is_complete() {
            let message =
                "the cache has no room for all of it: name a file, or raise --cache-limit";
            return Err(Error::new(ErrorKind::NoSpace, self.name(), message));
        }
        Ok(path.clone())
    }
}
