//! Python buffers, borrowed without a copy.
//!
//! The buffer protocol joined the stable ABI with Python 3.11, so PyO3 offers
//! it only to modules built for 3.11 and later. The two functions and the
//! struct are the same in 3.9 and 3.10 (the struct since 3.0; `bufferobject.h`
//! froze it as it was), and every interpreter exports them, so they are
//! declared here. This is the only file of the crate with unsafe code.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use pyo3::ffi::{PyObject, Py_ssize_t};
use pyo3::prelude::*;

/// `Py_buffer`, field by field as `bufferobject.h` has it.
#[repr(C)]
struct View {
    buf: *mut c_void,
    obj: *mut PyObject,
    len: Py_ssize_t,
    itemsize: Py_ssize_t,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut Py_ssize_t,
    strides: *mut Py_ssize_t,
    suboffsets: *mut Py_ssize_t,
    internal: *mut c_void,
}

/// `PyBUF_SIMPLE`: C-contiguous bytes, or `BufferError`.
const SIMPLE: c_int = 0;
/// `PyBUF_WRITABLE`: as above, and not of a read-only object.
const WRITABLE: c_int = 1;

// SAFETY: the signatures are those of CPython's `bufferobject.h`.
unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut View, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut View);
}

/// The bytes of a Python object that has a C-contiguous buffer; its size cannot
/// change while this lives.
///
/// The bytes can: another Python thread may write to them during a call that
/// released the GIL, as it may during `file.readinto(buffer)`. What is then read
/// or written is a mixture of both, and no memory beyond the buffer is touched.
pub struct Buffer {
    // In a box: for some objects `shape` points at `len` of the same struct, which
    // therefore must not move.
    view: Box<View>,
}

impl Buffer {
    /// Any bytes-like object.
    ///
    /// # Errors
    /// `TypeError` when it is not one, `BufferError` when its bytes are not contiguous.
    pub fn readable(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        Buffer::get(object, SIMPLE)
    }

    /// A bytes-like object that can be written to.
    ///
    /// # Errors
    /// As [`readable`](Self::readable), and `BufferError` when it is read-only.
    pub fn writable(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        Buffer::get(object, WRITABLE)
    }

    fn get(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Buffer> {
        let mut view = Box::new(View {
            buf: ptr::null_mut(),
            obj: ptr::null_mut(),
            len: 0,
            itemsize: 0,
            readonly: 1,
            ndim: 0,
            format: ptr::null_mut(),
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            suboffsets: ptr::null_mut(),
            internal: ptr::null_mut(),
        });
        // SAFETY: `object` is alive, the GIL is held (`Bound` shows it), and `view` is a
        // Py_buffer to be filled. On failure nothing is left in it to release.
        if unsafe { PyObject_GetBuffer(object.as_ptr(), &mut *view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Buffer { view })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        // Python has no negative lengths.
        usize::try_from(self.view.len).unwrap_or(0)
    }

    /// The bytes, to be read.
    pub fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: a view got with PyBUF_SIMPLE is `len` initialized bytes from `buf` on, held
        // in place until PyBuffer_Release, which is in Drop. For writes by others: see Buffer.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast(), self.len()) }
    }

    /// The bytes, to be written; `None` for a read-only object.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.view.readonly != 0 {
            return None;
        }
        if self.len() == 0 {
            return Some(&mut []);
        }
        // SAFETY: as in `bytes`; the object said that it is writable, and this view gives out
        // one mutable slice at a time.
        Some(unsafe { std::slice::from_raw_parts_mut(self.view.buf.cast(), self.len()) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        Python::attach(|_| {
            // SAFETY: the view was filled by PyObject_GetBuffer, is released once, and the
            // GIL is held.
            unsafe { PyBuffer_Release(&mut *self.view) }
        });
    }
}
