//! The original tools' work on cowfiles: `cow_repair`, `cow_merge`, `cow_pack`,
//! `cow_unpack`; and work that they did not do: `cow_rebase`, `cow_snapshot`. Blocks are of
//! 1 KiB; `progress` is called as for `extract`.

use std::path::PathBuf;

use cowcloop_engine::device::DeviceOptions;
use cowcloop_engine::image::{Image, ImageOptions};
use cowcloop_engine::jobs::{self, RepairOptions, RepairReport, Replace};
use cowcloop_engine::overlay;
use pyo3::prelude::*;
use pythonize::pythonize;
use serde::Serialize;

use crate::jobs::{input_path, output_path};
use crate::source::Source;
use crate::work::run;

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cow_repair, module)?)?;
    module.add_function(wrap_pyfunction!(cow_merge, module)?)?;
    module.add_function(wrap_pyfunction!(cow_pack, module)?)?;
    module.add_function(wrap_pyfunction!(cow_unpack, module)?)?;
    module.add_function(wrap_pyfunction!(cow_rebase, module)?)?;
    module.add_function(wrap_pyfunction!(cow_snapshot, module)?)
}

/// A report, and what it says in one line.
#[derive(Serialize)]
struct Repaired {
    #[serde(flatten)]
    report: RepairReport,
    summary: String,
}

/// Repairs a cowfile that the original driver did not close. Returns {"needed", "changed",
/// "known", "found", "cowused_before", "backup", "summary"}: blocks that the bitmap knew and
/// those that it did not, and the path of a copy of head and bitmap, or None.
#[pyfunction]
#[pyo3(signature = (path, *, dry_run = false, force = false, progress = None))]
fn cow_repair<'py>(
    py: Python<'py>,
    path: PathBuf,
    dry_run: bool,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = RepairOptions { dry_run, force };
    let report = run(py, progress, |progress| jobs::repair(&path, options, progress))?;
    let summary = report.summary(&path);
    Ok(pythonize(py, &Repaired { report, summary })?)
}

/// Writes every block of a cowfile into the raw base that it was made for. Returns
/// {"blocks", "already", "resumed"}; an interrupted merge is completed by another.
#[pyfunction]
#[pyo3(signature = (base, cow, *, progress = None))]
fn cow_merge<'py>(
    py: Python<'py>,
    base: PathBuf,
    cow: PathBuf,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let done = run(py, progress, |progress| jobs::merge(&base, &cow, progress))?;
    Ok(pythonize(py, &done)?)
}

/// Makes a cowfile one of another image, with the cowfiles `lower` on it, that holds the same
/// device: compared with the image `old`, or by size and fingerprint alone. Returns
/// {"changed", "compared"}, the latter in bytes.
#[pyfunction]
#[pyo3(signature = (image, lower, cow, *, old = None, progress = None))]
fn cow_rebase<'py>(
    py: Python<'py>,
    image: Source,
    lower: Vec<PathBuf>,
    cow: PathBuf,
    old: Option<Source>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = DeviceOptions { read_only: true, ..DeviceOptions::default() };
    let done = run(py, progress, |progress| {
        let base = image.device(&lower, options)?;
        let old = match &old {
            Some(old) => Some(Image::open(old.open()?, &ImageOptions::default())?.layer()),
            None => None,
        };
        jobs::rebase(&base, &cow, old.as_deref(), progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// Packs a cowfile, its blocks one after the other; "-" is standard output. Returns
/// {"blocks_used", "bytes"}. A cowfile or compressed image is replaced only with `force`.
#[pyfunction]
#[pyo3(signature = (source, target, *, gzip = false, force = false, progress = None))]
fn cow_pack<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    gzip: bool,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let replace = Replace::Plain.forced(force);
    let done = run(py, progress, |progress| {
        jobs::pack(&source, &output_path(target), gzip, replace, progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// Unpacks a packed cowfile, gzipped or not. Returns {"blocks_used", "bytes"}; `force` as for
/// `cow_pack`.
#[pyfunction]
#[pyo3(signature = (source, target, *, force = false, progress = None))]
fn cow_unpack<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let replace = Replace::Plain.forced(force);
    let done = run(py, progress, |progress| {
        jobs::unpack(&input_path(source), &target, replace, progress)
    })?;
    Ok(pythonize(py, &done)?)
}

/// Copies a cowfile that is not in use to a file that must not exist yet. Returns
/// {"blocks_used", "shared"}: whether the two files share their blocks.
#[pyfunction]
#[pyo3(signature = (path, target, *, progress = None))]
fn cow_snapshot<'py>(
    py: Python<'py>,
    path: PathBuf,
    target: PathBuf,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let done = run(py, progress, |progress| overlay::copy(&path, &target, progress))?;
    Ok(pythonize(py, &done)?)
}
