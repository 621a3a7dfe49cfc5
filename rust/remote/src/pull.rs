//! All of an image, into the cache or a file.

use std::path::{Path, PathBuf};

use cowcloop_engine::progress::Progress;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::{Error, ErrorKind, Result};

use crate::cache::apart::Apart;
use crate::cache::CHUNK;
use crate::image::RemoteImage;
use crate::options::RemoteOptions;
use crate::pace;

/// Fetches all of the image at `url` that is not there yet. `to`: the file that it becomes, once
/// it is whole; without it, the cache has it. Returns where it is.
///
/// # Errors
/// Those of [`RemoteImage::open`] and of reading; `NoSpace` where the cache has no room for it.
pub fn pull(
    url: &str,
    options: &RemoteOptions,
    to: Option<&Path>,
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let Some(to) = to else {
        return RemoteImage::open(url, options)?.complete(progress);
    };
    let shown = |path: &Path| path.display().to_string();
    let apart = Apart::new(to).map_err(|error| Error::io(shown(to), "cannot be made", error))?;
    // Of what the cache has of it nothing is used: it may go at any time.
    let options = RemoteOptions { cache_dir: None, ..options.clone() };
    let image = RemoteImage::open_with(url, &options, &|address, version| {
        apart.open(address, version).map_err(|error| Error::io(shown(to), "cannot be made", error))
    })?;
    image.complete(progress)?;
    drop(image);
    apart.finish().map_err(|error| Error::io(shown(to), "cannot be put in its place", error))?;
    Ok(to.to_path_buf())
}

impl RemoteImage {
    /// Has all of it in the cache, durably; where that is.
    fn complete(&self, progress: &dyn Progress) -> Result<PathBuf> {
        let size = self.remote().version.size;
        let Some((cache, path)) =
            self.remote().cache.as_ref().and_then(|cache| Some((cache, cache.path()?)))
        else {
            let message = "there is no cache to keep it in: name a file, or another --cache-dir";
            return Err(Error::new(ErrorKind::InvalidInput, self.name(), message));
        };
        progress.total(size);
        let mut scratch = vec![0; pace::MOST as usize];
        let mut at = 0;
        while at < size {
            if progress.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, self.name(), "cancelled"));
            }
            let end = size.min(at + pace::MOST);
            if !cache.has_all(at / CHUNK, end.div_ceil(CHUNK)) {
                let buf = &mut scratch[..(end - at) as usize];
                let read = self.read_exact_at(buf, at);
                read.map_err(|error| Error::io(self.name(), "cannot be fetched", error).at(at))?;
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
