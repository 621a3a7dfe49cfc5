//! A build without a network: every URL is refused.

use std::io;
use std::path::{Path, PathBuf};

use cowcloop_engine::device::VerityOptions;
use cowcloop_engine::progress::Progress;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::{Error, ErrorKind, Result};

use crate::address::redacted;
use crate::options::RemoteOptions;

/// There is none.
#[derive(Debug)]
pub enum RemoteImage {}

impl RemoteImage {
    /// Refuses.
    ///
    /// # Errors
    /// `Unsupported`, always.
    pub fn open(url: &str, _options: &RemoteOptions) -> Result<RemoteImage> {
        let message = "this cowcloop was built without its feature \"network\"";
        Err(Error::new(ErrorKind::Unsupported, redacted(url), message))
    }

    /// Nothing has to be done.
    pub fn rest(&self) {}

    /// It has none.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        match *self {}
    }
}

/// Refuses.
///
/// # Errors
/// `Unsupported`, always.
pub fn pull(
    url: &str,
    options: &RemoteOptions,
    _verity: &VerityOptions,
    _to: Option<&Path>,
    _progress: &dyn Progress,
) -> Result<PathBuf> {
    match RemoteImage::open(url, options)? {}
}

impl Storage for RemoteImage {
    fn name(&self) -> &str {
        match *self {}
    }
    fn len(&self) -> io::Result<u64> {
        match *self {}
    }
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        match *self {}
    }
    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        match *self {}
    }
    fn punch_hole(&self, _offset: u64, _length: u64) -> io::Result<()> {
        match *self {}
    }
    fn sync(&self) -> io::Result<()> {
        match *self {}
    }
    fn next_data(&self, _offset: u64) -> io::Result<Option<u64>> {
        match *self {}
    }
    fn next_hole(&self, _offset: u64) -> io::Result<u64> {
        match *self {}
    }
    fn allocated(&self) -> io::Result<u64> {
        match *self {}
    }
}
