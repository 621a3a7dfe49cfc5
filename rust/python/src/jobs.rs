//! Whole images at once: `extract`, `create`, `commit`, `verify`, `device_map`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use cowcloop_engine::codec::Codec;
use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::image::{CloopImage, Image, ImageOptions};
use cowcloop_engine::jobs::{
    self, CommitOptions, CreateOptions, ExtractOptions, Format, Input, Level, Output, Replace,
    STANDARD_INPUT, STANDARD_OUTPUT,
};
use cowcloop_engine::storage::FileIdentity;
use cowcloop_engine::Result;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pythonize::pythonize;

use crate::errors::to_python;
use crate::source::Source;
use crate::work::run;

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(extract, module)?)?;
    module.add_function(wrap_pyfunction!(create, module)?)?;
    module.add_function(wrap_pyfunction!(commit, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)?;
    module.add_function(wrap_pyfunction!(device_map, module)?)?;
    module.add_function(wrap_pyfunction!(check_output, module)?)?;
    module.add_function(wrap_pyfunction!(kept, module)?)?;
    module.add_function(wrap_pyfunction!(write_output, module)?)?;
    module.add_function(wrap_pyfunction!(take_place, module)?)
}

/// Writes the device that an image and its cowfiles make into a plain image; "-" is standard
/// output. Returns {"size", "holes"}: its size, and how much of it is holes.
///
/// A cowfile or compressed image at `out` is replaced only with `force`. `threads`: None is one per core. `progress`: called ten times a second with the bytes done
/// and, once it is known, their total; what it raises ends the work.
#[pyfunction]
#[pyo3(signature = (image, cows, out, *, threads = None, sparse = true, force = false,
    progress = None))]
// One argument per option of the engine: they are keywords on the Python side.
#[allow(clippy::too_many_arguments)]
fn extract<'py>(
    py: Python<'py>,
    image: Source,
    cows: Vec<PathBuf>,
    out: PathBuf,
    threads: Option<usize>,
    sparse: bool,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = ExtractOptions { threads: threads.unwrap_or(0), sparse };
    let done = run(py, progress, |progress| {
        let device = image.device(&cows, read_only())?;
        let replace = Replace::Plain.forced(force);
        let output = Output::open(&output_path(out), &identities(&image, &cows), replace)?;
        jobs::extract(&**device.layer(), output, &options, progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// How hard to compress: 1 to 9, or "best".
#[derive(FromPyObject)]
pub enum LevelName {
    Number(u8),
    Name(String),
}

/// Compresses a plain image into a cloop image; "-" is standard input and output. Returns
/// {"input_size", "file_size", "size", "blocks", "compressed_bytes"}.
///
/// `level` is 1 to 9 or "best", `format` "v2" or "v4", `codec` "zlib", "none", "xz", "lz4"
/// or "lzo" (others than zlib with v4 only). A cowfile at `out` is replaced only with `force`;
/// `threads` and `progress` as for `extract`.
#[pyfunction]
#[pyo3(signature = (source, out, *, block_size = 65536, level = None, format = "v2",
    codec = "zlib", footer = false, threads = None, force = false, progress = None))]
// One argument per option of the engine: they are keywords on the Python side.
#[allow(clippy::too_many_arguments)]
fn create<'py>(
    py: Python<'py>,
    source: PathBuf,
    out: PathBuf,
    block_size: u32,
    level: Option<LevelName>,
    format: &str,
    codec: &str,
    footer: bool,
    threads: Option<usize>,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut options = create_options(block_size, level, format, codec, footer)?;
    options.threads = threads.unwrap_or(0);
    let done = run(py, progress, |progress| {
        let input = Input::open(&input_path(source))?;
        let inputs: Vec<_> = input.identity().into_iter().collect();
        let output = Output::open(&output_path(out), &inputs, Replace::Images.forced(force))?;
        jobs::create(&input, output, &options, progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// The options of `create` that its result depends on.
pub fn create_options(
    block_size: u32,
    level: Option<LevelName>,
    format: &str,
    codec: &str,
    footer: bool,
) -> PyResult<CreateOptions> {
    Ok(CreateOptions {
        block_size,
        level: level.map_or(Ok(Level::default()), level_of)?,
        format: format_of(format)?,
        codec: codec_of(codec)?,
        footer,
        threads: 0,
    })
}

/// Writes the device that an image and its cowfiles make into a new cloop image; blocks that
/// no cowfile touched keep their compressed bytes. Returns {"size", "blocks",
/// "copied_blocks", "file_size"}. `level`, `threads`, `force` and `progress` as for `create`.
#[pyfunction]
#[pyo3(signature = (image, cows, out, *, level = None, block_size = 65536, threads = None,
    force = false, progress = None))]
// One argument per option of the engine: they are keywords on the Python side.
#[allow(clippy::too_many_arguments)]
fn commit<'py>(
    py: Python<'py>,
    image: Source,
    cows: Vec<PathBuf>,
    out: PathBuf,
    level: Option<LevelName>,
    block_size: u32,
    threads: Option<usize>,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = CommitOptions {
        level: level.map_or(Ok(Level::default()), level_of)?,
        block_size,
        threads: threads.unwrap_or(0),
    };
    let done = run(py, progress, |progress| {
        let device = open(&image, &cows)?;
        let replace = Replace::Images.forced(force);
        let output = Output::open(&output_path(out), &identities(&image, &cows), replace)?;
        jobs::commit(&device, output, &options, progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// Checks every block of a cloop or uzip image. Returns {"blocks", "bad_blocks", "bad"}: how
/// many there are, how many are bad, and a list of the first 100,000 of these, each as
/// {"block", "offset", "length", "reason"}.
#[pyfunction]
#[pyo3(signature = (image, *, threads = None, progress = None))]
fn verify<'py>(
    py: Python<'py>,
    image: Source,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let report = run(py, progress, |progress| {
        let image = CloopImage::open(image.open()?, &ImageOptions::default())?;
        jobs::verify(&image, threads.unwrap_or(0), progress)
    })?;
    Ok(pythonize(py, &report)?)
}

/// Bytes of the device, and the bytes of each kind in its parts.
#[derive(IntoPyObject)]
struct DeviceMap {
    size: u64,
    cells: Vec<(u64, [u64; 4], u64, u64)>,
}

/// Divides the device that an image and its cowfiles make into `cells` parts of one size.
/// Returns {"size", "cells"}: bytes of the device, and for each part a tuple of bytes: zeros of
/// the base; other bytes of the base, a list: in blocks compressed to a quarter at most, a half,
/// three quarters, more; what these take compressed; bytes in cowfiles.
#[pyfunction]
#[pyo3(signature = (image, cows, cells, *, progress = None))]
fn device_map<'py>(
    py: Python<'py>,
    image: Source,
    cows: Vec<PathBuf>,
    cells: usize,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<DeviceMap> {
    let (size, cells) = run(py, progress, |progress| {
        let device = open(&image, &cows)?;
        Ok((device.size(), jobs::map(&device, cells, progress)?))
    })?;
    let cells = cells.iter().map(|cell| (cell.zero, cell.data, cell.stored, cell.changed));
    Ok(DeviceMap { size, cells: cells.collect() })
}

/// Finds out, before long work, whether an output can be made: `image` says that it is a
/// compressed image. Raises what the work itself would. A pipe is left alone: its reader would
/// take this for the end.
#[pyfunction]
#[pyo3(signature = (out, *, image = false, force = false))]
fn check_output(py: Python<'_>, out: PathBuf, image: bool, force: bool) -> PyResult<()> {
    let replace = if image { Replace::Images } else { Replace::Plain }.forced(force);
    let is_pipe = std::fs::metadata(&out).is_ok_and(|found| found.file_type().is_fifo());
    if is_pipe {
        return Ok(());
    }
    py.detach(|| Output::open(&output_path(out), &[], replace)).map(drop).map_err(to_python)
}

/// The kind of a file that no output replaces unasked: "cowfile", "compressed image" or
/// None.
#[pyfunction]
fn kept(py: Python<'_>, path: PathBuf) -> Option<&'static str> {
    py.detach(|| Replace::Plain.refuses_path(&path))
}

/// Writes a whole output: a file that is there when it is whole, a block device, or a pipe.
/// A cowfile or compressed image at `out` is replaced only with `force`.
#[pyfunction]
#[pyo3(signature = (out, data, *, force = false))]
fn write_output(py: Python<'_>, out: PathBuf, data: &[u8], force: bool) -> PyResult<()> {
    py.detach(|| {
        let mut output = Output::open(&output_path(out), &[], Replace::Plain.forced(force))?;
        output.append(data, &|| Ok(()))?;
        output.finish(&|| Ok(()))
    })
    .map_err(to_python)
}

/// Gives a whole file the name of another beside it, which it replaces; a cowfile in use is not.
#[pyfunction]
fn take_place(py: Python<'_>, whole: PathBuf, place: PathBuf) -> PyResult<()> {
    py.detach(|| jobs::take_place(&whole, &place)).map_err(to_python)
}

/// The device of a job that takes the base as it is, its last part of a KiB included.
fn open(image: &Source, cows: &[PathBuf]) -> Result<Device> {
    let base = Image::open(image.open()?, &ImageOptions::default())?;
    Device::on(image.name().to_string(), base, cows, &read_only())
}

/// The path that an input is opened by: "-" is standard input.
pub fn input_path(path: PathBuf) -> PathBuf {
    if path == Path::new("-") {
        STANDARD_INPUT.into()
    } else {
        path
    }
}

/// The path that an output is opened by: "-" is standard output.
pub fn output_path(path: PathBuf) -> PathBuf {
    if path == Path::new("-") {
        STANDARD_OUTPUT.into()
    } else {
        path
    }
}

/// Nothing is written to the inputs.
fn read_only() -> DeviceOptions {
    DeviceOptions { read_only: true, ..DeviceOptions::default() }
}

/// The files that the output must not be; `:memory:` and the like are no files.
fn identities(image: &Source, cows: &[PathBuf]) -> Vec<FileIdentity> {
    let inputs = image.paths();
    let paths = cows.iter().chain(&inputs);
    paths.filter_map(|path| FileIdentity::of_path(path).ok()).collect()
}

fn level_of(level: LevelName) -> PyResult<Level> {
    let shown = match level {
        LevelName::Name(name) if name == "best" => return Ok(Level::BEST),
        LevelName::Name(name) => name,
        LevelName::Number(number) => match Level::new(number) {
            Some(level) => return Ok(level),
            None => number.to_string(),
        },
    };
    Err(PyValueError::new_err(format!("level {shown} is not one of 1 to 9 and \"best\"")))
}

fn format_of(format: &str) -> PyResult<Format> {
    match format {
        "v2" => Ok(Format::V2),
        "v4" => Ok(Format::V4),
        _ => Err(PyValueError::new_err(format!("format {format} is not one of v2 and v4"))),
    }
}

fn codec_of(name: &str) -> PyResult<Codec> {
    let written = [Codec::Zlib, Codec::Stored, Codec::Xz, Codec::Lz4, Codec::Lzo];
    written.into_iter().find(|codec| codec.name() == name).ok_or_else(|| {
        let names = written.map(Codec::name).join(", ");
        PyValueError::new_err(format!("codec {name} is not one of {names}"))
    })
}
