//! What an output may take the place of: a forgotten OUT makes a job's last input its output,
//! and a cowfile that is gone is work that is gone.

use std::path::Path;

use crate::format::detect::{is_any_cowfile, is_image};
use crate::storage::FileStorage;

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
