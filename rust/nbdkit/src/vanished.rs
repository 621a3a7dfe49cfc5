//! Clients that break off in the middle of their requests.
//!
//! nbdkit 1.32 may then try to answer on a connection that it has just given
//! up: it fails an assertion of its own and aborts, and every other client
//! would be cut off with that one. Here the thread that failed is put to sleep
//! for good instead: the dead connection and its threads are left behind, and
//! all others go on.
//!
//! ISO C and POSIX let a handler of `SIGABRT` not return. That it is this
//! assertion, and nothing that tells of damage, is seen from the message that
//! the GNU C library keeps for debuggers; without it nothing is done.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};
use std::sync::OnceLock;

use rustix::event::{eventfd, EventfdFlags};
use rustix::time::{clock_gettime, ClockId};

/// How it is known, wherever it stands in nbdkit's source.
const ASSERTION: &[u8] = b"Assertion `sock >= 0' failed";

/// How many may be left behind: each keeps its threads and its socket.
const MOST: u64 = 200;

static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    /// Where the C library keeps its last words.
    last_words: &'static AtomicPtr<LastWords>,
    /// Readable when one more has been left behind.
    news: OwnedFd,
    count: AtomicU64,
    /// The second, of the clock that only goes forward, in which it was.
    latest: AtomicI64,
}

/// The C library's `struct abort_msg_s`: the size of it all, then text up to a NUL.
#[repr(C)]
struct LastWords {
    size: u32,
    text: [u8; 0],
}

extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> *mut c_void;
}

/// From now on such clients are left behind. To be called once, after the fork.
pub fn leave_behind() -> io::Result<()> {
    // SAFETY: looks up a name among those of the libraries that are loaded.
    let last_words = unsafe { dlsym(ptr::null_mut(), c"__abort_msg".as_ptr()) };
    if last_words.is_null() {
        return Ok(());
    }
    let watch = Watch {
        // SAFETY: a pointer variable of the C library, which lives as long as the process, and
        // which that exchanges atomically, too.
        last_words: unsafe { AtomicPtr::from_ptr(last_words.cast()) },
        news: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        count: AtomicU64::new(0),
        latest: AtomicI64::new(i64::MIN),
    };
    if WATCH.set(watch).is_ok() {
        // SAFETY: the handler does nothing that a handler may not do.
        unsafe { signal(rustix::process::Signal::ABORT.as_raw(), on_abort) };
    }
    Ok(())
}

/// How many have been left behind.
pub fn count() -> usize {
    WATCH.get().map_or(0, |watch| watch.count.load(Ordering::Acquire) as usize)
}

/// Readable when one more has been left behind, until [`noticed`] is called.
pub fn news() -> Option<BorrowedFd<'static>> {
    WATCH.get().map(|watch| watch.news.as_fd())
}

/// Waits for the next one.
pub fn noticed() {
    if let Some(news) = news() {
        // It fails where there is no news, and then there is nothing to take.
        let _ = rustix::io::read(news, &mut [0u8; 8]);
    }
}

/// Runs in the thread that calls `abort`: atomics and system calls alone, no
/// memory is taken, no lock waited for.
extern "C" fn on_abort(_number: c_int) {
    let Some(watch) = WATCH.get() else { return };
    if !watch.is_about_a_client() || watch.count.fetch_add(1, Ordering::AcqRel) >= MOST {
        // To return is to let the process end.
        return;
    }
    let _ = rustix::io::write(&watch.news, &1u64.to_ne_bytes());
    loop {
        rustix::event::pause();
    }
}

impl Watch {
    fn is_about_a_client(&self) -> bool {
        let now = clock_gettime(ClockId::Monotonic).tv_sec;
        // Taken, so that no later abort is told by these words.
        let words = self.last_words.swap(ptr::null_mut(), Ordering::AcqRel);
        if words.is_null() {
            // Of two threads that fail at once one finds the other's words, and the other none:
            // a client's connections break off together.
            return now - self.latest.load(Ordering::Acquire) <= 1;
        }
        // SAFETY: a mapping of `size` bytes, zeros behind the text. It is ours alone: the C
        // library gives back only what it still finds in its variable.
        let text = unsafe {
            let room = ((*words).size as usize).saturating_sub(size_of::<LastWords>());
            slice::from_raw_parts(ptr::addr_of!((*words).text).cast::<u8>(), room)
        };
        let found = text.windows(ASSERTION.len()).any(|part| part == ASSERTION);
        if found {
            self.latest.store(now, Ordering::Release);
        }
        found
    }
}
