//! The digest tree of an image that is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DeviceOptions;
use crate::format::verity::Digest;
use crate::storage::{Exchange, FileStorage, Storage};
use crate::{Error, Result};

/// The end of the name of a tree that lies beside its image.
pub const TREE_SUFFIX: &str = ".verity";

/// How an image is verified.
#[derive(Debug, Clone, Default)]
pub struct VerityOptions {
    /// The digest that it must have.
    pub root: Option<Digest>,
    /// Where its digest tree is.
    pub tree: DigestTree,
}

/// Where the digest tree of an image is.
#[derive(Debug, Clone, Default)]
pub enum DigestTree {
    /// IMAGE.verity beside the image, where that is a file of its own and there is such a tree.
    #[default]
    Beside,
    /// In this file.
    File(PathBuf),
    /// Open already.
    Open(Arc<dyn Storage>),
}

/// The path of the tree of the image at `path`; unless it is named, it need not be there.
pub fn tree_path(path: &Path, options: &DeviceOptions) -> Option<PathBuf> {
    match &options.verity.tree {
        DigestTree::Beside => options.image_ranges.is_empty().then(|| beside(path)),
        DigestTree::File(tree) => Some(tree.clone()),
        DigestTree::Open(_) => None,
    }
}

/// The tree of the image at `path`; `None` where it has no path, or there is none.
pub(super) fn open_tree(path: &Path, options: &DeviceOptions) -> Result<Option<Exchange>> {
    let Some(tree) = tree_path(path, options) else { return Ok(None) };
    let named = matches!(options.verity.tree, DigestTree::File(_));
    match FileStorage::open(&tree) {
        Ok(file) => Ok(Some(Exchange::new(file, &tree))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => Ok(None),
        Err(error) => {
            let message = "cannot open the digest tree";
            Err(Error::io(tree.display().to_string(), message, error))
        }
    }
}

fn beside(image: &Path) -> PathBuf {
    let mut tree = image.as_os_str().to_os_string();
    tree.push(TREE_SUFFIX);
    tree.into()
}
