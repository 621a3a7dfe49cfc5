//! `Device`: the engine's device, thread-safe as it is.

use std::ops::{ControlFlow, Deref};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use cowcloop_engine::device::{Device as Engine, DeviceOptions, Prepare};
use cowcloop_engine::image::ImageOptions;
use cowcloop_engine::jobs;
use cowcloop_engine::layer::{join_extents, Extent, ExtentKind};
use cowcloop_engine::{Error, ErrorKind};
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pythonize::pythonize;

use crate::buffer::Buffer;
use crate::errors::to_python;
use crate::source::Source;
use crate::work::run;

/// An image with cowfiles on it. Any number of threads may use it at once.
#[pyclass(frozen, module = "cowcloop._core")]
pub struct Device {
    /// `None` once it is closed: what still holds the object, such as the frames of an error,
    /// holds no files.
    engine: RwLock<Option<InUse>>,
}

/// The engine, kept open by each call that uses it.
#[derive(Clone)]
struct InUse(Option<Arc<Engine>>);

impl Deref for InUse {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("taken by drop alone")
    }
}

impl Drop for InUse {
    /// Closing may wait for the disk and for the engine's threads, which may be about to log
    /// and so to want the GIL.
    fn drop(&mut self) {
        if let Some(last) = self.0.take().and_then(Arc::into_inner) {
            Python::attach(|py| py.detach(|| drop(last)));
        }
    }
}

/// Adds the class to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Device>()
}

#[pymethods]
impl Device {
    #[new]
    #[pyo3(signature = (image, cows = Vec::new(), *, read_only = false, create = false,
        repair = false, cache = None, threads = 0, memory_limit = None, strict = false,
        size = None))]
    // One argument per option of the engine: they are keywords on the Python side.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        image: Source,
        cows: Vec<PathBuf>,
        read_only: bool,
        create: bool,
        repair: bool,
        cache: Option<u64>,
        threads: usize,
        memory_limit: Option<u64>,
        strict: bool,
        size: Option<u64>,
    ) -> PyResult<Device> {
        let mut options = ImageOptions { threads, strict, ..ImageOptions::default() };
        if let Some(bytes) = cache {
            options.cache_bytes = bytes;
        }
        let options = DeviceOptions {
            image: options,
            read_only,
            create,
            prepare: repair.then_some(jobs::repair_before_use as Prepare),
            memory_limit,
            device_size: size,
            ..DeviceOptions::default()
        };
        let engine = if image.is_local() {
            py.detach(|| image.device(&cows, options)).map_err(to_python)?
        } else {
            // A server may take its time.
            run(py, None, |_| image.device(&cows, options))?
        };
        engine.base().start();
        Ok(Device { engine: RwLock::new(Some(InUse(Some(Arc::new(engine))))) })
    }

    /// Size in bytes.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.engine()?.size())
    }

    /// Whether writes are refused.
    #[getter]
    fn read_only(&self) -> PyResult<bool> {
        Ok(self.engine()?.read_only())
    }

    /// One line for users: image, cowfiles and size.
    #[getter]
    fn description(&self) -> PyResult<String> {
        Ok(self.engine()?.description())
    }

    /// Up to `length` bytes from `offset` on: fewer only at the end of the device.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        length: usize,
        offset: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let engine = self.engine()?;
        let length = within(engine.size(), offset, length);
        if length == 0 {
            return Ok(PyBytes::new(py, &[]));
        }
        PyBytes::new_with(py, length, |bytes| {
            py.detach(|| engine.read_at(bytes, offset)).map_err(to_python)
        })
    }

    /// Fills a writable buffer with the bytes from `offset` on and returns their number:
    /// fewer than it holds only at the end of the device.
    fn pread_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        offset: u64,
    ) -> PyResult<usize> {
        let engine = self.engine()?;
        let mut buffer = Buffer::writable(buffer)?;
        let length = within(engine.size(), offset, buffer.len());
        let Some(bytes) = buffer.bytes_mut().and_then(|bytes| bytes.get_mut(..length)) else {
            return Err(PyBufferError::new_err("the buffer is read-only"));
        };
        if length == 0 {
            return Ok(0);
        }
        py.detach(|| engine.read_at(bytes, offset)).map_err(to_python)?;
        Ok(length)
    }

    /// Writes a buffer at `offset` and returns how many bytes were written: fewer than it
    /// holds only at the end of the device. Durable after `flush`.
    fn pwrite(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, offset: u64) -> PyResult<usize> {
        let engine = self.engine()?;
        let buffer = Buffer::readable(buffer)?;
        let length = within(engine.size(), offset, buffer.len());
        if length == 0 {
            return match buffer.len() {
                0 => Ok(0),
                _ => Err(to_python(end_of_device(&engine, offset))),
            };
        }
        let bytes = buffer.bytes().get(..length).unwrap_or_default();
        py.detach(|| engine.write_at(bytes, offset)).map_err(to_python)?;
        Ok(length)
    }

    /// Makes a range read as zeros. `fast`: fail rather than write the zeros out.
    #[pyo3(signature = (offset, length, *, fast = false))]
    fn write_zeroes(&self, py: Python<'_>, offset: u64, length: u64, fast: bool) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.write_zeroes(offset, length, fast)).map_err(to_python)
    }

    /// Discards a range, which reads as zeros afterwards.
    fn trim(&self, py: Python<'_>, offset: u64, length: u64) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.trim(offset, length)).map_err(to_python)
    }

    /// Returns once everything written before the call is durable.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.flush()).map_err(to_python)
    }

    /// A hint that a range will be read soon.
    fn prefetch(&self, py: Python<'_>, offset: u64, length: u64) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.prefetch(offset, length));
        Ok(())
    }

    /// The content of the range: (offset, length, known to be zeros), in order, without
    /// gaps, neighbours of one kind joined.
    fn extents(&self, py: Python<'_>, offset: u64, length: u64) -> PyResult<Vec<(u64, u64, bool)>> {
        let engine = self.engine()?;
        let mut found = Vec::new();
        let mut sink = |extent: Extent| {
            found.push((extent.offset, extent.length, extent.kind == ExtentKind::Zero));
            ControlFlow::Continue(())
        };
        py.detach(|| join_extents(&mut sink, |sink| engine.extents(offset, length, sink)))
            .map_err(to_python)?;
        Ok(found)
    }

    /// State and counters.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        Ok(pythonize(py, &py.detach(|| engine.status()))?)
    }

    /// Flushes and closes the cowfile cleanly; later calls are refused. May be repeated.
    /// Raises when the file has been removed: what was written is lost.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        engine.map_or(Ok(()), |engine| {
            py.detach(|| engine.close().and_then(|()| engine.check_kept())).map_err(to_python)
        })
    }

    /// Forgets the device in a forked process: the parent goes on with it.
    fn abandon(&self) {
        // If another thread of the parent held it at the fork, it is held for good.
        let Ok(mut engine) = self.engine.try_write() else { return };
        if let Some(engine) = engine.take() {
            if let Some(device) = &engine.0 {
                device.abandon();
            }
            std::mem::forget(engine);
        }
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a Device holds open files and cannot be pickled or copied: open it again instead",
        ))
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("<cowcloop._core.Device {}>", self.engine()?.description()))
    }
}

impl Device {
    fn engine(&self) -> PyResult<InUse> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner).clone();
        engine.ok_or_else(|| PyValueError::new_err("I/O operation on closed file"))
    }
}

/// How much of a request of `length` bytes at `offset` lies on the device.
fn within(size: u64, offset: u64, length: usize) -> usize {
    usize::try_from(size.saturating_sub(offset)).map_or(length, |rest| rest.min(length))
}

/// A write that begins where the device ends: ENOSPC, as from a block device.
fn end_of_device(engine: &Engine, offset: u64) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        engine.status().image,
        format!("no room at offset {offset}: the device ends at {}", engine.size()),
    )
}
