//! The thread that waits for the server's end: a signal, or the end of the process that
//! started it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::guard::guard;
use crate::server::Server;

/// Pause between two calls of [`Ending::go_on`].
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Why a server is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal has come.
    Signal,
    /// The process that started the server has ended.
    Lifeline,
}

/// How a door ends when its server is to end.
pub trait Ending: Send {
    /// The server is to end. May be called for each cause.
    fn begin(&mut self, cause: Cause);

    /// Called after [`begin`](Self::begin), and then ten times a second until the service is
    /// stopped.
    fn go_on(&mut self);
}

impl Ending for Box<dyn Ending> {
    fn begin(&mut self, cause: Cause) {
        (**self).begin(cause);
    }

    fn go_on(&mut self) {
        (**self).go_on();
    }
}

/// The running thread.
pub struct Service {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Starts the thread, which tells `ending` when the server is to end; must not be called
    /// before the server has forked. `lifeline` can be read when it is at its end, with the
    /// process that has the other one.
    pub fn start(
        server: Arc<Server>,
        lifeline: Option<OwnedFd>,
        mut ending: impl Ending + 'static,
    ) -> io::Result<Service> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let watch = stop.clone();
        let signals = end_signals()?;
        let thread = std::thread::Builder::new().name("service".into()).spawn(move || {
            guard(|| {
                if let Err(error) = run(&watch, &server, lifeline, signals, &mut ending) {
                    server.events().error(&format!("the service thread has ended: {error}"));
                }
            });
        })?;
        Ok(Service { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        // Fails only when the counter is at its end, and then the thread wakes too.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

fn run(
    stop: &OwnedFd,
    server: &Server,
    mut lifeline: Option<OwnedFd>,
    signals: OwnedFd,
    ending: &mut impl Ending,
) -> io::Result<()> {
    let mut signals = Some(signals);
    let mut ends = false;
    loop {
        if ends {
            // A door would wait for good for reads that wait for a suspended image.
            server.give_up();
            ending.go_on();
        }
        let mut watched = vec![PollFd::new(stop, PollFlags::IN)];
        watched.extend(lifeline.iter().map(|l| PollFd::new(l, PollFlags::IN)));
        watched.extend(signals.iter().map(|s| PollFd::new(s, PollFlags::IN)));
        match poll(&mut watched, ends.then_some(&PAUSE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = watched.iter().map(|fd| !fd.revents().is_empty());
        let stopped = happened.next() == Some(true);
        let cut = lifeline.is_some() && happened.next() == Some(true);
        let signalled = signals.is_some() && happened.next() == Some(true);
        drop(watched);

        if stopped {
            return Ok(());
        }
        if cut {
            match lifeline.as_ref().map_or(Lifeline::Holds, said) {
                Lifeline::Holds => {}
                Lifeline::Released => lifeline = None,
                Lifeline::Cut => {
                    lifeline = None;
                    ends = true;
                    ending.begin(Cause::Lifeline);
                }
            }
        }
        if signalled {
            signals = None;
            ends = true;
            ending.begin(Cause::Signal);
        }
    }
}

/// Readable once one of the signals has come that end a server. Handlers that the program has
/// already stay in place behind ours.
fn end_signals() -> io::Result<OwnedFd> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGQUIT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader.into())
}

/// The effect on the server of the process that started it.
#[derive(Debug, PartialEq, Eq)]
enum Lifeline {
    /// It ends with that process.
    Holds,
    /// It lives on: the process sent a word.
    Released,
    /// The process has ended.
    Cut,
}

fn said(lifeline: &OwnedFd) -> Lifeline {
    match rustix::io::read(lifeline, &mut [0u8; 64]) {
        Ok(0) => Lifeline::Cut,
        Ok(_) => Lifeline::Released,
        Err(Errno::INTR | Errno::AGAIN) => Lifeline::Holds,
        Err(_) => Lifeline::Cut,
    }
}

#[cfg(test)]
mod tests {
    use super::{said, Lifeline};
    use std::io::Write;

    #[test]
    fn a_lifeline_ends_with_its_holder_unless_it_is_released() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = ours.into();
        assert_eq!(said(&ours), Lifeline::Holds);
        theirs.write_all(b"\n").unwrap();
        assert_eq!(said(&ours), Lifeline::Released);
        drop(theirs);
        assert_eq!(said(&ours), Lifeline::Cut);
    }
}
