//! File descriptors that the process was started with.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{fcntl_setfd, FdFlags};

/// Takes over the descriptor that a parameter names.
///
/// # Errors
/// When it is one of the standard three, or is not open.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only asks whether the number belongs to an open file.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed.as_fd(), FdFlags::CLOEXEC)?;
    // SAFETY: it was just seen to be open, and by the parameter's meaning it is ours: the
    // program that started this one handed it over.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
