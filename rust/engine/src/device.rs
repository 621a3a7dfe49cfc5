//! The device: a base, the cowfiles on it, and every request that a block
//! device answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::format::cowfile::head::MAPUNIT;
use crate::format::cowfile::{self, files, Access};
use crate::image::{self, ImageOptions};
use crate::jobs::{repair, RepairOptions};
use crate::layer::{ExtentSink, LayerCounters};
use crate::overlay::{CowfileStatus, Overlay, SnapshotSummary};
use crate::progress::NoProgress;
use crate::storage::{FileStorage, MemoryStorage, Slice, Slot, Storage};
use crate::{memory, Error, ErrorKind, Layer, Result};

/// The name of a cowfile that is kept in memory and thrown away.
pub const MEMORY: &str = ":memory:";

/// How a device is put together.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// How the base is read.
    pub image: ImageOptions,
    /// Where in its file the image lies (offset and length in bytes, in order),
    /// when it is a part of the file: in an ISO 9660 image, say. Empty: all of it.
    pub image_ranges: Vec<(u64, u64)>,
    /// What messages call such an image; `None`: its file's path.
    pub image_name: Option<String>,
    /// Open the last cowfile read-only too.
    pub read_only: bool,
    /// Create the last cowfile when it is missing.
    pub create: bool,
    /// Repair the last cowfile when the original driver left it dirty.
    pub repair: bool,
    /// Bytes that a `:memory:` overlay may take; `None`: half of the machine's memory.
    pub memory_limit: Option<u64>,
    /// Size in bytes of the device of a cowfile that is created, when larger than its base.
    pub device_size: Option<u64>,
    /// Bytes that the last cowfile may take on its medium; writes beyond fail with `NoSpace`.
    pub cow_limit: Option<u64>,
}

/// A block device: any number of threads may call any method at any time.
///
/// Requests out of its range fail with `InvalidInput`.
pub struct Device {
    image: String,
    base: Arc<dyn Layer>,
    /// Lowest first; only the last may be writable.
    overlays: Vec<Arc<Overlay>>,
    /// What is read: the last overlay, or the base.
    top: Arc<dyn Layer>,
    /// Where the image's file can be exchanged; not for a base that was given open.
    medium: Option<Medium>,
}

/// The image's file, and what is needed to know it again.
struct Medium {
    slot: Arc<Slot>,
    options: DeviceOptions,
    /// The base's identity, once it was suspended: it cannot be asked then.
    identity: Mutex<Option<[u8; 32]>>,
}

impl Device {
    /// Opens `image` with `cows` on top, lowest first, the last one writable.
    ///
    /// A cow named `:memory:` is an overlay in memory. Without cows the device
    /// is read-only.
    ///
    /// # Errors
    /// What the image and each cowfile have to say against it.
    pub fn open(image: &Path, cows: &[PathBuf], options: &DeviceOptions) -> Result<Device> {
        let name = options.image_name.clone().unwrap_or_else(|| image.display().to_string());
        let slot = Arc::new(Slot::new(open_image(image)?, image));
        let base = open_base(slot.clone(), options)?;
        let mut device = Device::on(name, base, cows, options)?;
        if !cows.is_empty() {
            device.tell_if_cut();
        }
        device.medium = Some(Medium { slot, options: options.clone(), identity: Mutex::default() });
        Ok(device)
    }

    /// The same over a base that is open already and may be shared.
    pub fn on(
        image: String,
        base: Arc<dyn Layer>,
        cows: &[PathBuf],
        options: &DeviceOptions,
    ) -> Result<Device> {
        if cows.is_empty() && options.device_size.is_some() {
            let message = "a size needs a cowfile, which the device is enlarged by";
            return Err(Error::new(ErrorKind::InvalidInput, image, message));
        }
        let in_memory = |cow: &PathBuf| cow.as_os_str() == MEMORY;
        if !cows.iter().skip_while(|cow| !in_memory(cow)).all(in_memory) {
            let message = "give it last: what lies on it would be lost with it";
            return Err(Error::new(ErrorKind::InvalidInput, MEMORY, message));
        }
        let mut device =
            Device { image, top: base.clone(), base, overlays: Vec::new(), medium: None };
        for (i, cow) in cows.iter().enumerate() {
            let last = i + 1 == cows.len();
            let access = match last && !options.read_only {
                true => Access::Writable,
                false => Access::ReadOnly,
            };
            let storage = device.open_cow(cow, access, last, options)?;
            let overlay = Arc::new(Overlay::open(storage, device.top.clone(), access)?);
            if let Some(size) = options.device_size.filter(|size| *size != overlay.size() && last) {
                log::warn!(
                    "{}: its device keeps its {} bytes: --size {size} counts for a new cowfile \
                     only",
                    overlay.cowfile().name(),
                    overlay.size()
                );
            }
            if let Some(limit) = options.cow_limit.filter(|_| last) {
                overlay.cowfile().limit_space(limit);
            }
            device.overlays.push(overlay.clone());
            device.top = overlay;
        }
        Ok(device)
    }

    /// Warns of bytes at the base's end that a cowfile leaves out: it holds whole blocks only.
    pub fn tell_if_cut(&self) {
        let size = self.base.size();
        let over = size % MAPUNIT;
        if over != 0 && (self.overlays.is_empty() || self.size() < size) {
            log::warn!(
                "{}: its last {over} of {size} bytes are not part of the device: with a cowfile \
                 it ends on a whole KiB; a cowfile made with --size {} has them",
                self.image,
                size.next_multiple_of(MAPUNIT)
            );
        }
    }

    fn open_cow(
        &self,
        cow: &Path,
        access: Access,
        last: bool,
        options: &DeviceOptions,
    ) -> Result<Arc<dyn Storage>> {
        let size = self.size_of_new(cow, options)?;
        if cow.as_os_str() == MEMORY {
            let limit = options.memory_limit.unwrap_or_else(|| memory::limit() / 2);
            let storage = MemoryStorage::new(MEMORY, limit);
            cowfile::create(&storage, &*self.top, size)?;
            return Ok(Arc::new(storage));
        }
        let missing = || !cow.try_exists().unwrap_or(true);
        if last && options.create && access == Access::Writable && missing() {
            return files::create(cow, &*self.top, size);
        }
        if last && options.repair && access == Access::Writable {
            let report = repair(cow, RepairOptions::default(), &NoProgress)?;
            if report.changed {
                log::warn!("{}", report.summary(cow));
            }
        }
        let storage = files::open(cow, access)?;
        if last && options.create && access == Access::Writable {
            files::begin_if_empty(&*storage, cow, &*self.top, size)?;
        }
        Ok(storage)
    }

    /// The size in bytes of the device that a new cowfile makes.
    fn size_of_new(&self, cow: &Path, options: &DeviceOptions) -> Result<u64> {
        let base = self.top.size();
        match options.device_size {
            Some(size) if size < base || size % MAPUNIT != 0 => {
                let message = format!(
                    "size {size} must be a multiple of {MAPUNIT} and at least the {base} bytes \
                     of the base"
                );
                Err(Error::new(ErrorKind::InvalidInput, cow.display().to_string(), message))
            }
            Some(size) => Ok(size),
            None => Ok(base),
        }
    }

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

    /// What is read: the base with every cowfile applied.
    pub fn layer(&self) -> &Arc<dyn Layer> {
        &self.top
    }

    /// The base alone.
    pub fn base(&self) -> &Arc<dyn Layer> {
        &self.base
    }

    /// The overlays, lowest first.
    pub fn overlays(&self) -> &[Arc<Overlay>] {
        &self.overlays
    }

    /// One line for people: image, cowfiles and size.
    pub fn description(&self) -> String {
        let mut line = self.image.clone();
        for overlay in &self.overlays {
            line = line + " + " + overlay.cowfile().name();
        }
        format!("{line}, {} bytes", self.size())
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
            cowfiles: self.overlays.iter().map(|overlay| overlay.cowfile().status()).collect(),
        }
    }

    /// Lets go of the image's file, so that its medium can be taken out: reads of
    /// the base wait until [`resume`](Self::resume). Blocks in the cache and in
    /// cowfiles can still be read.
    ///
    /// # Errors
    /// `InvalidInput` when the base was given open.
    pub fn suspend(&self) -> Result<()> {
        let medium = self.medium()?;
        let mut identity = medium.identity.lock().expect("no panic while locked");
        if identity.is_none() {
            *identity = Some(self.base.identity()?);
            drop(medium.slot.take());
        }
        Ok(())
    }

    /// Opens the image's file anew, which must be the same image as before.
    ///
    /// # Errors
    /// `Mismatch` for another image; the device stays suspended then.
    pub fn resume(&self) -> Result<()> {
        let Medium { slot, options, identity } = self.medium()?;
        let mut identity = identity.lock().expect("no panic while locked");
        let Some(expected) = *identity else { return Ok(()) };
        let fresh = Arc::new(Slot::new(open_image(slot.path())?, slot.path()));
        if open_base(fresh.clone(), options)?.identity()? != expected {
            let message = "this is another image than the one that was suspended";
            return Err(Error::new(ErrorKind::Mismatch, &self.image, message));
        }
        if let Some(file) = fresh.take() {
            slot.put(file);
        }
        *identity = None;
        Ok(())
    }

    fn medium(&self) -> Result<&Medium> {
        self.medium.as_ref().ok_or_else(|| {
            let message = "the image is shared and cannot be suspended by itself";
            Error::new(ErrorKind::InvalidInput, &self.image, message)
        })
    }

    /// Lets reads fail that wait for a suspended medium, until it is resumed.
    pub fn give_up(&self) {
        if let Some(medium) = &self.medium {
            medium.slot.give_up();
        }
    }

    /// Whether reads of the base wait for its medium.
    pub fn is_suspended(&self) -> bool {
        self.medium.as_ref().is_some_and(|medium| medium.slot.is_empty())
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
        if let Some(medium) = &self.medium {
            medium.slot.abandon();
        }
    }

    /// Flushes and closes the cowfile cleanly; reads that wait for a suspended
    /// medium fail; later writes are refused. May be repeated.
    pub fn close(&self) -> Result<()> {
        self.give_up();
        match self.overlays.last() {
            Some(overlay) => overlay.close(),
            None => Ok(()),
        }
    }
}

fn open_image(path: &Path) -> Result<FileStorage> {
    let file = FileStorage::open(path)
        .map_err(|error| Error::io(path.display().to_string(), "cannot open the image", error))?;
    // So that none of our own commands writes to it. Others may have their own use for its
    // lock, and it may have none.
    let _ = file.try_lock(false);
    Ok(file)
}

/// The base in the file, or in the part of it that the options name.
fn open_base(file: Arc<Slot>, options: &DeviceOptions) -> Result<Arc<dyn Layer>> {
    if options.image_ranges.is_empty() {
        return image::open(file, &options.image);
    }
    let name = options.image_name.clone().unwrap_or_else(|| file.name().to_string());
    image::open(part_of(file, name, &options.image_ranges)?, &options.image)
}

/// The `ranges` of a file as an image of its own, called `name` in messages.
///
/// # Errors
/// The system's error `InvalidInput` when they do not lie in the file.
pub fn part_of(
    file: Arc<dyn Storage>,
    name: String,
    ranges: &[(u64, u64)],
) -> Result<Arc<dyn Storage>> {
    match Slice::new(file, name.clone(), ranges) {
        Ok(slice) => Ok(Arc::new(slice)),
        Err(error) => Err(Error::io(name, "the image does not lie in the file", error)),
    }
}

/// A snapshot of a device's state and counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The image's name.
    pub image: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What the base did.
    pub base: LayerCounters,
    /// The cowfiles, lowest first.
    pub cowfiles: Vec<CowfileStatus>,
}
