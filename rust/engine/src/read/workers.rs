//! The threads that work for readers. There are none before [`Workers::start`], because the
//! process may still fork, and none before there is work.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use super::queue::Queue;
use super::shares::{as_reader, reader};

/// Threads that read ahead, threads that help a reader, and the number of those that decode.
#[derive(Debug)]
pub(super) struct Workers {
    threads: usize,
    /// The process that may use threads; 0: none yet. A forked child has none of them.
    process: AtomicU32,
    /// Reads ahead.
    queue: Queue,
    /// Shares what one reader wants at once.
    pool: OnceLock<Option<ThreadPool>>,
    /// Readers and workers that are decoding.
    busy: AtomicUsize,
}

/// Counts a thread as decoding, for as long as this lives.
pub(super) struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Up to `threads` threads of each kind; 0: one per core.
    pub(super) fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Workers {
            threads: if threads == 0 { cores() } else { threads },
            process: AtomicU32::new(0),
            queue: Queue::new(),
            pool: OnceLock::new(),
            busy: AtomicUsize::new(0),
        }
    }

    /// The most threads that read ahead, and the most that help readers.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Threads may be used from now on.
    pub(super) fn start(&self) {
        self.process.store(std::process::id(), Ordering::Release);
    }

    pub(super) fn started(&self) -> bool {
        let process = self.process.load(Ordering::Acquire);
        process != 0 && process == std::process::id()
    }

    /// Counts the calling thread as decoding.
    pub(super) fn enter(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }

    /// Threads that are decoding.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Workers that a reader, which is counted as decoding itself, can put to use. None if
    /// there is only one thread: a worker would only take turns with the reader.
    pub(super) fn spare(&self) -> usize {
        match self.threads {
            2.. if self.started() => (self.threads + 1).saturating_sub(self.busy().max(1)),
            _ => 0,
        }
    }

    /// The threads that help a reader, once they are allowed; `None` also when the system refuses
    /// to start any.
    pub(super) fn pool(&self) -> Option<&ThreadPool> {
        let build = || {
            ThreadPoolBuilder::new()
                .num_threads(self.threads)
                .thread_name(|number| format!("cowcloop-{number}"))
                .build()
                .inspect_err(|error| log::warn!("no threads to help a reader: {error}"))
                .ok()
        };
        self.started().then(|| self.pool.get_or_init(build).as_ref())?
    }

    /// Gives `work` to a worker, for the reader that this thread works for; drops it where
    /// there is none.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        if !self.started() {
            return;
        }
        let reader = reader();
        if let Err(error) = self.queue.push(self.threads, move || as_reader(reader, work)) {
            log::warn!("no threads to read ahead: {error}");
        }
    }
}
