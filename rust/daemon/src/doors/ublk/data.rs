//! The data of requests.

use std::cell::UnsafeCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cowcloop_engine::Result;

use super::abi::queue;
use super::pool::Job;

/// How a request's data get from the kernel to the engine and back.
pub enum Data {
    /// By reads and writes of the device's control file, in the thread that handles the request:
    /// one copy, and memory only for requests that are under way.
    Copied(Arc<File>),
    /// By buffers that the driver copies from and to while it takes the answer. It is what a
    /// device of a user without privileges has.
    Kept(Buffers),
}

impl Data {
    /// Bytes that a thread needs for requests of at most `max_bytes`.
    pub fn own_buffer(&self, max_bytes: usize) -> usize {
        match self {
            Data::Copied(_) => max_bytes,
            Data::Kept(_) => 0,
        }
    }

    /// The address that the driver is given with an answer.
    pub fn address(&self, job: Job) -> u64 {
        match self {
            Data::Copied(_) => 0,
            Data::Kept(buffers) => buffers.of(job).as_ptr() as u64,
        }
    }

    /// Has a read's data made, `own` being the thread's buffer.
    pub fn fill(
        &self,
        job: Job,
        length: usize,
        own: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> std::result::Result<(), i32> {
        match self {
            Data::Copied(file) => {
                let buffer = own.get_mut(..length).ok_or(libc::EIO)?;
                read(buffer).map_err(|error| error.errno())?;
                file.write_all_at(buffer, queue::data(job.queue, job.tag)).map_err(errno)
            }
            Data::Kept(buffers) => {
                let buffer = buffers.of(job).get(..length).ok_or(libc::EIO)?;
                // SAFETY: until it is answered a request's buffer is that of the thread that
                // handles it alone.
                let buffer = unsafe {
                    std::slice::from_raw_parts_mut(buffer.as_ptr() as *mut u8, buffer.len())
                };
                read(buffer).map_err(|error| error.errno())
            }
        }
    }

    /// Has a write's data taken.
    pub fn take(
        &self,
        job: Job,
        length: usize,
        own: &mut [u8],
        write: impl FnOnce(&[u8]) -> Result<()>,
    ) -> std::result::Result<(), i32> {
        let buffer = match self {
            Data::Copied(file) => {
                let buffer = own.get_mut(..length).ok_or(libc::EIO)?;
                file.read_exact_at(buffer, queue::data(job.queue, job.tag)).map_err(errno)?;
                &*buffer
            }
            Data::Kept(buffers) => {
                let buffer = buffers.of(job).get(..length).ok_or(libc::EIO)?;
                // SAFETY: as above; the driver has filled it before the request came.
                unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), buffer.len()) }
            }
        };
        write(buffer).map_err(|error| error.errno())
    }
}

fn errno(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A buffer for each request that a device may have.
pub struct Buffers {
    bytes: Box<[UnsafeCell<u8>]>,
    depth: usize,
    each: usize,
}

// SAFETY: a buffer is used by one thread at a time: see `Data`.
unsafe impl Sync for Buffers {}

impl Buffers {
    pub fn new(queues: u16, depth: u16, each: usize) -> Buffers {
        let depth = usize::from(depth);
        let bytes = vec![0u8; usize::from(queues) * depth * each];
        let bytes = bytes.into_iter().map(UnsafeCell::new).collect();
        Buffers { bytes, depth, each }
    }

    fn of(&self, job: Job) -> &[UnsafeCell<u8>] {
        let start = (usize::from(job.queue) * self.depth + usize::from(job.tag)) * self.each;
        &self.bytes[start..start + self.each]
    }
}
