//! Requests that wait for the medium of a suspended image.
//!
//! The engine never waits: it answers that the medium is out, and says when it is back. A
//! door that can keep a request aside without a thread does so. nbdkit cannot: a waiting
//! request keeps the thread that took it, and a connection has a fixed number of them. When
//! all of them wait, no thread is left to take a flush, or a read of data in the cowfile,
//! and a file system that cannot end its transaction hangs as a whole, even for programs
//! that have no use for the image. So only a limited number of the requests of a connection
//! that may write wait, and leave threads over. Requests beyond that number fail at once, which
//! concerns a single program, and that program may try again. A connection that only reads has
//! nothing to flush: all its requests wait, for a delay is better than an error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use cowcloop_engine::device::Device;
use cowcloop_engine::{ErrorKind, Result};

/// Requests of a client that may write that wait unless another number is given: nbdkit
/// gives a connection 16 threads.
const MOST_WAITING: usize = 12;

/// The requests of one connection that wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    most: usize,
    now: AtomicUsize,
}

impl Waiting {
    /// `most`: the number that was given; `writable`: the client may write.
    pub(crate) fn new(most: Option<usize>, writable: bool) -> Waiting {
        let unless_given = if writable { MOST_WAITING } else { usize::MAX };
        Waiting { most: most.unwrap_or(unless_given), now: AtomicUsize::new(0) }
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

#[cfg(test)]
mod tests {
    use cowcloop_engine::device::DeviceOptions;

    use super::*;

    const READERS: usize = 40;

    #[test]
    fn all_requests_of_a_client_that_only_reads_wait() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, [7; 1024]).unwrap();
        let device = Device::open(&image, &[], &DeviceOptions::default()).unwrap();
        device.suspend().unwrap();
        let waiting = Waiting::new(None, false);
        std::thread::scope(|scope| {
            let read = || {
                let mut found = [0; 512];
                waiting.patiently(&device, || device.read_at(&mut found, 0)).map(|()| found)
            };
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            while waiting.now.load(Ordering::Acquire) < READERS {
                if readers.iter().any(|reader| reader.is_finished()) {
                    device.give_up();
                    panic!("a request did not wait");
                }
                std::thread::yield_now();
            }
            device.resume().unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap().unwrap(), [7; 512]);
            }
        });
    }
}
