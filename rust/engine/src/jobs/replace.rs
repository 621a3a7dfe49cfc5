//! What an output may take the place of: a forgotten OUT makes a job's last input its output,
//! and a cowfile that is gone is work that is gone.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::format::cloop::Header;
use crate::format::cowfile::head::is_cowfile;
use crate::storage::{FileStorage, Storage};
use crate::ErrorKind;

/// Bytes of a gzip stream that are looked at: its header may hold names of any length.
const GZIP_LOOK: u64 = 64 << 10;

/// What an output may take the place of without being told to. Each also allows what those
/// before it do; cowfiles in use, and inputs, are never replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Files that are neither cowfiles nor compressed images.
    Plain,
    /// Compressed images: for a job that makes one.
    Images,
    /// Everything: the caller was asked.
    Anything,
}

impl Replace {
    /// Everything where it is forced, else as `self`.
    pub fn forced(self, force: bool) -> Self {
        if force {
            Replace::Anything
        } else {
            self
        }
    }

    /// What the file at `path` is, where it may not be replaced. One that cannot be read is
    /// nothing.
    pub fn refuses_path(self, path: &Path) -> Option<&'static str> {
        FileStorage::open(path).ok().and_then(|storage| self.refuses(&storage))
    }

    /// What the file is, where it may not be replaced.
    pub(super) fn refuses(self, storage: &FileStorage) -> Option<&'static str> {
        match self {
            Replace::Anything => None,
            _ if is_any_cowfile(storage) => Some("cowfile"),
            Replace::Plain if is_image(storage) => Some("compressed image"),
            _ => None,
        }
    }
}

/// Whether a file is a cowfile in whatever state: packed and gzipped too. One that cannot be
/// read is none.
fn is_any_cowfile(storage: &FileStorage) -> bool {
    let beginning = |mut reader: Box<dyn Read + '_>| {
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).is_ok().then_some(magic)
    };
    let stream = || Stream { storage, position: 0 };
    match beginning(Box::new(stream())) {
        Some([0x1f, 0x8b, ..]) => {
            let inflated = MultiGzDecoder::new(stream().take(GZIP_LOOK));
            beginning(Box::new(inflated)).is_some_and(|magic| is_cowfile(&magic))
        }
        Some(magic) => is_cowfile(&magic),
        None => false,
    }
}

/// Whether a file is a cloop or uzip image, be it damaged or of a version that cannot be read.
fn is_image(storage: &FileStorage) -> bool {
    match Header::find(storage) {
        Ok(found) => found.is_some(),
        Err(error) => matches!(error.kind(), ErrorKind::Format | ErrorKind::Unsupported),
    }
}

/// A file from its beginning on.
struct Stream<'a> {
    storage: &'a FileStorage,
    position: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.storage.read_at(buf, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
