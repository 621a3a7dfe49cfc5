//! Raw images: a file or block device as it is.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::layer::ExtentSink;
use crate::storage::Storage;
use crate::{Error, Extent, ExtentKind, Layer, LayerCounters, Result};

/// Bytes at the beginning that count for the identity.
const IDENTITY_HEAD: u64 = 64 << 10;
/// Further samples that count, evenly spaced, the last at the end.
const IDENTITY_SAMPLES: u64 = 64;
/// Bytes of a sample.
const IDENTITY_SAMPLE: u64 = 4096;

/// A file or block device whose bytes are the device's.
#[derive(Debug)]
pub struct RawImage {
    storage: Arc<dyn Storage>,
    size: u64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

impl RawImage {
    /// Takes the storage as it is, with the size that it has now.
    ///
    /// # Errors
    /// `Io` when the size cannot be had.
    pub fn open(storage: Arc<dyn Storage>) -> Result<RawImage> {
        let size = storage
            .len()
            .map_err(|error| Error::io(storage.name(), "cannot read its size", error))?;
        Ok(RawImage { storage, size, reads: AtomicU64::new(0), read_bytes: AtomicU64::new(0) })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        self.storage.name()
    }

    fn failed(&self, offset: u64, error: std::io::Error) -> Error {
        Error::io(self.name(), format!("cannot read at offset {offset}"), error).at(offset)
    }
}

impl Layer for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.storage.read_exact_at(buf, offset).map_err(|error| self.failed(offset, error))
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let failed = |error| self.failed(at, error);
            let data = match self.storage.next_data(at).map_err(failed)? {
                Some(data) => data.min(end),
                // A file that has become shorter has no hole at its end: reading there must
                // fail.
                None => self.storage.len().map_err(failed)?.clamp(at, end),
            };
            let (to, kind) = if data > at {
                (data, ExtentKind::Zero)
            } else {
                (self.storage.next_hole(at).map_err(failed)?, ExtentKind::Data)
            };
            let to = if to > at { to.min(end) } else { end };
            if let ControlFlow::Break(()) = sink(Extent { offset: at, length: to - at, kind }) {
                break;
            }
            at = to;
        }
        Ok(())
    }

    fn prefetch(&self, offset: u64, length: u64) {
        self.storage.expect(offset, length);
    }

    fn start(&self) {
        self.storage.start();
    }

    /// SHA-256 over the size, the first 64 KiB and 64 samples of 4 KiB evenly
    /// spaced to the end: quick on any size, and different for two images
    /// unless they are alike in all of these places.
    fn identity(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"raw\0");
        hash.update(self.size.to_le_bytes());
        let sample = |i: u64| {
            let span = self.size - IDENTITY_HEAD - IDENTITY_SAMPLE;
            // In 128 bits: for images larger than any that exist yet, the product passes 64.
            let at = u128::from(span) * u128::from(i) / u128::from(IDENTITY_SAMPLES);
            IDENTITY_HEAD + at as u64
        };
        let sampled = self.size > IDENTITY_HEAD + IDENTITY_SAMPLE;
        if sampled {
            // All at once from far away.
            (1..=IDENTITY_SAMPLES).for_each(|i| self.storage.expect(sample(i), IDENTITY_SAMPLE));
        }
        let mut bytes = vec![0; IDENTITY_HEAD.min(self.size) as usize];
        self.storage.read_exact_at(&mut bytes, 0).map_err(|error| self.failed(0, error))?;
        hash.update(&bytes);
        bytes.truncate(IDENTITY_SAMPLE as usize);
        if sampled {
            for at in (1..=IDENTITY_SAMPLES).map(sample) {
                self.storage.read_exact_at(&mut bytes, at).map_err(|e| self.failed(at, e))?;
                hash.update(&bytes);
            }
        } else if self.size > IDENTITY_HEAD {
            bytes.resize((self.size - IDENTITY_HEAD) as usize, 0);
            self.storage
                .read_exact_at(&mut bytes, IDENTITY_HEAD)
                .map_err(|error| self.failed(IDENTITY_HEAD, error))?;
            hash.update(&bytes);
        }
        Ok(hash.finalize().into())
    }

    fn counters(&self) -> LayerCounters {
        LayerCounters {
            base_reads: self.reads.load(Ordering::Relaxed),
            base_read_bytes: self.read_bytes.load(Ordering::Relaxed),
            ..LayerCounters::default()
        }
    }
}
