//! Buffers that are reused.

use parking_lot::Mutex;

/// Buffers of one size, made when first needed and never cleared.
pub(super) struct Pool {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// An empty pool of buffers of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Pool { size, free: Mutex::default() }
    }

    /// Bytes of each buffer.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A buffer with any content.
    pub(super) fn take(&self) -> Vec<u8> {
        let free = self.free.lock().pop();
        free.unwrap_or_else(|| vec![0; self.size])
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len(), self.size);
        self.free.lock().push(buffer);
    }

    /// How many buffers there are, while none is taken.
    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        self.free.lock().len()
    }
}
