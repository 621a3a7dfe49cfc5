//! The signals that a supervisor answers, as descriptors to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The end of the device, which the server is told by the same signal.
    End(Signal),
    /// Another server in the place of this one.
    Replace,
}

const WISHES: [(i32, Wish); 5] = [
    (SIGINT, Wish::End(Signal::INT)),
    (SIGTERM, Wish::End(Signal::TERM)),
    (SIGQUIT, Wish::End(Signal::QUIT)),
    (SIGHUP, Wish::End(Signal::HUP)),
    (SIGUSR1, Wish::Replace),
];

/// Signals that come from now on.
#[derive(Debug)]
pub struct Signals([UnixStream; WISHES.len()]);

impl Signals {
    /// Begins to answer them.
    pub fn new() -> io::Result<Signals> {
        let mut readers = Vec::new();
        for (signal, _) in WISHES {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, writer)?;
            readers.push(reader);
        }
        let readers: Result<_, Vec<_>> = readers.try_into();
        Ok(Signals(readers.expect("there is one for each signal")))
    }

    /// What can be read once a signal has come.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }

    /// The wishes that have come.
    pub fn take(&self) -> Vec<Wish> {
        let came = |reader: &UnixStream| rustix::io::read(reader, &mut [0; 64]).is_ok();
        self.0.iter().zip(WISHES).filter(|(r, _)| came(r)).map(|(_, (_, wish))| wish).collect()
    }
}
