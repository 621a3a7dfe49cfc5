//! Descriptors that run out even so.
//!
//! The plugin lets in no more clients than it has descriptors for, but nbdkit asks it only
//! after it has accepted a connection. So no more connections are accepted at one time than
//! the plugin keeps descriptors for. Where they run out even so (the whole system may have
//! no more), nbdkit's `accept4` fails at once, as long as that lasts; nbdkit reports it
//! each time and tries again at full speed. Here it waits a little in between, and reports
//! it once.

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cowcloop_server::{guard, reason, Event, Events};
use libc::{sockaddr, socklen_t};

use super::imports::Program;
use crate::arrivals;
use crate::report::TOLD;

/// How long descriptors are waited for.
const A_WHILE: Duration = Duration::from_millis(100);

static SHORT: AtomicBool = AtomicBool::new(false);
static ENDING: AtomicBool = AtomicBool::new(false);

type Accept = unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int;

/// From now on nbdkit waits for descriptors. To be called while there is no other thread.
pub fn wait_for_descriptors(program: &Program) -> io::Result<()> {
    let ours: Accept = accept;
    // SAFETY: of the same arguments and results.
    unsafe { program.replace(c"accept4", ours as *const ())? };
    Ok(())
}

/// The server ends: no client is waited for any more.
pub fn end() {
    ENDING.store(true, Ordering::Release);
}

/// nbdkit calls this in the place of `accept4`.
unsafe extern "C" fn accept(
    listener: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    guard(arrivals::wait);
    // SAFETY: nbdkit's arguments as they are.
    let accepted = unsafe { libc::accept4(listener, address, length, flags) };
    if accepted >= 0 {
        SHORT.store(false, Ordering::Release);
        guard(arrivals::begins);
        return accepted;
    }
    let error = io::Error::last_os_error();
    let number = error.raw_os_error().unwrap_or_default();
    let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&number);
    let again = short && !ENDING.load(Ordering::Acquire);
    if again {
        guard(|| {
            if !SHORT.swap(true, Ordering::AcqRel) {
                let text = &format!("clients have to wait: {}", reason(&error));
                TOLD.tell(Event::Error { text });
            }
            thread::sleep(A_WHILE);
        });
    }
    // nbdkit tries again at once after the first error, and reports the others.
    let told = if again { libc::EAGAIN } else { number };
    // SAFETY: a variable of this thread.
    unsafe { *libc::__errno_location() = told };
    -1
}
