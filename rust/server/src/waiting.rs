//! Requests that wait for the medium of a suspended image.
//!
//! The engine never waits: it answers that the medium is out, and says when it is back. A
//! door that can keep a request aside without a thread does so. nbdkit cannot: a waiting
//! request keeps the thread that took it, and a connection has a fixed number of them. When
//! all of them wait, no thread is left to take a flush, or a read of data in the cowfile,
//! and a file system that cannot end its transaction hangs as a whole, even for programs
//! that have no use for the image. So only a limited number of a connection's requests
//! wait, and leave threads over. Requests beyond that number fail at once, which concerns a
//! single program, and that program may try again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use cowcloop_engine::device::Device;
use cowcloop_engine::{ErrorKind, Result};

/// Requests that may wait unless another number is given: nbdkit gives a connection 16
/// threads.
const MOST_WAITING: usize = 12;

/// The requests of one connection that wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    most: usize,
    now: AtomicUsize,
}

impl Waiting {
    pub(crate) fn new(most: Option<usize>) -> Waiting {
        Waiting { most: most.unwrap_or(MOST_WAITING), now: AtomicUsize::new(0) }
    }

    /// Makes a request, and repeats it each time that the medium of the image was out and
    /// is back. `device` is any device on that image.
    ///
    /// # Errors
    /// Those of the request: `NoMedium` when too many wait, or the server is about to end.
    pub(crate) fn patiently<T>(
        &self,
        device: &Device,
        mut request: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match request() {
                Err(error) if error.kind() == ErrorKind::NoMedium && self.wait(device) => {}
                done => return done,
            }
        }
    }

    /// Waits, if there is room, until it is worth trying again. `false`: it is not.
    fn wait(&self, device: &Device) -> bool {
        let more = |now: usize| (now < self.most).then_some(now + 1);
        if self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return false;
        }
        let (sender, receiver) = mpsc::channel();
        device.when_back(move |back| {
            // Fails for a receiver that is gone; this one waits as long as it takes.
            let _ = sender.send(back);
        });
        let back = receiver.recv() == Ok(true);
        self.now.fetch_sub(1, Ordering::AcqRel);
        back
    }
}
