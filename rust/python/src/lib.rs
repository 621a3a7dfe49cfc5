//! `cowcloop._core`: the engine as a Python module, and nothing besides.
//!
//! Every file holds one class or one group of functions with its own `register`. The GIL is
//! released around all work; what Python adds to the engine (a file object, dataclasses,
//! defaults) is in `python/cowcloop/`.

mod buffer;
mod cow;
mod device;
mod digest;
mod errors;
mod events;
mod info;
mod jobs;
mod ranges;
mod remedies;
mod remote;
mod source;
mod work;

use pyo3::prelude::*;

/// The Rust half of the package `cowcloop`.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    events::register(module)?;
    errors::register(module)?;
    remedies::register(module)?;
    remote::register(module)?;
    device::register(module)?;
    info::register(module)?;
    jobs::register(module)?;
    ranges::register(module)?;
    digest::register(module)?;
    cow::register(module)
}
