//! The supervisor: a process that does nothing but outlive the server.
//!
//! ```text
//! supervise -> server (this program again)  <- what it must not lose, by the link
//!           -> another server, when it was killed, with the device and what was kept
//! ```
//!
//! It holds the descriptor by which the kernel knows a FUSE file system, and the kept bits of the
//! cowfile. Clients wait while no server is there, and go on with the next one.

mod kept;
mod link;
mod patience;
mod signals;
mod watch;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use cowcloop_engine::device::MEMORY;
use cowcloop_server::{reason, Event, Events};
use rustix::process::Signal;

use crate::arguments::{IDENTITY, SUPERVISOR};
use crate::doors::{self, DEVICE};
use crate::report::TOLD;
use kept::Kept;
pub use link::Link;
use link::{Device, Handle};
use patience::{Patience, FAILURES};
use signals::Signals;
use watch::{Ended, Lifeline};

/// Serves a device as `words` say, by one server after the other. The error is a line for the user.
pub fn supervise(words: &[OsString]) -> Result<ExitCode, String> {
    let line = |error: io::Error| format!("supervisor: {}", reason(&error));
    let mut supervisor = Supervisor::new(words).map_err(line)?;
    supervisor.run().map_err(line)
}

struct Supervisor {
    program: PathBuf,
    /// The server's arguments, but for what only a supervisor has.
    words: Vec<OsString>,
    control: Option<PathBuf>,
    kept: Option<Kept>,
    signals: Signals,
    lifeline: Lifeline,
    device: Option<Device>,
    /// Why no server could take over from this one, where none could.
    irreplaceable: Option<String>,
    restarts: u64,
    /// The signal by which the device is to end, for the next server that is ready.
    end: Option<Signal>,
}

impl Supervisor {
    fn new(words: &[OsString]) -> io::Result<Supervisor> {
        let value = |key: &str| {
            let begins = |word: &&OsString| word.to_string_lossy().starts_with(key);
            let found = words.iter().rfind(begins)?;
            Some(found.to_string_lossy()[key.len()..].to_string())
        };
        if words.iter().any(|word| word == "--syslog") {
            crate::report::log_to_the_system();
        }
        if words.iter().any(|word| word == "--kernel-log") {
            crate::report::log_to_the_kernel();
        }
        let cow = value("cow=");
        let kept = match (cow.filter(|cow| cow != MEMORY), value("kept=")) {
            (Some(cowfile), None) => Some(Kept::new(cowfile.into())?),
            _ => None,
        };
        let mut own: Vec<OsString> = words.to_vec();
        own.retain(|word| !word.to_string_lossy().starts_with("lifeline="));
        own.extend(kept.iter().map(|kept| format!("kept={}", kept.name()).into()));
        Ok(Supervisor {
            // By its name: after an upgrade that is the new one.
            program: std::env::current_exe()?,
            words: own,
            control: value("control=").map(PathBuf::from),
            kept,
            signals: Signals::new()?,
            lifeline: Lifeline::new(value("lifeline=").as_deref())?,
            device: None,
            irreplaceable: None,
            restarts: 0,
            end: None,
        })
    }

    fn run(&mut self) -> io::Result<ExitCode> {
        let ended = self.serve()?;
        let left = self.device.as_ref().filter(|_| !ended.well());
        if let Some(Device { handle: Handle::Named(name), .. }) = left {
            // Its users would wait for a server for good.
            if let Err(text) = doors::remove(name) {
                TOLD.tell(Event::Error { text: &text });
            }
        }
        Ok(ended.code())
    }

    /// Serves by one server after the other, until one is the last.
    fn serve(&mut self) -> io::Result<Ended> {
        let mut patience = Patience::default();
        loop {
            let (server, link) = self.start()?;
            let ended = self.watch(server, &link)?;
            if ended.wanted || !self.may_go_on(&ended) {
                return Ok(ended);
            }
            let Some(pause) = patience.after(&ended) else {
                let text = format!(
                    "the server {} soon after its start, as the {FAILURES} before it; the device \
                     ends",
                    ended.how()
                );
                TOLD.tell(Event::Error { text: &text });
                return Ok(ended);
            };
            let text = format!("the server {}; another one takes over", ended.how());
            TOLD.tell(Event::Warning { text: &text });
            self.pause(pause)?;
            self.clear();
            self.restarts += 1;
        }
    }

    /// Whether another server can take over: not where all is well, or the command line wrong.
    fn may_go_on(&self, ended: &Ended) -> bool {
        !matches!(ended.status.code(), Some(0 | 2))
            && self.device.is_some()
            && self.irreplaceable.is_none()
    }

    /// The server answers requests.
    fn server_is_ready(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.watch();
        }
        if let Some(why) = &self.irreplaceable {
            let text = format!("if the server dies, the device does too: {why}");
            TOLD.tell(Event::Warning { text: &text });
        }
    }

    fn start(&self) -> io::Result<(Child, Link)> {
        let (link, theirs) = Link::pair()?;
        let mut words = self.words.clone();
        words.insert(words.len().min(1), format!("{SUPERVISOR}{}", theirs.as_raw_fd()).into());
        if let Some(Device { identity, handle }) = &self.device {
            let handle = match handle {
                Handle::Named(name) => name.clone(),
                Handle::Descriptor(number) => format!("{DEVICE}{}", number.as_raw_fd()).into(),
            };
            words.splice(1..1, [handle, format!("{IDENTITY}{identity}").into()]);
        }
        words.push(format!("restarts={}", self.restarts).into());
        let mut server = Command::new(&self.program);
        // The name that this process has: one that begins with @ tells systemd to spare it.
        if let Some(name) = std::env::args_os().next() {
            server.arg0(name);
        }
        Ok((server.args(words).spawn()?, link))
    }

    /// Removes what a dead server has left in the next one's way.
    fn clear(&self) {
        if let Some(kept) = &self.kept {
            kept.settle();
        }
        if let Some(control) = &self.control {
            // What cannot be removed is in the way of the next one, which says so.
            let _ = std::fs::remove_file(control);
        }
    }
}
