//! Ranges of blocks, compressed or checked by any process, and the writer that puts them
//! together: `Compressor`, `Assembly`, `Checker` and `check_taken`.
//!
//! A compressed range is a tuple (bytes, lengths, sum, input): the compressed blocks, the
//! length of each as four bytes in little-endian order, the CRC-32 of the bytes, and how many
//! bytes of the input they hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cowcloop_engine::codec::Codec;
use cowcloop_engine::format::cloop::BlockLocation;
use cowcloop_engine::image::{CloopImage, ImageOptions};
use cowcloop_engine::jobs::{
    self, BadBlock, CreateOptions, Input, Output, Piece, Replace, StoredBlock,
};
use cowcloop_engine::progress::check;
use cowcloop_engine::{Error, ErrorKind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pythonize::pythonize;

use crate::errors::to_python;
use crate::jobs::{create_options, input_path, output_path, LevelName};
use crate::source::Source;
use crate::work::{alone, run};

/// Adds the classes and the function to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Compressor>()?;
    module.add_class::<Assembly>()?;
    module.add_class::<Checker>()?;
    module.add_function(wrap_pyfunction!(check_taken, module)?)
}

/// Compresses ranges of blocks, in any number of threads. The options are those of `create`.
#[pyclass(frozen, module = "cowcloop._core")]
struct Compressor(jobs::Compressor);

#[pymethods]
impl Compressor {
    #[new]
    #[pyo3(signature = (*, block_size = 65536, level = None, format = "v2", codec = "zlib",
        footer = false))]
    fn new(
        block_size: u32,
        level: Option<LevelName>,
        format: &str,
        codec: &str,
        footer: bool,
    ) -> PyResult<Self> {
        let options = create_options(block_size, level, format, codec, footer)?;
        jobs::Compressor::new(&options).map(Compressor).map_err(to_python)
    }

    /// Compresses `length` bytes of a file from `offset` on, where a block begins.
    fn compress_range<'py>(
        &self,
        py: Python<'py>,
        source: PathBuf,
        offset: u64,
        length: usize,
    ) -> PyResult<Compressed<'py>> {
        let compress = || self.0.range(&Input::open(&source)?, offset, length);
        py.detach(compress).map(|piece| compressed(py, &piece)).map_err(to_python)
    }

    /// Compresses bytes that `name` has from `offset` on, where a block begins.
    fn compress_bytes<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        offset: u64,
        data: &[u8],
    ) -> PyResult<Compressed<'py>> {
        let compress = || self.0.bytes(name, offset, data.to_vec());
        py.detach(compress).map(|piece| compressed(py, &piece)).map_err(to_python)
    }
}

type Compressed<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u32, u64);

fn compressed<'py>(py: Python<'py>, piece: &Piece) -> Compressed<'py> {
    let lengths: Vec<u8> = piece.lengths().iter().flat_map(|n| n.to_le_bytes()).collect();
    let bytes = PyBytes::new(py, piece.bytes());
    (bytes, PyBytes::new(py, &lengths), piece.sum(), piece.input())
}

/// An image in the making, to which compressed ranges are appended in order. The arguments are
/// those of `create`. A file is in its place after `finish`; without it nothing is left.
#[pyclass(frozen, module = "cowcloop._core")]
struct Assembly {
    input: Input,
    /// `None` once it is finished or closed.
    assembly: Mutex<Option<jobs::Assembly>>,
}

#[pymethods]
impl Assembly {
    #[new]
    #[pyo3(signature = (source, out, *, block_size = 65536, level = None, format = "v2",
        codec = "zlib", footer = false, force = false))]
    // One argument per option of the engine: they are keywords on the Python side.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        source: PathBuf,
        out: PathBuf,
        block_size: u32,
        level: Option<LevelName>,
        format: &str,
        codec: &str,
        footer: bool,
        force: bool,
    ) -> PyResult<Self> {
        let options: CreateOptions = create_options(block_size, level, format, codec, footer)?;
        let (input, assembly) = alone(py, |check| {
            let input = Input::open(&input_path(source))?;
            let inputs: Vec<_> = input.identity().into_iter().collect();
            let replace = Replace::Images.forced(force);
            let output = Output::open(&output_path(out), &inputs, replace)?;
            let assembly = jobs::Assembly::new(&input, output, &options, check)?;
            Ok((input, assembly))
        })?;
        Ok(Assembly { input, assembly: Mutex::new(Some(assembly)) })
    }

    /// Bytes of the input; None where only the end tells.
    #[getter]
    fn size(&self) -> Option<u64> {
        self.input.size()
    }

    /// Whether any part of the input can be read at any time.
    #[getter]
    fn seekable(&self) -> bool {
        self.input.is_seekable()
    }

    /// The input's name in messages.
    #[getter]
    fn name(&self) -> &str {
        self.input.name()
    }

    /// Reads so many bytes of the input from `offset` on: the next ones of a stream, fewer at
    /// its end.
    fn read<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let data = alone(py, |check| {
            let mut data = vec![0; length];
            let read = self.input.read_at(&mut data, offset, check)?;
            data.truncate(read);
            Ok(data)
        })?;
        Ok(PyBytes::new(py, &data))
    }

    /// Appends the next range.
    fn append(
        &self,
        py: Python<'_>,
        data: &[u8],
        lengths: &[u8],
        sum: u32,
        input: u64,
    ) -> PyResult<()> {
        let word = |n: &[u8]| n.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
        let lengths: Vec<u32> = lengths.chunks(4).map(word).collect();
        alone(py, |check| match &mut *self.lock() {
            Some(assembly) => assembly.append_received(data, &lengths, sum, input, check),
            None => Err(closed(&self.input)),
        })
    }

    /// Completes the image. Returns what `create` returns.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let done = run(py, None, |progress| {
            let assembly = self.lock().take().ok_or_else(|| closed(&self.input))?;
            assembly.finish(&|| check(progress, self.input.name()))
        })?;
        Ok(pythonize(py, &done)?)
    }

    /// Gives the image up, unless it is finished.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

impl Assembly {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<jobs::Assembly>> {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(input: &Input) -> Error {
    Error::new(ErrorKind::InvalidInput, input.name(), "the image is finished or given up")
}

/// Checks ranges of the blocks of an image, in any number of threads.
#[pyclass(frozen, module = "cowcloop._core")]
struct Checker {
    image: Arc<CloopImage>,
    files: Vec<PathBuf>,
    mark: Option<String>,
}

/// A block: number, offset, length, codec, and whether its stream may end early.
type Block = (u64, u64, u32, String, bool);

#[pymethods]
impl Checker {
    #[new]
    fn new(py: Python<'_>, image: Source) -> PyResult<Self> {
        let open = || {
            let (bytes, mark) = image.open_marked()?;
            CloopImage::open(bytes, &ImageOptions::default()).map(|opened| (opened, mark))
        };
        let (opened, mark) = py.detach(open).map_err(to_python)?;
        Ok(Checker { image: opened, files: image.paths(), mark })
    }

    /// The mark of the image at a URL, where no other image there has it.
    #[getter]
    fn mark(&self) -> Option<String> {
        self.mark.clone()
    }

    /// The files that it reads.
    #[getter]
    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    /// Number of blocks.
    #[getter]
    fn blocks(&self) -> u64 {
        self.image.block_count()
    }

    /// Bytes of a block.
    #[getter]
    fn block_size(&self) -> u32 {
        self.image.block_size()
    }

    /// Checks the blocks from `first` to before `end`; returns the bad ones as `verify` does.
    fn check<'py>(&self, py: Python<'py>, first: u64, end: u64) -> PyResult<Bound<'py, PyAny>> {
        let end = end.min(self.image.block_count());
        let bad = py.detach(|| jobs::check_range(&self.image, first..end, &mut Vec::new()));
        Ok(pythonize(py, &bad)?)
    }

    /// Takes blocks out of the image, for `check_taken`. Returns them, their compressed bytes,
    /// and those that cannot be read.
    fn take<'py>(&self, py: Python<'py>, first: u64, end: u64) -> PyResult<Taken<'py>> {
        let end = end.min(self.image.block_count());
        let taken = py.detach(|| jobs::take_range(&self.image, first..end));
        let tuple = |block: &StoredBlock| {
            let BlockLocation { offset, length, codec } = block.location;
            (block.block, offset, length, codec.name().to_string(), block.may_be_short)
        };
        let blocks = taken.blocks.iter().map(tuple).collect();
        Ok((blocks, PyBytes::new(py, &taken.bytes), pythonize(py, &taken.bad)?))
    }
}

type Taken<'py> = (Vec<Block>, Bound<'py, PyBytes>, Bound<'py, PyAny>);

/// Checks blocks that were taken out of an image; returns the bad ones as `verify` does.
#[pyfunction]
fn check_taken<'py>(
    py: Python<'py>,
    blocks: Vec<Block>,
    data: &[u8],
    block_size: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let stored = |(block, offset, length, codec, may_be_short): Block| {
        let codec = Codec::ALL.into_iter().find(|known| known.name() == codec)?;
        let location = BlockLocation { offset, length, codec };
        Some(StoredBlock { block, location, may_be_short })
    };
    let blocks: Option<Vec<StoredBlock>> = blocks.into_iter().map(stored).collect();
    let check = || blocks.and_then(|blocks| jobs::check_taken(&blocks, data, block_size));
    let bad: Option<Vec<BadBlock>> = py.detach(check);
    let wrong = || PyValueError::new_err("the bytes are not those of the blocks");
    Ok(pythonize(py, &bad.ok_or_else(wrong)?)?)
}
