//! Where events go: to the program that started us, and to standard error or a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use cowcloop_server::{one_line, Event, Told};
use parking_lot::Mutex;

/// The receiver of all events.
pub static TOLD: Told = Told::new(log);

/// Where lines for the log go.
enum Log {
    StandardError,
    /// The system log's socket.
    System(UnixDatagram),
    /// The kernel's ring of messages, which it shows on the console.
    Kernel(File),
}

static LOG: Mutex<Log> = Mutex::new(Log::StandardError);

/// Where the system log listens.
const SYSTEM_LOG: &str = "/dev/log";
/// The facility of daemons, as part of a line's priority.
const DAEMON: u8 = 3 << 3;

/// Where the kernel takes messages.
const KERNEL_LOG: &str = "/dev/kmsg";

/// From now on what is logged goes to the system log; to standard error where there is none.
pub fn log_to_the_system() {
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.connect(SYSTEM_LOG)?;
        // A log that is stuck must not hold up a device.
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    *LOG.lock() = socket.map_or(Log::StandardError, Log::System);
}

/// From now on what is logged goes to the kernel, which has a console before there is a system
/// log; to standard error where that is refused.
pub fn log_to_the_kernel() {
    let opened = OpenOptions::new().write(true).open(KERNEL_LOG);
    *LOG.lock() = opened.map_or(Log::StandardError, Log::Kernel);
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
    let priority = DAEMON | severity;
    // A line is lost where the log is gone or full: there is no other place for it.
    match &*LOG.lock() {
        Log::System(socket) => {
            let pid = std::process::id();
            let _ =
                socket.send(format!("<{priority}>cowcloopd[{pid}]: {level}: {text}").as_bytes());
        }
        // One write is one message.
        Log::Kernel(file) => {
            let _ = (&*file).write(format!("<{priority}>cowcloopd: {level}: {text}\n").as_bytes());
        }
        Log::StandardError => {
            let _ = writeln!(io::stderr(), "cowcloopd: {level}: {text}");
        }
    }
}
