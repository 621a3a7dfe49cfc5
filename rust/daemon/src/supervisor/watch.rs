//! Waiting: for the server's words and its end, for signals, for the end of who started us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use cowcloop_server::{Event, Events};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use super::link::{Link, Word};
use super::patience::STEADY;
use super::signals::Wish;
use super::Supervisor;
use crate::descriptors;
use crate::report::TOLD;

/// How a server came to its end.
pub struct Ended {
    pub status: ExitStatus,
    /// It had answered requests.
    pub was_ready: bool,
    /// It had done so for long.
    pub steady: bool,
    /// It was told to end.
    pub wanted: bool,
    /// It was killed for another server to take its place.
    pub replaced: bool,
}

impl Ended {
    /// It has ended its device in order.
    pub fn well(&self) -> bool {
        self.status.success()
    }

    /// Whether it was ended by this signal.
    pub fn killed_by(&self, signal: Signal) -> bool {
        self.status.signal() == Some(signal.as_raw())
    }

    /// The supervisor's own exit code, when this is the end.
    pub fn code(&self) -> ExitCode {
        let killed = self.status.signal().map(|signal| 128 + signal);
        let code = self.status.code().or(killed).unwrap_or(1);
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }

    /// In words, for the log.
    pub fn how(&self) -> String {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => "ended".into(),
        }
    }
}

/// The process that started us, as a descriptor that ends with it, if we are to end with it.
#[derive(Debug)]
pub struct Lifeline(Option<OwnedFd>);

impl Lifeline {
    /// The one with this number.
    pub fn new(number: Option<&str>) -> io::Result<Lifeline> {
        let number = number.map(|number| number.parse().map_err(|_| io::ErrorKind::InvalidInput));
        Ok(Lifeline(number.transpose()?.map(descriptors::adopt).transpose()?))
    }

    /// Something can be read; whether that is the end.
    fn is_cut(&mut self) -> bool {
        let Some(lifeline) = &self.0 else { return false };
        match rustix::io::read(lifeline, &mut [0; 64]) {
            Err(Errno::INTR | Errno::AGAIN) => false,
            // A word says that we live on without it.
            Ok(1..) => {
                self.0 = None;
                false
            }
            Ok(0) | Err(_) => {
                self.0 = None;
                true
            }
        }
    }
}

impl Supervisor {
    /// Waits until the server has ended.
    pub(super) fn watch(&mut self, mut server: Child, link: &Link) -> io::Result<Ended> {
        let handle = pidfd_open(Pid::from_child(&server), PidfdFlags::empty())?;
        let (mut ready, mut speaks) = (None, true);
        let (mut wanted, mut replaced) = (false, false);
        loop {
            let link_speaks = speaks.then(|| link.as_fd());
            let ([ended, spoke], wishes) = self.wait([Some(handle.as_fd()), link_speaks], None)?;
            for wish in wishes {
                let signal = match wish {
                    // It could not close the device yet, or any more: it is the next one's to do.
                    Wish::End(signal) if ended || self.device.is_some() && ready.is_none() => {
                        self.end = Some(signal);
                        continue;
                    }
                    Wish::End(signal) => {
                        wanted = true;
                        signal
                    }
                    Wish::Replace => {
                        if let Some(why) = &self.irreplaceable {
                            let text = format!("the server is not replaced: {why}");
                            TOLD.tell(Event::Warning { text: &text });
                            continue;
                        }
                        replaced = true;
                        // It closes nothing then, and takes the device from nobody.
                        Signal::KILL
                    }
                };
                // Fails when it has ended meanwhile.
                let _ = pidfd_send_signal(&handle, signal);
            }
            if spoke {
                match link.next()? {
                    Word::Device(device) => self.device = Some(device),
                    Word::Irreplaceable(why) => self.irreplaceable = Some(why),
                    Word::Ready => {
                        ready = Some(Instant::now());
                        self.server_is_ready();
                        if let Some(signal) = self.end.take() {
                            wanted = true;
                            let _ = pidfd_send_signal(&handle, signal);
                        }
                    }
                    Word::End => speaks = false,
                }
            } else if ended {
                // All that it has said was heard.
                let steady = ready.is_some_and(|ready: Instant| ready.elapsed() >= STEADY);
                let (status, was_ready) = (server.wait()?, ready.is_some());
                return Ok(Ended { status, was_ready, steady, wanted, replaced });
            }
        }
    }

    /// Waits before another server is started; not when that one is to end the device.
    pub(super) fn pause(&mut self, length: Duration) -> io::Result<()> {
        let end = Instant::now() + length;
        while self.end.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (_, wishes) = self.wait([None, None], Some(left))?;
            for wish in wishes {
                match wish {
                    Wish::End(signal) => self.end = Some(signal),
                    // Another one is about to be started.
                    Wish::Replace => {}
                }
            }
        }
        Ok(())
    }

    /// Waits until something has happened: which of `others` it was, and what is wished.
    fn wait(
        &mut self,
        others: [Option<BorrowedFd<'_>>; 2],
        length: Option<Duration>,
    ) -> io::Result<([bool; 2], Vec<Wish>)> {
        let length = length.map(|length| Timespec {
            tv_sec: length.as_secs() as i64,
            tv_nsec: i64::from(length.subsec_nanos()),
        });
        let lifeline = self.lifeline.0.as_ref().map(AsFd::as_fd);
        let all = others.into_iter().chain([lifeline]).flatten().chain(self.signals.descriptors());
        let read = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
        let mut watched: Vec<PollFd<'_>> = all.map(read).collect();
        match poll(&mut watched, length.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = watched.iter().map(|watched| !watched.revents().is_empty());
        let found = others.map(|other| other.is_some() && happened.next() == Some(true));
        let cut = lifeline.is_some() && happened.next() == Some(true);
        drop(watched);
        let mut wishes = self.signals.take();
        if cut && self.lifeline.is_cut() {
            wishes.push(Wish::End(Signal::TERM));
        }
        Ok((found, wishes))
    }
}
