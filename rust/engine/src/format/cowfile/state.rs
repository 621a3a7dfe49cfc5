//! The states of a cowfile, in the words that people and programs read.

use std::fmt;

use serde::{Serialize, Serializer};

/// What can be said of a cowfile, at rest or in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CowState {
    /// Closed as it should be, or in use with nothing written yet.
    #[default]
    Clean,
    /// In use and written to; at rest: left so by the original driver.
    Dirty,
    /// In use, and takes no writes.
    ReadOnly,
    /// In use until now.
    Closed,
    /// A sync has failed, and nothing more is taken.
    Failed,
    /// In use, but its name is gone, or is another file's.
    Removed,
    /// A session's, before its first write.
    NotCreated,
    /// At rest, made small by `pack`.
    Packed,
    /// At rest as far as can be seen, but not closed.
    InUseOrCrashed,
}

impl CowState {
    /// Its word. Programs compare it: it does not change.
    pub const fn word(self) -> &'static str {
        match self {
            CowState::Clean => "clean",
            CowState::Dirty => "dirty",
            CowState::ReadOnly => "read-only",
            CowState::Closed => "closed",
            CowState::Failed => "failed",
            CowState::Removed => "removed",
            CowState::NotCreated => "not created",
            CowState::Packed => "packed",
            CowState::InUseOrCrashed => "in use or crashed",
        }
    }
}

impl fmt::Display for CowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for CowState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
