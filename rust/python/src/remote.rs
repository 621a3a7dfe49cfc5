//! Images at URLs: `RemoteFile`, `pull`, `redacted`.

use std::path::PathBuf;

use cowcloop_engine::storage::Storage;
use cowcloop_engine::Error;
use cowcloop_remote::{RemoteImage, RemoteOptions};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::source::{verity_options, Remote};
use crate::work::run;

/// Adds the class and the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RemoteFile>()?;
    module.add_function(wrap_pyfunction!(pull, module)?)?;
    module.add_function(wrap_pyfunction!(redacted, module)?)
}

/// The bytes at a URL: what is read of them is fetched, and kept.
#[pyclass(frozen, module = "cowcloop._core")]
pub struct RemoteFile(Option<RemoteImage>);

impl Drop for RemoteFile {
    /// Its threads may be about to log, and so to want the GIL.
    fn drop(&mut self) {
        if let Some(image) = self.0.take() {
            Python::attach(|py| py.detach(|| drop(image)));
        }
    }
}

#[pymethods]
impl RemoteFile {
    #[new]
    fn new(py: Python<'_>, url: String, remote: Remote) -> PyResult<RemoteFile> {
        let options = RemoteOptions::from(remote);
        let open =
            move |_: &dyn cowcloop_engine::progress::Progress| RemoteImage::open(&url, &options);
        Ok(RemoteFile(Some(run(py, None, open)?)))
    }

    /// Size in bytes.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.image().map_or(0, |image| image.len().unwrap_or(0)))
    }

    /// Up to `length` bytes from `offset` on: fewer only at the end.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        length: usize,
        offset: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let rest = self.size()?.saturating_sub(offset);
        let length = usize::try_from(rest).map_or(length, |rest| rest.min(length));
        let Some(image) = self.image() else { return Ok(PyBytes::new(py, &[])) };
        let failed = |error| Error::io(image.name(), "cannot be read", error);
        let bytes = run(py, None, |_| {
            let mut bytes = vec![0; length];
            image.read_exact_at(&mut bytes, offset).map_err(failed)?;
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }
}

impl RemoteFile {
    fn image(&self) -> Option<&RemoteImage> {
        self.0.as_ref()
    }
}

/// Fetches all of an image that is not there yet, into the cache or the file `to`; where it is.
/// `verity` is the digest that it must have, and `verity_tree` the file of its tree; `progress` as
/// for `extract`.
#[pyfunction]
#[pyo3(signature = (url, remote, to = None, *, verity = None, verity_tree = None, progress = None))]
fn pull(
    py: Python<'_>,
    url: String,
    remote: Remote,
    to: Option<PathBuf>,
    verity: Option<&str>,
    verity_tree: Option<PathBuf>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<PathBuf> {
    let options = RemoteOptions::from(remote);
    let verity = verity_options(verity, verity_tree)?;
    run(py, progress, |progress| {
        cowcloop_remote::pull(&url, &options, &verity, to.as_deref(), progress)
    })
}

/// A URL as it may be shown: without user, password and query.
#[pyfunction]
fn redacted(text: &str) -> String {
    cowcloop_remote::redacted(text)
}
