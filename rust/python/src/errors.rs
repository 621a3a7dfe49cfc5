//! Engine errors as Python exceptions.
//!
//! The classes themselves are Python, in `cowcloop/errors.py`: several have two bases
//! (`CowcloopError` and `OSError`), and are easier to read there.

use cowcloop_engine::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static RAISE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Finds the Python side while the module is imported, so that a broken
/// installation shows then and not at the first error.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let errors = py.import("cowcloop.errors")?;
    module.add("CowcloopError", errors.getattr("CowcloopError")?.cast::<PyType>()?)?;
    let from_engine = errors.getattr("from_engine")?.unbind();
    RAISE.get_or_init(py, || from_engine);
    Ok(())
}

/// The exception for an engine error: its class by kind, its message the one line.
pub fn to_python(error: Error) -> PyErr {
    Python::attach(|py| {
        let exception = match RAISE.get(py) {
            Some(raise) => {
                // The engine's names are for display: a name that is not UTF-8 has lost its
                // bytes.
                let name = Some(error.subject()).filter(|name| !name.contains('\u{fffd}'));
                let (kind, errno) = (kind(error.kind()), error.errno());
                let remedy = error.remedy().map(|remedy| remedy.to_string()).unwrap_or_default();
                raise.call1(py, (kind, errno, error.to_string(), name, remedy))
            }
            None => return PyRuntimeError::new_err(error.to_string()),
        };
        match exception {
            Ok(exception) => PyErr::from_value(exception.into_bound(py)),
            Err(error) => error,
        }
    })
}

/// The name by which `errors.py` knows a kind.
fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Format => "format",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Damaged => "damaged",
        ErrorKind::Mismatch => "mismatch",
        ErrorKind::Busy => "busy",
        ErrorKind::Exists => "exists",
        ErrorKind::Dirty => "dirty",
        ErrorKind::NoSpace => "no-space",
        ErrorKind::ReadOnly => "read-only",
        ErrorKind::InvalidInput => "invalid-input",
        ErrorKind::Poisoned => "poisoned",
        ErrorKind::Cancelled => "cancelled",
        // Io, and kinds that the engine may get later: the system's errno says it.
        _ => "io",
    }
}
