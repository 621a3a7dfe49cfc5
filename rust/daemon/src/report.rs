//! Where events go: to the program that started us, and to standard error or the system log.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use cowcloop_server::{one_line, Event, Told};
use parking_lot::Mutex;

/// The receiver of all events.
pub static TOLD: Told = Told::new(log);

/// The system log, once it is the destination.
static SYSTEM: Mutex<Option<UnixDatagram>> = Mutex::new(None);

/// Where the system log listens.
const SYSTEM_LOG: &str = "/dev/log";
/// The facility of daemons, as part of a line's priority.
const DAEMON: u8 = 3 << 3;

/// From now on what is logged goes to the system log; to standard error where there is none.
pub fn log_to_the_system() {
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.connect(SYSTEM_LOG)?;
        // A log that is stuck must not hold up a device.
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    *SYSTEM.lock() = socket.ok();
}

fn log(event: Event<'_>) {
    let (severity, level, text) = match event {
        Event::Error { text } | Event::RequestFailed { text } | Event::ClientRefused { text } => {
            (3, "error", text)
        }
        Event::Warning { text } => (4, "warning", text),
        Event::Debug { .. } | Event::Ready { .. } | Event::Ended => return,
    };
    let text = one_line(text);
    match &*SYSTEM.lock() {
        // Lost where the log is gone or full: there is no other place for it.
        Some(socket) => {
            let pid = std::process::id();
            let line = format!("<{}>cowcloopd[{pid}]: {level}: {text}", DAEMON | severity);
            let _ = socket.send(line.as_bytes());
        }
        // Nor for standard error, once its reader has gone.
        None => {
            let _ = writeln!(io::stderr(), "cowcloopd: {level}: {text}");
        }
    }
}
