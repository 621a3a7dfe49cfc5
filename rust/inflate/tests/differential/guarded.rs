//! Buffers that end, or begin, at a page that cannot be touched.

use std::ffi::c_void;
use std::ptr::null_mut;

use rustix::mm::{mmap_anonymous, mprotect, munmap, MapFlags, MprotectFlags, ProtFlags};

const PAGE: usize = 4096;

/// Pages, with one before and one behind them that cannot be touched.
pub struct Guarded {
    start: *mut c_void,
    room: usize,
}

impl Guarded {
    /// Room for so many bytes.
    pub fn new(room: usize) -> Self {
        let room = room.next_multiple_of(PAGE);
        // SAFETY: new pages, two of which are protected; nothing else knows of them yet.
        unsafe {
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            let start = mmap_anonymous(null_mut(), room + 2 * PAGE, flags, MapFlags::PRIVATE)
                .expect("pages are mapped");
            for page in [start, start.byte_add(PAGE + room)] {
                mprotect(page, PAGE, MprotectFlags::empty()).expect("a page is protected");
            }
            Guarded { start, room }
        }
    }

    /// So many bytes that end, or begin, at a page that cannot be touched.
    pub fn slice(&mut self, length: usize, at_end: bool) -> &mut [u8] {
        assert!(length <= self.room);
        let skipped = if at_end { self.room - length } else { 0 };
        // SAFETY: within the pages, which live as long as the borrow, and hold bytes.
        unsafe {
            let start = self.start.byte_add(PAGE + skipped).cast();
            std::slice::from_raw_parts_mut(start, length)
        }
    }

    /// A copy of the bytes that ends, or begins, at a page that cannot be touched.
    pub fn copy(&mut self, bytes: &[u8], at_end: bool) -> &mut [u8] {
        let slice = self.slice(bytes.len(), at_end);
        slice.copy_from_slice(bytes);
        slice
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no longer borrowed.
        unsafe { munmap(self.start, self.room + 2 * PAGE).expect("pages are unmapped") }
    }
}
