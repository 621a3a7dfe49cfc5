//! The ways of failures and other events to the client, the user or the log.

use std::sync::atomic::{AtomicBool, Ordering};

use cowcloop_engine::Error;
use cowcloop_server::{Delivery, Event, Events, JsonLines};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::host;

/// The destination that the parameter `events` names.
static LINES: Mutex<Option<JsonLines>> = Mutex::new(None);
/// Whether these events go to nbdkit's log as well.
static LOGGED_AS_WELL: AtomicBool = AtomicBool::new(true);

/// From now on events go to `lines`.
pub fn tell_by(lines: JsonLines) {
    *LINES.lock() = Some(lines);
}

/// Whether these events are to be in nbdkit's log too.
pub fn log_as_well(wanted: bool) {
    LOGGED_AS_WELL.store(wanted, Ordering::Release);
}

/// Where the plugin's events go: to the program that started it, and to nbdkit's log.
pub struct Told;

impl Events for Told {
    fn tell(&self, event: Event<'_>) {
        // An event that is not sure to be read elsewhere goes to the log after all.
        if !by_lines(&event) || LOGGED_AS_WELL.load(Ordering::Acquire) {
            log(event);
        }
    }
}

fn by_lines(event: &Event<'_>) -> bool {
    // These are part of the output of `nbdkit -v`, in their order with its own.
    if matches!(event, Event::Debug { .. }) {
        return false;
    }
    let mut lines = LINES.lock();
    let delivery = lines.as_ref().map(|lines| lines.tell(event));
    if delivery == Some(Delivery::Ended) {
        *lines = None;
    }
    delivery == Some(Delivery::Done)
}

fn log(event: Event<'_>) {
    match event {
        Event::Error { text } | Event::RequestFailed { text } | Event::ClientRefused { text } => {
            host::error(text);
        }
        // nbdkit knows errors and debug messages only: the text says what it is.
        Event::Warning { text } => host::error(&format!("warning: {text}")),
        Event::Debug { text } => host::debug(text),
        Event::Ready { .. } | Event::Ended => {}
    }
}

/// The errno that tells an NBD client most.
///
/// The protocol knows a handful, and nbdkit turns the others into `EINVAL`, which would
/// blame the client for a fault of the medium.
pub fn client_errno(error: &Error) -> i32 {
    let errno = Errno::from_raw_os_error(error.errno());
    let known = [
        Errno::PERM,
        Errno::ROFS,
        Errno::NOMEM,
        Errno::INVAL,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::OPNOTSUPP,
    ];
    let errno = if known.contains(&errno) { errno } else { Errno::IO };
    errno.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowcloop_engine::ErrorKind;
    use std::io::{self, Read};

    fn errno_of(error: Error) -> Errno {
        Errno::from_raw_os_error(client_errno(&error))
    }

    #[test]
    fn clients_see_an_errno_that_the_protocol_knows() {
        let raw = |errno: Errno| Error::io("f", "reading", io::Error::from(errno));
        assert_eq!(errno_of(raw(Errno::NOSPC)), Errno::NOSPC);
        assert_eq!(errno_of(raw(Errno::ROFS)), Errno::ROFS);
        assert_eq!(errno_of(raw(Errno::STALE)), Errno::IO);
        assert_eq!(errno_of(raw(Errno::NODATA)), Errno::IO);
        assert_eq!(errno_of(Error::new(ErrorKind::Damaged, "f", "bad")), Errno::IO);
        assert_eq!(errno_of(Error::new(ErrorKind::Poisoned, "f", "bad")), Errno::IO);
        assert_eq!(errno_of(Error::new(ErrorKind::ReadOnly, "f", "no")), Errno::ROFS);
        assert_eq!(errno_of(Error::new(ErrorKind::Unsupported, "f", "slow")), Errno::OPNOTSUPP);
    }

    #[test]
    fn events_are_lines_of_the_log_unless_they_are_told_elsewhere() {
        Told.tell(Event::RequestFailed { text: "a.cow: no space\nleft" });
        Told.tell(Event::Warning { text: "little space" });
        Told.tell(Event::Ended);
        assert_eq!(host::told(), ["error: a.cow: no space?left", "error: warning: little space"]);

        let (mut reader, writer) = io::pipe().unwrap();
        tell_by(JsonLines::new(writer.into()).unwrap());
        Told.tell(Event::Error { text: "in both" });
        log_as_well(false);
        Told.tell(Event::Error { text: "by lines" });
        Told.tell(Event::Debug { text: "detail" });
        Told.tell(Event::Error { text: &"x".repeat(5000) });
        assert_eq!(host::told()[..2], ["error: in both", "debug: detail"]);
        let mut read = [0; 200];
        let length = reader.read(&mut read).unwrap();
        let wanted = "{\"event\":\"error\",\"text\":\"in both\"}\n\
                      {\"event\":\"error\",\"text\":\"by lines\"}\n";
        assert_eq!(std::str::from_utf8(&read[..length]), Ok(wanted));

        drop(reader);
        Told.tell(Event::Error { text: "no reader" });
        Told.tell(Event::Error { text: "still none" });
        assert_eq!(host::told(), ["error: no reader", "error: still none"]);
    }
}
