//! Requests from the plugin to nbdkit, behind safe functions.
//!
//! This crate's own tests run without nbdkit: a stand-in records the calls.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// Text for C and for a log: one line, without NUL or control characters.
fn one_line(text: &str) -> CString {
    CString::new(cowcloop_server::one_line(text)).unwrap_or_default()
}

/// A duplicate of an open file descriptor of this process, whichever part opened it.
///
/// # Errors
/// When it is not open.
pub fn duplicate_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: borrowed only for the system call that duplicates it, which fails when it is
    // not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

#[cfg(not(test))]
pub use real::*;

#[cfg(not(test))]
mod real {
    use std::ffi::{c_char, c_int, CStr, CString};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

    use super::one_line;
    use crate::abi;

    extern "C" {
        fn nbdkit_error(format: *const c_char, ...);
        fn nbdkit_debug(format: *const c_char, ...);
        fn nbdkit_set_error(errno: c_int);
        fn nbdkit_shutdown();
        fn nbdkit_export_name() -> *const c_char;
        fn nbdkit_strdup_intern(text: *const c_char) -> *const c_char;
        fn nbdkit_add_extent(
            extents: *mut abi::Extents,
            offset: u64,
            length: u64,
            kind: u32,
        ) -> c_int;
        fn nbdkit_add_export(
            exports: *mut abi::Exports,
            name: *const c_char,
            description: *const c_char,
        ) -> c_int;
        fn puts(text: *const c_char) -> c_int;
    }

    /// An error line, to standard error or the system log.
    pub fn error(text: &str) {
        let text = one_line(text);
        // SAFETY: the format takes one string, and `text` is one.
        unsafe { nbdkit_error(c"%s".as_ptr(), text.as_ptr()) }
    }

    /// A line that only `nbdkit -v` shows.
    pub fn debug(text: &str) {
        let text = one_line(text);
        // SAFETY: the format takes one string, and `text` is one.
        unsafe { nbdkit_debug(c"%s".as_ptr(), text.as_ptr()) }
    }

    /// The errno that the client sees when the callback now running fails.
    pub fn set_error(errno: i32) {
        // SAFETY: sets a variable of the calling thread, nothing else.
        unsafe { nbdkit_set_error(errno) }
    }

    /// Asks nbdkit to end in an orderly way; returns at once.
    pub fn shutdown() {
        // SAFETY: may be called from any thread once the server serves; the threads that
        // call it start only then.
        unsafe { nbdkit_shutdown() }
    }

    /// The export that the connection now being opened asked for.
    pub fn export_name() -> Option<Vec<u8>> {
        // SAFETY: null, or a C string that outlives the callback.
        unsafe {
            let name = nbdkit_export_name();
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes().to_vec())
        }
    }

    /// A copy of `text` that lives as long as the connection; null when out of memory.
    pub fn intern(text: &str) -> *const c_char {
        let text = one_line(text);
        // SAFETY: `text` is a C string, and is copied.
        unsafe { nbdkit_strdup_intern(text.as_ptr()) }
    }

    /// A line on standard output, through C's buffer, which nbdkit uses as well.
    pub fn print_line(text: &str) {
        let text = one_line(text);
        // SAFETY: `text` is a C string.
        unsafe { puts(text.as_ptr()) };
    }

    /// The destination of the answer to an extents request.
    pub struct ExtentList(*mut abi::Extents);

    impl ExtentList {
        /// # Safety
        /// `raw` is what nbdkit passed to the callback now running.
        pub unsafe fn new(raw: *mut abi::Extents) -> Self {
            ExtentList(raw)
        }

        /// Adds the extent that follows the one before. `false`: nbdkit
        /// refused, and has said why.
        pub fn add(&mut self, offset: u64, length: u64, kind: u32) -> bool {
            // SAFETY: `new` vouches for the pointer.
            unsafe { nbdkit_add_extent(self.0, offset, length, kind) == 0 }
        }
    }

    /// The destination of the answer to a listing.
    pub struct ExportList(*mut abi::Exports);

    impl ExportList {
        /// # Safety
        /// `raw` is what nbdkit passed to the callback now running.
        pub unsafe fn new(raw: *mut abi::Exports) -> Self {
            ExportList(raw)
        }

        /// Adds an export. `false`: nbdkit refused, and has said why.
        pub fn add(&mut self, name: &str, description: &str) -> bool {
            let (Ok(name), description) = (CString::new(name), one_line(description)) else {
                return false;
            };
            // SAFETY: `new` vouches for the pointer; the strings are copied.
            unsafe { nbdkit_add_export(self.0, name.as_ptr(), description.as_ptr()) == 0 }
        }
    }

    /// Takes over a file descriptor that the process was started with.
    ///
    /// # Errors
    /// When it is one of the standard three, or is not open.
    pub fn adopt_fd(number: RawFd) -> io::Result<OwnedFd> {
        if number <= 2 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: only asks whether the number belongs to an open file.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(borrowed.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
        // SAFETY: it was just seen to be open, and by the parameter's meaning it is ours:
        // the program that started the server handed it over.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
pub use stand_in::*;

#[cfg(test)]
mod stand_in {
    use std::cell::RefCell;
    use std::ffi::c_char;
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::abi;

    thread_local! {
        static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// The calls of this thread's test to nbdkit since it last asked.
    pub fn told() -> Vec<String> {
        TOLD.with_borrow_mut(std::mem::take)
    }

    fn tell(kind: &str, text: &str) {
        let text = super::one_line(text);
        TOLD.with_borrow_mut(|told| told.push(format!("{kind}: {}", text.to_string_lossy())));
    }

    pub fn error(text: &str) {
        tell("error", text);
    }
    pub fn debug(text: &str) {
        tell("debug", text);
    }
    pub fn set_error(errno: i32) {
        tell("errno", &errno.to_string());
    }
    pub fn shutdown() {
        tell("shutdown", "");
    }
    pub fn export_name() -> Option<Vec<u8>> {
        None
    }
    pub fn intern(_text: &str) -> *const c_char {
        std::ptr::null()
    }
    pub fn print_line(text: &str) {
        tell("print", text);
    }
    pub struct ExtentList;
    impl ExtentList {
        /// # Safety
        /// None is needed here.
        pub unsafe fn new(_raw: *mut abi::Extents) -> Self {
            ExtentList
        }
        pub fn add(&mut self, offset: u64, length: u64, kind: u32) -> bool {
            tell("extent", &format!("{offset} {length} {kind}"));
            true
        }
    }
    pub struct ExportList;
    impl ExportList {
        /// # Safety
        /// None is needed here.
        pub unsafe fn new(_raw: *mut abi::Exports) -> Self {
            ExportList
        }
        pub fn add(&mut self, name: &str, description: &str) -> bool {
            tell("export", &format!("{name} {description}"));
            true
        }
    }
    pub fn adopt_fd(_number: i32) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
