//! How failures reach the client, the user and the log.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cowcloop_engine::{Error, ErrorKind};
use rustix::io::Errno;

use crate::host;

/// Lines about failed requests that may be written in one go.
const BURST: u32 = 20;
/// How long it takes until one more may be written.
const REFILL: Duration = Duration::from_secs(1);

/// Runs a callback's work; a panic ends here, told as an error, and yields `None`.
pub fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What a panic may have left half-done sits behind locks, which it poisons.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Sends the engine's messages, and what a panic says, to nbdkit.
pub fn install() {
    struct Forward;
    impl log::Log for Forward {
        fn enabled(&self, metadata: &log::Metadata) -> bool {
            metadata.level() <= log::Level::Info
        }
        fn log(&self, record: &log::Record) {
            match record.level() {
                log::Level::Error => host::error(&record.args().to_string()),
                // nbdkit knows errors and debug messages only: the text says what it is.
                log::Level::Warn => host::error(&format!("warning: {}", record.args())),
                _ => host::debug(&record.args().to_string()),
            }
        }
        fn flush(&self) {}
    }
    static FORWARD: Forward = Forward;
    if log::set_logger(&FORWARD).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let what = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("panic");
        let place = panic.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
        host::error(&format!("internal error: {what}{}", place.unwrap_or_default()));
    }));
}

/// An operating system's reason in words, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// Tells nbdkit why a data request failed: the errno for its client, and a line for the log.
pub fn request_failed(error: &Error) {
    host::set_error(client_errno(error));
    match to_be_shown(error) {
        true => client_failed(&error.to_string()),
        false => host::debug(&error.to_string()),
    }
}

/// Tells nbdkit of what a client brought about, which must not flood the log.
pub fn client_failed(line: &str) {
    static LIMIT: Mutex<Limit> = Mutex::new(Limit::new());
    let allowed = LIMIT.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
    match allowed {
        Some(0) => host::error(line),
        Some(held_back) => host::error(&format!("{line} ({held_back} errors before it not shown)")),
        None => host::debug(line),
    }
}

/// Whether a failed request deserves a line of its own.
fn to_be_shown(error: &Error) -> bool {
    // The engine writes a damaged block and a failed sync into the log once,
    // when it finds them; `Unsupported` is the expected answer to a fast zero.
    !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Poisoned | ErrorKind::Unsupported)
}

/// The errno that says most to an NBD client.
///
/// The protocol knows a handful, and nbdkit turns the others into `EINVAL`,
/// which would blame the client for what the medium did.
fn client_errno(error: &Error) -> i32 {
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
    let errno = match known.contains(&errno) {
        true => errno,
        false => Errno::IO,
    };
    errno.raw_os_error()
}

/// A bucket of permissions to write a line.
struct Limit {
    left: u32,
    held_back: u64,
    since: Option<Instant>,
}

impl Limit {
    const fn new() -> Self {
        Limit { left: BURST, held_back: 0, since: None }
    }

    /// `Some(n)`: write the line, `n` were held back since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        if earned > 0 {
            self.left = u32::try_from(earned).unwrap_or(BURST).saturating_add(self.left).min(BURST);
            self.since = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.held_back))
            }
            None => {
                self.held_back = self.held_back.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_flood_of_errors_becomes_a_trickle() {
        let mut limit = Limit::new();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(limit.take(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.take(start), None);
        }
        assert_eq!(limit.take(start + REFILL), Some(1000));
        assert_eq!(limit.take(start + REFILL), None);
        let later = start + 1000 * REFILL;
        let burst = (0..100).filter(|_| limit.take(later).is_some()).count();
        assert_eq!(burst, BURST as usize);
    }

    #[test]
    fn a_damaged_block_is_left_to_the_engine_to_tell() {
        request_failed(&Error::new(ErrorKind::Damaged, "a.img", "block 3: bad checksum"));
        request_failed(&Error::new(ErrorKind::NoSpace, "a.cow", "no space\nleft"));
        assert_eq!(
            host::told(),
            [
                format!("errno: {}", Errno::IO.raw_os_error()),
                "debug: a.img: block 3: bad checksum".into(),
                format!("errno: {}", Errno::NOSPC.raw_os_error()),
                "error: a.cow: no space?left".into(),
            ]
        );
    }

    #[test]
    fn a_panic_stops_at_the_door() {
        assert_eq!(guard(|| 7), Some(7));
        assert_eq!(guard(|| -> i32 { panic!("expected by the test") }), None);
    }
}
