//! An image as Python names it: a file, or a part of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowcloop_engine::device::{
    image_bytes, part_of, tree_path, DeviceOptions, DigestTree, VerityOptions,
};
use cowcloop_engine::format::verity::Digest;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::Result;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::info;

/// Where an image lies.
pub struct Source {
    path: PathBuf,
    /// Empty: the whole file.
    ranges: Vec<(u64, u64)>,
    /// Its name in messages.
    name: String,
    verity: VerityOptions,
}

/// A `cowcloop.part.Part`, by its attributes.
#[derive(FromPyObject)]
struct Part {
    path: PathBuf,
    ranges: Vec<(u64, u64)>,
    name: PathBuf,
    verity: Option<String>,
    verity_tree: Option<PathBuf>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.hasattr("ranges")? {
            let Part { path, ranges, name, verity, verity_tree } = object.extract()?;
            let name = name.display().to_string();
            let root = verity.map(|text| digest_of(&text)).transpose()?;
            let verity = VerityOptions {
                root,
                tree: verity_tree.map_or(DigestTree::Beside, DigestTree::File),
            };
            return Ok(Source { path, ranges, name, verity });
        }
        let path: PathBuf = object.extract()?;
        let name = path.display().to_string();
        Ok(Source { path, ranges: Vec::new(), name, verity: VerityOptions::default() })
    }
}

impl Source {
    /// The file that the image lies in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that it is read from.
    pub fn paths(&self) -> Vec<PathBuf> {
        let tree = tree_path(&self.path, &self.options(DeviceOptions::default()));
        [self.path.clone()].into_iter().chain(tree).collect()
    }

    /// Whether the image is all of the file.
    pub fn is_whole(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The image's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens the image's bytes for reading, verified where that is asked for.
    pub fn open(&self) -> Result<Arc<dyn Storage>> {
        let options = self.options(DeviceOptions::default());
        image_bytes(info::open(&self.path)?, &self.path, &options)
    }

    /// The same, as they are.
    pub(crate) fn open_unverified(&self) -> Result<Arc<dyn Storage>> {
        let file = info::open(&self.path)?;
        if self.ranges.is_empty() {
            Ok(file)
        } else {
            part_of(file, self.name.clone(), &self.ranges)
        }
    }

    /// The same options, with the place of the image.
    pub fn options(&self, options: DeviceOptions) -> DeviceOptions {
        DeviceOptions {
            image_ranges: self.ranges.clone(),
            image_name: Some(self.name.clone()),
            verity: self.verity.clone(),
            ..options
        }
    }
}

/// A digest, from the text that `fsverity digest` prints.
fn digest_of(text: &str) -> PyResult<Digest> {
    text.parse().map_err(|reason| PyValueError::new_err(format!("verity: {text:?} is {reason}")))
}
