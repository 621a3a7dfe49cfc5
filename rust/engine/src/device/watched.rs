//! A base whose reads are told to a listener.

use std::sync::Arc;

use crate::layer::{ExtentSink, LayerCounters, Watch};
use crate::{Layer, Result};

/// A layer that tells what is read of it.
pub(super) struct Watched {
    layer: Arc<dyn Layer>,
    watch: Arc<dyn Watch>,
}

impl Watched {
    pub(super) fn new(layer: Arc<dyn Layer>, watch: Arc<dyn Watch>) -> Watched {
        Watched { layer, watch }
    }
}

impl Layer for Watched {
    fn size(&self) -> u64 {
        self.layer.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.watch.reads(offset, buf.len() as u64);
        self.layer.read_at(buf, offset)
    }

    fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.watch.reads(offset, buf.len() as u64);
        self.layer.read_checked(buf, offset)
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        self.layer.extents(offset, length, sink)
    }

    fn read_unit(&self) -> u64 {
        self.layer.read_unit()
    }

    fn prefetch(&self, offset: u64, length: u64) {
        self.layer.prefetch(offset, length);
    }

    fn start(&self) {
        self.layer.start();
    }

    fn identity(&self) -> Result<[u8; 32]> {
        self.layer.identity()
    }

    fn counters(&self) -> LayerCounters {
        self.layer.counters()
    }

    fn is_zero(&self, offset: u64, length: u64) -> Result<bool> {
        self.layer.is_zero(offset, length)
    }
}
