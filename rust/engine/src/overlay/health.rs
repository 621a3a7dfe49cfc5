//! The fate of writes: how many have failed, and whether the medium is nearly full.
//!
//! A file system over a device hears of a failed write once, and reports it once, to the
//! program that syncs first. So the cowfile remembers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::cowfile::Cowfile;
use crate::format::cowfile::head::MAPUNIT;
use crate::{ErrorKind, Result};

/// With fewer free bytes than this a medium is nearly full: a warning comes before they are
/// gone.
const LITTLE: u64 = 256 << 20;
/// Bytes that are written between two checks of the medium.
const STEP: u64 = 16 << 20;

/// The state that is remembered.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Changes and flushes that have failed.
    failures: AtomicU64,
    /// Bytes written since the medium was last checked.
    unseen: AtomicU64,
    /// The log has said that there is little space.
    told: AtomicBool,
}

impl Health {
    /// Changes and flushes that have failed since the file was opened.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Cowfile {
    /// Counts a failed request for a change or a flush.
    pub(crate) fn noted(&self, done: Result<()>) -> Result<()> {
        if let Err(error) = &done {
            // The first two were refused before any work began, and the last is tried
            // again.
            let harmless = [ErrorKind::Unsupported, ErrorKind::ReadOnly, ErrorKind::NoMedium];
            if !harmless.contains(&error.kind()) {
                self.health.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        done
    }

    /// Checks the medium now and then, after so many bytes written.
    pub(super) fn count_written(&self, bytes: u64) {
        if self.health.unseen.fetch_add(bytes, Ordering::Relaxed) + bytes >= STEP {
            self.warn_of_little_space();
        }
    }

    /// Warns once when the medium has little space, and less than the device may still take.
    pub(super) fn warn_of_little_space(&self) {
        self.health.unseen.store(0, Ordering::Relaxed);
        let Ok(Some(free)) = self.storage.available() else { return };
        let wanted = (self.blocks - self.bitmap.count()) * MAPUNIT;
        if free >= 2 * LITTLE {
            self.health.told.store(false, Ordering::Relaxed);
        }
        if free < LITTLE && free < wanted && !self.health.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: only {} MiB are free on its medium, and the device may take {} MiB more: \
                 make room, or writes will fail",
                self.name(),
                free >> 20,
                wanted.div_ceil(1 << 20),
            );
        }
    }
}
