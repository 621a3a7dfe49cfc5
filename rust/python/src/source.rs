//! An image as Python names it: a file, or a part of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowcloop_engine::device::{part_of, DeviceOptions};
use cowcloop_engine::storage::Storage;
use cowcloop_engine::Result;
use pyo3::prelude::*;

use crate::info;

/// Where an image lies.
pub struct Source {
    path: PathBuf,
    /// Empty: the whole file.
    ranges: Vec<(u64, u64)>,
    /// Its name in messages.
    name: String,
}

/// A `cowcloop.part.Part`, by its attributes.
#[derive(FromPyObject)]
struct Part {
    path: PathBuf,
    ranges: Vec<(u64, u64)>,
    name: PathBuf,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.hasattr("ranges")? {
            let Part { path, ranges, name } = object.extract()?;
            return Ok(Source { path, ranges, name: name.display().to_string() });
        }
        let path: PathBuf = object.extract()?;
        let name = path.display().to_string();
        Ok(Source { path, ranges: Vec::new(), name })
    }
}

impl Source {
    /// The file that the image lies in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the image is all of the file.
    pub fn is_whole(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The image's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens the image's bytes for reading.
    pub fn open(&self) -> Result<Arc<dyn Storage>> {
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
            ..options
        }
    }
}
