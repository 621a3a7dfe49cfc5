//! Putting a device together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept::KeptOptions;
use super::medium::Medium;
use super::verity::{self, DigestTree, VerityOptions};
use super::watched::Watched;
use super::Device;
use crate::format::cowfile::head::MAPUNIT;
use crate::format::cowfile::{self, files, Access};
use crate::format::verity::Verified;
use crate::image::{Image, ImageOptions};
use crate::layer::Watch;
use crate::overlay::Overlay;
use crate::storage::{Exchange, FileStorage, MemoryStorage, Slice, Storage};
use crate::{memory, Error, ErrorKind, Layer, Remedy, Result};

/// The name of a cowfile that is kept in memory and thrown away.
pub const MEMORY: &str = ":memory:";

/// A step on a cowfile before a device opens it.
pub type Prepare = fn(&Path) -> Result<()>;

/// How a device is put together.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// How the base is read.
    pub image: ImageOptions,
    /// Where the image lies in its file (offset and length in bytes, in order), when it is
    /// a part of the file: in an ISO 9660 image, for example. Empty: all of it.
    pub image_ranges: Vec<(u64, u64)>,
    /// The name of such an image in messages; `None`: its file's path.
    pub image_name: Option<String>,
    /// Is told what is read of the base.
    pub watch: Option<Arc<dyn Watch>>,
    /// How the image is verified.
    pub verity: VerityOptions,
    /// Open the last cowfile read-only too.
    pub read_only: bool,
    /// Create the last cowfile when it is missing.
    pub create: bool,
    /// Run on the last cowfile before it is opened, when it exists and is to be written: a
    /// repair, for example.
    pub prepare: Option<Prepare>,
    /// Bytes that a `:memory:` overlay may take; `None`: half of the machine's memory.
    pub memory_limit: Option<u64>,
    /// Size in bytes of the device of a cowfile that is created, when larger than its base.
    pub device_size: Option<u64>,
    /// Bytes that the last cowfile may take on its medium; writes beyond fail with `NoSpace`.
    pub cow_limit: Option<u64>,
    /// What was acknowledged, and not flushed, is to be there for a server that takes over.
    pub kept: Option<KeptOptions>,
    /// The device is one that another server has left: no cowfile is made, and the last one must
    /// be that of the bits which were kept.
    pub takes_over: bool,
}

impl DeviceOptions {
    /// Whether a cowfile that is missing is made.
    fn creates(&self, last: bool, access: Access) -> bool {
        last && self.create && !self.takes_over && access == Access::Writable
    }
}

impl Device {
    /// Opens `image` with `cows` on top, lowest first, the last one writable.
    ///
    /// A cow named `:memory:` is an overlay in memory. Without cows the device is
    /// read-only.
    ///
    /// # Errors
    /// Those of opening the image and each cowfile.
    pub fn open(image: &Path, cows: &[PathBuf], options: &DeviceOptions) -> Result<Device> {
        let name = options.image_name.clone().unwrap_or_else(|| image.display().to_string());
        let base = Base::open(image, options)?;
        let mut device = Device::on(name, base.image.clone(), cows, options)?;
        if !cows.is_empty() {
            device.tell_if_cut();
        }
        device.bytes = Some(base.bytes.clone());
        device.verified = base.verified.clone();
        device.medium = Some(Arc::new(Medium::new(base, options.clone())));
        Ok(device)
    }

    /// Opens the image in `storage`, far away perhaps, with `cows` on top: see
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// Those of opening the image and each cowfile.
    pub fn open_storage(
        storage: Arc<dyn Storage>,
        cows: &[PathBuf],
        options: &DeviceOptions,
    ) -> Result<Device> {
        let name = options.image_name.clone().unwrap_or_else(|| storage.name().to_string());
        // Beside an image that has no path there can be none.
        let tree = match options.verity.tree {
            DigestTree::File(_) => verity::open_tree(Path::new(&name), options)?,
            DigestTree::Beside | DigestTree::Open(_) => None,
        };
        let tree = tree.map(|tree| Arc::new(tree) as Arc<dyn Storage>);
        let bytes = bytes_of(storage.clone(), tree, options)?;
        let base = Image::open(bytes.storage.clone(), &options.image)?;
        let mut device = Device::on(name, base, cows, options)?;
        if !cows.is_empty() {
            device.tell_if_cut();
        }
        device.bytes = Some(bytes.storage);
        device.verified = bytes.verified;
        device.storage = Some(storage);
        Ok(device)
    }

    /// Another device on the same base, which alone can let go of its medium.
    ///
    /// # Errors
    /// Those of opening each cowfile.
    pub fn beside(&self, cows: &[PathBuf], options: &DeviceOptions) -> Result<Device> {
        let mut device = Device::on(self.image.clone(), self.base.clone(), cows, options)?;
        device.medium = self.medium.clone();
        device.verified = self.verified.clone();
        device.shares = true;
        Ok(device)
    }

    /// The same over a base that is open already and may be shared.
    pub fn on(
        image: String,
        base: Image,
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
        let top = match &options.watch {
            Some(watch) => Arc::new(Watched::new(base.clone().layer(), watch.clone())),
            None => base.clone().layer(),
        };
        let overlays = Vec::new();
        let mut device = Device {
            image,
            base,
            overlays,
            top,
            bytes: None,
            verified: None,
            medium: None,
            storage: None,
            shares: false,
        };
        for (i, cow) in cows.iter().enumerate() {
            let last = i + 1 == cows.len();
            let access =
                if last && !options.read_only { Access::Writable } else { Access::ReadOnly };
            let storage = device.open_cow(cow, access, last, options)?;
            let kept = options.kept.as_ref().filter(|_| last && !in_memory(cow));
            let keeping = match access {
                Access::Writable => kept.map(KeptOptions::open).transpose()?,
                Access::ReadOnly => None,
            };
            if let Some(keeping) = keeping.as_ref().filter(|_| options.takes_over) {
                keeping.refuse_other(&*storage)?;
            }
            let overlay = Overlay::open_kept(storage, device.top.clone(), access, keeping)?;
            let overlay = Arc::new(overlay);
            if let Some(size) = options.device_size.filter(|size| *size != overlay.size() && last) {
                log::warn!(
                    "{}: its device keeps its {} bytes; {}",
                    overlay.cowfile().name(),
                    overlay.size(),
                    Remedy::SizeOfNew(size)
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
            let remedy = Remedy::GiveSize(size.next_multiple_of(MAPUNIT));
            log::warn!(
                "{}: its last {over} of {size} bytes are not part of the device: with a cowfile \
                 it ends on a whole KiB; {remedy}",
                self.image,
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
        if options.creates(last, access) && missing() {
            return files::create(cow, &*self.top, size);
        }
        if let Some(prepare) = options.prepare.filter(|_| last && access == Access::Writable) {
            prepare(cow)?;
        }
        let storage = files::open(cow, access)?;
        if options.creates(last, access) {
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
}

pub(super) fn open_image(path: &Path) -> Result<FileStorage> {
    let file = FileStorage::open(path)
        .map_err(|error| Error::io(path.display().to_string(), "cannot open the image", error))?;
    // So that none of our own commands writes to it. Others may have their own use for its
    // lock, and it may have none.
    let _ = file.try_lock(false);
    Ok(file)
}

/// A base, and the files that it lies in.
pub(super) struct Base {
    pub(super) image: Image,
    pub(super) file: Arc<Exchange>,
    pub(super) tree: Option<Arc<Exchange>>,
    pub(super) bytes: Arc<dyn Storage>,
    pub(super) verified: Option<Arc<Verified>>,
}

impl Base {
    /// The base in the file, or in the part of it that the options name.
    pub(super) fn open(path: &Path, options: &DeviceOptions) -> Result<Base> {
        let file = Arc::new(Exchange::new(open_image(path)?, path));
        let tree = verity::open_tree(path, options)?.map(Arc::new);
        let beside = tree.clone().map(|tree| tree as Arc<dyn Storage>);
        let Bytes { storage, verified } = bytes_of(file.clone(), beside, options)?;
        let image = Image::open(storage.clone(), &options.image)?;
        Ok(Base { image, file, tree, bytes: storage, verified })
    }
}

/// The bytes of the image in a file that is open: all of it or a part, verified where the
/// options, or a tree beside `path`, ask for it.
///
/// # Errors
/// Those of the tree, and of [`part_of`].
pub fn image_bytes(
    file: Arc<dyn Storage>,
    path: &Path,
    options: &DeviceOptions,
) -> Result<Arc<dyn Storage>> {
    let tree = verity::open_tree(path, options)?.map(|tree| Arc::new(tree) as Arc<dyn Storage>);
    bytes_of(file, tree, options).map(|bytes| bytes.storage)
}

/// What an image is read from.
struct Bytes {
    storage: Arc<dyn Storage>,
    /// The same, where it is verified.
    verified: Option<Arc<Verified>>,
}

/// `tree` is that of a file beside the image, where there is one.
fn bytes_of(
    file: Arc<dyn Storage>,
    tree: Option<Arc<dyn Storage>>,
    options: &DeviceOptions,
) -> Result<Bytes> {
    let storage = if options.image_ranges.is_empty() {
        file
    } else {
        let name = options.image_name.clone().unwrap_or_else(|| file.name().to_string());
        part_of(file, name, &options.image_ranges)?
    };
    let tree = match &options.verity.tree {
        DigestTree::Open(tree) => Some(tree.clone()),
        _ => tree,
    };
    if tree.is_none() && options.verity.root.is_none() {
        return Ok(Bytes { storage, verified: None });
    }
    let verified = Arc::new(Verified::new(storage, tree, options.verity.root)?);
    Ok(Bytes { storage: verified.clone(), verified: Some(verified) })
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
