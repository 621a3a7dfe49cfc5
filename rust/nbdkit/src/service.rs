//! The plugin's own thread: it waits for control clients, for the end of the
//! process that started the server and, while the image is suspended, for the
//! server's own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::control::Control;
use crate::server::Server;
use crate::{host, report};

/// How long to wait before accepting again when the system is short of descriptors.
const SHORTAGE: Duration = Duration::from_millis(200);

/// How often to ask whether the server is ending, while requests may wait for a medium.
const VIGILANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Wakes the thread from any other.
pub struct Waker {
    event: OwnedFd,
    stop: AtomicBool,
}

impl Waker {
    /// A waker of a thread that is yet to start.
    pub fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { event, stop: AtomicBool::new(false) })
    }

    /// Has the thread look at the server anew.
    pub fn wake(&self) {
        // Fails only when the counter is at its end, and then the thread wakes too.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

/// The running thread.
pub struct Service {
    server: Arc<Server>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Starts the thread; must not be called before the server has forked.
    pub fn start(
        server: Arc<Server>,
        control: Option<Control>,
        lifeline: Option<OwnedFd>,
    ) -> io::Result<Service> {
        let ours = server.clone();
        let thread = std::thread::Builder::new().name("service".into()).spawn(move || {
            report::guard(|| {
                if let Err(error) = run(&ours, control, lifeline) {
                    host::error(&format!("the service thread has ended: {error}"));
                }
            });
        })?;
        Ok(Service { server, thread })
    }

    /// Ends the thread, and with it the control channel.
    pub fn stop(self) {
        self.server.waker().stop.store(true, Ordering::Release);
        self.server.waker().wake();
        let _ = self.thread.join();
    }
}

fn run(
    server: &Arc<Server>,
    mut control: Option<Control>,
    mut lifeline: Option<OwnedFd>,
) -> io::Result<()> {
    let waker = server.waker();
    loop {
        let mut watched = vec![PollFd::new(&waker.event, PollFlags::IN)];
        watched.extend(control.iter().map(|c| PollFd::from_borrowed_fd(c.as_fd(), PollFlags::IN)));
        watched.extend(lifeline.iter().map(|l| PollFd::new(l, PollFlags::IN)));
        let timeout = server.is_suspended().then_some(&VIGILANCE);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = watched.iter().map(|fd| !fd.revents().is_empty());
        let woken = happened.next() == Some(true);
        let client = control.is_some() && happened.next() == Some(true);
        let cut = lifeline.is_some() && happened.next() == Some(true);
        drop(watched);

        if woken {
            // Only resets the event.
            let _ = rustix::io::read(&waker.event, &mut [0u8; 8]);
        }
        if waker.stop.load(Ordering::Acquire) {
            return Ok(());
        }
        if timeout.is_some() && host::is_ending() {
            // nbdkit would wait for good for the requests that wait for the medium.
            server.give_up();
        }
        if cut && lifeline.as_ref().is_some_and(at_end) {
            lifeline = None;
            host::shutdown();
        }
        if let (true, Some(control)) = (client, &mut control) {
            if let Err(error) = control.accept(server) {
                host::debug(&format!("control: cannot accept a client: {error}"));
                std::thread::sleep(SHORTAGE);
            }
        }
    }
}

/// Whether nobody holds the other end any more. What arrives before that is dropped.
fn at_end(lifeline: &OwnedFd) -> bool {
    match rustix::io::read(lifeline, &mut [0u8; 64]) {
        Ok(count) => count == 0,
        Err(Errno::INTR | Errno::AGAIN) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::at_end;
    use std::io::Write;

    #[test]
    fn a_lifeline_ends_with_its_holder() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = ours.into();
        theirs.write_all(b"x").unwrap();
        assert!(!at_end(&ours));
        drop(theirs);
        assert!(at_end(&ours));
    }
}
