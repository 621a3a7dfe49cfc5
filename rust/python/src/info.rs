//! The kind and content of a file: `sniff`, `image_info`, `cow_info`. Nothing is locked, so
//! files in use can be asked about too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowcloop_engine::format::cowfile;
use cowcloop_engine::format::cowfile::bitmap::Bitmap;
use cowcloop_engine::format::cowfile::head::{ByteOrder, Head, WordSize, MAPUNIT, VERSION_CLOSED};
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::format::cowfile::GZIP_MAGIC;
use cowcloop_engine::format::detect::{detect, FileKind};
use cowcloop_engine::image::cloop::CloopInfo;
use cowcloop_engine::image::{Image, ImageOptions};
use cowcloop_engine::jobs::packed_head;
use cowcloop_engine::storage::{FileStorage, Storage};
use cowcloop_engine::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::to_python;
use crate::source::Source;

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sniff, module)?)?;
    module.add_function(wrap_pyfunction!(image_info, module)?)?;
    module.add_function(wrap_pyfunction!(cow_info, module)?)
}

/// The kind of the file: "cloop" (uzip too), "cowfile" or, if neither, "raw".
#[pyfunction]
fn sniff(py: Python<'_>, path: Source) -> PyResult<&'static str> {
    py.detach(|| kind_of(&path)).map_err(to_python)
}

/// The content of an image, as a dict whose "type" is "cloop" or "raw". Sizes in bytes.
#[pyfunction]
fn image_info(py: Python<'_>, path: Source) -> PyResult<Bound<'_, PyDict>> {
    let (storage, image) = py
        .detach(|| {
            let storage = path.open()?;
            let image = Image::open(storage.clone(), &ImageOptions::default())?;
            Ok((storage, image))
        })
        .map_err(to_python)?;
    match &image {
        Image::Cloop(image) => cloop_dict(py, storage.name(), &py.detach(|| image.info())),
        Image::Raw(_) | Image::Other(_) => {
            let dict = PyDict::new(py);
            dict.set_item("type", "raw")?;
            dict.set_item("path", storage.name())?;
            dict.set_item("size", image.size())?;
            Ok(dict)
        }
    }
}

/// The content of a cowfile, as a dict whose "type" is "cowfile". Sizes in bytes, blocks of
/// 1 KiB.
#[pyfunction]
fn cow_info(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let cow = py.detach(|| CowInfo::read(&path)).map_err(to_python)?;
    let head = &cow.head;
    let dict = PyDict::new(py);
    dict.set_item("type", "cowfile")?;
    dict.set_item("path", &cow.path)?;
    dict.set_item("state", cow.state().word())?;
    dict.set_item("gzip", cow.gzip)?;
    dict.set_item("version", head.version)?;
    dict.set_item(
        "word_size",
        match head.encoding.word {
            WordSize::Bits32 => 32,
            WordSize::Bits64 => 64,
        },
    )?;
    dict.set_item(
        "byte_order",
        match head.encoding.order {
            ByteOrder::Little => "little",
            ByteOrder::Big => "big",
        },
    )?;
    dict.set_item("mapunit", MAPUNIT)?;
    dict.set_item("bitmap_bytes", head.mapsize)?;
    dict.set_item("data_offset", head.doffset)?;
    dict.set_item("blocks_used", cow.blocks_used)?;
    dict.set_item("blocks_total", head.rdoblocks)?;
    dict.set_item("size", head.device_size())?;
    dict.set_item("base_size", head.mark.as_ref().map_or(head.device_size(), |m| m.base_size))?;
    dict.set_item("fingerprint", format!("{:#010x}", head.fingerprint))?;
    dict.set_item("allocated", cow.allocated)?;
    Ok(dict)
}

struct CowInfo {
    path: String,
    head: Head,
    /// It is packed, and compressed with gzip.
    gzip: bool,
    blocks_used: u64,
    allocated: u64,
}

impl CowInfo {
    fn read(path: &Path) -> Result<CowInfo> {
        let storage = open(path)?;
        let failed = |error| Error::io(storage.name(), "cannot read the cowfile", error);
        let gzip = is_gzip(&*storage)?;
        let (head, blocks_used) = if gzip {
            // Packed files are clean, so the head is right about them.
            let head = packed_head(path)?;
            let used = head.cowused;
            (head, used)
        } else {
            let (head, _) = cowfile::read_head(&*storage)?;
            let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(failed)?;
            (head, bitmap.count())
        };
        let allocated = storage.allocated().map_err(failed)?;
        Ok(CowInfo { path: storage.name().to_string(), head, gzip, blocks_used, allocated })
    }

    fn state(&self) -> CowState {
        match &self.head {
            head if head.packed => CowState::Packed,
            head if head.version != VERSION_CLOSED => CowState::InUseOrCrashed,
            head if head.dirty => CowState::Dirty,
            _ => CowState::Clean,
        }
    }
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<Arc<dyn Storage>> {
    let storage = FileStorage::open(path);
    let storage = storage.map_err(|e| Error::io(path.display().to_string(), "cannot open", e))?;
    Ok(Arc::new(storage))
}

fn is_gzip(storage: &dyn Storage) -> Result<bool> {
    let mut magic = [0; 2];
    let read = storage.read_at(&mut magic, 0);
    let read = read.map_err(|error| Error::io(storage.name(), "cannot read", error))?;
    Ok(magic[..read] == GZIP_MAGIC)
}

fn kind_of(path: &Source) -> Result<&'static str> {
    Ok(match detect(&*path.open()?)? {
        FileKind::Cloop(_) => "cloop",
        FileKind::Cowfile => "cowfile",
        // A cowfile that was gzipped without being packed is of no use to any command.
        FileKind::GzippedCowfile if path.is_whole() && packed_head(path.path()).is_ok() => {
            "cowfile"
        }
        FileKind::GzippedCowfile | FileKind::Raw => "raw",
    })
}

fn cloop_dict<'py>(py: Python<'py>, path: &str, info: &CloopInfo) -> PyResult<Bound<'py, PyDict>> {
    let codecs = PyDict::new(py);
    for (codec, blocks) in &info.codecs {
        codecs.set_item(codec.to_string(), blocks)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("type", "cloop")?;
    dict.set_item("path", path)?;
    dict.set_item("format", info.format())?;
    dict.set_item("version", info.kind.version())?;
    dict.set_item("layout", info.layout.to_string())?;
    dict.set_item("block_size", info.block_size)?;
    dict.set_item("blocks", info.blocks)?;
    dict.set_item("size", info.size)?;
    dict.set_item("file_size", info.file_size)?;
    dict.set_item("index_bytes", info.index_bytes)?;
    dict.set_item("compressed_bytes", info.compressed_bytes)?;
    dict.set_item("ratio", info.ratio())?;
    dict.set_item("codecs", codecs)?;
    dict.set_item("zero_blocks", info.zero_blocks)?;
    dict.set_item("shared_blocks", info.shared_blocks)?;
    Ok(dict)
}
