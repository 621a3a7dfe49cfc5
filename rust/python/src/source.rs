//! An image as Python names it: a file, or a part of one; or the same at a URL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cowcloop_engine::device::{
    image_bytes, part_of, tree_path, Device, DeviceOptions, DigestTree, VerityOptions,
};
use cowcloop_engine::format::verity::Digest;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::Result;
use cowcloop_remote::{tree_beside, RemoteImage, RemoteOptions};
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
    /// How it is read and kept, at a URL.
    remote: Option<RemoteOptions>,
}

/// A `cowcloop.part.Part`, by its attributes.
#[derive(FromPyObject)]
struct Part {
    path: PathBuf,
    ranges: Vec<(u64, u64)>,
    name: PathBuf,
    verity: Option<String>,
    verity_tree: Option<PathBuf>,
    remote: Option<Remote>,
}

/// A `cowcloop.part.Remote`, by its attributes.
#[derive(FromPyObject)]
pub struct Remote {
    cache_dir: Option<PathBuf>,
    cache_limit: Option<u64>,
    offline: bool,
    timeout: Option<u64>,
    ca_file: Option<PathBuf>,
}

impl From<Remote> for RemoteOptions {
    fn from(given: Remote) -> RemoteOptions {
        let default = RemoteOptions::default();
        RemoteOptions {
            cache_dir: given.cache_dir.or(default.cache_dir),
            cache_limit: given.cache_limit,
            offline: given.offline,
            timeout: given.timeout.map_or(default.timeout, Duration::from_secs),
            ca_file: given.ca_file,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.hasattr("ranges")? {
            let Part { path, ranges, name, verity, verity_tree, remote } = object.extract()?;
            let remote = remote.map(RemoteOptions::from);
            let name = name.display().to_string();
            let verity = verity_options(verity.as_deref(), verity_tree)?;
            return Ok(Source { path, ranges, name, verity, remote });
        }
        let path: PathBuf = object.extract()?;
        let name = path.display().to_string();
        let (ranges, verity) = (Vec::new(), VerityOptions::default());
        Ok(Source { path, ranges, name, verity, remote: None })
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
        self.open_marked().map(|(bytes, _)| bytes)
    }

    /// The same; and the mark of the image at a URL, which no other image there has.
    pub fn open_marked(&self) -> Result<(Arc<dyn Storage>, Option<String>)> {
        let (file, mark) = self.file_marked()?;
        let options = self.verified(DeviceOptions::default())?;
        Ok((image_bytes(file, &self.path, &options)?, mark))
    }

    /// The same, as they are.
    pub(crate) fn open_unverified(&self) -> Result<Arc<dyn Storage>> {
        let file = self.file()?;
        if self.ranges.is_empty() {
            Ok(file)
        } else {
            part_of(file, self.name.clone(), &self.ranges)
        }
    }

    /// Whether it lies in a file of this machine.
    pub fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// Opens the device that the image and `cows` make.
    pub fn device(&self, cows: &[PathBuf], options: DeviceOptions) -> Result<Device> {
        match &self.remote {
            None => Device::open(&self.path, cows, &self.options(options)),
            Some(_) => {
                let file = self.file()?;
                Device::open_storage(file, cows, &self.verified(options)?)
            }
        }
    }

    /// The file, or what is at the URL.
    fn file(&self) -> Result<Arc<dyn Storage>> {
        self.file_marked().map(|(file, _)| file)
    }

    fn file_marked(&self) -> Result<(Arc<dyn Storage>, Option<String>)> {
        let Some(remote) = &self.remote else { return Ok((info::open(&self.path)?, None)) };
        let image = RemoteImage::open(&self.path.to_string_lossy(), remote)?;
        let mark = image.mark();
        Ok((Arc::new(image), mark))
    }

    /// The same options, with the place of the image, and the tree beside it at a URL.
    fn verified(&self, options: DeviceOptions) -> Result<DeviceOptions> {
        let mut options = self.options(options);
        if let Some(remote) = &self.remote {
            if let Some(tree) = tree_beside(&self.path.to_string_lossy(), remote, &options)? {
                options.verity.tree = DigestTree::Open(tree);
            }
        }
        Ok(options)
    }

    /// The same options, with the place of the image.
    fn options(&self, options: DeviceOptions) -> DeviceOptions {
        DeviceOptions {
            image_ranges: self.ranges.clone(),
            image_name: Some(self.name.clone()),
            verity: self.verity.clone(),
            ..options
        }
    }
}

/// How an image is verified: its digest, and the file of its tree where that is named.
pub fn verity_options(root: Option<&str>, tree: Option<PathBuf>) -> PyResult<VerityOptions> {
    let root = root.map(digest_of).transpose()?;
    Ok(VerityOptions { root, tree: tree.map_or(DigestTree::Beside, DigestTree::File) })
}

/// A digest, from the text that `fsverity digest` prints.
fn digest_of(text: &str) -> PyResult<Digest> {
    text.parse().map_err(|reason| PyValueError::new_err(format!("verity: {text:?} is {reason}")))
}
