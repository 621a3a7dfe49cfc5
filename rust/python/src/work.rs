//! Long work on a thread of its own, while the calling thread reports progress and lets
//! Python handle its signals.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cowcloop_engine::progress::{check, Progress};
use cowcloop_engine::Result;
use cowcloop_remote::Interrupt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::to_python;

/// Pause between two calls of the caller's function, with a check for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// The progress of the work, shared between the two threads.
#[derive(Default)]
struct Meter {
    done: AtomicU64,
    /// 0: not known.
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress for Meter {
    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Does `work` with the GIL released. Ten times a second, and once when it is done,
/// `progress(done, total)` is called, `total` being `None` while it is not known.
///
/// # Errors
/// The work's own. An exception from a signal handler or from `progress` ends the work
/// early, and cleanly, and reaches the caller.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&dyn Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let meter = Meter::default();
    let meter = &meter;
    let report = || -> PyResult<()> {
        py.check_signals()?;
        let Some(progress) = progress else { return Ok(()) };
        let total = Some(meter.total.load(Ordering::Relaxed)).filter(|total| *total != 0);
        progress.call1((meter.done.load(Ordering::Relaxed), total)).map(drop)
    };
    // Taken by the thread that does the work.
    let work = Mutex::new(Some(work));
    let held = &work;
    let done = thread::scope(|scope| {
        let (ended, mut end) = sync_channel(1);
        let started = thread::Builder::new().spawn_scoped(scope, move || {
            let work = held.lock().unwrap_or_else(PoisonError::into_inner).take();
            let result = work.map(|work| work(meter));
            // The receiver lives until the scope's end; if not, no thread waits for it.
            let _ = ended.send(());
            result
        });
        let Ok(worker) = started else { return Ok(None) };
        let mut interrupted = None;
        loop {
            let state;
            // A receiver may not be lent to another thread, but it may be given.
            (state, end) = py.detach(move || (end.recv_timeout(TICK), end));
            if state != Err(RecvTimeoutError::Timeout) {
                break;
            }
            if let Err(error) = report() {
                meter.cancelled.store(true, Ordering::Relaxed);
                interrupted = Some(error);
                break;
            }
        }
        // A wait for a server ends, too.
        let raised = interrupted.as_ref().map(|_| Interrupt::raise());
        let result = py.detach(|| worker.join());
        drop(raised);
        if let Some(error) = interrupted {
            return Err(error);
        }
        match result {
            Ok(result) => Ok(result),
            Err(_) => Err(PyRuntimeError::new_err("cowcloop: a worker thread panicked")),
        }
    })?;
    let result = match (done, work.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        (Some(result), _) => result,
        (None, Some(work)) => here(py, meter, work)?,
        (None, None) => return Err(PyRuntimeError::new_err("cowcloop: the work was lost")),
    };
    let value = result.map_err(to_python)?;
    report()?;
    Ok(value)
}

/// Does short work on the calling thread, which handles signals whenever the work calls the
/// function that it is given.
///
/// # Errors
/// As for [`run`].
pub fn alone<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T> + Send,
) -> PyResult<T> {
    let work = |progress: &dyn Progress| work(&|| check(progress, "the work"));
    here(py, &Meter::default(), work)?.map_err(to_python)
}

/// Does the work on the calling thread, and handles signals in between.
fn here<T: Send>(
    py: Python<'_>,
    meter: &Meter,
    work: impl FnOnce(&dyn Progress) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    let watched = Watched { meter, raised: Mutex::new(None) };
    let result = py.detach(|| work(&watched));
    match watched.raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(result),
    }
}

/// A meter that handles signals whenever the work asks whether to go on.
struct Watched<'a> {
    meter: &'a Meter,
    raised: Mutex<Option<PyErr>>,
}

impl Progress for Watched<'_> {
    fn total(&self, bytes: u64) {
        self.meter.total(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.meter.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        let Err(error) = Python::attach(|py| py.check_signals()) else {
            return self.meter.cancelled();
        };
        self.meter.cancelled.store(true, Ordering::Relaxed);
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        true
    }
}
