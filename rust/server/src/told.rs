//! Where a door's events go: to the program that started it, and to the log.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::events::{Event, Events};
use crate::json_lines::{Delivery, JsonLines};
use crate::words::reason;

/// The receiver of a door's events; a static of the door's.
pub struct Told {
    lines: Mutex<Option<JsonLines>>,
    logged_as_well: AtomicBool,
    log: fn(Event<'_>),
}

impl Told {
    /// All events go to `log` at first.
    pub const fn new(log: fn(Event<'_>)) -> Told {
        Told { lines: Mutex::new(None), logged_as_well: AtomicBool::new(true), log }
    }

    /// From now on events are told as lines of JSON on `fd`, which is `number` to the user. The
    /// error is a line for the user.
    pub fn tell_by(&self, number: i32, fd: OwnedFd) -> Result<(), String> {
        let lines = JsonLines::new(fd);
        let lines = lines.map_err(|error| format!("events: {number}: {}", reason(&error)))?;
        *self.lines.lock() = Some(lines);
        Ok(())
    }

    /// Whether what is told by lines is to be in the log too.
    pub fn log_as_well(&self, wanted: bool) {
        self.logged_as_well.store(wanted, Ordering::Release);
    }

    fn by_lines(&self, event: &Event<'_>) -> bool {
        // These are part of the log's own output, in their order with it.
        if matches!(event, Event::Debug { .. }) {
            return false;
        }
        let mut lines = self.lines.lock();
        let delivery = lines.as_ref().map(|lines| lines.tell(event));
        if delivery == Some(Delivery::Ended) {
            *lines = None;
        }
        delivery == Some(Delivery::Done)
    }
}

impl Events for Told {
    fn tell(&self, event: Event<'_>) {
        // An event that is not sure to be read elsewhere goes to the log after all.
        if !self.by_lines(&event) || self.logged_as_well.load(Ordering::Acquire) {
            (self.log)(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Read};

    static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static TOLD: Told =
        Told::new(|event| LOGGED.lock().push(serde_json::to_string(&event).unwrap()));

    fn logged() -> Vec<String> {
        std::mem::take(&mut LOGGED.lock())
    }

    #[test]
    fn events_are_lines_of_the_log_unless_they_are_told_elsewhere() {
        let told = &TOLD;
        told.tell(Event::RequestFailed { text: "a.cow: no space" });
        assert_eq!(logged(), [r#"{"event":"request-failed","text":"a.cow: no space"}"#]);

        let (mut reader, writer) = io::pipe().unwrap();
        TOLD.tell_by(7, writer.into()).unwrap();
        told.tell(Event::Error { text: "in both" });
        TOLD.log_as_well(false);
        told.tell(Event::Error { text: "by lines" });
        told.tell(Event::Debug { text: "detail" });
        told.tell(Event::Error { text: &"x".repeat(5000) });
        let lines = logged();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("in both") && lines[1].contains("detail"), "{lines:?}");
        let mut read = [0; 200];
        let length = reader.read(&mut read).unwrap();
        let wanted = "{\"event\":\"error\",\"text\":\"in both\"}\n\
                      {\"event\":\"error\",\"text\":\"by lines\"}\n";
        assert_eq!(std::str::from_utf8(&read[..length]), Ok(wanted));

        drop(reader);
        told.tell(Event::Error { text: "no reader" });
        told.tell(Event::Error { text: "still none" });
        assert_eq!(logged().len(), 2);

        let (reader, _writer) = io::pipe().unwrap();
        assert!(TOLD.tell_by(7, reader.into()).unwrap_err().starts_with("events: 7: "));
    }
}
