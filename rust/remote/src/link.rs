//! The way to a server: a runtime of its own, which each process makes for itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::address::Address;
use crate::client::Client;
use crate::counts::Counts;
use crate::failure::{Failure, Kind};
use crate::options::RemoteOptions;

/// Threads that wait for the network, and at most so many that wait for names or the disk.
const THREADS: usize = 2;
const BLOCKING: usize = 16;
/// How long an end waits for threads that are at something.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the server of one image. A forked process gets its own.
#[derive(Debug)]
pub(crate) struct Link {
    address: Address,
    options: RemoteOptions,
    counts: Arc<Counts>,
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    process: u32,
    runtime: Runtime,
    client: Arc<Client>,
}

impl Link {
    pub fn new(address: Address, options: RemoteOptions) -> Link {
        Link { address, options, counts: Arc::default(), made: Mutex::default() }
    }

    /// What went over it.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What runs requests, and what makes them.
    pub fn get(&self) -> Result<(Handle, Arc<Client>), Failure> {
        let mut made = self.made.lock();
        let process = std::process::id();
        if let Some(old) = made.take_if(|made| made.process != process) {
            // Its threads are the parent's.
            std::mem::forget(old);
        }
        let made = match &mut *made {
            Some(made) => made,
            empty => empty.insert(self.make(process)?),
        };
        Ok((made.runtime.handle().clone(), made.client.clone()))
    }

    fn make(&self, process: u32) -> Result<Made, Failure> {
        let built = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING)
            .thread_name("cowcloop-net")
            .enable_all()
            .build();
        let no_thread = |error| Failure::new(Kind::Ours, format!("cannot start a thread: {error}"));
        let runtime = built.map_err(no_thread)?;
        let entered = runtime.enter();
        let client = Arc::new(Client::new(&self.address, &self.options, self.counts.clone())?);
        drop(entered);
        Ok(Made { process, runtime, client })
    }

    /// Ends the threads; the next request makes others. What was on its way is dropped.
    pub fn rest(&self) {
        let made = self.made.lock().take();
        if let Some(made) = made {
            if made.process == std::process::id() {
                made.runtime.shutdown_timeout(PATIENCE);
            } else {
                std::mem::forget(made);
            }
        }
    }
}
