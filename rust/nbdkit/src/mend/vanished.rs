//! Clients that break off in the middle of their requests.
//!
//! nbdkit 1.32 answers a connection by several threads, one after the other. When one of them, or
//! the one that reads, finds the connection broken, it marks the socket as gone; the next that comes
//! to answer fails the assertion `sock >= 0` in `raw_send_socket`, and nbdkit aborts, with all other
//! clients. Later versions return there instead of asserting, and the thread finds by itself that its
//! connection has ended. Here 1.32 is made to do so: where it reports the failed assertion it calls
//! us, and we go on as if `raw_send_socket` had returned 0. What was to be sent is lost, as it
//! would have been anyway. Nothing stays behind of such a client.
//!
//! What the caller has in its registers by then, and where it goes on, is what every unwinder reads
//! from the tables that the compiler made for this.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use super::imports::Program;

/// The processor's registers that a function gives back as it found them, by their numbers for
/// the unwinder, and how a saved context takes them.
#[cfg(target_arch = "x86_64")]
mod registers {
    use std::ffi::c_int;

    use libc::{greg_t, ucontext_t};

    pub const KEPT: [c_int; 6] = [3, 6, 12, 13, 14, 15];

    pub fn set(context: &mut ucontext_t, kept: &[usize; KEPT.len()], stack: usize, next: usize) {
        use libc::{REG_R12, REG_R13, REG_R14, REG_R15, REG_RBP, REG_RBX, REG_RIP, REG_RSP};
        let places = [REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15, REG_RSP, REG_RIP];
        for (place, value) in places.into_iter().zip(kept.iter().chain([&stack, &next])) {
            context.uc_mcontext.gregs[place as usize] = *value as greg_t;
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use std::ffi::c_int;

    use libc::ucontext_t;

    pub const KEPT: [c_int; 11] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];

    pub fn set(context: &mut ucontext_t, kept: &[usize; KEPT.len()], stack: usize, next: usize) {
        let machine = &mut context.uc_mcontext;
        for (number, value) in KEPT.into_iter().zip(kept) {
            machine.regs[number as usize] = *value as u64;
        }
        // The result.
        machine.regs[0] = 0;
        (machine.sp, machine.pc) = (stack as u64, next as u64);
    }
}

use registers::KEPT;

static PROGRAM: OnceLock<Program> = OnceLock::new();

#[repr(C)]
struct Unwound {
    _private: [u8; 0],
}

extern "C" {
    fn __assert_fail(text: *const c_char, file: *const c_char, line: c_uint, f: *const c_char)
        -> !;
    fn _Unwind_Backtrace(
        each: extern "C" fn(*mut Unwound, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(frame: *mut Unwound) -> usize;
    fn _Unwind_GetCFA(frame: *mut Unwound) -> usize;
    fn _Unwind_GetGR(frame: *mut Unwound, register: c_int) -> usize;
}

/// From now on such clients end nothing but their connection. To be called while there is no
/// other thread.
pub fn let_go(program: Program) -> io::Result<()> {
    let ours: AssertFail = assertion_failed;
    // SAFETY: of the same arguments; it may, but need not return to where it was called.
    unsafe { program.replace(c"__assert_fail", ours as *const ())? };
    // Set once: a second call would say the same.
    let _ = PROGRAM.set(program);
    Ok(())
}

type AssertFail =
    unsafe extern "C" fn(*const c_char, *const c_char, c_uint, *const c_char) -> c_int;

/// nbdkit calls this in the place of `__assert_fail`.
unsafe extern "C" fn assertion_failed(
    text: *const c_char,
    file: *const c_char,
    line: c_uint,
    function: *const c_char,
) -> c_int {
    // SAFETY: nbdkit passes C strings.
    let (assertion, failed_in) = unsafe { (CStr::from_ptr(text), CStr::from_ptr(function)) };
    if assertion == c"sock >= 0" && failed_in == c"raw_send_socket" {
        // SAFETY: that function returns an int, 0 for success, and holds nothing.
        unsafe { return_zero_to_the_caller() };
    }
    // SAFETY: passed on as they are. It does not return.
    unsafe { __assert_fail(text, file, line, function) }
}

/// What the caller of the program's function that called us goes on with.
struct Caller {
    /// Frames of the program seen, from the innermost on.
    seen: u32,
    address: usize,
    stack: usize,
    kept: [usize; KEPT.len()],
}

/// Goes on in the caller of the innermost function of the program. Returns only where that is
/// not found.
///
/// # Safety
/// That innermost function returns an int, and leaves nothing undone when it returns at once.
unsafe fn return_zero_to_the_caller() {
    let mut caller = Caller { seen: 0, address: 0, stack: 0, kept: [0; KEPT.len()] };
    let mut context = MaybeUninit::<libc::ucontext_t>::uninit();
    // SAFETY: the callback gets the pointer as what it is; the context is filled in before it
    // is used, and stays where it is. The frames that are left hold nothing to be dropped.
    unsafe {
        _Unwind_Backtrace(look_at, ptr::from_mut(&mut caller).cast());
        if caller.seen < 2 || libc::getcontext(context.as_mut_ptr()) != 0 {
            return;
        }
        let saved = &mut *context.as_mut_ptr();
        registers::set(saved, &caller.kept, caller.stack, caller.address);
        // The result is 0, as `getcontext` has it for the context that it saves.
        libc::setcontext(context.as_ptr());
    }
}

extern "C" fn look_at(frame: *mut Unwound, data: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const ENOUGH: c_int = 4;
    // SAFETY: `return_zero_to_the_caller` passes this; the frame is valid during the call.
    unsafe {
        let caller = &mut *data.cast::<Caller>();
        let address = _Unwind_GetIP(frame);
        if PROGRAM.get().is_some_and(|program| program.has_code_at(address)) {
            caller.seen += 1;
        }
        if caller.seen < 2 {
            return GO_ON;
        }
        caller.address = address;
        caller.stack = _Unwind_GetCFA(frame);
        for (register, value) in KEPT.into_iter().zip(&mut caller.kept) {
            *value = _Unwind_GetGR(frame, register);
        }
    }
    ENOUGH
}
