//! The device: a base, the cowfiles on it, and every request that a block
//! device answers.

mod kept;
mod medium;
mod open;
mod verity;
mod watched;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::format::verity::{Verified, VerityStatus};
use crate::image::Image;
use crate::layer::{ExtentSink, LayerCounters};
use crate::overlay::{CowfileStatus, Overlay, SnapshotSummary};
use crate::storage::{FetchCounters, Storage};
use crate::{Error, ErrorKind, Layer, Result};

pub use kept::KeptOptions;
use medium::Medium;
pub use open::{image_bytes, part_of, DeviceOptions, Prepare, MEMORY};
pub use verity::{tree_path, DigestTree, VerityOptions, TREE_SUFFIX};

/// A block device: any number of threads may call any method at any time.
///
/// Requests out of its range fail with `InvalidInput`, and those that need the base while its
/// medium is out with `NoMedium`, at once: see [`when_back`](Device::when_back).
pub struct Device {
    image: String,
    base: Image,
    /// Lowest first; only the last may be writable.
    overlays: Vec<Arc<Overlay>>,
    /// Reads go here: the last overlay, or the base.
    top: Arc<dyn Layer>,
    /// The image's bytes as they lie in its file; not for a base that was given open.
    bytes: Option<Arc<dyn Storage>>,
    /// The same, where they are verified.
    verified: Option<Arc<Verified>>,
    /// Where the image's file can be exchanged; not for a base that was given open.
    medium: Option<Arc<Medium>>,
    /// What the base was opened in, when that was no file by its path.
    storage: Option<Arc<dyn Storage>>,
    /// The medium is another device's, which alone lets go of it.
    shares: bool,
}

impl Device {
    fn writable(&self) -> Result<&Overlay> {
        match self.overlays.last() {
            Some(overlay) if !overlay.cowfile().is_read_only() => Ok(overlay),
            _ => Err(Error::new(ErrorKind::ReadOnly, &self.image, "the device is read-only")),
        }
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(()),
            _ => {
                let message = format!(
                    "{length} bytes at {offset} lie beyond the device's {} bytes",
                    self.size()
                );
                Err(Error::new(ErrorKind::InvalidInput, &self.image, message))
            }
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.top.size()
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.writable().is_err()
    }

    /// The base with every cowfile applied, as reads see it.
    pub fn layer(&self) -> &Arc<dyn Layer> {
        &self.top
    }

    /// The image below all cowfiles.
    pub fn base(&self) -> &Image {
        &self.base
    }

    /// The image's bytes as they lie in its file; `None` for a base that was given open.
    pub fn bytes(&self) -> Option<&Arc<dyn Storage>> {
        self.bytes.as_ref()
    }

    /// The overlays, lowest first.
    pub(crate) fn overlays(&self) -> &[Arc<Overlay>] {
        &self.overlays
    }

    /// One line for users: image, cowfiles and size.
    pub fn description(&self) -> String {
        let mut line = self.image.clone();
        for overlay in &self.overlays {
            line = line + " + " + overlay.cowfile().name();
        }
        format!("{line}, {} bytes", self.size())
    }

    /// What tells the device from others of this machine, whatever is written to it: the identity
    /// of its image, which files its cowfiles are, and its size. Devices with changes in memory are
    /// all different.
    pub fn place(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(self.base.identity()?);
        for overlay in &self.overlays {
            hash.update(overlay.cowfile().place()?);
        }
        hash.update(self.size().to_le_bytes());
        Ok(hash.finalize().into())
    }

    /// Fills `buf` from `offset` on.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        if buf.is_empty() {
            Ok(())
        } else {
            self.top.read_at(buf, offset)
        }
    }

    /// Writes `buf` at `offset`; durable only after a [`flush`](Self::flush).
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.writable()?.write_at(buf, offset)
    }

    /// Makes a range read as zeros. `fast`: fail with `Unsupported` rather than
    /// write the zeros out.
    pub fn write_zeroes(&self, offset: u64, length: u64, fast: bool) -> Result<()> {
        self.check_range(offset, length)?;
        self.writable()?.write_zeroes(offset, length, fast)
    }

    /// Discards a range, which reads as zeros afterwards.
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length, false)
    }

    /// Returns once everything acknowledged before the call is durable.
    pub fn flush(&self) -> Result<()> {
        match self.overlays.last() {
            Some(overlay) => overlay.flush(),
            None => Ok(()),
        }
    }

    /// Refuses a device whose cowfile is lost at its end: see [`Cowfile::check_kept`].
    pub fn check_kept(&self) -> Result<()> {
        match self.overlays.last() {
            Some(overlay) => overlay.cowfile().check_kept(),
            None => Ok(()),
        }
    }

    /// Walks a range: see [`Layer::extents`].
    pub fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        self.check_range(offset, length)?;
        if length == 0 {
            Ok(())
        } else {
            self.top.extents(offset, length, sink)
        }
    }

    /// A hint that a range will be read soon.
    pub fn prefetch(&self, offset: u64, length: u64) {
        if self.check_range(offset, length).is_ok() {
            self.top.prefetch(offset, length);
        }
    }

    /// What has happened so far.
    pub fn status(&self) -> DeviceStatus {
        DeviceStatus {
            image: self.image.clone(),
            size: self.size(),
            read_only: self.read_only(),
            base: self.base.counters(),
            verity: self.verified.as_ref().map(|verified| verified.status()),
            fetch: self.storage.as_ref().and_then(|storage| storage.fetched()),
            cowfiles: self.overlays.iter().map(|overlay| overlay.cowfile().status()).collect(),
        }
    }

    /// Closes the cowfile cleanly and goes on read-only.
    ///
    /// # Errors
    /// See [`Cowfile::make_read_only`].
    pub fn make_read_only(&self) -> Result<()> {
        match self.overlays.last() {
            Some(overlay) => overlay.cowfile().make_read_only(),
            None => Ok(()),
        }
    }

    /// Copies the last cowfile as it is now: see [`Cowfile::snapshot`].
    pub fn snapshot(&self, path: &Path) -> Result<SnapshotSummary> {
        match self.overlays.last() {
            Some(overlay) => overlay.cowfile().snapshot(path),
            None => {
                let message = "the device has no cowfile to make a snapshot of";
                Err(Error::new(ErrorKind::InvalidInput, &self.image, message))
            }
        }
    }

    /// Closes the files and does nothing else, in a forked process whose parent goes on with
    /// the device. It must be neither used nor dropped afterwards: its threads are not here.
    pub fn abandon(&self) {
        for overlay in &self.overlays {
            overlay.cowfile().abandon();
        }
        if let Some(medium) = self.medium.as_ref().filter(|_| !self.shares) {
            medium.abandon();
        }
    }

    /// Flushes and closes the cowfile cleanly; requests that wait for a suspended medium
    /// fail; later writes are refused. May be repeated.
    pub fn close(&self) -> Result<()> {
        self.give_up();
        match self.overlays.last() {
            Some(overlay) => overlay.close(),
            None => Ok(()),
        }
    }
}

/// A snapshot of a device's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// The image's name.
    pub image: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What the base did.
    #[serde(flatten)]
    pub base: LayerCounters,
    /// What was verified of it, where it has a digest tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verity: Option<VerityStatus>,
    /// What was fetched of it, where it is far away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FetchCounters>,
    /// The cowfiles, lowest first.
    pub cowfiles: Vec<CowfileStatus>,
}
