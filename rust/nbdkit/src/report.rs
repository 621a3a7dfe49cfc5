//! The ways of failures and other events to the client, the user or the log.

use cowcloop_engine::Error;
use cowcloop_server::{Event, Told};
use rustix::io::Errno;

use crate::host;

/// Where the plugin's events go: to the program that started it, and to nbdkit's log.
pub static TOLD: Told = Told::new(log);

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
    use std::io;

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
    fn events_are_lines_of_nbdkits_log() {
        log(Event::RequestFailed { text: "a.cow: no space\nleft" });
        log(Event::Warning { text: "little space" });
        log(Event::Debug { text: "detail" });
        log(Event::Ended);
        let wanted =
            ["error: a.cow: no space?left", "error: warning: little space", "debug: detail"];
        assert_eq!(host::told(), wanted);
    }
}
