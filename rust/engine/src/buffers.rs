//! Memory that is reused: what comes next needs no fresh memory, which would have to be cleared.

use std::sync::Arc;

use parking_lot::Mutex;

/// Buffers of one length in bytes, made when first needed and never cleared.
#[derive(Debug)]
pub(crate) struct Buffers {
    length: usize,
    /// How many may wait for their next user.
    most: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Buffers of `length` bytes; those that nobody uses take no more than `spare` bytes.
    pub(crate) fn new(length: usize, spare: usize) -> Arc<Self> {
        let most = spare.checked_div(length).unwrap_or(0);
        Arc::new(Buffers { length, most, spare: Mutex::default() })
    }

    /// Buffers of `length` bytes for a job, which bounds how many it uses at a time.
    pub(crate) fn for_job(length: usize) -> Arc<Self> {
        Buffers::new(length, usize::MAX)
    }

    /// Bytes of each buffer.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// A buffer that still holds its last user's bytes.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let spare = self.spare.lock().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; self.length]);
        Buffer { bytes, home: Arc::clone(self) }
    }
}

/// A buffer that goes back to where it came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.home.spare.lock();
        if spare.len() < self.home.most {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}
