//! The first blocks of the image, read into the cache at the start: a system that boots
//! from it reads them first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use cowcloop_engine::Layer;

use crate::events::Events;
use crate::guard::guard;

/// The thread that reads.
pub(crate) struct Preload {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Preload {
    /// Starts to read the first `blocks` of `base`; must not be called before
    /// the server has forked.
    pub(crate) fn start(
        base: Arc<dyn Layer>,
        blocks: u64,
        events: Arc<dyn Events>,
    ) -> io::Result<Preload> {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = stop.clone();
        let thread = std::thread::Builder::new().name("preload".into()).spawn(move || {
            guard(|| read(&*base, blocks, &watch, &*events));
        })?;
        Ok(Preload { stop, thread })
    }

    /// Has the thread end after its current block.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        let _ = self.thread.join();
    }
}

fn read(base: &dyn Layer, blocks: u64, stop: &AtomicBool, events: &dyn Events) {
    let unit = base.read_unit();
    let end = blocks.saturating_mul(unit).min(base.size());
    for start in (0..end).step_by(usize::try_from(unit).unwrap_or(usize::MAX)) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // The last byte brings in the whole block.
        let last = (start + unit).min(end) - 1;
        if let Err(error) = base.read_at(&mut [0], last) {
            // A client that needs the block will be told.
            events.debug(&format!("preload: {error}"));
        }
    }
}
