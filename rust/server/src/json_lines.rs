//! Events as lines of JSON, for the program that started the server.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::{write, Errno};

use crate::events::Event;

/// Bytes that a Linux pipe takes as a whole or not at all (`PIPE_BUF`), so that no line is
/// torn.
const WHOLE: usize = 4096;

/// A pipe that events are written to.
#[derive(Debug)]
pub(crate) struct JsonLines(OwnedFd);

/// The fate of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It will be read.
    Done,
    /// It is too long, or there is no room for it now.
    Missed,
    /// The reader is gone: no event will be read any more.
    Ended,
}

impl JsonLines {
    /// Events will be written to `fd`, which never makes a writer wait.
    ///
    /// # Errors
    /// The system's, when `fd` cannot be written to.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<JsonLines> {
        let flags = fcntl_getfl(&fd)?;
        if (flags & OFlags::RWMODE) == OFlags::RDONLY {
            return Err(Errno::BADF.into());
        }
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(JsonLines(fd))
    }

    /// Writes one event.
    pub(crate) fn tell(&self, event: &Event<'_>) -> Delivery {
        let Ok(mut line) = serde_json::to_vec(event) else { return Delivery::Missed };
        line.push(b'\n');
        if line.len() > WHOLE {
            return Delivery::Missed;
        }
        loop {
            return match write(&self.0, &line) {
                Ok(_) => Delivery::Done,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Delivery::Missed,
                Err(_) => Delivery::Ended,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn an_event_is_a_line_without_control_characters() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = JsonLines::new(writer.into()).unwrap();
        let told = lines.tell(&Event::Error { text: "a\x1b[31m\n\u{e9}" });
        assert_eq!(told, Delivery::Done);
        drop(lines);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "{\"event\":\"error\",\"text\":\"a?[31m?\u{e9}\"}\n");
    }

    #[test]
    fn what_does_not_fit_is_missed_and_nothing_waits() {
        let (reader, writer) = io::pipe().unwrap();
        let lines = JsonLines::new(writer.into()).unwrap();
        assert_eq!(lines.tell(&Event::Error { text: &"x".repeat(WHOLE) }), Delivery::Missed);
        let long = "x".repeat(1000);
        let told = || lines.tell(&Event::Warning { text: &long });
        assert!((0..10_000).any(|_| told() == Delivery::Missed));
        drop(reader);
        assert_eq!(told(), Delivery::Ended);
    }

    #[test]
    fn a_descriptor_that_is_for_reading_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(JsonLines::new(reader.into()).is_err());
    }
}
