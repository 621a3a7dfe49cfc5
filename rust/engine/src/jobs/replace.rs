//! The files that an output may replace. A forgotten OUT makes a job's last input its
//! output, and a cowfile that is gone is work that is gone.

use std::path::Path;

use crate::format::detect::{is_any_cowfile, is_image};
use crate::storage::FileStorage;

/// The files that an output may replace without being told to. Each value also allows those
/// of the values before it; cowfiles in use, and inputs, are never replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Files that are neither cowfiles nor compressed images.
    Plain,
    /// Compressed images: for a job that makes such an image.
    Images,
    /// Everything: the user said so.
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

    /// The kind of the file at `path`, if it may not be replaced. A file that cannot be
    /// read has no kind.
    pub fn refuses_path(self, path: &Path) -> Option<&'static str> {
        FileStorage::open(path).ok().and_then(|storage| self.refuses(&storage))
    }

    /// The kind of the file, if it may not be replaced.
    pub(super) fn refuses(self, storage: &FileStorage) -> Option<&'static str> {
        match self {
            Replace::Anything => None,
            _ if is_any_cowfile(storage) => Some("cowfile"),
            Replace::Plain if is_image(storage) => Some("compressed image"),
            _ => None,
        }
    }
}
