//! The layers under a device: readable, and of a fixed size.

use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::Result;

/// What is known of a range of a device without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// All zeros, and known to be.
    Zero,
}

/// A range of a device of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; never 0.
    pub length: u64,
    /// What is known of the range.
    pub kind: ExtentKind,
}

impl Extent {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Receives what [`Layer::extents`] finds. `Break` ends the walk early.
pub type ExtentSink<'a> = &'a mut dyn FnMut(Extent) -> ControlFlow<()>;

/// Passes on what `walk` finds, with neighbouring extents of one kind joined.
///
/// # Errors
/// Those of `walk`; what was found before is passed on.
pub fn join_extents(
    sink: ExtentSink<'_>,
    walk: impl FnOnce(ExtentSink<'_>) -> Result<()>,
) -> Result<()> {
    let mut run: Option<Extent> = None;
    let walked = walk(&mut |extent| match &mut run {
        Some(last) if last.kind == extent.kind => {
            last.length += extent.length;
            ControlFlow::Continue(())
        }
        _ => match run.replace(extent).map(&mut *sink) {
            Some(ControlFlow::Break(())) => {
                run = None;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        },
    });
    if let Some(last) = run {
        let _ = sink(last);
    }
    walked
}

/// Counters of a layer since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(into = "Parts")]
pub struct LayerCounters {
    /// Read requests to the storage below.
    pub base_reads: u64,
    /// Bytes read from the storage below.
    pub base_read_bytes: u64,
    /// Blocks found decoded in the cache.
    pub cache_hits: u64,
    /// Blocks that had to be decoded.
    pub cache_misses: u64,
    /// Blocks that made room for others in the cache.
    pub cache_evictions: u64,
    /// Blocks that the cache holds now.
    pub cache_blocks: u64,
    /// Bytes that the cache holds now.
    pub cache_bytes: u64,
    /// Bytes that the cache may hold.
    pub cache_limit: u64,
}

/// The counters as they are written: those of the storage, and those of the cache.
#[derive(Serialize)]
struct Parts {
    base: StorageCounters,
    cache: CacheCounters,
}

#[derive(Serialize)]
struct StorageCounters {
    reads: u64,
    read_bytes: u64,
}

#[derive(Serialize)]
struct CacheCounters {
    hits: u64,
    misses: u64,
    evictions: u64,
    blocks: u64,
    bytes: u64,
    limit: u64,
}

impl From<LayerCounters> for Parts {
    fn from(counters: LayerCounters) -> Parts {
        Parts {
            base: StorageCounters {
                reads: counters.base_reads,
                read_bytes: counters.base_read_bytes,
            },
            cache: CacheCounters {
                hits: counters.cache_hits,
                misses: counters.cache_misses,
                evictions: counters.cache_evictions,
                blocks: counters.cache_blocks,
                bytes: counters.cache_bytes,
                limit: counters.cache_limit,
            },
        }
    }
}

/// Is told what is read of a layer, by any thread, and must not hold it up.
pub trait Watch: Send + Sync + fmt::Debug {
    /// A range is about to be read; offset and length in bytes.
    fn reads(&self, offset: u64, length: u64);
}

/// A readable device of fixed size: an image, or an overlay on another layer.
///
/// Callers keep `offset + length` within [`size`](Self::size).
/// A read may be slow: a layer may lie on the far side of a network.
pub trait Layer: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `Damaged` or `Io` when any of the bytes cannot be had; `buf` is then
    /// unspecified.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// As [`read_at`](Self::read_at), for bytes that are to be kept elsewhere: bytes that a
    /// checksum covers are returned only after it was checked.
    fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_at(buf, offset)
    }

    /// Walks the range from its beginning, in order and without gaps.
    ///
    /// Neighbouring extents may be of the same kind. `Data` is always a true
    /// answer; `Zero` is given only where the layer knows.
    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()>;

    /// Reads of whole blocks of this many bytes, at multiples of it, cost least: the block
    /// size of a compressed image. May not divide the size.
    fn read_unit(&self) -> u64 {
        4096
    }

    /// A hint that the range will be read soon. May do nothing.
    fn prefetch(&self, _offset: u64, _length: u64) {}

    /// Lets the layer use threads of its own from now on: to read ahead, and to check
    /// blocks that were served unchecked. Must not be called before the process forks:
    /// threads do not survive that.
    fn start(&self) {}

    /// A strong identity of the content (32 bytes), by which a cowfile knows
    /// its base. Costs no more than reading the metadata.
    fn identity(&self) -> Result<[u8; 32]>;

    /// What has been read so far; all zeros where reads are not counted.
    fn counters(&self) -> LayerCounters {
        LayerCounters::default()
    }

    /// Whether the whole range is known to be zeros.
    fn is_zero(&self, offset: u64, length: u64) -> Result<bool> {
        let mut zero = true;
        self.extents(offset, length, &mut |extent| {
            zero = extent.kind == ExtentKind::Zero;
            if zero {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExtentKind::{Data, Zero};

    fn joined(found: &[(u64, u64, ExtentKind)], most: usize) -> Vec<(u64, u64, ExtentKind)> {
        let mut runs = Vec::new();
        let mut sink = |extent: Extent| {
            runs.push((extent.offset, extent.length, extent.kind));
            if runs.len() < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        join_extents(&mut sink, |sink| {
            for &(offset, length, kind) in found {
                if sink(Extent { offset, length, kind }).is_break() {
                    break;
                }
            }
            Ok(())
        })
        .unwrap();
        runs
    }

    #[test]
    fn neighbours_of_one_kind_become_one_run() {
        let found = [(0, 10, Data), (10, 5, Data), (15, 1, Zero), (16, 4, Zero), (20, 2, Data)];
        let runs = [(0, 15, Data), (15, 5, Zero), (20, 2, Data)];
        for most in 1..=3 {
            assert_eq!(joined(&found, most), runs[..most]);
        }
        assert_eq!(joined(&found[..2], 1), [(0, 15, Data)]);
        assert_eq!(joined(&[], 1), []);
    }
}
