//! What a file is, by its first bytes (and, of some images, its last).

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::cloop::Header;
use super::cowfile::head::is_cowfile;
use super::cowfile::GZIP_MAGIC;
use crate::storage::{Storage, StorageReader};
use crate::{Error, ErrorKind, Result};

/// Bytes of a gzip stream that are looked at: its header may hold names of any length.
const GZIP_LOOK: u64 = 64 << 10;

/// What a file is taken for.
#[derive(Debug, Clone)]
pub enum FileKind {
    /// A cloop or uzip image.
    Cloop(Header),
    /// A cowfile, as a device uses it or packed.
    Cowfile,
    /// A packed cowfile in a gzip stream.
    GzippedCowfile,
    /// Anything else.
    Raw,
}

/// Finds out what a file is.
///
/// # Errors
/// Those of [`Header::find`], and `Io`.
pub fn detect(storage: &dyn Storage) -> Result<FileKind> {
    let unreadable = |error| Error::io(storage.name(), "cannot read", error);
    let mut magic = [0; 4];
    let read = storage.read_at(&mut magic, 0).map_err(unreadable)?;
    let magic = &magic[..read];
    if is_cowfile(magic) {
        return Ok(FileKind::Cowfile);
    }
    if magic.starts_with(&GZIP_MAGIC) && is_gzipped_cowfile(storage) {
        return Ok(FileKind::GzippedCowfile);
    }
    Ok(match Header::find(storage)? {
        Some(header) => FileKind::Cloop(header),
        None => FileKind::Raw,
    })
}

/// Whether a file is a cowfile in whatever state: packed and gzipped too. One that cannot be
/// read is none.
pub(crate) fn is_any_cowfile(storage: &dyn Storage) -> bool {
    let mut magic = [0; 4];
    let read = storage.read_exact_at(&mut magic, 0);
    read.is_ok()
        && (is_cowfile(&magic) || magic.starts_with(&GZIP_MAGIC) && is_gzipped_cowfile(storage))
}

/// Whether a file is a cloop or uzip image, be it damaged or of a version that is not read.
pub(crate) fn is_image(storage: &dyn Storage) -> bool {
    match Header::find(storage) {
        Ok(found) => found.is_some(),
        Err(error) => matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported),
    }
}

fn is_gzipped_cowfile(storage: &dyn Storage) -> bool {
    let mut magic = [0; 4];
    let mut inflated = MultiGzDecoder::new(StorageReader::new(storage).take(GZIP_LOOK));
    inflated.read_exact(&mut magic).is_ok() && is_cowfile(&magic)
}
