//! Base images of every kind: one way in, [`open`].

use std::sync::Arc;

use crate::storage::Storage;
use crate::{Layer, Result};

/// How an image is read.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Bytes of decompressed blocks to keep at most.
    pub cache_bytes: u64,
    /// Threads that inflate ahead of readers; 0: one a core.
    pub threads: usize,
    /// Inflate and check a whole block before any byte of it is given out.
    pub strict: bool,
}

impl Default for ImageOptions {
    fn default() -> Self {
        ImageOptions { cache_bytes: 64 << 20, threads: 0, strict: false }
    }
}

/// Opens an image of any kind: cloop, uzip, or, where no signature is found, raw.
pub fn open(_storage: Arc<dyn Storage>, _options: &ImageOptions) -> Result<Arc<dyn Layer>> {
    todo!("the formats")
}
