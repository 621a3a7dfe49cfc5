//! The digest of an image as fs-verity has it: `digest`.

use std::path::PathBuf;

use cowcloop_engine::jobs::{self, Output, Replace};
use cowcloop_engine::storage::FileIdentity;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::source::Source;
use crate::work::run;

/// Adds the function to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(digest, module)?)
}

/// The digest of an image's bytes as they lie in its file, with its tree written to `tree`.
/// Returns {"digest", "size"}. `threads`, `force` and `progress` as for `extract`.
#[pyfunction]
#[pyo3(signature = (image, *, tree = None, threads = None, force = false, progress = None))]
fn digest<'py>(
    py: Python<'py>,
    image: Source,
    tree: Option<PathBuf>,
    threads: Option<usize>,
    force: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (digest, size) = run(py, progress, |progress| {
        let storage = image.open_unverified()?;
        let inputs: Vec<_> = FileIdentity::of_path(image.path()).into_iter().collect();
        let replace = Replace::Plain.forced(force);
        let open = |path: PathBuf| Output::open(&path, &inputs, replace);
        let tree = tree.map(open).transpose()?;
        jobs::digest(&storage, tree, threads.unwrap_or(0), progress)
    })?;
    let dict = PyDict::new(py);
    dict.set_item("digest", digest.to_string())?;
    dict.set_item("size", size)?;
    Ok(dict)
}
