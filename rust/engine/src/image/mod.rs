//! Base images of every kind: one way in, [`open`].

pub mod cloop;
mod raw;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::format::detect::{detect, FileKind};
use crate::storage::Storage;
use crate::{memory, Error, ErrorKind, Layer, Result};

pub use crate::read::{as_reader, reader};
pub use cloop::CloopImage;
pub use raw::RawImage;

/// The default size of the cache is this part of the memory, within these bounds in bytes.
const CACHE_PART: u64 = 16;
const CACHE_BOUNDS: (u64, u64) = (64 << 20, 512 << 20);

/// How an image is read.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Bytes of decompressed blocks to keep at most.
    pub cache_bytes: u64,
    /// Threads that inflate ahead of readers; 0: one per core.
    pub threads: usize,
    /// Inflate and check a whole block before any byte of it is returned.
    pub strict: bool,
    /// Many readers share the image, and want the same of it: a block is inflated once, whole,
    /// and stays as long as there is room; and they take turns at the processors (see
    /// [`as_reader`]).
    pub shared: bool,
}

impl Default for ImageOptions {
    fn default() -> Self {
        let (least, most) = CACHE_BOUNDS;
        let cache_bytes = (memory::limit() / CACHE_PART).clamp(least, most);
        ImageOptions { cache_bytes, threads: 0, strict: false, shared: false }
    }
}

/// An image of any kind.
#[derive(Clone)]
pub enum Image {
    /// cloop or uzip: compressed block by block.
    Cloop(Arc<CloopImage>),
    /// Anything else: the bytes as they are.
    Raw(Arc<RawImage>),
    /// A layer that is no image of these kinds: a simulated one, for example.
    Other(Arc<dyn Layer>),
}

impl Image {
    /// Opens an image of any kind: cloop, uzip, or, where no signature is found, raw.
    ///
    /// # Errors
    /// What [`CloopImage::open`] says of an image that has a signature; `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Image> {
        match detect(&*storage)? {
            FileKind::Cloop(header) => {
                CloopImage::with_header(storage, header, options).map(Image::Cloop)
            }
            FileKind::Cowfile => {
                let message = "this is a cowfile, not an image: name its image before it";
                Err(Error::new(ErrorKind::Format, storage.name(), message))
            }
            // A disk may begin with a gzip stream, whatever is in the stream.
            FileKind::GzippedCowfile | FileKind::Raw => {
                RawImage::open(storage).map(|image| Image::Raw(Arc::new(image)))
            }
        }
    }

    /// Where in the image's file the bytes lie that a range of the device is made of, those of the
    /// block that it begins in: offset and length. `None`: there are none, or none is known.
    ///
    /// # Panics
    /// When `offset` is not below the size.
    pub fn stored(&self, offset: u64, length: u64) -> Option<(u64, u64)> {
        match self {
            Image::Cloop(image) => {
                let location = image.location(offset / image.read_unit());
                (location.length > 0).then(|| (location.offset, location.length.into()))
            }
            Image::Raw(_) => Some((offset, length)),
            Image::Other(_) => None,
        }
    }

    /// Brings the block at `offset` into the cache of decoded blocks, to stay, unless it is there
    /// or on its way: for one that readers will want. Images without blocks have no such cache.
    ///
    /// # Panics
    /// When `offset` is not below the size.
    pub fn bring_in(&self, offset: u64) {
        if let Image::Cloop(image) = self {
            image.bring_in(offset / image.read_unit());
        }
    }

    /// The image as a layer.
    pub fn layer(self) -> Arc<dyn Layer> {
        match self {
            Image::Cloop(image) => image,
            Image::Raw(image) => image,
            Image::Other(layer) => layer,
        }
    }
}

impl Deref for Image {
    type Target = dyn Layer;

    fn deref(&self) -> &(dyn Layer + 'static) {
        match self {
            Image::Cloop(image) => &**image,
            Image::Raw(image) => &**image,
            Image::Other(layer) => &**layer,
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Image::Cloop(_) => "Cloop",
            Image::Raw(_) => "Raw",
            Image::Other(_) => "Other",
        })
    }
}

/// [`Image::open`], for a caller that only reads.
///
/// # Errors
/// Those of [`Image::open`].
pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<dyn Layer>> {
    Image::open(storage, options).map(Image::layer)
}
