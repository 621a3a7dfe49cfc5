//! The progress of a long job, and whether it is still wanted.

use crate::{Error, ErrorKind, Result};

/// Told of the progress of a job, in bytes of the device, from any thread.
pub trait Progress: Sync {
    /// The job has this many bytes. Not called where the number is not known: for a pipe.
    fn total(&self, _bytes: u64) {}

    /// This many more bytes are done.
    fn advance(&self, bytes: u64);

    /// Whether to stop. Called at least some ten times a second.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Progress that is not shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn advance(&self, _bytes: u64) {}
}

/// Fails with `Cancelled` when the job about `subject` is no longer wanted.
pub fn check(progress: &dyn Progress, subject: &str) -> Result<()> {
    if progress.cancelled() {
        Err(Error::new(ErrorKind::Cancelled, subject, "stopped before it was complete"))
    } else {
        Ok(())
    }
}
