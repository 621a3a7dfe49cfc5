//! Memory for decoded blocks, reused from block to block.

use std::sync::Arc;

use parking_lot::Mutex;

/// Buffers are kept for the next blocks as long as they take no more bytes than this.
const SPARE_BYTES: usize = 2 << 20;

/// Buffers of one length, reused: no block needs fresh memory, which would have to be
/// cleared first.
#[derive(Debug)]
pub(crate) struct Buffers {
    length: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn new(length: usize) -> Arc<Self> {
        Arc::new(Buffers { length, spare: Mutex::default() })
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
        if (spare.len() + 1) * self.home.length <= SPARE_BYTES {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}
