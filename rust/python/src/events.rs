//! The engine's log events in Python's `logging`, under the name `cowcloop`. The command
//! line, which does without `logging`, takes the warnings itself.

use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

struct Events;

/// The function that takes the warnings instead.
static ON_WARNING: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Gives the engine's warnings, as lines, to a function from now on; None: to `logging`.
#[pyfunction]
fn on_warning(function: Option<Py<PyAny>>) {
    *ON_WARNING.lock().unwrap_or_else(PoisonError::into_inner) = function;
}

/// Sends the engine's events on from now on.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A process takes only its first logger: if there is one, the module was imported
    // before, and that one stays.
    if log::set_logger(&Events).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    module.add_function(wrap_pyfunction!(on_warning, module)?)
}

impl Log for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    /// Called from any thread, with no lock held that a Python thread could wait for while it
    /// has the GIL: all of the engine's work is done with the GIL released.
    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // It reaches no log while the interpreter ends, or when a handler fails.
            let _ = Python::try_attach(|py| send(py, record));
        }
    }

    fn flush(&self) {}
}

fn send(py: Python<'_>, record: &Record<'_>) -> PyResult<()> {
    if record.level() == Level::Warn {
        let set = ON_WARNING.lock().unwrap_or_else(PoisonError::into_inner);
        let function = set.as_ref().map(|function| function.clone_ref(py));
        // The function may do anything, even this.
        drop(set);
        if let Some(function) = function {
            return function.call1(py, (record.args().to_string(),)).map(drop);
        }
    }
    let logger = py.import("logging")?.call_method1("getLogger", ("cowcloop",))?;
    // As a library should: without a handler Python would print it on standard error.
    if !logger.call_method0("hasHandlers")?.is_truthy()? {
        return Ok(());
    }
    let level = match record.level() {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug | Level::Trace => 10,
    };
    logger.call_method1("log", (level, "%s", record.args().to_string())).map(drop)
}
