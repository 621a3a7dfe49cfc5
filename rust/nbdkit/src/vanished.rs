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

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};
use std::sync::OnceLock;

use rustix::process::getpid;
use rustix::thread::gettid;
use rustix::time::{clock_gettime, ClockId};

/// How it is known, wherever it stands in nbdkit's source.
const ASSERTION: &[u8] = b"Assertion `sock >= 0' failed";

/// How many may be left behind: each keeps its threads and its socket.
const MOST: u64 = 200;

static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    /// Where the C library keeps its last words.
    last_words: &'static AtomicPtr<LastWords>,
    count: AtomicU64,
    /// The second, of the clock that only goes forward, up to which more of that client may
    /// break off.
    together: AtomicI64,
}

/// The C library's `struct abort_msg_s`: the size of it all, then text up to a NUL.
#[repr(C)]
struct LastWords {
    size: u32,
    text: [u8; 0],
}

/// From now on such clients are left behind. To be called once, after the fork.
pub fn leave_behind() -> io::Result<()> {
    // SAFETY: looks up a name among those of the libraries that are loaded.
    let last_words = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__abort_msg".as_ptr()) };
    if last_words.is_null() {
        return Ok(());
    }
    let watch = Watch {
        // SAFETY: a pointer variable of the C library, which lives as long as the process, and
        // which that exchanges atomically, too.
        last_words: unsafe { AtomicPtr::from_ptr(last_words.cast()) },
        count: AtomicU64::new(0),
        together: AtomicI64::new(i64::MIN),
    };
    if WATCH.set(watch).is_err() {
        return Ok(());
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_abort;
    // SAFETY: all zeros are a valid `sigaction`, completed by a handler of the form that the
    // flag announces, which does nothing that a handler may not do.
    let done = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGABRT, &action, ptr::null_mut())
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many have been left behind.
pub fn count() -> usize {
    WATCH.get().map_or(0, |watch| watch.count.load(Ordering::Acquire) as usize)
}

/// Runs in the thread that calls `abort`: atomics and system calls alone, no
/// memory is taken, no lock waited for.
extern "C" fn on_abort(number: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO what it knows of the signal.
    let by_abort = unsafe {
        (*info).si_code == libc::SI_TKILL && (*info).si_pid() == getpid().as_raw_nonzero().get()
    };
    // nbdkit's main thread serves nobody, and would be missed.
    let serves = gettid() != getpid();
    let Some(watch) = WATCH.get().filter(|watch| by_abort && serves && watch.is_about_a_client())
    else {
        return end(number);
    };
    if watch.count.fetch_add(1, Ordering::AcqRel) >= MOST {
        return end(number);
    }
    loop {
        rustix::event::pause();
    }
}

/// What the signal does without a handler, as soon as this one returns.
fn end(number: c_int) {
    // SAFETY: both are among what a handler may call.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
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
            return now <= self.together.load(Ordering::Acquire);
        }
        // SAFETY: a mapping of `size` bytes, zeros behind the text. It is ours alone: the C
        // library gives back only what it still finds in its variable.
        let text = unsafe {
            let room = ((*words).size as usize).saturating_sub(size_of::<LastWords>());
            slice::from_raw_parts(ptr::addr_of!((*words).text).cast::<u8>(), room)
        };
        let found = text.windows(ASSERTION.len()).any(|part| part == ASSERTION);
        if found {
            self.together.store(now + 1, Ordering::Release);
        }
        found
    }
}
