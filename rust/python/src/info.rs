//! The kind and content of a file: `sniff`, `image_info`, `cow_info`, `trace_info`. Nothing is
//! locked, so files in use can be asked about too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowcloop_engine::format::cowfile;
use cowcloop_engine::format::cowfile::bitmap::Bitmap;
use cowcloop_engine::format::cowfile::head::{ByteOrder, Head, WordSize, MAPUNIT, VERSION_CLOSED};
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::format::cowfile::GZIP_MAGIC;
use cowcloop_engine::format::detect::{detect, FileKind};
use cowcloop_engine::format::trace::Summary;
use cowcloop_engine::image::cloop::CloopInfo;
use cowcloop_engine::image::{Image, ImageOptions};
use cowcloop_engine::jobs::packed_head;
use cowcloop_engine::storage::{FileStorage, Storage};
use cowcloop_engine::{Error, Result};
use pyo3::prelude::*;
use pythonize::pythonize;
use serde::Serialize;

use crate::errors::to_python;
use crate::source::Source;
use crate::work::run;

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sniff, module)?)?;
    module.add_function(wrap_pyfunction!(image_info, module)?)?;
    module.add_function(wrap_pyfunction!(cow_info, module)?)?;
    module.add_function(wrap_pyfunction!(trace_info, module)?)
}

/// The kind of the file: "cloop" (uzip too), "cowfile" or, if neither, "raw".
#[pyfunction]
fn sniff(py: Python<'_>, path: Source) -> PyResult<&'static str> {
    run(py, None, |_| kind_of(&path))
}

/// What an image holds. Sizes are in bytes.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ImageInfo {
    Cloop {
        path: String,
        #[serde(flatten)]
        figures: CloopInfo,
    },
    Raw {
        path: String,
        size: u64,
    },
}

/// The content of an image, as a dict whose "type" is "cloop" or "raw".
#[pyfunction]
fn image_info(py: Python<'_>, path: Source) -> PyResult<Bound<'_, PyAny>> {
    let info = run(py, None, |_| {
        let storage = path.open()?;
        let image = Image::open(storage.clone(), &ImageOptions::default())?;
        let path = storage.name().to_string();
        Ok(match &image {
            Image::Cloop(image) => ImageInfo::Cloop { path, figures: image.info() },
            Image::Raw(_) | Image::Other(_) => ImageInfo::Raw { path, size: image.size() },
        })
    });
    Ok(pythonize(py, &info?)?)
}

/// What a cowfile holds. Sizes are in bytes, blocks of 1 KiB.
#[derive(Serialize)]
#[serde(tag = "type", rename = "cowfile")]
struct CowInfo {
    path: String,
    state: CowState,
    /// It is packed, and compressed with gzip.
    gzip: bool,
    version: u16,
    word_size: u32,
    byte_order: &'static str,
    mapunit: u64,
    bitmap_bytes: u64,
    data_offset: u64,
    blocks_used: u64,
    blocks_total: u64,
    size: u64,
    base_size: u64,
    fingerprint: String,
    allocated: u64,
}

/// The content of a cowfile, as a dict whose "type" is "cowfile".
#[pyfunction]
fn cow_info(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    Ok(pythonize(py, &py.detach(|| CowInfo::read(&path)).map_err(to_python)?)?)
}

/// What a trace of an image's reads holds. Sizes are in bytes.
#[derive(Serialize)]
#[serde(tag = "type", rename = "trace")]
struct TraceInfo {
    path: String,
    #[serde(flatten)]
    figures: Summary,
}

/// The content of a trace, as a dict whose "type" is "trace"; None for a file that is none.
#[pyfunction]
fn trace_info(py: Python<'_>, path: Source) -> PyResult<Option<Bound<'_, PyAny>>> {
    let info = run(py, None, |_| {
        let storage = path.open_unverified()?;
        let failed = |error| Error::io(storage.name(), "cannot read the trace", error);
        let found = Summary::of(&*storage).map_err(failed)?;
        let path = storage.name().to_string();
        Ok(found.map(|figures| TraceInfo { path, figures }))
    })?;
    Ok(info.map(|info| pythonize(py, &info)).transpose()?)
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
        Ok(CowInfo {
            path: storage.name().to_string(),
            state: state_of(&head),
            gzip,
            version: head.version,
            word_size: match head.encoding.word {
                WordSize::Bits32 => 32,
                WordSize::Bits64 => 64,
            },
            byte_order: match head.encoding.order {
                ByteOrder::Little => "little",
                ByteOrder::Big => "big",
            },
            mapunit: MAPUNIT,
            bitmap_bytes: head.mapsize,
            data_offset: head.doffset,
            blocks_used,
            blocks_total: head.rdoblocks,
            size: head.device_size(),
            base_size: head.mark.as_ref().map_or(head.device_size(), |mark| mark.base_size),
            fingerprint: format!("{:#010x}", head.fingerprint),
            allocated: storage.allocated().map_err(failed)?,
        })
    }
}

fn state_of(head: &Head) -> CowState {
    if head.packed {
        CowState::Packed
    } else if head.version != VERSION_CLOSED {
        CowState::InUseOrCrashed
    } else if head.dirty {
        CowState::Dirty
    } else {
        CowState::Clean
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
        FileKind::GzippedCowfile
            if path.is_whole() && path.is_local() && packed_head(path.path()).is_ok() =>
        {
            "cowfile"
        }
        FileKind::GzippedCowfile | FileKind::Raw => "raw",
    })
}
